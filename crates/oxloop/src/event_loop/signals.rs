//! `add_signal_handler`, and waking the loop for every signal.
//!
//! While a loop runs in the main thread, it watches the process's wake-up descriptor (see
//! `wakeup_fd`), so that plain `signal.signal` handlers also run at once, and Ctrl-C ends a waiting
//! loop. A loop with handlers watches it in whichever thread it runs.
//!
//! Invariants:
//! - `look` sees every signal whose C-level handler ran before it, in the main thread; in another
//!   thread, at the latest `ASKED_EVERY` turns later.
//! - handlers live until they are removed or the loop is closed, which restores the defaults.

use super::schedule::{soon_method, thread_ident};
use super::source::Source;
use super::wakeup_fd::{self, Channel};
use super::{EventLoop, LoopThis, State};
use crate::error::{errno_of, os_error};
use crate::py::args::Args;
use crate::py::class::{Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::handle::HandleRef;
use crate::py::imports;
use crate::py::method::{Methods, OfPyClass};
use crate::py::object::warn;
use crate::py::schedule::Scheduled;
use crate::py::signals::{Breaker, find_breaker};
use pyo3::exceptions::{PyOSError, PyResourceWarning, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyInt};
use reactor::poller::Interest;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

/// CPython itself is asked once in so many turns, for signals that its word does not show (see
/// `py::signals`). Such a signal wakes a loop that polls or waits.
const ASKED_EVERY: u32 = 64;

/// The signal handlers of a loop.
#[derive(Default)]
pub(super) struct Signals {
    /// The process's channel, once the loop watches it.
    channel: Option<Arc<Channel>>,
    handlers: BTreeMap<i32, HandleRef>,
    /// Signals with a handler, which the next look will find.
    arrived: Vec<i32>,
    /// The loop runs in the main thread.
    in_main_thread: bool,
}

impl Signals {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.handlers
            .values()
            .try_for_each(|handle| handle.traverse_queued(visit))
    }

    /// What the loop watches.
    pub(super) fn readable(&self) -> Option<RawFd> {
        self.channel.as_ref().map(|channel| channel.readable())
    }

    pub(super) const fn watches_channel(&self) -> bool {
        self.channel.is_some()
    }

    pub(super) fn has_handlers(&self) -> bool {
        !self.handlers.is_empty()
    }

    pub(super) const fn has_arrived(&self) -> bool {
        !self.arrived.is_empty()
    }

    /// Changes to the channel of this process, in the child of a fork; the handlers stay.
    pub(super) fn renew_channel(&mut self) -> io::Result<()> {
        if self.channel.is_some() {
            self.channel = Some(Channel::current()?);
        }
        Ok(())
    }
}

/// When a look for signals has to ask CPython.
pub(crate) struct Look {
    /// Tells, while the loop runs, that a signal may have arrived, or that another thread waits.
    pub(super) breaker: Cell<Breaker>,
    /// How many turns there have been.
    pub(super) turns: Cell<u32>,
}

impl Default for Look {
    fn default() -> Self {
        Self {
            breaker: Cell::new(Breaker::never()),
            turns: Cell::new(0),
        }
    }
}

impl State {
    /// Runs the Python-level handlers of signals that have arrived, if the loop runs in the main
    /// thread, and serves what else waits. It runs after each callback, so that the next one is not
    /// interrupted.
    ///
    /// # Errors
    /// What a handler raises.
    #[inline(always)]
    pub(crate) fn look_for_signals(&self, py: Python<'_>) -> PyResult<()> {
        let breaker = self.look.breaker.get();
        if breaker.is_set() {
            return breaker.serve(py);
        }
        Ok(())
    }
}

/// The channel, which the loop watches from now on.
fn watch_channel(state: &State) -> PyResult<Arc<Channel>> {
    state.leave_parent().map_err(|error| os_error(&error))?;
    if let Some(channel) = &state.signals.borrow().channel {
        return Ok(Arc::clone(channel));
    }
    let channel = Channel::current().map_err(|error| os_error(&error))?;
    state.register(channel.readable(), Source::Signals, Interest::READABLE)?;
    state.signals.borrow_mut().channel = Some(Arc::clone(&channel));
    Ok(channel)
}

fn in_main_thread(py: Python<'_>) -> PyResult<bool> {
    let main: u64 = imports::threading(py)?
        .call_method0("main_thread")?
        .getattr("ident")?
        .extract()?;
    Ok(thread_ident(py)? == main)
}

/// The loop is about to run. Where this fails, `run_ends` undoes what it did.
pub(super) fn run_begins(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let in_main_thread = in_main_thread(py)?;
    if in_main_thread {
        find_breaker(py)?;
    }
    state
        .look
        .breaker
        .set(Breaker::of_this_thread(py, in_main_thread));
    if !in_main_thread && state.signals.borrow().handlers.is_empty() {
        return Ok(());
    }
    let channel = watch_channel(state)?;
    if in_main_thread {
        state.signals.borrow_mut().in_main_thread = true;
        wakeup_fd::run_begins(this, &channel)?;
    }
    Ok(())
}

/// The loop stopped running, or could not begin.
pub(super) fn run_ends(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let state = this.get().state(this.py());
    state.look.breaker.set(Breaker::never());
    if !state.signals.borrow().in_main_thread {
        return Ok(());
    }
    wakeup_fd::run_ends(this)?;
    state.signals.borrow_mut().in_main_thread = false;
    Ok(())
}

/// Checks for signals before each batch of callbacks. Plain Python handlers run now, and the loop's
/// own in the next batch, as in asyncio. In the main thread CPython's memory shows that a signal
/// arrived, unless the program waits on a descriptor of its own for signals that the loop must pass
/// on. Other threads must read the channel.
#[inline(always)]
pub(super) fn look(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let state = this.get().state(this.py());
    let turn = state.look.turns.get().wrapping_add(1);
    state.look.turns.set(turn);
    state.look_for_signals(this.py())?;
    let asked = turn.is_multiple_of(ASKED_EVERY);
    let (in_main_thread, has_handlers, has_arrived) = {
        let signals = state.signals.borrow();
        let has_handlers = signals.has_handlers();
        (signals.in_main_thread, has_handlers, signals.has_arrived())
    };
    let unseen = if in_main_thread {
        wakeup_fd::is_forwarding()
    } else {
        has_handlers
    };
    if asked || unseen || has_arrived {
        return look_closer(this, unseen);
    }
    Ok(())
}

#[inline(never)]
fn look_closer(this: &Bound<'_, EventLoop>, unseen: bool) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    if state.signals.borrow().in_main_thread {
        py.check_signals()?;
    }
    if unseen {
        wakeup_fd::drain(py);
    }
    if state.signals.borrow().has_arrived() {
        return queue_arrived(this);
    }
    Ok(())
}

/// Each signal is handled in this batch, which queues its handler for the next.
#[cold]
fn queue_arrived(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let handle_signal = this.getattr(intern!(py, "_handle_signal"))?;
    let arrived = std::mem::take(&mut state.signals.borrow_mut().arrived);
    arrived.into_iter().try_for_each(|number| {
        let number = PyInt::new(py, number);
        soon_method(py, this, &handle_signal, &[&number], Captured::empty())
    })
}

/// The channel is readable.
pub(super) fn on_readable(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    wakeup_fd::drain(this.py());
    look_closer(this, false)
}

/// A signal arrived: the loop finds it at its next check. False if the loop has no handler for it.
pub(super) fn arrived(this: &Bound<'_, EventLoop>, number: i32) -> bool {
    let state = this.get().state(this.py());
    {
        let mut signals = state.signals.borrow_mut();
        if !signals.handlers.contains_key(&number) {
            return false;
        }
        signals.arrived.push(number);
    }
    state.metrics.work.signals.add(1);
    state.wake();
    true
}

/// Queues the handler of a signal that arrived, unless it is gone meanwhile.
fn handle_signal<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    let number: i32 = args.one("_handle_signal", "sig")?.extract()?;
    let handle = {
        let signals = state.signals.borrow();
        let handle = signals.handlers.get(&number);
        handle.map(|handle| handle.clone_ref(py))
    };
    let Some(handle) = handle else {
        return Ok(());
    };
    if handle.is_cancelled() {
        handle.release_ref(py);
        let remove = intern!(py, "remove_signal_handler");
        return this.object().call_method1(remove, (number,)).map(drop);
    }
    state.enqueue(handle);
    Ok(())
}

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.procedure(
        c"add_signal_handler",
        "sig, callback, *args",
        add_signal_handler,
        c"Call callback(*args) in the loop when the signal arrives. Main thread only.",
    );
    methods.method(
        c"remove_signal_handler",
        "sig",
        remove_signal_handler,
        c"Restore the signal's default; True if there was a handler.",
    );
    methods.procedure(
        c"_handle_signal",
        "sig",
        handle_signal,
        c"A signal has arrived.",
    );
}

/// # Errors
/// TypeError and ValueError, as asyncio words them, for what is no signal.
fn check_signal(signal: &Bound<'_, PyAny>) -> PyResult<i32> {
    let py = signal.py();
    if !signal.is_instance_of::<PyInt>() {
        return Err(PyTypeError::new_err(format!(
            "sig must be an int, not {}",
            signal.repr()?
        )));
    }
    let valid = imports::signal(py)?.call_method0("valid_signals")?;
    if !valid.contains(signal)? {
        return Err(PyValueError::new_err(format!(
            "invalid signal number {}",
            signal.str()?
        )));
    }
    signal.extract()
}

fn add_signal_handler<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    let scheduled = Scheduled::parse("add_signal_handler", ["sig", "callback"], &args)?;
    let [signal, callback] = scheduled.leading;
    if imports::is_coroutine(py)?.call1((callback,))?.is_truthy()?
        || super::debug::is_coroutine_function(&callback)?
    {
        return Err(PyTypeError::new_err(
            "coroutines cannot be used with add_signal_handler()",
        ));
    }
    let number = check_signal(&signal)?;
    state.check_closed()?;
    let event_loop = this.object().cast::<EventLoop>()?;
    let handle = scheduled.handle(this.object())?;
    state.trace_source(py, &handle)?;
    handle.set_repeating();
    watch_channel(state)
        .and_then(|channel| wakeup_fd::install(py, &channel))
        .map_err(|error| main_thread_only(py, error))?;
    let replaced = state.signals.borrow_mut().handlers.insert(number, handle);
    drop(replaced);
    let caught = wakeup_fd::own(&event_loop, number).and_then(|()| catch_signal(py, number));
    if let Err(error) = caught {
        forget_handler(&event_loop, number);
        release(py)?;
        return Err(cannot_be_caught(py, number, error));
    }
    Ok(())
}

/// Takes the handler out; true if there was one.
fn forget_handler(this: &Bound<'_, EventLoop>, number: i32) -> bool {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let removed = state.signals.borrow_mut().handlers.remove(&number);
    wakeup_fd::disown(this, number);
    removed.map(|handle| handle.release_ref(py)).is_some()
}

/// asyncio turns the errors of set_wakeup_fd() into a RuntimeError with the same text.
fn main_thread_only(py: Python<'_>, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOSError>(py) {
        return PyRuntimeError::new_err(error.value(py).to_string());
    }
    error
}

fn cannot_be_caught(py: Python<'_>, number: i32, error: PyErr) -> PyErr {
    if matches!(errno_of(py, &error), Ok(Some(libc::EINVAL))) {
        return PyRuntimeError::new_err(format!("sig {number} cannot be caught"));
    }
    error
}

/// Makes CPython catch the signal: its C-level handler then writes to the channel.
fn catch_signal(py: Python<'_>, number: i32) -> PyResult<()> {
    let signal = imports::signal(py)?;
    signal.call_method1("signal", (number, wakeup_fd::python_handler(py)?))?;
    signal.call_method1("siginterrupt", (number, false))?;
    Ok(())
}

fn remove_signal_handler<'py>(
    this: &LoopThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let number = check_signal(&*args.one("remove_signal_handler", "sig")?)?;
    let found = forget_handler(&*this.object().cast::<EventLoop>()?, number);
    if found {
        restore_default(py, number)?;
        release(py)?;
    }
    this.boolean(found)
}

fn restore_default(py: Python<'_>, number: i32) -> PyResult<()> {
    let signal = imports::signal(py)?;
    let default = if number == libc::SIGINT {
        "default_int_handler"
    } else {
        "SIG_DFL"
    };
    signal
        .call_method1("signal", (number, signal.getattr(default)?))
        .map(drop)
        .map_err(|error| cannot_be_caught(py, number, error))
}

/// With the last handler gone, the wake-up descriptor goes too, unless a loop runs.
fn release(py: Python<'_>) -> PyResult<()> {
    if let Err(error) = wakeup_fd::release(py) {
        imports::logger(py)?
            .call_method1("info", ("set_wakeup_fd(-1) failed: %s", error.value(py)))?;
    }
    Ok(())
}

/// The loop is being closed: every handler goes and the defaults come back.
pub(super) fn close(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let numbers: Vec<i32> = state.signals.borrow().handlers.keys().copied().collect();
    let finalizing = imports::sys(py)?
        .call_method0("is_finalizing")?
        .is_truthy()?;
    if finalizing && !numbers.is_empty() {
        let text = format!(
            "Closing the loop {} on interpreter shutdown stage, skipping signal handlers removal",
            this.repr()?
        );
        warn::<PyResourceWarning>(&text, &[("source", this)].into_py_dict(py)?)?;
    } else {
        for number in numbers {
            this.call_method1("remove_signal_handler", (number,))?;
        }
    }
    let signals = state.signals.take();
    drop(signals);
    Ok(())
}
