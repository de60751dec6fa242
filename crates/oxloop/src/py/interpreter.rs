//! The interpreter that the extension lives in.
//!
//! Classes, methods and imported modules are kept in static cells: a second interpreter of the
//! process would be given the first one's objects. CPython refuses that by itself for interpreters
//! with a GIL of their own; the others, and all of 3.11's, are refused here.

use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;

/// PyO3 asserts when it attaches to the interpreter first that this is up. It is not any more when
/// the last objects of a program are freed, whose finalizers may come here.
pub(crate) fn attach_once(py: Python<'_>) {
    py.detach(|| Python::attach(|_| ()));
}

/// Runs the Python-level handlers of signals that have arrived, in the main thread.
///
/// # Errors
/// What a handler raises.
#[inline(always)]
pub(crate) fn check_signals(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached.
    if unsafe { ffi::PyErr_CheckSignals() } == 0 {
        return Ok(());
    }
    Err(PyErr::fetch(py))
}

/// # Errors
/// ImportError in a sub-interpreter, in CPython's words.
pub(crate) fn require_main(_py: Python<'_>) -> PyResult<()> {
    // SAFETY: the token says that a thread state is attached, which is all that the first call
    // needs; the second needs a runtime that is up. The pointers are only compared.
    let is_main = unsafe { ffi::PyInterpreterState_Get() == ffi::PyInterpreterState_Main() };
    if is_main {
        return Ok(());
    }
    Err(PyImportError::new_err(
        "module oxloop._oxloop does not support loading in subinterpreters",
    ))
}
