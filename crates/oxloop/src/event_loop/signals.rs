//! `add_signal_handler`, and a loop that wakes for every signal.
//!
//! CPython's C-level signal handler writes the signal's number into a socket pair
//! (`signal.set_wakeup_fd`). While a loop runs in the main thread the pair is always installed, so
//! that plain `signal.signal` handlers run at once too, and Ctrl-C ends a loop that waits.
//!
//! Invariants:
//! - the wake-up descriptor that was there before a run is put back after it, unless signal
//!   handlers of this loop still need ours.
//! - handlers live until they are removed or the loop is closed, which restores the defaults.

use super::source::Source;
use super::{EventLoop, LoopThis, State};
use crate::error::os_error;
use crate::py::args::Args;
use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use crate::py::imports;
use crate::py::method::{Methods, OfPyClass};
use crate::py::schedule::Scheduled;
use pyo3::exceptions::{PyOSError, PyResourceWarning, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyInt};
use reactor::poller::Interest;
use reactor::socket;
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

const EINVAL: i32 = 22;

/// The signal side of a loop.
#[derive(Default)]
pub(super) struct Signals {
    /// The reading and the writing end, once made.
    pair: Option<(OwnedFd, OwnedFd)>,
    handlers: BTreeMap<i32, HandleRef>,
    /// The wake-up descriptor to put back when the run ends.
    previous: Option<RawFd>,
}

impl Signals {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.handlers
            .values()
            .try_for_each(|handle| handle.traverse_queued(visit))
    }

    /// The end that the loop watches.
    pub(super) fn readable(&self) -> Option<RawFd> {
        self.pair.as_ref().map(|(read, _)| read.as_raw_fd())
    }

    /// Forgets the pair, in the child of a fork; the handlers stay.
    pub(super) fn forget_pair(&mut self) {
        self.pair = None;
        self.previous = None;
    }
}

/// The writing end of the pair, made and registered if need be.
fn wakeup_fd(state: &State) -> PyResult<RawFd> {
    if let Some((_, write)) = &state.signals.borrow().pair {
        return Ok(write.as_raw_fd());
    }
    let (read, write) =
        socket::pair(libc::AF_UNIX, libc::SOCK_STREAM, 0).map_err(|error| os_error(&error))?;
    state.register(read.as_raw_fd(), Source::Signals, Interest::READABLE)?;
    let fd = write.as_raw_fd();
    state.signals.borrow_mut().pair = Some((read, write));
    Ok(fd)
}

/// `signal.set_wakeup_fd`, which only the main thread may call.
fn set_wakeup_fd(py: Python<'_>, fd: RawFd) -> PyResult<RawFd> {
    let kwargs = PyDict::new(py);
    kwargs.set_item("warn_on_full_buffer", false)?;
    imports::signal(py)?
        .call_method("set_wakeup_fd", (fd,), Some(&kwargs))?
        .extract()
}

fn in_main_thread(py: Python<'_>) -> PyResult<bool> {
    let threading = imports::threading(py)?;
    let current: u64 = threading.call_method0("get_ident")?.extract()?;
    let main: u64 = threading
        .call_method0("main_thread")?
        .getattr("ident")?
        .extract()?;
    Ok(current == main)
}

/// The loop is about to run.
pub(super) fn run_begins(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    if !in_main_thread(py)? {
        return Ok(());
    }
    let ours = wakeup_fd(state)?;
    let previous = set_wakeup_fd(py, ours)?;
    if previous != ours {
        state.signals.borrow_mut().previous = Some(previous);
    }
    Ok(())
}

/// The loop stopped running.
pub(super) fn run_ends(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let (previous, ours) = {
        let mut signals = state.signals.borrow_mut();
        if !signals.handlers.is_empty() {
            return Ok(());
        }
        (
            signals.previous.take(),
            signals.pair.as_ref().map(|pair| pair.1.as_raw_fd()),
        )
    };
    match (previous, ours) {
        (Some(previous), Some(ours)) => restore_wakeup_fd(py, previous, ours),
        _ => Ok(()),
    }
}

/// Puts `previous` back, unless somebody else has put theirs meanwhile.
fn restore_wakeup_fd(py: Python<'_>, previous: RawFd, ours: RawFd) -> PyResult<()> {
    let Ok(current) = set_wakeup_fd(py, previous).or_else(|_closed| set_wakeup_fd(py, -1)) else {
        return Ok(());
    };
    if current != ours {
        set_wakeup_fd(py, current)?;
    }
    Ok(())
}

/// The pair is readable: queue the handlers, and let plain Python handlers run.
pub(super) fn on_readable(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let Some(fd) = state
        .signals
        .borrow()
        .pair
        .as_ref()
        .map(|pair| pair.0.as_raw_fd())
    else {
        return Ok(());
    };
    let mut numbers = [0_u8; 256];
    while let Ok(count @ 1..) = socket::recv_into_slice(fd, &mut numbers) {
        for number in &numbers[..count] {
            deliver(this, i32::from(*number))?;
        }
    }
    py.check_signals()
}

fn deliver(this: &Bound<'_, EventLoop>, number: i32) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let handle = state
        .signals
        .borrow()
        .handlers
        .get(&number)
        .map(|handle| handle.clone_ref(py));
    let Some(handle) = handle else { return Ok(()) };
    if handle.is_cancelled() {
        return this
            .call_method1("remove_signal_handler", (number,))
            .map(drop);
    }
    state.enqueue(handle);
    Ok(())
}

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.method(
        c"add_signal_handler",
        add_signal_handler,
        c"Call callback(*args) in the loop when the signal arrives. Main thread only.",
    );
    methods.method(
        c"remove_signal_handler",
        remove_signal_handler,
        c"Restore the signal's default; True if there was a handler.",
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

fn add_signal_handler<'py>(
    this: &LoopThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
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
    let previous = wakeup_fd(state).and_then(|fd| set_wakeup_fd(py, fd).map(|old| (old, fd)));
    let (previous, ours) = previous.map_err(|error| main_thread_only(py, error))?;
    if previous != ours {
        state.signals.borrow_mut().previous = Some(previous);
    }
    let handle = scheduled.handle(this.object())?;
    handle.set_repeating();
    let replaced = state.signals.borrow_mut().handlers.insert(number, handle);
    drop(replaced);
    if let Err(error) = catch_signal(py, number) {
        let removed = state.signals.borrow_mut().handlers.remove(&number);
        drop(removed);
        after_removal(this)?;
        return Err(cannot_be_caught(py, number, error));
    }
    Ok(py.None().into_bound(py))
}

/// asyncio turns the errors of set_wakeup_fd() into a RuntimeError with the same text.
fn main_thread_only(py: Python<'_>, error: PyErr) -> PyErr {
    if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOSError>(py) {
        return PyRuntimeError::new_err(error.value(py).to_string());
    }
    error
}

fn cannot_be_caught(py: Python<'_>, number: i32, error: PyErr) -> PyErr {
    let errno = error
        .value(py)
        .getattr("errno")
        .and_then(|errno| errno.extract::<i32>());
    if error.is_instance_of::<PyOSError>(py) && errno.is_ok_and(|errno| errno == EINVAL) {
        return PyRuntimeError::new_err(format!("sig {number} cannot be caught"));
    }
    error
}

/// Makes CPython catch the signal: its C handler then writes to the pair.
fn catch_signal(py: Python<'_>, number: i32) -> PyResult<()> {
    let signal = imports::signal(py)?;
    signal.call_method1("signal", (number, noop(py)?))?;
    signal.call_method1("siginterrupt", (number, false))?;
    Ok(())
}

fn noop(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    #[pyfunction]
    fn _sighandler_noop(_signum: &Bound<'_, PyAny>, _frame: &Bound<'_, PyAny>) {}
    Ok(wrap_pyfunction!(_sighandler_noop, py)?.into_any())
}

fn remove_signal_handler<'py>(
    this: &LoopThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    let number = check_signal(&*args.one("remove_signal_handler", "sig")?)?;
    let removed = state.signals.borrow_mut().handlers.remove(&number);
    let found = removed.is_some();
    if let Some(handle) = removed {
        handle.release_ref(py);
        restore_default(py, number)?;
        after_removal(this)?;
    }
    Ok(found.into_pyobject(py)?.to_owned().into_any())
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

/// With the last handler gone, the wake-up descriptor goes too, unless the loop runs.
fn after_removal(this: &LoopThis<'_, '_>) -> PyResult<()> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    if state.thread.get() != 0 || !state.signals.borrow().handlers.is_empty() {
        return Ok(());
    }
    let (previous, ours) = {
        let mut signals = state.signals.borrow_mut();
        (
            signals.previous.take(),
            signals.pair.as_ref().map(|pair| pair.1.as_raw_fd()),
        )
    };
    let Some(ours) = ours else { return Ok(()) };
    if let Err(error) = restore_wakeup_fd(py, previous.unwrap_or(-1), ours) {
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
        let kwargs = PyDict::new(py);
        kwargs.set_item("source", this)?;
        let category = py.get_type::<PyResourceWarning>();
        imports::warnings(py)?.call_method("warn", (text, category), Some(&kwargs))?;
    } else {
        for number in numbers {
            this.call_method1("remove_signal_handler", (number,))?;
        }
    }
    let signals = state.signals.take();
    drop(signals);
    Ok(())
}
