//! Lets Rust code wait for a descriptor: one future for one event.
//!
//! When a wait for reading has ended with its event, the registration is kept for the next wait on
//! the descriptor. One epoll_ctl(2) tells whether the number still belongs to the same file; it is
//! made only if the next poll does not bring the event (see `unconfirmed`). The second event in a
//! row that nobody waits for ends the registration. The first one is normal: the loop polls again
//! before the woken coroutine has read.
//!
//! One case needs care: a socket is closed while a duplicate of its descriptor lives on, here or in
//! a child process. The kernel then keeps the registration. It is an *orphan*: none of our
//! descriptors can end it, and its events have a token without an entry in the registry. If such a
//! token comes in two polls, the loop makes a new epoll instance, without the orphan.
//!
//! Invariants:
//! - a wait that does not end with its event (cancellation, an error) leaves no registration.
//! - a future is in its watch's list until it is woken or its `Readiness` is dropped.
//!
//! Differs from asyncio: a second wait for the same descriptor, and `add_reader` or `add_writer`,
//! do not silently end the first.

use super::schedule::soon_method;
use super::source::Source;
use super::tasks::new_future;
use super::watch::{Side, Waiter, Watch, Woken};
use super::{EventLoop, State};
use crate::py::context::Captured;
use crate::py::coroutine::await_python;
use crate::py::future::end_unless_done;
use crate::py::imports;
use pyo3::prelude::*;
use reactor::poller::{Event, Interest};
use reactor::token::Token;
use std::os::fd::RawFd;

/// Tokens of events without an entry in the registry: seen earlier, and in this poll.
#[derive(Default)]
pub(super) struct Stale {
    earlier: Vec<Token>,
    now: Vec<Token>,
}

/// How many such tokens are remembered. A few are normal: their registrations ended while the
/// events of the same poll were dispatched.
const STALE_MOST: usize = 1024;

/// A descriptor that is being watched until it is ready.
pub(crate) struct Readiness<'a> {
    /// Borrowed: the collector has to see every reference of a coroutine to its loop.
    event_loop: &'a Py<EventLoop>,
    fd: RawFd,
    number: u64,
    /// Taken by `wait`.
    future: Option<Py<PyAny>>,
}

impl<'a> Readiness<'a> {
    /// Begins to watch `fd`.
    ///
    /// # Errors
    /// RuntimeError for a transport's descriptor; what epoll_ctl(2) says.
    pub(crate) fn of(
        py: Python<'_>,
        event_loop: &'a Py<EventLoop>,
        fd: RawFd,
        side: Side,
    ) -> PyResult<Self> {
        let state = event_loop.get().state(py);
        state.ensure_no_transport(fd.into_pyobject(py)?.as_any(), fd)?;
        let future = new_future(state, event_loop.bind(py).as_any())?;
        let number = state.kernel.wait_numbers.get();
        state.kernel.wait_numbers.set(number + 1);
        let waiter = Waiter {
            side,
            number,
            future: future.clone().unbind(),
        };
        let readiness = Self {
            event_loop,
            fd,
            number,
            future: Some(future.unbind()),
        };
        state.begin_wait(fd, waiter)?;
        Ok(readiness)
    }

    /// Returns when the descriptor is ready, which includes that it has failed.
    ///
    /// # Errors
    /// What the task throws into the coroutine.
    pub(crate) async fn wait(mut self) -> PyResult<()> {
        // Not kept here: the collector has to see every reference to what a coroutine awaits.
        let future = self.future.take();
        let future = future.expect("invariant: only wait takes the future, and self");
        await_python(future).await.map(drop)
    }
}

impl Drop for Readiness<'_> {
    fn drop(&mut self) {
        Python::attach(|py| {
            let state = self.event_loop.get().state(py);
            state.end_wait(self.fd, self.number);
        });
    }
}

/// Wakes the coroutines that waited.
///
/// # Errors
/// What a future raises that is no future of asyncio's.
pub(super) fn wake(py: Python<'_>, woken: Woken) -> PyResult<()> {
    woken
        .into_iter()
        .try_for_each(|waiter| end_unless_done(waiter.future.bind(py), Ok(py.None())))
}

/// As `wake`, by a handle behind what is queued.
///
/// # Errors
/// MemoryError.
pub(super) fn wake_soon(this: &Bound<'_, EventLoop>, woken: Woken) -> PyResult<()> {
    let py = this.py();
    let none = py.None().into_bound(py);
    let wake = imports::set_result_unless_cancelled(py)?;
    for waiter in woken {
        let arguments = [waiter.future.bind(py), &none];
        soon_method(py, this, wake, &arguments, Captured::empty())?;
    }
    Ok(())
}

impl State {
    fn begin_wait(&self, fd: RawFd, waiter: Waiter) -> PyResult<()> {
        let token = self.kernel.numbers.borrow().watch(fd);
        let Some(token) = token else {
            let mut watch = Watch::new(fd);
            watch.waiters.push(waiter);
            return self.register_watch(watch);
        };
        self.check_closed()?;
        let interest = {
            let mut sources = self.kernel.sources.borrow_mut();
            let Some(Source::Watch(watch)) = sources.get_mut(token) else {
                unreachable!("invariant: a watched entry's token leads to its watch");
            };
            if watch.registered.contains(waiter.side.interest()) {
                watch.waiters.push(waiter);
                if !std::mem::replace(&mut watch.unconfirmed, true) {
                    self.kernel.unconfirmed.borrow_mut().note(token);
                }
                return Ok(());
            }
            let kept = Interest::READABLE;
            let kept = watch.registered.contains(kept).then_some(kept);
            watch.waiters.push(waiter);
            watch.interest().with(kept.unwrap_or_default())
        };
        self.rewatch(fd, token, interest, None)
            .map_err(|lost| Python::attach(|py| lost.tell(py)))
    }

    /// Forgets a future that was not woken.
    fn end_wait(&self, fd: RawFd, number: u64) {
        let Some(token) = self.kernel.numbers.borrow().watch(fd) else {
            return;
        };
        let (waiter, unwatched) = {
            let mut sources = self.kernel.sources.borrow_mut();
            let Some(Source::Watch(watch)) = sources.get_mut(token) else {
                return;
            };
            let own = |waiter: &Waiter| waiter.number == number;
            let Some(index) = watch.waiters.iter().position(own) else {
                return;
            };
            let waiter = watch.waiters.swap_remove(index);
            (waiter, watch.interest().is_empty())
        };
        drop(waiter);
        if unwatched {
            drop(self.deregister(fd, token));
        }
    }

    /// Ends the interest in events that nobody waits for.
    ///
    /// # Errors
    /// As `wake`.
    #[inline]
    pub(super) fn trim(&self, py: Python<'_>, event: Event, woken: &Woken) -> PyResult<()> {
        let (fd, wanted) = {
            let mut sources = self.kernel.sources.borrow_mut();
            match sources.get_mut(event.token) {
                Some(Source::Watch(watch)) => {
                    if !watch.unwanted(event, woken) {
                        return Ok(());
                    }
                    (watch.fd, watch.interest())
                }
                _ => return Ok(()),
            }
        };
        if !wanted.is_empty() {
            return self.narrow_or_end(py, fd, event.token, wanted);
        }
        drop(self.deregister(fd, event.token));
        Ok(())
    }

    #[cold]
    pub(super) fn note_stale(&self, token: Token) {
        self.kernel.stale.borrow_mut().now.push(token);
    }

    /// After a poll: makes a new epoll instance if there is an orphan.
    #[inline]
    pub(super) fn drop_orphans(&self, py: Python<'_>) {
        if !self.kernel.stale.borrow().now.is_empty() {
            self.look_for_orphans(py);
        }
    }

    #[cold]
    fn look_for_orphans(&self, py: Python<'_>) {
        let orphaned = {
            let mut stale = self.kernel.stale.borrow_mut();
            let now = std::mem::take(&mut stale.now);
            let orphaned = now.iter().any(|token| stale.earlier.contains(token));
            if orphaned || stale.earlier.len() + now.len() > STALE_MOST {
                stale.earlier.clear();
            }
            stale.earlier.extend(now);
            orphaned
        };
        if orphaned {
            // If the kernel refuses a new instance, the loop only goes on being woken by the
            // orphan.
            let _renewed = super::fork::renew_poller(py, self);
        }
    }
}
