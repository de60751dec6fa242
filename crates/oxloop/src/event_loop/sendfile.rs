//! The system calls of `loop.sendfile` and `loop.sock_sendfile`; the waiting between them is in
//! `python/oxloop/_sendfile.py`.
//!
//! Cost: one system call each, without the GIL, as in the `os` module: a file may be on a slow disk
//! and a socket may block.

use crate::error::os_error;
use crate::file;
use pyo3::prelude::*;
use pyo3::types::PyModule;
use std::io::ErrorKind;
use std::os::fd::RawFd;

/// Adds the functions that the Python part imports; called once, at import.
pub(crate) fn add_functions(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_function(wrap_pyfunction!(_file_size, module)?)?;
    module.add_function(wrap_pyfunction!(_send_file, module)?)?;
    module.add_function(wrap_pyfunction!(_set_position, module)?)
}

/// The size of an open file, by its descriptor.
#[pyfunction]
fn _file_size(py: Python<'_>, file: RawFd) -> PyResult<i64> {
    Ok(file::fstat(py, file)?.size)
}

/// Send a part of an open file to a socket, by their descriptors; return the number of bytes sent,
/// or None if the socket takes nothing now.
#[pyfunction]
fn _send_file(
    py: Python<'_>,
    sock: RawFd,
    file: RawFd,
    offset: i64,
    count: usize,
) -> PyResult<Option<usize>> {
    loop {
        let sent = py.detach(|| reactor::file::sendfile(sock, file, offset as u64, count));
        match sent {
            Ok(sent) => return Ok(Some(sent)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            // PEP 475: a handler may raise, otherwise the call is made again.
            Err(error) if error.kind() == ErrorKind::Interrupted => py.check_signals()?,
            Err(error) => return Err(os_error(&error)),
        }
    }
}

/// Set the position of an open file, by its descriptor.
#[pyfunction]
fn _set_position(py: Python<'_>, file: RawFd, offset: i64) -> PyResult<()> {
    py.detach(|| reactor::file::seek(file, offset as u64))
        .map_err(|error| os_error(&error))
}
