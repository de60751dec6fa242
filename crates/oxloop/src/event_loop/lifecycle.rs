//! Making, running, stopping and closing a loop.

use super::kernel::Kernel;
use super::memory::Memory;
use super::metrics::Metrics;
use super::numbers::Numbers;
use super::queues::Queues;
use super::run::Run;
use super::schedule::thread_ident;
use super::settings::Settings;
use super::signals::Look;
use super::signals::Signals;
use super::source::Source;
use super::unsent::Unsent;
use super::waker::Waker;
use super::{EventLoop, State, turn};
use crate::error::{leaves_the_loop, os_error, then_cleaned};
use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use crate::py::{imports, interpreter};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyTuple};
use reactor::notifier::Notifier;
use reactor::poller::{Interest, Poller};
use reactor::token::Registry;
use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;

pub(super) fn new_state(py: Python<'_>) -> PyResult<State> {
    let poller = Poller::new().map_err(|error| os_error(&error))?;
    let notifier = Notifier::new().map_err(|error| os_error(&error))?;
    let mut sources = Registry::new();
    let token = sources.insert(Source::Notifier);
    poller
        .add(notifier.as_raw_fd(), token, Interest::READABLE)
        .map_err(|error| os_error(&error))?;
    Ok(State {
        queues: Queues::new(),
        kernel: Kernel::new(poller, sources),
        signals: RefCell::new(Signals::default()),
        look: Look::default(),
        run: Run::default(),
        unsent: Unsent::default(),
        waker: Waker::new(notifier),
        memory: Memory::new(),
        metrics: Metrics::default(),
        settings: Settings::new(py)?,
        resolver: RefCell::new(None),
        closed: Cell::new(false),
    })
}

impl State {
    /// Shows the collector what the loop owns. Called in the middle of anything that allocates, so
    /// a borrowed part is left out, which only makes its contents count as reachable.
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.queues.traverse(visit)?;
        if let Ok(sources) = self.kernel.sources.try_borrow() {
            sources
                .iter()
                .try_for_each(|(_, source)| source.traverse(visit))?;
        }
        if let Ok(signals) = self.signals.try_borrow() {
            signals.traverse(visit)?;
        }
        self.settings.traverse(visit)?;
        self.run.interruption.traverse(visit)
    }
}

/// Drops every Python object that the loop owns; for the collector and for `close`.
pub(super) fn release_all(py: Python<'_>, state: &State) {
    state.forget_parent();
    state.queues.release(py);
    let sources = std::mem::replace(&mut *state.kernel.sources.borrow_mut(), Registry::new());
    drop(sources);
    drop(state.signals.take());
    state.settings.clear();
    drop(state.run.interruption.take());
    drop(state.kernel.poller.take());
}

#[pymethods]
impl EventLoop {
    /// Run until stop() is called.
    fn run_forever(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, state) = (slf.py(), slf.get().state(slf.py()));
        prepare_to_run(slf)?;
        let begun = run_forever_setup(slf);
        if begun.is_err() {
            forget_stops(py, state);
        }
        let outcome = begun.and_then(|()| {
            super::fork::run_begins(slf);
            state.metrics.time.run_begins();
            let outcome = turn::run(slf);
            state.metrics.time.run_ends();
            super::fork::run_ends(slf);
            state.run.stopping.set(false);
            outcome
        });
        state.flush(py);
        let outcome = then_cleaned(py, outcome, state.raise_interruption(py));
        let cleaned = run_forever_cleanup(slf);
        first_failure(slf, outcome, cleaned)
    }

    /// Run until the future (or coroutine, wrapped in a task) is done; return its result.
    fn run_until_complete<'py>(
        slf: &Bound<'py, Self>,
        future: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        slf.get().state(py).check_closed()?;
        check_running(slf)?;
        let new_task = !imports::is_future(py)?.call1((future,))?.is_truthy()?;
        let kwargs = [("loop", slf)].into_py_dict(py)?;
        let future = imports::ensure_future(py)?.call((future,), Some(&kwargs))?;
        if new_task {
            // The exception is raised below if it did not complete: no need to log its destruction.
            future.setattr("_log_destroy_pending", false)?;
        }
        let callback = imports::run_until_complete_cb(py)?;
        future.call_method1("add_done_callback", (callback,))?;
        let outcome = slf.call_method0("run_forever");
        let consumed = if outcome.is_err() && new_task {
            consume_exception(&future)
        } else {
            Ok(())
        };
        let removed = future.call_method1("remove_done_callback", (callback,));
        outcome.and(removed).and(consumed)?;
        if !future.call_method0("done")?.is_truthy()? {
            return Err(PyRuntimeError::new_err(
                "Event loop stopped before Future completed.",
            ));
        }
        future.call_method0("result")
    }

    /// Stop after the callbacks that are already scheduled.
    fn stop(&self, py: Python<'_>) {
        let state = self.state(py);
        state.run.stopping.set(true);
        state.wake();
    }

    /// Close the loop, which must not be running. Idempotent.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        let (py, state) = (slf.py(), slf.get().state(slf.py()));
        if state.run.thread.get() != 0 {
            return Err(PyRuntimeError::new_err("Cannot close a running event loop"));
        }
        if state.closed.get() {
            return Ok(());
        }
        if state.settings.debug.get() {
            imports::logger(py)?.call_method1("debug", ("Close %r", slf))?;
        }
        super::signals::close(slf)?;
        state.closed.set(true);
        state.queues.release(py);
        let closed = close_kernel_side(py, state);
        let shut = shut_executor(py, state);
        then_cleaned(py, closed, shut)
    }

    /// True once close() was called.
    fn is_closed(&self, py: Python<'_>) -> bool {
        self.state(py).closed.get()
    }

    /// True while run_forever() is under way.
    fn is_running(&self, py: Python<'_>) -> bool {
        self.state(py).run.thread.get() != 0
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        let py_bool = |value: bool| if value { "True" } else { "False" };
        let running = slf.call_method0("is_running")?.is_truthy()?;
        let closed = slf.call_method0("is_closed")?.is_truthy()?;
        let debug = slf.call_method0("get_debug")?;
        Ok(format!(
            "<{} running={} closed={} debug={}>",
            slf.get_type().name()?,
            py_bool(running),
            py_bool(closed),
            debug.str()?
        ))
    }
}

/// Takes the exception of a task whose caller will see it raised, so that it is not logged again.
fn consume_exception(future: &Bound<'_, PyAny>) -> PyResult<()> {
    let done = future.call_method0("done")?.is_truthy()?;
    if done && !future.call_method0("cancelled")?.is_truthy()? {
        future.call_method0("exception")?;
    }
    Ok(())
}

fn close_kernel_side(py: Python<'_>, state: &State) -> PyResult<()> {
    state.forget_parent();
    // Watchers, transports and listeners go first: their destructors may look at the loop.
    let sources = std::mem::replace(&mut *state.kernel.sources.borrow_mut(), Registry::new());
    let mut dropped = Ok(());
    for (_, source) in sources.iter() {
        if let Source::Held(held) = source {
            let told = (held.kind.loop_closed)(held.object.bind(py));
            dropped = then_cleaned(py, dropped, told);
        }
    }
    drop(sources);
    *state.kernel.numbers.borrow_mut() = Numbers::default();
    drop(state.kernel.poller.take());
    drop(state.waker.notifier.take());
    let resolver = state.resolver.take();
    if let Some(resolver) = resolver {
        py.detach(|| resolver.close());
    }
    dropped
}

fn shut_executor(py: Python<'_>, state: &State) -> PyResult<()> {
    state.settings.executor_shutdown.set(true);
    if let Some(executor) = state.settings.default_executor.take() {
        let kwargs = [("wait", false)].into_py_dict(py)?;
        executor
            .bind(py)
            .call_method("shutdown", (), Some(&kwargs))?;
    }
    Ok(())
}

/// # Errors
/// RuntimeError if this loop, or another one in this thread, runs already.
fn check_running(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = this.py();
    if this.get().state(py).run.thread.get() != 0 {
        return Err(PyRuntimeError::new_err(
            "This event loop is already running",
        ));
    }
    if !imports::asyncio_events(py)?
        .call_method0(intern!(py, "_get_running_loop"))?
        .is_none()
    {
        return Err(PyRuntimeError::new_err(
            "Cannot run the event loop while another loop is running",
        ));
    }
    Ok(())
}

/// Looked up at each run: asyncio has a Python twin of the C function, and programs may choose it.
fn set_running_loop(py: Python<'_>, value: &Bound<'_, PyAny>) -> PyResult<()> {
    imports::asyncio_events(py)?
        .call_method1(intern!(py, "_set_running_loop"), (value,))
        .map(drop)
}

/// A run that did not begin needs no stop: what `run_until_complete` queued for it, of a future
/// that was done, must not stop the next one.
#[cold]
fn forget_stops(py: Python<'_>, state: &State) {
    let Ok(stop) = imports::run_until_complete_cb(py) else {
        return;
    };
    let queued: Vec<HandleRef> = {
        let ready = state.queues.ready.borrow();
        ready.iter().map(|handle| handle.clone_ref(py)).collect()
    };
    for handle in queued {
        if handle.callback(py).is_some_and(|own| own.is(stop)) {
            handle.cancel(py);
        }
    }
}

/// Checks everything that may refuse a run, before the run changes anything.
fn prepare_to_run(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let state = this.get().state(this.py());
    state.check_closed()?;
    check_running(this)?;
    interpreter::attach_once(this.py())?;
    state.leave_parent().map_err(|error| os_error(&error))?;
    this.get().find_overrides(this)
}

/// Where this fails, `run_forever_cleanup` undoes what it did.
fn run_forever_setup(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let sys = imports::sys(py)?;
    state.run.thread.set(thread_ident(py)?);
    super::debug::track_coroutine_origins(py, state, state.settings.debug.get())?;
    let old = sys.call_method0("get_asyncgen_hooks")?;
    let old = old.cast_into::<PyTuple>()?.unbind();
    state.settings.old_asyncgen_hooks.set(Some(old));
    super::asyncgens::install(this)?;
    super::signals::run_begins(this)?;
    set_running_loop(py, this.as_any())
}

/// Undoes every step of the set-up, also those that were not reached, and goes on if one of them
/// fails.
fn run_forever_cleanup(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    state.run.thread.set(0);
    state.queues.track_shared_handles();
    let left = insist(|| set_running_loop(py, py.None().bind(py)));
    let signals = insist(|| super::signals::run_ends(this));
    let tracking = insist(|| super::debug::track_coroutine_origins(py, state, false));
    let hooks = insist(|| restore_asyncgen_hooks(py, state));
    left.and(signals).and(tracking).and(hooks)
}

/// Runs a step, and a second time if it fails: an exception that an audit hook or a signal handler
/// raises once must not leave the step undone.
fn insist(step: impl Fn() -> PyResult<()>) -> PyResult<()> {
    step().inspect_err(|_| {
        let _taken = step();
    })
}

fn restore_asyncgen_hooks(py: Python<'_>, state: &State) -> PyResult<()> {
    let Some(old) = state.settings.old_asyncgen_hooks.get(py) else {
        return Ok(());
    };
    imports::sys(py)?
        .getattr(intern!(py, "set_asyncgen_hooks"))?
        .call1(old)?;
    state.settings.old_asyncgen_hooks.set(None);
    Ok(())
}

/// The error to raise if the run, the clean-up or both failed. With both it is the run's, unless
/// only the clean-up's is KeyboardInterrupt or SystemExit; the other one is reported.
fn first_failure(
    this: &Bound<'_, EventLoop>,
    outcome: PyResult<()>,
    cleaned: PyResult<()>,
) -> PyResult<()> {
    let py = this.py();
    match (outcome, cleaned) {
        (Err(error), Err(later)) => {
            let leaves = |error| leaves_the_loop(py, error);
            let (first, second) = if leaves(&later) && !leaves(&error) {
                (later, error)
            } else {
                (error, later)
            };
            second.write_unraisable(py, Some(this.as_any()));
            Err(first)
        }
        (outcome, cleaned) => outcome.and(cleaned),
    }
}
