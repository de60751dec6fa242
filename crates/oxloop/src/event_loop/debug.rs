//! Debug mode: thread and callback checks, slow callbacks, source tracebacks, coroutine origins.

use super::{EventLoop, LoopThis, State, turn};
use crate::py::handle::HandleRef;
use crate::py::imports;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};
use reactor::clock;

#[pymethods]
impl EventLoop {
    /// True in debug mode.
    fn get_debug(&self, py: Python<'_>) -> bool {
        self.state(py).settings.debug.get()
    }

    /// What asyncio's own methods read.
    #[getter]
    fn _debug(&self, py: Python<'_>) -> bool {
        self.get_debug(py)
    }

    /// Turn debug mode on or off.
    fn set_debug(slf: &Bound<'_, Self>, enabled: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, state) = (slf.py(), slf.get().state(slf.py()));
        state.settings.debug.set(enabled.is_truthy()?);
        if state.run.thread.get() != 0 {
            let track = slf.getattr(intern!(py, "_set_coroutine_origin_tracking"))?;
            slf.call_method1(intern!(py, "call_soon_threadsafe"), (track, enabled))?;
        }
        Ok(())
    }

    /// Turn the recording of where coroutines were made on or off.
    fn _set_coroutine_origin_tracking(
        slf: &Bound<'_, Self>,
        enabled: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        track_coroutine_origins(slf.py(), slf.get().state(slf.py()), enabled.is_truthy()?)
    }

    /// Seconds from which debug mode reports a callback as slow.
    #[getter]
    fn get_slow_callback_duration<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state(py).settings.slow_callback_duration.get(py)
    }

    #[setter]
    fn set_slow_callback_duration(&self, py: Python<'_>, value: Py<PyAny>) {
        let duration = &self.state(py).settings.slow_callback_duration;
        duration.set(Some(value));
    }
}

impl LoopThis<'_, '_> {
    /// # Errors
    /// TypeError for coroutines, coroutine functions and what cannot be called.
    #[cold]
    pub(super) fn check_callback(
        &self,
        callback: &Borrowed<'_, '_, PyAny>,
        function: &str,
    ) -> PyResult<()> {
        super::schedule::reject_coroutines(self.py(), callback, function)
    }
}

/// # Errors
/// RuntimeError if the loop runs in another thread.
#[cold]
pub(super) fn check_thread(py: Python<'_>, state: &State) -> PyResult<()> {
    if !state.runs_elsewhere(py)? {
        return Ok(());
    }
    Err(PyRuntimeError::new_err(
        "Non-thread-safe operation invoked on an event loop other than the current one",
    ))
}

impl State {
    /// Remembers where a handle was made, in debug mode.
    #[inline]
    pub(crate) fn trace_source(&self, py: Python<'_>, handle: &HandleRef) -> PyResult<()> {
        if self.settings.debug.get() {
            return trace_source(py, handle);
        }
        Ok(())
    }
}

/// `asyncio.iscoroutinefunction`, without the deprecation that newer versions give it.
pub(super) fn is_coroutine_function(callback: &Bound<'_, PyAny>) -> PyResult<bool> {
    let coroutines = imports::asyncio_coroutines(callback.py())?;
    let check = match coroutines.getattr("_iscoroutinefunction") {
        Ok(check) => check,
        Err(_) => coroutines.getattr("iscoroutinefunction")?,
    };
    check.call1((callback,))?.is_truthy()
}

#[cold]
fn trace_source(py: Python<'_>, handle: &HandleRef) -> PyResult<()> {
    // A thread that runs no Python code has no source. From 3.15 on it has a frame without code.
    let Ok(frame) = imports::sys(py)?.call_method1("_getframe", (0,)) else {
        return Ok(());
    };
    if frame.getattr(intern!(py, "f_code"))?.is_none() {
        return Ok(());
    }
    let stack = imports::extract_stack(py)?.call1((frame,))?;
    handle.change_trace(py, |trace| trace.source_traceback = Some(stack.unbind()));
    Ok(())
}

/// Runs a handle in debug mode, or if a profiler patched the `_run` of asyncio's handles.
#[cold]
pub(super) fn run_handle(this: &Bound<'_, EventLoop>, handle: &HandleRef) -> PyResult<()> {
    let (py, state) = (this.py(), this.get().state(this.py()));
    let run = || {
        if state.settings.handle_run.is_original(py) {
            return turn::run_handle(this, handle);
        }
        let class = if handle.is_timer() {
            imports::timer_handle(py)?
        } else {
            imports::handle(py)?
        };
        class
            .call_method1(intern!(py, "_run"), (handle.object(py),))
            .map(drop)
    };
    if !state.settings.debug.get() {
        return run();
    }
    let current = &state.settings.current_handle;
    drop(current.replace(Some(handle.clone_ref(py))));
    let start = clock::now();
    let outcome = run();
    let elapsed = clock::now() - start;
    drop(current.take());
    outcome?;
    log_if_slow(py, state, handle, elapsed)
}

fn log_if_slow(py: Python<'_>, state: &State, handle: &HandleRef, elapsed: f64) -> PyResult<()> {
    let Some(limit) = state.settings.slow_callback_duration.get(py) else {
        return Ok(());
    };
    if !limit.le(elapsed)? {
        return Ok(());
    }
    let text = imports::format_handle(py)?.call1((handle.object(py),))?;
    imports::logger(py)?
        .call_method1("warning", ("Executing %s took %.3f seconds", text, elapsed))?;
    Ok(())
}

/// Turns coroutine origin tracking on for a run of the loop, or restores the previous depth.
pub(super) fn track_coroutine_origins(
    py: Python<'_>,
    state: &State,
    enabled: bool,
) -> PyResult<()> {
    let tracking = &state.settings.origin_tracking;
    if enabled != tracking.is_empty() {
        return Ok(());
    }
    let sys = imports::sys(py)?;
    if enabled {
        let saved = sys.call_method0("get_coroutine_origin_tracking_depth")?;
        tracking.set(Some(saved.unbind()));
        let depth = imports::asyncio_constants(py)?.getattr("DEBUG_STACK_DEPTH")?;
        sys.call_method1("set_coroutine_origin_tracking_depth", (depth,))?;
        return Ok(());
    }
    sys.call_method1("set_coroutine_origin_tracking_depth", (tracking.get(py),))?;
    tracking.set(None);
    Ok(())
}
