//! `StreamTransport`: a connected TCP or Unix stream socket, `asyncio.Transport` by inheritance.
//!
//! | asyncio's method | file |
//! |---|---|
//! | data_received, get_buffer, buffer_updated, eof_received | `read` |
//! | feeding `asyncio.StreamReader` | `reader` |
//! | feeding TLS | `read` |
//! | write, writelines, write_eof | `write` |
//! | how much may wait for the end of the batch | `room` |
//! | connection_made | `connection` |
//! | the task that accepts it, its server | `accept`, `clients` |
//! | get_extra_info | `extra_info` |
//! | the transport's part of `loop.sendfile` | `sendfile` |
//! | all of it through the methods of a socket object | `by_object` |
//! | all that datagrams have too | `transport::selector` |
//!
//! Invariants:
//! - the descriptor has one owner, `Descriptor`, and is closed in the deferred `connection_lost`
//!   (or by the finalizer of a transport that was never closed), never by the collector.
//! - nothing is borrowed while a protocol's method runs.
//! - the program can close a socket object behind the transport's back, and its number may belong
//!   to another file then. So the kernel is called with what `fd` returns, which is EBADF once the
//!   object has another descriptor or none. If a socket is not plain (`py::socket`), its own
//!   methods are called instead.
//!
//! Cost: reading is recv(2) into the loop's scratch memory and one `bytes`; writing one send(2) for
//! all that a batch wrote. No epoll_ctl(2) after the connection's first, unless the peer is
//! slow.
//!
//! Differs from asyncio: see the table in docs/compatibility.md (writes leave when the
//! batch ends; a `bytearray` is copied when it is queued; a context per connection).

mod accept;
mod by_object;
mod clients;
mod connection;
mod extra_info;
mod read;
mod reader;
mod room;
mod sendfile;
mod write;

use crate::event_loop::metrics::ConnectionKind;
use crate::event_loop::snapshot::Backlog;
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Slots, This, Visit, VisitStopped, create};
use crate::py::file::Known;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::slot::Slot;
use crate::py::socket::{SocketKind, SocketObject, no_descriptor};
use crate::transport::delivery::Delivery;
use crate::transport::flow_control::{FlowControl, FlowControlled};
use crate::transport::polled::{Polled, PolledState};
use crate::transport::selector::{self, SelectorState, SelectorTransport};
use crate::transport::write_queue::WriteQueue;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use reactor::addr::SocketAddress;
use std::cell::{Cell, RefCell};
use std::io;
use std::ops::Deref;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use accept::Accept;
use room::Room;

pub(crate) use clients::{Acceptor, Clients};
pub(crate) use connection::{Connected, Peer, start};

/// A borrowed transport while one of its methods runs.
pub(crate) type StreamThis<'a, 'py> = This<'a, 'py, StreamTransport>;

/// Who owns the descriptor.
pub(crate) enum Descriptor {
    /// Accepted here, and no Python socket object was asked for.
    Own(OwnedFd, SocketKind),
    /// A `socket.socket`, the program's or made for `get_extra_info("socket")`.
    Socket(SocketObject),
    Closed(Past),
}

/// What is kept of a closed descriptor, for `get_extra_info("socket")`.
pub(crate) enum Past {
    Own(SocketKind),
    Socket(Py<PyAny>),
}

/// The payload of a transport object.
pub(crate) struct StreamTransport {
    inner: Attached<StreamState>,
}

struct StreamState {
    state: SelectorState,
    descriptor: RefCell<Descriptor>,
    /// The socket object is not plain: its own methods are called.
    by_object: bool,
    delivery: Cell<Delivery>,
    acceptor: RefCell<Option<Acceptor>>,
    /// Whether the server is still accepting it.
    accept: RefCell<Accept>,
    extra: Slot<PyDict>,
    /// Known from the start: the kernel does not tell it any more after a reset.
    peer: RefCell<Option<SocketAddress>>,
    /// Known once the program could close the descriptor, see `remember_local`.
    local: RefCell<Option<SocketAddress>>,
    queue: RefCell<WriteQueue>,
    /// What the kernel has promised to take of it.
    room: Room,
    /// `sendfile`'s future, which is done when the queue is empty and the socket takes more.
    writable: Slot,
    /// `write_eof` was called.
    eof: Cell<bool>,
    /// A file is being sent past the queue.
    sendfile: Cell<bool>,
    /// The peer's EOF was delivered and the protocol keeps the connection open.
    eof_received: Cell<bool>,
    /// Size of the latest read, which tells bulk transfers from messages.
    last_read: Cell<usize>,
}

/// In place of inheritance: asyncio's class has `_SelectorTransport` as its base.
impl Deref for StreamState {
    type Target = SelectorState;

    #[inline(always)]
    fn deref(&self) -> &SelectorState {
        &self.state
    }
}

static CLASS: Class = Class::new();

impl Native for StreamTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let inner = self.inner.during_collection(visit);
        inner.state.traverse(visit)?;
        inner.extra.traverse(visit)?;
        inner.writable.traverse(visit)?;
        if let Ok(acceptor) = inner.acceptor.try_borrow() {
            visit.option(acceptor.as_ref().map(|acceptor| &acceptor.server))?;
        }
        if let Ok(accept) = inner.accept.try_borrow() {
            accept.traverse(visit)?;
        }
        if let Ok(descriptor) = inner.descriptor.try_borrow() {
            descriptor.traverse(visit)?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        let inner = self.inner.get(py);
        inner.state.clear(py);
        inner.extra.set(None);
        inner.writable.set(None);
        drop(inner.acceptor.take());
        drop(inner.accept.take());
    }

    fn finalize(this: &This<'_, '_, Self>) {
        this.finalize();
    }
}

impl StreamTransport {
    pub(crate) fn belongs_to(&self, py: Python<'_>, clients: &Rc<Clients>) -> bool {
        let acceptor = self.inner.get(py).acceptor.borrow();
        let own = acceptor.as_ref().map(|acceptor| &acceptor.clients);
        own.is_some_and(|own| Rc::ptr_eq(own, clients))
    }
}

impl Descriptor {
    /// True if the kernel may be called in place of a socket object's methods.
    const fn is_plain(&self) -> bool {
        match self {
            Self::Socket(socket) => socket.is_plain(),
            Self::Own(..) | Self::Closed(_) => true,
        }
    }

    fn number(&self) -> RawFd {
        match self {
            Self::Own(fd, _) => fd.as_raw_fd(),
            Self::Socket(socket) => socket.number(),
            Self::Closed(_) => -1,
        }
    }

    /// True if somebody else holds the socket object, see `SocketObject::is_shared`.
    #[inline]
    fn is_shared(&self, py: Python<'_>) -> bool {
        matches!(self, Self::Socket(socket) if socket.is_shared(py))
    }

    /// For the collector.
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Socket(socket) => socket.traverse(visit),
            Self::Closed(Past::Socket(socket)) => visit.object(socket),
            Self::Own(..) | Self::Closed(Past::Own(_)) => Ok(()),
        }
    }

    /// What is kept of it once it is closed.
    fn past(&self, py: Python<'_>) -> Past {
        match self {
            Self::Own(_, kind) | Self::Closed(Past::Own(kind)) => Past::Own(*kind),
            Self::Socket(socket) => Past::Socket(socket.object().clone_ref(py)),
            Self::Closed(Past::Socket(socket)) => Past::Socket(socket.clone_ref(py)),
        }
    }

    /// Closes the descriptor, through its Python object where there is one.
    ///
    /// # Errors
    /// What the socket object's close() raises.
    pub(crate) fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Own(fd, _) => drop(fd),
            Self::Socket(socket) => {
                socket
                    .object()
                    .bind(py)
                    .call_method0(intern!(py, "close"))?;
            }
            Self::Closed(_) => {}
        }
        Ok(())
    }
}

impl Polled for StreamTransport {
    #[inline]
    fn polled(&self, py: Python<'_>) -> &PolledState {
        &self.inner.get(py).polled
    }

    fn connection_kind(this: &StreamThis<'_, '_>) -> ConnectionKind {
        match &*this.own().peer.borrow() {
            Some(SocketAddress::Unix(_)) => ConnectionKind::Unix,
            _ => ConnectionKind::Tcp,
        }
    }

    fn backlog(this: &StreamThis<'_, '_>) -> Backlog {
        this.backlog_of_queue()
    }

    #[inline]
    fn on_event(this: &StreamThis<'_, '_>, readable: bool, writable: bool) -> PyResult<()> {
        if readable && this.wants_to_read() {
            this.read_ready()?;
        }
        if writable && this.own().queue.borrow().is_blocked() {
            this.write_ready()?;
        }
        if writable && this.own().sendfile.get() {
            this.wake_sendfile()?;
        }
        this.drop_unwanted(readable, writable);
        Ok(())
    }

    #[inline]
    fn flush(this: &StreamThis<'_, '_>) {
        this.flush();
    }

    fn close(this: &StreamThis<'_, '_>) -> PyResult<()> {
        this.close()
    }

    fn protocol_changes(this: &StreamThis<'_, '_>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        let delivery = Delivery::of(protocol)?;
        // The old one is the one to pause.
        this.send_now()?;
        this.own().delivery.set(delivery);
        Ok(())
    }

    fn fail(this: &StreamThis<'_, '_>, error: Py<PyAny>) -> PyResult<()> {
        this.force_close(Some(error))
    }

    fn known(this: &StreamThis<'_, '_>) -> Known {
        match &*this.own().descriptor.borrow() {
            Descriptor::Socket(socket) => socket.known(this.py()),
            Descriptor::Own(..) | Descriptor::Closed(_) => Known::Kept,
        }
    }

    fn is_closed(this: &StreamThis<'_, '_>) -> bool {
        matches!(&*this.own().descriptor.borrow(), Descriptor::Closed(_))
    }

    fn close_file(this: &StreamThis<'_, '_>) -> PyResult<()> {
        this.close_descriptor()
    }

    fn forget(this: &StreamThis<'_, '_>) -> PyResult<()> {
        Self::drop_unsent(this);
        this.fail_sendfile()
    }
}

impl FlowControlled for StreamTransport {
    #[inline]
    fn flow(&self, py: Python<'_>) -> &FlowControl {
        &self.inner.get(py).flow
    }

    #[inline]
    fn queued(this: &StreamThis<'_, '_>) -> usize {
        this.own().queue.borrow().size()
    }

    fn send_written(this: &StreamThis<'_, '_>) -> PyResult<()> {
        this.loop_state().flush(this.py());
        this.flush();
        Ok(())
    }
}

impl SelectorTransport for StreamTransport {
    fn is_accepted(this: &StreamThis<'_, '_>) -> bool {
        this.own().acceptor.borrow().is_some()
    }

    #[inline]
    fn selector_state(&self, py: Python<'_>) -> &SelectorState {
        &self.inner.get(py).state
    }

    #[inline]
    fn wants_to_read(this: &StreamThis<'_, '_>) -> bool {
        let (inner, flags) = (this.own(), &this.own().flags);
        flags.started.get()
            && !flags.reading.is_paused()
            && !flags.closing.get()
            && !inner.eof_received.get()
    }

    #[inline]
    fn wants_to_write(this: &StreamThis<'_, '_>) -> bool {
        let inner = this.own();
        inner.queue.borrow().is_blocked() || !inner.writable.is_empty()
    }

    fn has_unsent(this: &StreamThis<'_, '_>) -> bool {
        !this.own().queue.borrow().is_empty()
    }

    fn drop_unsent(this: &StreamThis<'_, '_>) {
        let unsent = this.own().queue.borrow_mut().take();
        drop(unsent);
    }

    fn begun(this: &StreamThis<'_, '_>) -> PyResult<()> {
        // With TLS the accept ends after the handshake: the TLS protocol calls `accept_ends`.
        if matches!(this.own().delivery.get(), Delivery::Native(_)) {
            return Ok(());
        }
        this.accept_ends()
    }
}

impl StreamThis<'_, '_> {
    fn own(&self) -> &StreamState {
        self.payload().inner.get(self.py())
    }

    /// The socket object, if there is one.
    fn object_of_socket(&self) -> Option<Py<PyAny>> {
        match &*self.own().descriptor.borrow() {
            Descriptor::Socket(socket) => Some(socket.object().clone_ref(self.py())),
            Descriptor::Own(..) | Descriptor::Closed(_) => None,
        }
    }

    /// The descriptor.
    ///
    /// # Errors
    /// EBADF if the program closed or detached the socket object.
    #[inline]
    fn fd(&self) -> io::Result<RawFd> {
        match &*self.own().descriptor.borrow() {
            Descriptor::Own(fd, _) => Ok(fd.as_raw_fd()),
            Descriptor::Socket(socket) => socket.fd(self.py()),
            Descriptor::Closed(_) => Err(no_descriptor()),
        }
    }
}

/// Makes the type; called once, at import.
pub(crate) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<StreamTransport>>::new();
    selector::add_methods(&mut methods);
    write::add_methods(&mut methods);
    extra_info::add_methods(&mut methods);
    sendfile::add_methods(&mut methods);
    accept::add_methods(&mut methods);
    let base = imports::transport(py)?.cast::<PyType>()?;
    extra_info::inherited(py)?;
    create::<StreamTransport>(
        py,
        c"oxloop._oxloop.StreamTransport",
        c"A connected stream socket, see asyncio.Transport.",
        base,
        methods,
        Slots::with_repr::<OfNative<StreamTransport>, _>(selector::repr),
    )?;
    sendfile::declare(&CLASS.type_object(py))?;
    module.add("StreamTransport", CLASS.type_object(py))
}
