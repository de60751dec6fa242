//! Makes a connection's transport, and closes its descriptor.

use super::accept::Accept;
use super::clients::Acceptor;
use super::room::Room;
use super::{Descriptor, StreamState, StreamThis, StreamTransport, by_object};
use crate::error::{os_error, then_cleaned};
use crate::event_loop::EventLoop;
use crate::py::attached::Attached;
use crate::py::class::Ref;
use crate::py::context::Captured;
use crate::py::slot::Slot;
use crate::transport::delivery::Delivery;
use crate::transport::selector::SelectorState;
use crate::transport::write_queue::WriteQueue;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::addr::SocketAddress;
use reactor::socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

/// A connected socket and everything that its transport needs.
pub(crate) struct Connected {
    pub(crate) descriptor: Descriptor,
    pub(crate) protocol: Py<PyAny>,
    /// A future that is done once `connection_made` was called.
    pub(crate) waiter: Option<Py<PyAny>>,
    pub(crate) peer: Peer,
    pub(crate) acceptor: Option<Acceptor>,
    pub(crate) context: Captured,
}

/// The address of the other end.
pub(crate) enum Peer {
    /// Not known yet: the socket is asked.
    Unknown,
    Address(SocketAddress),
    /// What a socket object's `accept()` returned.
    Name(Py<PyAny>),
}

/// The error that ends a connection.
pub(super) enum FatalError<'a> {
    Os(&'a io::Error),
    Python(PyErr),
}

impl From<FatalError<'_>> for PyErr {
    fn from(error: FatalError<'_>) -> Self {
        match error {
            FatalError::Os(error) => os_error(error),
            FatalError::Python(error) => error,
        }
    }
}

/// Makes the transport and schedules `connection_made`, then reading, then the waiter.
///
/// # Errors
/// What the socket object, the look at the protocol and scheduling raise. A descriptor without a
/// socket object is closed then.
pub(crate) fn start(
    event_loop: &Bound<'_, EventLoop>,
    connected: Connected,
) -> PyResult<Ref<StreamTransport>> {
    let py = event_loop.py();
    event_loop.get().state(py).check_closed()?;
    let fd = connected.descriptor.number();
    let by_object = !connected.descriptor.is_plain();
    let Names { peer, local, extra } = names(py, &connected)?;
    let delivery = Delivery::of(connected.protocol.bind(py))?;
    let accept = Accept::of(connected.acceptor.as_ref());
    let state = SelectorState::new(
        event_loop,
        fd,
        connected.protocol,
        connected.context,
        connected.waiter,
    );
    let inner = StreamState {
        state,
        descriptor: RefCell::new(connected.descriptor),
        by_object,
        delivery: Cell::new(delivery),
        acceptor: RefCell::new(connected.acceptor),
        accept: RefCell::new(accept),
        extra: extra.into(),
        peer: RefCell::new(peer),
        local: RefCell::new(local),
        queue: RefCell::new(WriteQueue::new()),
        room: Room::default(),
        writable: Slot::default(),
        eof: Cell::new(false),
        sendfile: Cell::new(false),
        eof_received: Cell::new(false),
        last_read: Cell::new(0),
    };
    let inner = Attached::new(inner);
    let transport = Ref::new(py, StreamTransport { inner })?;
    if let Some(acceptor) = &*transport.this(py).own().acceptor.borrow() {
        acceptor.clients.attach();
        acceptor.clients.accepting();
    }
    SelectorState::enter(py, &transport)?;
    Ok(transport)
}

/// The addresses of both ends.
struct Names {
    peer: Option<SocketAddress>,
    local: Option<SocketAddress>,
    extra: Option<Py<PyDict>>,
}

/// Asks for the addresses while the descriptor is certainly open, and sets TCP_NODELAY.
///
/// # Errors
/// What the methods of a socket object raise, except for an OSError of `getsockname` or
/// `getpeername`.
fn names(py: Python<'_>, connected: &Connected) -> PyResult<Names> {
    let extra = match &connected.peer {
        Peer::Unknown | Peer::Address(_) => None,
        Peer::Name(name) => {
            let extra = PyDict::new(py);
            extra.set_item(intern!(py, "peername"), name)?;
            Some(extra)
        }
    };
    if let Descriptor::Socket(socket) = &connected.descriptor
        && !socket.is_plain()
    {
        let extra = extra.unwrap_or_else(|| PyDict::new(py));
        by_object::ask_names(socket.object().bind(py), &extra)?;
        return Ok(Names {
            peer: None,
            local: None,
            extra: Some(extra.unbind()),
        });
    }
    let fd = connected.descriptor.number();
    let peer = match &connected.peer {
        Peer::Address(address) => Some(address.clone()),
        Peer::Unknown | Peer::Name(_) => socket::peer_address(fd).ok(),
    };
    disable_nagle(fd, peer.as_ref());
    // A descriptor that nobody else has can be asked for its address later.
    let own = matches!(connected.descriptor, Descriptor::Own(..));
    Ok(Names {
        peer,
        local: if own {
            None
        } else {
            socket::local_address(fd).ok()
        },
        extra: extra.map(Bound::unbind),
    })
}

/// Small writes should not wait for the peer's acknowledgement. An error is ignored.
fn disable_nagle(fd: RawFd, peer: Option<&SocketAddress>) {
    if let Some(SocketAddress::V4(_) | SocketAddress::V6(_)) = peer {
        let _ignored = socket::set_nodelay(fd, true);
    }
}

impl StreamThis<'_, '_> {
    /// Asks for the local address before somebody else can close the descriptor.
    pub(super) fn remember_local(&self) {
        let inner = self.own();
        if let Descriptor::Own(fd, _) = &*inner.descriptor.borrow() {
            *inner.local.borrow_mut() = socket::local_address(fd.as_raw_fd()).ok();
        }
    }

    /// Takes the descriptor out, and leaves its `Past` in its place.
    pub(super) fn take_descriptor(&self) -> Descriptor {
        self.remember_local();
        let descriptor = &self.own().descriptor;
        let past = descriptor.borrow().past(self.py());
        descriptor.replace(Descriptor::Closed(past))
    }

    /// Closes the descriptor, ends the accept, and counts the transport out of its server's
    /// clients.
    pub(super) fn close_descriptor(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let closed = self.take_descriptor().close(py);
        let accepted = self.accept_is_over();
        let acceptor = inner.acceptor.take();
        let left = acceptor.map_or(Ok(()), |acceptor| acceptor.clients.detach(py));
        then_cleaned(py, then_cleaned(py, closed, accepted), left)
    }
}
