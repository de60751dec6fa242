//! Sets the exception that is being handled, which `sys.exc_info()` returns inside an `except`
//! clause.
//!
//! asyncio calls exception handlers and loggers from such a clause, so a handler may log with
//! `logging.exception()`, and what it raises has the exception as its context. Rust code has no
//! such clause, so it sets the exception with these functions.
//!
//! Cost: only failures pay.

use pyo3::exceptions::PyBaseException;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ptr;

/// Runs `body` as an `except` clause that caught `error`.
pub(crate) fn handling<R>(error: &Bound<'_, PyBaseException>, body: impl FnOnce() -> R) -> R {
    let py = error.py();
    // SAFETY: attached; a new reference, or null if none is handled.
    let before =
        unsafe { Bound::<PyAny>::from_owned_ptr_or_opt(py, ffi::PyErr_GetHandledException()) };
    // SAFETY: attached; the argument is an exception, of which a reference is taken.
    unsafe { ffi::PyErr_SetHandledException(error.as_ptr()) };
    let result = body();
    let before = before.as_ref().map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: attached; the argument is an exception or null, for none.
    unsafe { ffi::PyErr_SetHandledException(before) };
    result
}
