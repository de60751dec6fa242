//! Translates peers' addresses between Python's objects and the kernel's: each only once.
//!
//! A server answers to the very tuple that it was called with, so a tuple is found by its identity;
//! the sender of a datagram is found by its address. At most `PLACES` peers are remembered: when
//! one more comes, all are forgotten.

use crate::address::to_python;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use reactor::addr::{SocketAddress, UnixName};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};
use std::str::FromStr;

/// Most peers that are remembered.
const PLACES: usize = 1024;
/// Largest IPv6 flow label.
const FLOWINFO_MOST: u32 = 0xf_ffff;

/// The two translations of one transport.
pub(super) struct Peers {
    /// The sender of the latest datagram.
    latest: Option<(SocketAddress, Py<PyAny>)>,
    by_address: HashMap<SocketAddress, Py<PyAny>>,
    /// The same objects, which `by_address` keeps alive, by their identity.
    by_object: HashMap<usize, SocketAddress>,
    /// The latest address that the program made itself, and its translation.
    target: Option<(Py<PyAny>, SocketAddress)>,
}

impl Peers {
    pub(super) fn new() -> Self {
        Self {
            latest: None,
            by_address: HashMap::new(),
            by_object: HashMap::new(),
            target: None,
        }
    }

    /// The object of a sender that is known.
    #[inline]
    fn known<'py>(&self, py: Python<'py>, from: &SocketAddress) -> Option<Bound<'py, PyAny>> {
        if let Some((address, object)) = &self.latest
            && address == from
        {
            return Some(object.bind(py).clone());
        }
        self.by_address
            .get(from)
            .map(|object| object.bind(py).clone())
    }

    fn learn(&mut self, from: &SocketAddress, object: &Bound<'_, PyAny>) {
        if self.by_address.len() == PLACES {
            self.by_object.clear();
            self.by_address.clear();
        }
        self.by_object
            .insert(object.as_ptr() as usize, from.clone());
        let known = object.clone().unbind();
        self.by_address.insert(from.clone(), known);
    }

    /// The kernel's form of an address that the program sends to; `None` for what only the socket
    /// object can translate or refuse.
    #[inline]
    pub(super) fn address(
        &mut self,
        object: &Bound<'_, PyAny>,
        family: i32,
    ) -> Option<SocketAddress> {
        if let Some((known, address)) = &self.target
            && known.is(object)
        {
            return Some(address.clone());
        }
        if let Some(address) = self.by_object.get(&(object.as_ptr() as usize)) {
            return Some(address.clone());
        }
        let address = to_kernel(object, family)?;
        self.target = Some((object.clone().unbind(), address.clone()));
        Some(address)
    }
}

/// The address of a received datagram for the program.
///
/// # Errors
/// As `address::to_python`.
#[inline]
pub(super) fn object_of<'py>(
    py: Python<'py>,
    peers: &RefCell<Peers>,
    from: Option<SocketAddress>,
) -> PyResult<Bound<'py, PyAny>> {
    let Some(from) = from else {
        return Ok(py.None().into_bound(py));
    };
    let known = peers.borrow().known(py, &from);
    let object = match known {
        Some(object) => object,
        None => {
            // Runs Python code.
            let object = to_python(py, &from)?;
            peers.borrow_mut().learn(&from, &object);
            object
        }
    };
    peers.borrow_mut().latest = Some((from, object.clone().unbind()));
    Ok(object)
}

/// Translates what needs no name lookup: a tuple with a numeric host, or a Unix name. Only
/// immutable objects, so that the same object is the same address later.
fn to_kernel(object: &Bound<'_, PyAny>, family: i32) -> Option<SocketAddress> {
    match family {
        libc::AF_INET => v4(object),
        libc::AF_INET6 => v6(object),
        libc::AF_UNIX => unix(object),
        _ => None,
    }
}

fn v4(object: &Bound<'_, PyAny>) -> Option<SocketAddress> {
    let tuple = object.cast_exact::<PyTuple>().ok()?;
    if tuple.len() != 2 {
        return None;
    }
    let host: Ipv4Addr = text(tuple, 0)?;
    let address = SocketAddrV4::new(host, number(tuple, 1)?.try_into().ok()?);
    Some(SocketAddress::V4(address))
}

fn v6(object: &Bound<'_, PyAny>) -> Option<SocketAddress> {
    let tuple = object.cast_exact::<PyTuple>().ok()?;
    if !(2..=4).contains(&tuple.len()) {
        return None;
    }
    let host: Ipv6Addr = text(tuple, 0)?;
    let port = number(tuple, 1)?.try_into().ok()?;
    let optional = |index| {
        if index < tuple.len() {
            number(tuple, index)
        } else {
            Some(0)
        }
    };
    let flowinfo = optional(2).filter(|flowinfo| *flowinfo <= FLOWINFO_MOST)?;
    let address = SocketAddrV6::new(host, port, flowinfo, optional(3)?);
    Some(SocketAddress::V6(address))
}

fn unix(object: &Bound<'_, PyAny>) -> Option<SocketAddress> {
    let name = if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        UnixName::from_python_bytes(bytes.as_bytes())
    } else {
        // A text that is not ASCII is left to Python, which knows the file system's encoding.
        let text = object.cast_exact::<PyString>().ok()?.to_str().ok()?;
        if !text.is_ascii() {
            return None;
        }
        UnixName::from_python_bytes(text.as_bytes())
    };
    match name {
        Ok(UnixName::Unnamed) | Err(_) => None,
        Ok(name) => Some(SocketAddress::Unix(name)),
    }
}

fn text<T: FromStr>(tuple: &Bound<'_, PyTuple>, index: usize) -> Option<T> {
    let item = tuple.get_borrowed_item(index).ok()?;
    let item = item.cast_exact::<PyString>().ok()?;
    item.to_str().ok()?.parse().ok()
}

fn number(tuple: &Bound<'_, PyTuple>, index: usize) -> Option<u32> {
    let item = tuple.get_borrowed_item(index).ok()?;
    item.cast_exact::<PyInt>().ok()?.extract().ok()
}
