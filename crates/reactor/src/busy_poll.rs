//! Busy poll: asks the kernel again and again for a while before it waits.
//!
//! A thread that waits in the kernel has to be woken, which takes microseconds, and more if its
//! core has gone to sleep meanwhile. A thread that asks without waiting sees an event at once, and
//! uses its core for nothing until then. So it asks only for as long as that has helped lately: the
//! time grows, up to the limit, with each wait that was shorter than the limit, and shrinks with
//! each that was longer. An idle loop waits in the kernel.
//!
//! Invariants:
//! - a wait ends as [`Poller::wait`] says, and no later.
//!
//! Cost: a core, for at most the limit a wait. Differs from asyncio, which has no such thing.

#![forbid(unsafe_code)]

use std::io;
use std::time::Duration;

use crate::clock;
use crate::poller::{Events, Poller};

/// The first time, as a part of the limit.
const FIRST_PART: u32 = 8;

/// How long to ask before waiting. It is a value that the caller keeps from wait to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BusyPoll {
    limit: Duration,
    current: Duration,
}

impl BusyPoll {
    /// Asks for at most `limit`.
    pub const fn new(limit: Duration) -> Self {
        Self {
            limit,
            current: limit,
        }
    }

    /// What it was made with.
    pub const fn limit(&self) -> Duration {
        self.limit
    }

    /// As [`Poller::wait`], which it calls without waiting until the time is over.
    #[inline]
    pub fn wait(
        &mut self,
        poller: &Poller,
        events: &mut Events,
        timeout: Option<Duration>,
    ) -> io::Result<usize> {
        let begin = clock::now_ns();
        let outcome = self.ask_then_wait(poller, events, timeout, begin);
        self.learn(since(begin));
        outcome
    }

    fn ask_then_wait(
        self,
        poller: &Poller,
        events: &mut Events,
        timeout: Option<Duration>,
        begin: u64,
    ) -> io::Result<usize> {
        let most = timeout.map_or(self.current, |timeout| timeout.min(self.current));
        loop {
            let passed = since(begin);
            if passed >= most {
                return poller.wait(
                    events,
                    timeout.map(|timeout| timeout.saturating_sub(passed)),
                );
            }
            let found = poller.wait(events, Some(Duration::ZERO))?;
            if found > 0 || events.interrupted() {
                return Ok(found);
            }
            std::hint::spin_loop();
        }
    }

    /// A wait took so long, asking included.
    fn learn(&mut self, took: Duration) {
        let first = self.limit / FIRST_PART;
        self.current = if took <= self.limit {
            (self.current * 2).max(first).min(self.limit)
        } else if self.current <= first {
            Duration::ZERO
        } else {
            self.current / 2
        };
    }
}

fn since(begin: u64) -> Duration {
    Duration::from_nanos(clock::now_ns().saturating_sub(begin))
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::poller::Interest;
    use crate::token::{Registry, Token};

    const LIMIT: Duration = Duration::from_micros(80);
    const LONGER: Duration = Duration::from_millis(1);

    /// A poller that watches the first of two connected sockets by a token, and both.
    fn watched_pair() -> (Poller, Token, UnixStream, UnixStream) {
        let poller = Poller::new().unwrap();
        let (near, far) = UnixStream::pair().unwrap();
        let token = Registry::new().insert(());
        poller
            .add(near.as_raw_fd(), token, Interest::READABLE)
            .unwrap();
        (poller, token, near, far)
    }

    #[test]
    fn long_waits_end_it_and_short_ones_bring_it_back() {
        let mut busy = BusyPoll::new(LIMIT);
        let mut seen = Vec::new();
        for took in [
            LONGER,
            LONGER,
            LONGER,
            LONGER,
            LONGER,
            LIMIT,
            LIMIT / 2,
            LIMIT,
            LIMIT,
            LIMIT,
        ] {
            busy.learn(took);
            seen.push(busy.current.as_micros());
        }
        assert_eq!(seen, [40, 20, 10, 0, 0, 10, 20, 40, 80, 80]);
    }

    #[test]
    fn a_limit_of_nothing_never_asks() {
        let mut busy = BusyPoll::default();
        busy.learn(Duration::ZERO);
        assert_eq!(busy.current, Duration::ZERO);
    }

    #[test]
    fn a_wait_brings_what_is_ready_and_ends_at_its_timeout() {
        let (poller, token, _near, far) = watched_pair();
        let mut events = Events::new();
        for limit in [Duration::ZERO, LIMIT, Duration::from_secs(60)] {
            let mut busy = BusyPoll::new(limit);
            let begin = clock::now_ns();
            let found = busy.wait(&poller, &mut events, Some(LONGER)).unwrap();
            assert_eq!(found, 0);
            assert!(since(begin) >= LONGER);
        }
        (&far).write_all(b"x").unwrap();
        for limit in [Duration::ZERO, LIMIT] {
            let found = BusyPoll::new(limit)
                .wait(&poller, &mut events, None)
                .unwrap();
            assert_eq!((found, events.get(0).token), (1, token));
        }
    }

    #[test]
    fn an_event_that_comes_while_it_asks_ends_it() {
        let (poller, _, _near, far) = watched_pair();
        let mut events = Events::new();
        let writer = std::thread::spawn(move || {
            (&far).write_all(b"x").unwrap();
            far
        });
        let found = BusyPoll::new(Duration::from_secs(600)).wait(&poller, &mut events, None);
        assert_eq!(found.unwrap(), 1);
        drop(writer.join().unwrap());
    }
}
