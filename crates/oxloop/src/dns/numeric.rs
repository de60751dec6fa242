//! Answers a numeric host with a numeric port and one kind of socket, without the C library.
//!
//! Only forms that every C library reads alike are accepted: four decimal numbers, or an IPv6
//! address without a zone. Anything else is left to the C library.
//!
//! Cost: only the objects of the answer are allocated.

use super::answer::{family_member, kind_member};
use super::question::Question;
use crate::address;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList, PyString};
use reactor::addr::SocketAddress;
use std::net::{IpAddr, SocketAddrV6};

/// Flags that make no difference to a numeric host and port.
const FLAGS: i32 = libc::AI_PASSIVE | libc::AI_NUMERICHOST | libc::AI_NUMERICSERV;

/// The answer, or None if the C library has to give it.
pub(super) fn answer(py: Python<'_>, question: &Question) -> Option<PyResult<Py<PyAny>>> {
    let number = |value: &Py<PyAny>| value.bind(py).extract::<i32>().ok();
    let kind = number(&question.kind)?;
    let protocol = match kind {
        libc::SOCK_STREAM => libc::IPPROTO_TCP,
        libc::SOCK_DGRAM => libc::IPPROTO_UDP,
        _ => return None,
    };
    let wanted = number(&question.proto)?;
    if (wanted != 0 && wanted != protocol) || number(&question.flags)? & !FLAGS != 0 {
        return None;
    }
    let text = question.host.bind(py).cast_exact::<PyString>().ok()?;
    let host: IpAddr = text.to_str().ok()?.parse().ok()?;
    let family = match host {
        IpAddr::V4(_) => libc::AF_INET,
        IpAddr::V6(_) => libc::AF_INET6,
    };
    let wanted = number(&question.family)?;
    if wanted != libc::AF_UNSPEC && wanted != family {
        return None;
    }
    let port = question.port.bind(py).cast_exact::<PyInt>().ok()?;
    let port_number: u16 = port.extract().ok()?;
    let address = match host {
        // The text that was given is the only one of its address.
        IpAddr::V4(_) => (text, port).into_pyobject(py).map(Bound::into_any),
        IpAddr::V6(host) => {
            let address = SocketAddrV6::new(host, port_number, 0, 0);
            address::to_python(py, &SocketAddress::V6(address))
        }
    };
    Some(address.and_then(|address| list(family, kind, protocol, &address)))
}

fn list(family: i32, kind: i32, protocol: i32, address: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    let py = address.py();
    let info = (
        family_member(py, family)?,
        kind_member(py, kind)?,
        protocol,
        intern!(py, ""),
        address,
    );
    let list = PyList::new(py, [info.into_pyobject(py)?])?;
    Ok(list.into_any().unbind())
}
