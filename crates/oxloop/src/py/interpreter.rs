//! The interpreter in which the extension works: the main one, once it is initialised.
//!
//! Classes, methods and imported modules are kept in static cells, so a second interpreter would
//! get the first one's objects. CPython itself refuses the import for interpreters with a GIL of
//! their own; the others, and all of 3.11's, are refused here.

use pyo3::exceptions::{PyImportError, PyRuntimeError};
use pyo3::ffi;
use pyo3::prelude::*;
use std::sync::atomic::{AtomicBool, Ordering};

/// True once PyO3 has attached to the interpreter.
static ATTACHED: AtomicBool = AtomicBool::new(false);

/// Attaches PyO3 to the interpreter while that is certain to be initialised. PyO3 asserts this the
/// first time it attaches, and at exit, when finalizers of the last objects may attach, it is false
/// already. From 3.15 on it is false too while the interpreter imports `site`. So this is called at
/// import, and again before a loop runs.
///
/// # Errors
/// RuntimeError if the interpreter is not initialised yet: PyO3 could not turn a Rust error into
/// an exception.
pub(crate) fn attach_once(py: Python<'_>) -> PyResult<()> {
    if ATTACHED.load(Ordering::Relaxed) {
        return Ok(());
    }
    // SAFETY: may be called at any time.
    if unsafe { ffi::Py_IsInitialized() } == 0 {
        let text = "a loop of oxloop cannot run while the interpreter imports site";
        return Err(PyRuntimeError::new_err(text));
    }
    py.detach(|| Python::attach(|_| ()));
    ATTACHED.store(true, Ordering::Relaxed);
    Ok(())
}

/// # Errors
/// ImportError in a sub-interpreter, with CPython's text.
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
