//! Errors on their way to Python: one exit from `io::Error`, with errno kept.

use pyo3::exceptions::{PyBaseException, PyBlockingIOError, PyInterruptedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use std::io;

/// An `OSError` of the subclass that belongs to its errno, with the message of strerror(3).
pub(crate) fn os_error(error: &io::Error) -> PyErr {
    error
        .raw_os_error()
        .map_or_else(|| PyOSError::new_err(error.to_string()), errno_error)
}

/// The same from a bare errno.
pub(crate) fn errno_error(errno: i32) -> PyErr {
    errno_error_with(errno, &strerror(errno))
}

/// The same with a text of our own: asyncio words some of its errors.
pub(crate) fn errno_error_with(errno: i32, text: &str) -> PyErr {
    // Called with two arguments, OSError picks the subclass (ConnectionResetError, ...).
    PyOSError::new_err((errno, text.to_owned()))
}

/// strerror(3) without the suffix that Rust adds.
pub(crate) fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let suffix = format!(" (os error {errno})");
    text.strip_suffix(&suffix).unwrap_or(&text).to_owned()
}

/// The exception for Python to keep: 3.11 has its traceback apart from it until somebody asks.
pub(crate) fn caught<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyBaseException> {
    error.clone_ref(py).into_value(py).into_bound(py)
}

/// The errno of an `OSError`, if it has one that is a number.
///
/// # Errors
/// What the exception's attribute raises.
pub(crate) fn errno_of(py: Python<'_>, error: &PyErr) -> PyResult<Option<i32>> {
    if !error.is_instance_of::<PyOSError>(py) {
        return Ok(None);
    }
    let errno = error.value(py).getattr(intern!(py, "errno"))?;
    Ok(errno.extract().ok())
}

/// True for what a method of a socket raises when the kernel has nothing for it now.
pub(crate) fn asks_to_wait(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}
