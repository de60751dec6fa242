//! Converts errors to Python's exceptions, with errno kept, and chooses between the exceptions of a
//! call and of its clean-up.

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

/// As `os_error`, from an errno.
pub(crate) fn errno_error(errno: i32) -> PyErr {
    errno_error_with(errno, &strerror(errno))
}

/// As `errno_error`, with asyncio's own text where it has one for this error.
pub(crate) fn errno_error_with(errno: i32, text: &str) -> PyErr {
    // Called with two arguments, OSError picks the subclass (ConnectionResetError, ...).
    PyOSError::new_err((errno, text.to_owned()))
}

/// The message of strerror(3), without the suffix that Rust adds.
pub(crate) fn strerror(errno: i32) -> String {
    let text = io::Error::from_raw_os_error(errno).to_string();
    let suffix = format!(" (os error {errno})");
    text.strip_suffix(&suffix).unwrap_or(&text).to_owned()
}

/// The exception object, with its traceback: before 3.12 PyO3 adds the traceback only when it gives
/// the object out.
pub(crate) fn caught<'py>(py: Python<'py>, error: &PyErr) -> Bound<'py, PyBaseException> {
    error.clone_ref(py).into_value(py).into_bound(py)
}

/// The exception to raise after a call that failed and its clean-up: the call's, unless only the
/// clean-up's is KeyboardInterrupt or SystemExit.
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
/// The call's, or else the clean-up's; if both failed, as `after_cleanup`.
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

/// As `after_cleanup`, for a destructor, which cannot raise: the coroutine's step raises
/// KeyboardInterrupt and SystemExit for it.
pub(crate) fn cleaned_in_drop<T>(py: Python<'_>, cleaned: PyResult<T>) {
    match cleaned {
        Err(error) if leaves_the_loop(py, &error) => raise_in_step(error),
        Err(error) => show(py, error),
        Ok(_) => {}
    }
}

/// Reports an exception of a clean-up as unraisable. An OSError is dropped, as in asyncio's later
/// releases: nobody can do anything about an error of close(2).
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

/// True for the exceptions of a socket's method that would block.
pub(crate) fn asks_to_wait(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyBlockingIOError>(py) || error.is_instance_of::<PyInterruptedError>(py)
}

/// True for the exceptions that end the run: no handler may swallow them.
pub(crate) fn leaves_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}
