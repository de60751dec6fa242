//! What the C library found, as `socket.getaddrinfo` shows it.

use crate::address;
use crate::error::errno_error;
use crate::py::imports;
use pyo3::exceptions::PyUnicodeDecodeError;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString};
use reactor::resolver::{AddrInfo, ResolveError};

/// A list of (family, type, proto, canonname, sockaddr).
///
/// # Errors
/// UnicodeDecodeError for a canonical name that is not UTF-8.
pub(super) fn to_python(py: Python<'_>, found: &[AddrInfo]) -> PyResult<Py<PyAny>> {
    let families = imports::address_family(py)?;
    let kinds = imports::socket_kind(py)?;
    let list = PyList::empty(py);
    for info in found {
        list.append((
            enum_member(families, info.family)?,
            enum_member(kinds, info.socktype)?,
            info.protocol,
            canonical_name(py, info)?,
            address::to_python(py, &info.address)?,
        ))?;
    }
    Ok(list.into_any().unbind())
}

/// The member of an IntEnum, or the number where there is none.
fn enum_member<'py>(class: &Bound<'py, PyAny>, value: i32) -> PyResult<Bound<'py, PyAny>> {
    match class.call1((value,)) {
        Ok(member) => Ok(member),
        Err(_) => Ok(value.into_pyobject(class.py())?.into_any()),
    }
}

fn canonical_name<'py>(py: Python<'py>, info: &AddrInfo) -> PyResult<Bound<'py, PyString>> {
    let bytes = info.canonname.as_deref().unwrap_or_default();
    match std::str::from_utf8(bytes) {
        Ok(name) => Ok(PyString::new(py, name)),
        Err(error) => Err(PyErr::from_value(
            PyUnicodeDecodeError::new_utf8(py, bytes, error)?.into_any(),
        )),
    }
}

/// `socket.gaierror`, or OSError where the C library says to look at errno.
pub(super) fn to_error(py: Python<'_>, error: ResolveError) -> PyErr {
    if let Some(errno) = error.errno {
        return errno_error(errno);
    }
    let made = imports::gaierror(py).and_then(|class| class.call1((error.code, error.message())));
    made.map_or_else(|error| error, PyErr::from_value)
}
