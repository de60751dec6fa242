//! Errors on their way to Python: one exit from `io::Error`, with errno kept.

use crate::py::coroutine::raise_in_step;
use pyo3::exceptions::{
    PyBaseException, PyBlockingIOError, PyInterruptedError, PyKeyboardInterrupt, PyOSError,
    PySystemExit,
};
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

/// The exception of a call that failed, once it has cleaned up: what the clean-up raises does not
/// replace it, unless that is an interruption.
pub(crate) fn after_cleanup<T>(py: Python<'_>, error: PyErr, cleaned: PyResult<T>) -> PyErr {
    match cleaned {
        Err(later) if leaves_the_loop(py, &later) && !leaves_the_loop(py, &error) => later,
        Err(later) => {
            show(py, later);
            error
        }
        Ok(_) => error,
    }
}

/// The outcome of a call and of the clean-up that follows it in any case.
///
/// # Errors
/// The call's own, or else the clean-up's.
pub(crate) fn then_cleaned<T>(
    py: Python<'_>,
    outcome: PyResult<T>,
    cleaned: PyResult<()>,
) -> PyResult<T> {
    match outcome {
        Ok(value) => cleaned.map(|()| value),
        Err(error) => Err(after_cleanup(py, error, cleaned)),
    }
}

/// As `after_cleanup`, in a destructor, while the exception is on its way: the step of a coroutine
/// raises an interruption.
pub(crate) fn cleaned_in_drop<T>(py: Python<'_>, cleaned: PyResult<T>) {
    match cleaned {
        Err(error) if leaves_the_loop(py, &error) => raise_in_step(error),
        Err(error) => show(py, error),
        Ok(_) => {}
    }
}

/// Nobody can do anything about what close(2) says; asyncio's later releases drop it too.
fn show(py: Python<'_>, error: PyErr) {
    if !error.is_instance_of::<PyOSError>(py) {
        error.write_unraisable(py, None);
    }
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

/// True for the exceptions that no handler may swallow.
pub(crate) fn leaves_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}
