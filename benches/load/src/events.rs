//! Events: what sockets are ready for, told to who watches them until a moment has come.
//!
//! Cost: one `epoll_wait` a batch.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::Timespec;
use rustix::event::epoll::{self, Event, EventData, EventFlags};
use rustix::io::Errno;

use crate::sys::monotonic;

const EVENTS_MAX: usize = 1024;
const SILENCE_MAX_NS: u64 = 5_000_000_000;
const WAIT_MAX_NS: u64 = 999_999_999;

/// Sockets in an epoll set, each with its index as data.
pub(crate) trait Watching {
    fn epoll(&self) -> BorrowedFd<'_>;

    /// Handle what the socket of that index is ready for.
    fn dispatch(&mut self, index: usize, flags: EventFlags) -> io::Result<()>;

    /// Whether there is nothing more to wait for.
    fn is_done(&self) -> bool {
        false
    }
}

/// Dispatch events until that moment, or until it is done.
pub(crate) fn dispatch_until(watching: &mut impl Watching, end_ns: u64) -> io::Result<()> {
    let unused = Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    };
    let mut events = vec![unused; EVENTS_MAX];
    let mut now_ns = monotonic();
    let mut last_event_ns = now_ns;
    while now_ns < end_ns && !watching.is_done() {
        let wait_ns = (end_ns - now_ns).min(WAIT_MAX_NS);
        let timeout = Timespec {
            tv_sec: 0,
            tv_nsec: wait_ns as i64,
        };
        let count = match epoll::wait(watching.epoll(), events.as_mut_slice(), Some(&timeout)) {
            Ok(count) => count,
            Err(Errno::INTR) => 0,
            Err(error) => return Err(error.into()),
        };
        for event in &events[..count] {
            watching.dispatch(event.data.u64() as usize, event.flags)?;
        }
        now_ns = monotonic();
        if count > 0 {
            last_event_ns = now_ns;
        } else if now_ns - last_event_ns > SILENCE_MAX_NS {
            let text = "no answer on any connection for 5 s";
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
    }
    Ok(())
}
