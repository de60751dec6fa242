//! The child of a fork: a loop that it inherits must not touch what it shares with its parent.
//!
//! The epoll instance, the eventfd and the signal pipe of an inherited loop belong to the parent
//! too: ending a registration in the child would end it in the parent. So a hook counts forks, and
//! a loop that finds the count changed makes itself new ones and registers what it watches again,
//! before it uses them.
//!
//! What the callback that forks has written is sent before the fork, or both processes would send
//! it.

use super::source::Source;
use super::{EventLoop, State, turn};
use pyo3::prelude::*;
use reactor::notifier::Notifier;
use reactor::poller::{Interest, Poller};
use reactor::token::Token;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the first process and this one.
pub(super) fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// Registers the hooks; called once, at import.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    #[pyfunction]
    fn _after_fork_in_child(py: Python<'_>) {
        FORKS.fetch_add(1, Ordering::Relaxed);
        // Signals of the child must not wake the parent's loop; from 3.12 on asyncio sees to it.
        if cfg!(not(Py_3_12)) {
            // Fails outside of the main thread, which has no wake-up descriptor.
            let _reset = crate::py::imports::signal(py)
                .and_then(|signal| signal.call_method1("set_wakeup_fd", (-1,)));
        }
        super::wakeup_fd::after_fork_in_child();
    }
    #[pyfunction]
    fn _before_fork(py: Python<'_>) -> PyResult<()> {
        let running = crate::py::imports::get_running_loop(py)?.call0()?;
        if let Ok(running) = running.cast::<EventLoop>() {
            turn::flush_writes(py, running.get().state(py));
        }
        Ok(())
    }
    let kwargs = pyo3::types::PyDict::new(py);
    kwargs.set_item("before", wrap_pyfunction!(_before_fork, py)?)?;
    kwargs.set_item(
        "after_in_child",
        wrap_pyfunction!(_after_fork_in_child, py)?,
    )?;
    crate::py::imports::os(py)?.call_method("register_at_fork", (), Some(&kwargs))?;
    Ok(())
}

impl State {
    /// In the child of a fork, gives the loop kernel objects of its own; called before each use.
    ///
    /// # Errors
    /// What the kernel refuses; EBADF on a closed loop.
    #[inline(always)]
    pub(super) fn leave_parent(&self) -> io::Result<()> {
        if self.forks.get() == generation() {
            return Ok(());
        }
        Python::attach(|py| start_anew(py, self))
    }

    /// In the child of a fork, lets go of the parent's kernel objects without a use for own ones.
    pub(super) fn forget_parent(&self) {
        if self.forks.replace(generation()) != generation() {
            drop(self.poller.take());
        }
    }
}

#[cold]
fn start_anew(py: Python<'_>, state: &State) -> io::Result<()> {
    if state.closed.get() {
        state.forget_parent();
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    let (poller, notifier) = (Poller::new()?, Notifier::new()?);
    state.signals.borrow_mut().renew_channel()?;
    state.forks.set(generation());
    let old = state.poller.replace(Some(Arc::new(poller)));
    drop(old);
    state.resolver.take();
    let registrations = registrations(py, state, notifier.as_raw_fd(), true);
    *state.notifier.borrow_mut() = Some(Arc::new(notifier));
    register_again(state, registrations);
    Ok(())
}

/// Gives the loop a new epoll instance with what it watches.
///
/// # Errors
/// What epoll_create1(2) refuses; the old instance stays.
#[cold]
pub(super) fn renew_poller(py: Python<'_>, state: &State) -> io::Result<()> {
    let notifier = state.notifier.borrow().as_ref().map(|own| own.as_raw_fd());
    let Some(notifier) = notifier else {
        return Ok(());
    };
    let old = state.poller.replace(Some(Arc::new(Poller::new()?)));
    drop(old);
    register_again(state, registrations(py, state, notifier, false));
    Ok(())
}

fn register_again(state: &State, registrations: Vec<(RawFd, Token, Interest)>) {
    for (fd, token, interest) in registrations {
        // A descriptor that was closed meanwhile has nothing to report.
        let _added = state.with_poller(|poller| poller.add(fd, token, interest));
    }
}

fn registrations(
    py: Python<'_>,
    state: &State,
    notifier: RawFd,
    forked: bool,
) -> Vec<(RawFd, Token, Interest)> {
    let sources = state.sources.borrow();
    let registration = |(token, source): (Token, &Source)| match source {
        Source::Notifier => Some((notifier, token, Interest::READABLE)),
        Source::Signals => Some((
            state.signals.borrow().readable()?,
            token,
            Interest::READABLE,
        )),
        // In the child of a fork, the child processes are the parent's.
        Source::Child(_) if forked => None,
        Source::Child(transport) => Some((transport.pidfd(py)?, token, Interest::READABLE)),
        // A registration that is only kept for later is made again when it is wanted.
        Source::Watch(watch) => Some(watch.interest())
            .filter(|interest| !interest.is_empty())
            .map(|interest| (watch.fd, token, interest)),
        Source::Stream(_) | Source::IdleStream(_) => {
            let (fd, interest) = source.stream(py)?.this(py).registration()?;
            Some((fd, token, interest))
        }
        Source::ReadPipe(pipe) => {
            let (fd, interest) = pipe.this(py).registration()?;
            Some((fd, token, interest))
        }
        Source::Datagram(_) | Source::IdleDatagram(_) => {
            let (fd, interest) = source.datagram(py)?.this(py).registration()?;
            Some((fd, token, interest))
        }
        Source::WritePipe(pipe) => {
            let (fd, interest) = pipe.this(py).registration()?;
            Some((fd, token, interest))
        }
        Source::Listener { fd, .. } => Some((*fd, token, Interest::READABLE)),
    };
    sources.iter().filter_map(registration).collect()
}
