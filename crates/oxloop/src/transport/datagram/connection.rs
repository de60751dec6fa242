//! Makes an endpoint's transport, and closes its socket.

use super::queue::SendQueue;
use super::receive::Expectation;
use super::{DatagramState, DatagramThis, DatagramTransport, EndpointKind, extra_info};
use crate::event_loop::EventLoop;
use crate::py::attached::Attached;
use crate::py::class::Ref;
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::socket::SocketObject;
use crate::transport::datagram::peers::Peers;
use crate::transport::selector::SelectorState;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::datagram;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// A bound or connected socket and everything that its transport needs.
pub(crate) struct Opened {
    pub(crate) socket: Py<PyAny>,
    pub(crate) protocol: Py<PyAny>,
    /// The remote address that the endpoint was made for.
    pub(crate) address: Option<Py<PyAny>>,
    /// A future that is done once `connection_made` was called.
    pub(crate) waiter: Py<PyAny>,
    pub(crate) context: Captured,
}

/// Makes the transport and schedules `connection_made`, then reading and the waiter.
///
/// # Errors
/// What the socket object and scheduling raise.
pub(crate) fn start(event_loop: &Bound<'_, EventLoop>, opened: Opened) -> PyResult<Py<PyAny>> {
    let py = event_loop.py();
    event_loop.get().state(py).check_closed()?;
    let object = SocketObject::new(opened.socket.bind(py))?;
    let extra = extra_info::of_socket(py, &object)?;
    let fd = object.number();
    let kind = kind_of(py, &object, &extra)?;
    let sends_runs = kind.native && datagram::sends_runs(fd);
    let address = opened.address;
    let address = match address {
        Some(address) if address.bind(py).is_truthy()? => Some(address),
        _ => None,
    };
    let state = SelectorState::new(
        event_loop,
        fd,
        opened.protocol,
        opened.context,
        Some(opened.waiter),
    );
    let inner = DatagramState {
        state,
        socket: RefCell::new(Some(object)),
        kind,
        address,
        peers: RefCell::new(Peers::new()),
        queue: RefCell::new(SendQueue::new(header_size(py)?, sends_runs)),
        undelivered: RefCell::new(VecDeque::new()),
        expectation: Expectation::new(),
        reading_soon: Cell::new(false),
    };
    let inner = Attached::new(inner);
    let transport = Ref::new(py, DatagramTransport { inner })?;
    let told = transport.as_object().bind(py);
    told.setattr(intern!(py, "_extra"), extra)?;
    SelectorState::enter(py, &transport)?;
    Ok(transport.as_object().clone_ref(py))
}

/// What each datagram adds to the queue's size beside its bytes: eight in later releases of
/// asyncio, else nothing.
fn header_size(py: Python<'_>) -> PyResult<usize> {
    let class = imports::selector_datagram_transport(py)?;
    class
        .getattr_opt("_header_size")?
        .map_or(Ok(0), |size| size.extract())
}

fn kind_of(
    py: Python<'_>,
    socket: &SocketObject,
    extra: &Bound<'_, PyDict>,
) -> PyResult<EndpointKind> {
    let fd = socket.number();
    let family = reactor::socket::socket_family(fd).unwrap_or(libc::AF_UNSPEC);
    let known = matches!(family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX);
    // A subclass may have methods of its own, for a proxy for example.
    let native = known && socket.is_plain();
    let peer = extra.get_item(intern!(py, "peername"))?;
    let peer = peer.filter(|peer| !peer.is_none());
    let connected = peer.as_ref().map_or(Ok(false), PyAnyMethods::is_truthy)?;
    Ok(EndpointKind {
        native,
        family,
        connected,
        paired: peer.is_some() && !connected,
        receives_runs: native && datagram::is_udp(fd) && datagram::receive_runs(fd, true).is_ok(),
    })
}

impl DatagramThis<'_, '_> {
    pub(super) fn close_socket(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let Some(socket) = inner.socket.take() else {
            return Ok(());
        };
        if inner.kind.receives_runs
            && let Ok(fd) = socket.fd(py)
        {
            // A duplicate of the descriptor may live on, whose reader expects one datagram at a
            // time.
            let _ended = datagram::receive_runs(fd, false);
        }
        let socket = socket.object().bind(py);
        socket.call_method0(intern!(py, "close")).map(drop)
    }
}
