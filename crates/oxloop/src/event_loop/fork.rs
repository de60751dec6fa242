//! The child of a fork: an inherited loop must not touch the kernel objects that it shares with its
//! parent.
//!
//! The epoll instance, the eventfd and the signal pipe of an inherited loop belong to the parent
//! too: ending a registration in the child would end it in the parent. So a hook counts forks. A
//! loop that finds the count changed makes new kernel objects and registers everything that it
//! watches again, before it uses them.
//!
//! Data that was written and has not left yet is sent before the fork; otherwise both processes
//! would send it.

use super::registration::Renewal;
use super::source::Source;
use super::{EventLoop, State};
use crate::py::attached::Attached;
use crate::py::file::has_descriptor;
use crate::py::socket::no_descriptor;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::IntoPyDict;
use reactor::notifier::Notifier;
use reactor::poller::{Interest, Poller};
use reactor::token::Token;
use std::cell::RefCell;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

static FORKS: AtomicU32 = AtomicU32::new(0);

/// How many forks lie between the first process and this one.
pub(super) fn generation() -> u32 {
    FORKS.load(Ordering::Relaxed)
}

/// The loops that run now, each in a thread of its own.
fn running(py: Python<'_>) -> &RefCell<Vec<Py<EventLoop>>> {
    static RUNNING: PyOnceLock<Attached<RefCell<Vec<Py<EventLoop>>>>> = PyOnceLock::new();
    RUNNING
        .get_or_init(py, || Attached::new(RefCell::default()))
        .get(py)
}

/// The loop begins to run.
pub(super) fn run_begins(this: &Bound<'_, EventLoop>) {
    running(this.py()).borrow_mut().push(this.clone().unbind());
}

/// The loop does not run any more.
pub(super) fn run_ends(this: &Bound<'_, EventLoop>) {
    let mut loops = running(this.py()).borrow_mut();
    let place = loops.iter().position(|each| each.is(this));
    let ended = place.map(|place| loops.swap_remove(place));
    drop(loops);
    drop(ended);
}

/// The threads of the other loops are not in the child.
fn forget_other_threads(py: Python<'_>) {
    let own = crate::py::imports::get_running_loop(py).and_then(|ask| ask.call0());
    let (kept, gone): (Vec<_>, Vec<_>) = running(py)
        .take()
        .into_iter()
        .partition(|each| own.as_ref().is_ok_and(|own| each.is(own)));
    running(py).replace(kept);
    drop(gone);
}

/// Registers the hooks; called once, at import.
pub(crate) fn install(py: Python<'_>) -> PyResult<()> {
    #[pyfunction]
    fn _after_fork_in_child(py: Python<'_>) {
        FORKS.fetch_add(1, Ordering::Relaxed);
        forget_other_threads(py);
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
        let running: Vec<Py<EventLoop>> = {
            let running = running(py).borrow();
            running.iter().map(|each| each.clone_ref(py)).collect()
        };
        for event_loop in running {
            event_loop.get().state(py).flush(py);
        }
        Ok(())
    }
    let before = wrap_pyfunction!(_before_fork, py)?;
    let after = wrap_pyfunction!(_after_fork_in_child, py)?;
    let kwargs = [("before", before), ("after_in_child", after)].into_py_dict(py)?;
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
        if self.kernel.forks.get() == generation() {
            return Ok(());
        }
        Python::attach(|py| start_anew(py, self))
    }

    /// In the child of a fork, releases the parent's kernel objects without making new ones.
    pub(super) fn forget_parent(&self) {
        if self.kernel.forks.replace(generation()) != generation() {
            drop(self.kernel.poller.take());
        }
    }
}

#[cold]
fn start_anew(py: Python<'_>, state: &State) -> io::Result<()> {
    if state.closed.get() {
        state.forget_parent();
        return Err(no_descriptor());
    }
    let (poller, notifier) = (Poller::new()?, Notifier::new()?);
    state.signals.borrow_mut().renew_channel()?;
    state.kernel.forks.set(generation());
    let old = state.kernel.poller.replace(Some(Arc::new(poller)));
    drop(old);
    state.resolver.take();
    let renewals = renewals(py, state, notifier.as_raw_fd(), true);
    *state.waker.notifier.borrow_mut() = Some(Arc::new(notifier));
    register_again(state, renewals);
    Ok(())
}

/// Gives the loop a new epoll instance with what it watches.
///
/// # Errors
/// What epoll_create1(2) refuses; the old instance stays.
#[cold]
pub(super) fn renew_poller(py: Python<'_>, state: &State) -> io::Result<()> {
    let notifier = state
        .waker
        .notifier
        .borrow()
        .as_ref()
        .map(|own| own.as_raw_fd());
    let Some(notifier) = notifier else {
        return Ok(());
    };
    let old = state.kernel.poller.replace(Some(Arc::new(Poller::new()?)));
    let mut renewals = renewals(py, state, notifier, false);
    if let Some(old) = old {
        // What the kernel does not have (any more) is another file's number by now.
        renewals.retain(|it| old.modify(it.fd, it.token, it.interest).is_ok());
    }
    register_again(state, renewals);
    Ok(())
}

fn register_again(state: &State, renewals: Vec<Renewal>) {
    for Renewal {
        fd,
        token,
        interest,
        ..
    } in renewals
    {
        // A descriptor that was closed meanwhile has nothing to report.
        let _added = state.with_poller(|poller| poller.add(fd, token, interest));
    }
}

/// What the loop watches, but for numbers whose socket or file the program has closed.
fn renewals(py: Python<'_>, state: &State, notifier: RawFd, forked: bool) -> Vec<Renewal> {
    let mut renewals: Vec<Renewal> = {
        let sources = state.kernel.sources.borrow();
        let sources = sources.iter();
        let sources = sources.filter(|(_, source)| !forked || source.is_inherited());
        let renewal = |(token, source)| renewal(py, state, notifier, token, source);
        sources.filter_map(renewal).collect()
    };
    renewals.retain(|it| still_there(py, state, it));
    renewals
}

fn renewal(
    py: Python<'_>,
    state: &State,
    notifier: RawFd,
    token: Token,
    source: &Source,
) -> Option<Renewal> {
    let own = |fd, interest| Renewal {
        fd,
        token,
        interest,
        to_ask: None,
    };
    match source {
        Source::Notifier => Some(own(notifier, Interest::READABLE)),
        Source::Signals => {
            let signals = state.signals.borrow();
            Some(own(signals.readable()?, Interest::READABLE))
        }
        Source::Watch(watch) => watch.renewal(py, token),
        Source::Held(_) | Source::Idle(_) => {
            let held = source.held(py)?;
            let renewal = (held.kind.renewal)(held.object.bind(py), token);
            // Of several owners of one number, the latest has it.
            renewal.filter(|it| state.has_number(it.fd, it.token))
        }
    }
}

fn still_there(py: Python<'_>, state: &State, renewal: &Renewal) -> bool {
    let Some(file) = &renewal.to_ask else {
        return true;
    };
    let file = file.bind(py);
    has_descriptor(file, renewal.fd).unwrap_or_else(|error| {
        state.interrupt(py, error, file);
        false
    })
}
