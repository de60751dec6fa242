//! Asks a socket object for the addresses of both ends, and asyncio's method for what it knows.

use crate::py::class::{Native, This};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PySuper};

/// Puts `sockname` and `peername` into `extra`, None if the socket raises OSError. A `peername`
/// that is there already stays.
///
/// # Errors
/// What the socket's methods raise, except for an OSError.
pub(in crate::transport) fn ask_names(
    socket: &Bound<'_, PyAny>,
    extra: &Bound<'_, PyDict>,
) -> PyResult<()> {
    let py = socket.py();
    let local = socket.call_method0(intern!(py, "getsockname"));
    extra.set_item(intern!(py, "sockname"), unless_os_error(py, local)?)?;
    let peername = intern!(py, "peername");
    if extra.contains(peername)? {
        return Ok(());
    }
    let peer = socket.call_method0(intern!(py, "getpeername"));
    extra.set_item(peername, unless_os_error(py, peer)?)
}

fn unless_os_error<'py>(
    py: Python<'py>,
    asked: PyResult<Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    match asked {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_instance_of::<PyOSError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Calls asyncio's `get_extra_info`, or what a test has put in its place, with the arguments given.
///
/// # Errors
/// What it raises.
pub(in crate::transport) fn ask_inherited<'py, T: Native>(
    this: &This<'_, 'py, T>,
    name: &Bound<'py, PyAny>,
    default: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let parent = PySuper::new(&T::class().type_object(py), &this.object())?;
    let method = intern!(py, "get_extra_info");
    match default {
        Some(default) => parent.call_method1(method, (name, default)),
        None => parent.call_method1(method, (name,)),
    }
}
