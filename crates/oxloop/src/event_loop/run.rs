//! `Run`: the state of a run, and what is done after each callback.
//!
//! What a callback writes is sent when it returns: all of it to one transport in one system call.

use super::State;
use super::held::Held;
use super::schedule::thread_ident;
use crate::error::leaves_the_loop;
use crate::py::slot::Slot;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// The state of a run.
#[derive(Default)]
pub(crate) struct Run {
    /// `threading.get_ident()` of the running thread, 0 when not running.
    pub(super) thread: Cell<u64>,
    pub(super) stopping: Cell<bool>,
    /// True while a callback of this loop runs: what it writes leaves when it returns.
    pub(super) in_callback: Cell<bool>,
    /// Transports that the callback that runs now wrote to.
    pub(super) written: RefCell<VecDeque<Held>>,
    /// A KeyboardInterrupt or SystemExit that had no receiver where it was raised: it ends the run.
    pub(super) interruption: Slot<PyBaseException>,
}

/// Sends what the last callback wrote.
#[inline(always)]
pub(crate) fn flush_writes(py: Python<'_>, state: &State) {
    if !state.run.written.borrow().is_empty() {
        flush_written(py, state);
    }
}

/// What is written during a flush is sent by the next one.
#[inline(never)]
pub(super) fn flush_written(py: Python<'_>, state: &State) {
    let count = state.run.written.borrow().len();
    for _ in 0..count {
        let held = state.run.written.borrow_mut().pop_front();
        if let Some(held) = held {
            held.flush(py);
        }
    }
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

    /// Flushes `transport` when the callback that runs now returns.
    #[inline]
    pub(crate) fn flush_later(&self, transport: Held) {
        self.run.written.borrow_mut().push_back(transport);
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
