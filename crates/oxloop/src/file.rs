//! `stat`, `unlink` and `fstat`, with the exceptions of the `os` module.
//!
//! The reactor makes the system calls. The functions of `os` cannot be called here: programs that
//! look for blocking calls replace them, and allow them in asyncio's own frames only.
//!
//! Cost: one system call, without the GIL. Differs from the `os` module: no audit event.

use crate::error::{os_error, strerror};
use crate::py::imports;
use pyo3::exceptions::{PyFileNotFoundError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use reactor::file::{self, Status};
use std::ffi::OsString;
use std::io;
use std::os::fd::RawFd;
use std::os::unix::ffi::OsStringExt;

/// `os.stat` of a `str` or `bytes`.
///
/// # Errors
/// OSError; ValueError for a NUL in the path.
pub(crate) fn stat(path: &Bound<'_, PyAny>) -> PyResult<Status> {
    let name = bytes_of(path)?;
    let status = path.py().detach(|| file::stat(&name));
    status.map_err(|error| error_at(path, &error))
}

/// Unlinks `path` if `is_meant` says so of the file. There may be none; any other OSError is logged
/// with `text`.
///
/// # Errors
/// What is no OSError: ValueError for a NUL in the path.
pub(crate) fn unlink_if(
    path: &Bound<'_, PyAny>,
    text: &str,
    is_meant: impl FnOnce(&Status) -> bool,
) -> PyResult<()> {
    let py = path.py();
    let unlinked = stat(path).and_then(|status| {
        if is_meant(&status) {
            return unlink(path);
        }
        Ok(())
    });
    match unlinked {
        Err(error) if error.is_instance_of::<PyFileNotFoundError>(py) => Ok(()),
        Err(error) if error.is_instance_of::<PyOSError>(py) => imports::logger(py)?
            .call_method1("error", (text, path, error.value(py)))
            .map(drop),
        outcome => outcome,
    }
}

/// `os.unlink` of a `str` or `bytes` that [`stat`] took.
fn unlink(path: &Bound<'_, PyAny>) -> PyResult<()> {
    let name = bytes_of(path)?;
    let removed = path.py().detach(|| file::unlink(&name));
    removed.map_err(|error| error_at(path, &error))
}

/// `os.fstat`.
///
/// # Errors
/// OSError.
pub(crate) fn fstat(py: Python<'_>, fd: RawFd) -> PyResult<Status> {
    py.detach(|| file::fstat(fd))
        .map_err(|error| os_error(&error))
}

/// The bytes that the kernel gets for a path.
fn bytes_of(path: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let name = match path.cast::<PyBytes>() {
        Ok(bytes) => bytes.as_bytes().to_vec(),
        Err(_) => path.extract::<OsString>()?.into_vec(),
    };
    if !name.contains(&0) {
        return Ok(name);
    }
    let text = if cfg!(Py_3_13) || path.is_instance_of::<PyBytes>() {
        "stat: embedded null character in path"
    } else {
        "embedded null byte"
    };
    Err(PyValueError::new_err(text))
}

/// An OSError that names the path. The object is made at once: of a lazy error, Python 3.11 would
/// know only the class OSError, not the subclass that it becomes.
fn error_at(path: &Bound<'_, PyAny>, error: &io::Error) -> PyErr {
    let Some(errno) = error.raw_os_error() else {
        return os_error(error);
    };
    let class = path.py().get_type::<PyOSError>();
    class
        .call1((errno, strerror(errno), path))
        .map_or_else(|error| error, PyErr::from_value)
}
