//! Converts the C library's answers to those of `socket.getaddrinfo`, and its errors.

use crate::address;
use crate::error::errno_error;
use crate::py::imports;
use pyo3::exceptions::{PyUnicodeDecodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyList, PyString};
use reactor::resolver::{AddrInfo, ResolveError};

/// A list of (family, type, proto, canonname, sockaddr).
///
/// # Errors
/// UnicodeDecodeError for a canonical name that is not UTF-8.
pub(super) fn to_python(py: Python<'_>, found: &[AddrInfo]) -> PyResult<Py<PyAny>> {
    let list = PyList::empty(py);
    for info in found {
        list.append((
            family_member(py, info.family)?,
            kind_member(py, info.socktype)?,
            info.protocol,
            canonical_name(py, info)?,
            address::to_python(py, &info.address)?,
        ))?;
    }
    Ok(list.into_any().unbind())
}

/// A family as the socket module's enum member. Looking up a member takes longer than the rest of
/// an answer, so the usual ones are cached.
pub(super) fn family_member(py: Python<'_>, family: i32) -> PyResult<Bound<'_, PyAny>> {
    static INET: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static INET6: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = imports::address_family(py)?;
    match family {
        libc::AF_INET => kept(&INET, class, family),
        libc::AF_INET6 => kept(&INET6, class, family),
        _ => enum_member(class, family),
    }
}

/// The same for a kind of socket.
pub(super) fn kind_member(py: Python<'_>, kind: i32) -> PyResult<Bound<'_, PyAny>> {
    static STREAM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    static DATAGRAM: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let class = imports::socket_kind(py)?;
    match kind {
        libc::SOCK_STREAM => kept(&STREAM, class, kind),
        libc::SOCK_DGRAM => kept(&DATAGRAM, class, kind),
        _ => enum_member(class, kind),
    }
}

fn kept<'py>(
    place: &PyOnceLock<Py<PyAny>>,
    class: &Bound<'py, PyAny>,
    value: i32,
) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    let member = place.get_or_try_init(py, || enum_member(class, value).map(Bound::unbind))?;
    Ok(member.bind(py).clone())
}

/// The member of an IntEnum, or the number where there is none.
fn enum_member<'py>(class: &Bound<'py, PyAny>, value: i32) -> PyResult<Bound<'py, PyAny>> {
    let py = class.py();
    match class.call1((value,)) {
        // Not what a signal handler raises, which may run in here.
        Err(error) if error.is_instance_of::<PyValueError>(py) => {
            Ok(value.into_pyobject(py)?.into_any())
        }
        member => member,
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

/// `socket.gaierror`, or OSError if the C library says that errno has the error.
pub(super) fn to_error(py: Python<'_>, error: ResolveError) -> PyErr {
    if let Some(errno) = error.errno {
        return errno_error(errno);
    }
    let made = imports::gaierror(py).and_then(|class| class.call1((error.code, error.message())));
    made.map_or_else(|error| error, PyErr::from_value)
}
