//! `Run`: the state of a run, and the exceptions that end it.

use super::State;
use super::schedule::thread_ident;
use crate::error::leaves_the_loop;
use crate::py::slot::Slot;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use std::cell::Cell;

/// The state of a run.
#[derive(Default)]
pub(crate) struct Run {
    /// `threading.get_ident()` of the running thread, 0 when not running.
    pub(super) thread: Cell<u64>,
    pub(super) stopping: Cell<bool>,
    /// True while a callback of this loop runs: what it writes may wait (see `unsent`).
    pub(super) in_callback: Cell<bool>,
    /// A KeyboardInterrupt or SystemExit that had no receiver where it was raised: it ends the run.
    pub(super) interruption: Slot<PyBaseException>,
}

impl State {
    /// Takes an exception that has no receiver. KeyboardInterrupt and SystemExit end the run;
    /// others are reported as unraisable.
    #[cold]
    pub(crate) fn interrupt(&self, py: Python<'_>, error: PyErr, source: &Bound<'_, PyAny>) {
        if !leaves_the_loop(py, &error) {
            return error.write_unraisable(py, Some(source));
        }
        let value = error.into_value(py);
        if let Some(earlier) = self.run.interruption.replace(value) {
            let earlier = PyErr::from_value(earlier.into_bound(py).into_any());
            earlier.write_unraisable(py, Some(source));
        }
    }

    /// # Errors
    /// What `interrupt` kept.
    #[inline]
    pub(super) fn raise_interruption(&self, py: Python<'_>) -> PyResult<()> {
        if self.run.interruption.is_empty() {
            return Ok(());
        }
        match self.run.interruption.take() {
            Some(value) => Err(PyErr::from_value(value.into_bound(py).into_any())),
            None => Ok(()),
        }
    }

    #[inline(always)]
    pub(crate) fn is_in_callback(&self) -> bool {
        self.run.in_callback.get()
    }

    /// True if the loop runs in another thread than the calling one.
    ///
    /// # Errors
    /// MemoryError.
    pub(crate) fn runs_elsewhere(&self, py: Python<'_>) -> PyResult<bool> {
        let running = self.run.thread.get();
        Ok(running != 0 && running != thread_ident(py)?)
    }
}
