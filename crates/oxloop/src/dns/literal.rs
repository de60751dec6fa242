//! Recognises addresses that need no lookup. `create_connection` and others check this before they
//! call `loop.getaddrinfo`.

use super::await_python;
use crate::event_loop::EventLoop;
use crate::py::imports;
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyInt, PyList, PySlice, PyString, PyTuple};
use std::net::{Ipv4Addr, Ipv6Addr};

/// The arguments of a lookup except for host and port.
pub(crate) struct Wanted {
    pub(crate) family: Py<PyAny>,
    pub(crate) kind: Py<PyAny>,
    pub(crate) proto: Py<PyAny>,
    pub(crate) flags: Py<PyAny>,
}

impl Wanted {
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            family: self.family.clone_ref(py),
            kind: self.kind.clone_ref(py),
            proto: self.proto.clone_ref(py),
            flags: self.flags.clone_ref(py),
        }
    }
}

/// The address infos of `address`, a sequence of host, port and what follows them. A numeric host
/// is not looked up; otherwise `loop.getaddrinfo` is called as an attribute, so that a program's
/// own method is called.
///
/// # Errors
/// What `loop.getaddrinfo` raises; TypeError and ValueError for what is no address.
pub(crate) async fn ensure_resolved(
    this: &Py<EventLoop>,
    address: Py<PyAny>,
    wanted: &Wanted,
) -> PyResult<Py<PyAny>> {
    let asked = Python::attach(|py| resolve_or_ask(this.bind(py), address.bind(py), wanted))?;
    match asked {
        Asked::Resolved(infos) => Ok(infos),
        Asked::Looking(lookup) => await_python(lookup).await,
    }
}

enum Asked {
    Resolved(Py<PyAny>),
    Looking(Py<PyAny>),
}

fn resolve_or_ask(
    this: &Bound<'_, EventLoop>,
    address: &Bound<'_, PyAny>,
    wanted: &Wanted,
) -> PyResult<Asked> {
    let py = this.py();
    if !address.is_instance_of::<PyTuple>() {
        // A set, for example, is iterable and yet no address.
        address.get_item(PySlice::new(py, 0, 2, 1))?;
    }
    let parts = address.try_iter()?.collect::<PyResult<Vec<_>>>()?;
    let [host, port, rest @ ..] = &parts[..] else {
        return Err(PyValueError::new_err(format!(
            "not enough values to unpack (expected 2, got {})",
            parts.len()
        )));
    };
    if let Some(info) = literal_info(host, port, rest, wanted)? {
        return Ok(Asked::Resolved(
            PyList::new(py, [info])?.into_any().unbind(),
        ));
    }
    let kwargs = PyDict::new(py);
    kwargs.set_item(intern!(py, "family"), &wanted.family)?;
    kwargs.set_item(intern!(py, "type"), &wanted.kind)?;
    kwargs.set_item(intern!(py, "proto"), &wanted.proto)?;
    kwargs.set_item(intern!(py, "flags"), &wanted.flags)?;
    let lookup = this.call_method(intern!(py, "getaddrinfo"), (host, port), Some(&kwargs))?;
    Ok(Asked::Looking(lookup.unbind()))
}

/// The address info of a numeric host, or None if the resolver has to decide.
fn literal_info<'py>(
    host: &Bound<'py, PyAny>,
    port: &Bound<'py, PyAny>,
    rest: &[Bound<'py, PyAny>],
    wanted: &Wanted,
) -> PyResult<Option<Bound<'py, PyTuple>>> {
    let py = host.py();
    if rest.len() > 2 {
        return Err(PyTypeError::new_err("too many parts of an address"));
    }
    let (kind, proto) = (wanted.kind.bind(py), wanted.proto.bind(py));
    if !is_known_protocol(proto)? || host.is_none() {
        return Ok(None);
    }
    let proto = match kind.extract::<i32>() {
        Ok(libc::SOCK_STREAM) => "IPPROTO_TCP",
        Ok(libc::SOCK_DGRAM) => "IPPROTO_UDP",
        _ => return Ok(None),
    };
    let proto = imports::socket(py)?.getattr(proto)?;
    let Some(port) = numeric_port(port)? else {
        return Ok(None);
    };
    let host = match host.cast::<PyBytes>() {
        Ok(bytes) => bytes.call_method1(intern!(py, "decode"), ("idna",))?,
        Err(_) => host.clone(),
    };
    // inet_pton(3) knows no zones; the resolver does.
    if host.contains("%")? {
        return Ok(None);
    }
    let Some(family) = family_of(&host, wanted.family.bind(py))? else {
        return Ok(None);
    };
    let name = PyString::new(py, "");
    let address = if family.extract::<i32>().is_ok_and(|it| it == libc::AF_INET6) {
        let zero = 0_i32.into_pyobject(py)?.into_any();
        let flow = rest.first().unwrap_or(&zero);
        let scope = rest.get(1).unwrap_or(&zero);
        (host, port, flow, scope).into_pyobject(py)?
    } else {
        (host, port).into_pyobject(py)?
    };
    (family, kind, proto, name, address)
        .into_pyobject(py)
        .map(Some)
}

/// Whether asyncio finds `proto` in its set of protocols.
fn is_known_protocol(proto: &Bound<'_, PyAny>) -> PyResult<bool> {
    let known = [0, libc::IPPROTO_TCP, libc::IPPROTO_UDP];
    if proto.is_exact_instance_of::<PyInt>() {
        let number = proto.extract::<i32>();
        return Ok(number.is_ok_and(|number| known.contains(&number)));
    }
    PyFrozenSet::new(proto.py(), known)?.contains(proto)
}

/// The port as a number, or None for the name of a service.
fn numeric_port<'py>(port: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = port.py();
    if port.is_exact_instance_of::<PyInt>() {
        return Ok(Some(port.clone()));
    }
    let text = port.is_instance_of::<PyBytes>() || port.is_instance_of::<PyString>();
    if port.is_none() || (text && port.len()? == 0) {
        return Ok(Some(0_i32.into_pyobject(py)?.into_any()));
    }
    match py.get_type::<PyInt>().call1((port,)) {
        Ok(number) => Ok(Some(number)),
        Err(error)
            if error.is_instance_of::<PyTypeError>(py)
                || error.is_instance_of::<PyValueError>(py) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The family that `host` is a numeric address of, among those that are wanted.
fn family_of<'py>(
    host: &Bound<'py, PyAny>,
    wanted: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let socket = imports::socket(host.py())?;
    if !wanted.eq(libc::AF_UNSPEC)? {
        return Ok(is_address(host, wanted)?.then(|| wanted.clone()));
    }
    for name in ["AF_INET", "AF_INET6"] {
        let family = socket.getattr(name)?;
        if is_address(host, &family)? {
            return Ok(Some(family));
        }
    }
    Ok(None)
}

/// Whether inet_pton(3) accepts `host`. Anything but a plain `str` is left to the socket module,
/// which refuses some of it.
fn is_address(host: &Bound<'_, PyAny>, family: &Bound<'_, PyAny>) -> PyResult<bool> {
    let plain = host.cast_exact::<PyString>().ok();
    let text = plain.and_then(|text| text.to_str().ok());
    match (text, family.extract::<i32>()) {
        (Some(text), Ok(libc::AF_INET)) if !text.contains('\0') => {
            Ok(text.parse::<Ipv4Addr>().is_ok())
        }
        (Some(text), Ok(libc::AF_INET6)) if !text.contains('\0') => {
            Ok(text.parse::<Ipv6Addr>().is_ok())
        }
        _ => match imports::socket(host.py())?.call_method1("inet_pton", (family, host)) {
            Ok(_) => Ok(true),
            Err(error) if error.is_instance_of::<PyOSError>(host.py()) => Ok(false),
            Err(error) => Err(error),
        },
    }
}

/// Whether `address` is what the resolver gives for `family`: a numeric host, a port, and for IPv6
/// the flow information and scope id.
pub(crate) fn is_resolved(family: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> bool {
    let length = match family.extract() {
        Ok(libc::AF_INET) => 2,
        Ok(libc::AF_INET6) => 4,
        _ => return false,
    };
    let Ok(address) = address.cast_exact::<PyTuple>() else {
        return false;
    };
    let numbers = address.iter().skip(1);
    address.len() == length
        && address
            .get_item(0)
            .is_ok_and(|host| is_address(&host, family).unwrap_or(false))
        && numbers
            .into_iter()
            .all(|it| it.is_exact_instance_of::<PyInt>())
}
