//! `StreamTransport`: a connected TCP or Unix stream socket, `asyncio.Transport` by inheritance.
//!
//! | asyncio's method | file |
//! |---|---|
//! | data_received, get_buffer, buffer_updated, eof_received | `read` |
//! | pause_reading, resume_reading, is_reading | `read` |
//! | feeding `asyncio.StreamReader` | `reader` |
//! | write, writelines, write_eof | `write` |
//! | pause_writing, resume_writing, water marks, write buffer size | `flow_control` |
//! | connection_made, connection_lost, close, abort, errors | `connection` |
//! | get_extra_info, repr | `extra_info` |
//! | the transport's part of `loop.sendfile` | `sendfile` |
//!
//! Invariants:
//! - the descriptor has one owner, `Descriptor`, and is closed in the deferred `connection_lost`
//!   (or by the finalizer of a transport that was never closed), never by the collector.
//! - `interest` is what the kernel has; it may be more than what is wanted, until an unwanted event
//!   arrives. What is wanted and missing is registered at once.
//! - nothing is borrowed while a protocol's method runs.
//!
//! Cost: reading is recv(2) into the loop's scratch memory and one `bytes`; writing one send(2) for
//! all that a callback wrote. No epoll_ctl(2) after the connection's first, unless the peer is
//! slow.
//!
//! Differs from asyncio: see the table in docs/compatibility.md (writes of one callback leave when
//! it returns; a `bytearray` is copied when it is queued; a context per connection).

mod connection;
mod extra_info;
mod flow_control;
mod read;
mod reader;
mod sendfile;
mod write;

use crate::event_loop::source::Source;
use crate::event_loop::{EventLoop, State};
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Slots, This, Visit, VisitStopped, create};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::method::Methods;
use crate::server::Server;
use crate::transport::flow_control::FlowControl;
use crate::transport::visit_cell;
use crate::transport::write_queue::WriteQueue;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyType};
use reactor::addr::SocketAddress;
use reactor::poller::{Event, Interest};
use reactor::token::Token;
use std::cell::{Cell, RefCell};
use std::os::fd::{OwnedFd, RawFd};

pub(crate) use connection::{Connected, set_result_unless_cancelled, start};
pub(crate) use reader::remember_methods;

/// A borrowed transport while one of its methods runs.
pub(crate) type StreamThis<'a, 'py> = This<'a, 'py, StreamTransport>;

/// Who owns the descriptor.
pub(crate) enum Descriptor {
    /// Accepted or connected here, and no Python socket object was asked for.
    Own(OwnedFd),
    /// A `socket.socket`, the program's or made for `get_extra_info("socket")`.
    Socket(Py<PyAny>),
    Closed,
}

/// How the protocol takes data.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivery {
    /// `data_received(bytes)`.
    Data,
    /// `get_buffer()` and `buffer_updated()`.
    Buffered,
    /// asyncio's own StreamReaderProtocol, fed natively.
    StreamReader,
}

/// The payload of a transport object.
pub(crate) struct StreamTransport {
    inner: Attached<Inner>,
}

struct Inner {
    event_loop: Py<EventLoop>,
    fd: RawFd,
    descriptor: RefCell<Descriptor>,
    token: Cell<Option<Token>>,
    /// What the kernel has; `None` while the descriptor is taken out of the poller.
    interest: Cell<Option<Interest>>,
    protocol: RefCell<Option<Py<PyAny>>>,
    delivery: Cell<Delivery>,
    context: Captured,
    server: RefCell<Option<Py<Server>>>,
    extra: RefCell<Option<Py<PyDict>>>,
    /// Known from accept(2) or connect(2): a connection that was reset cannot tell any more.
    peer: RefCell<Option<SocketAddress>>,
    /// Asked for before the descriptor is closed.
    local: RefCell<Option<SocketAddress>>,
    queue: RefCell<WriteQueue>,
    /// Waits for `connection_made` to have been called.
    waiter: RefCell<Option<Py<PyAny>>>,
    /// Waits for the queue to be empty and the socket to take more.
    writable: RefCell<Option<Py<PyAny>>>,
    flags: Flags,
    flow: FlowControl,
    /// Size of the latest read, which tells bulk transfers from messages.
    last_read: Cell<usize>,
}

/// asyncio's own attributes of a transport, by their names there.
#[derive(Default)]
struct Flags {
    /// `connection_made` was called and reading may begin.
    started: Cell<bool>,
    paused: Cell<bool>,
    closing: Cell<bool>,
    /// Counts `connection_lost` being scheduled, and writes after it.
    conn_lost: Cell<u32>,
    /// `write_eof` was called.
    eof: Cell<bool>,
    /// A file is being sent past the queue.
    sendfile: Cell<bool>,
    /// The peer's EOF was delivered and the protocol keeps the connection open.
    eof_received: Cell<bool>,
    /// The loop's registry has a strong reference.
    held: Cell<bool>,
    /// Linked into the loop's list of transports to flush.
    written: Cell<bool>,
}

static CLASS: Class = Class::new();

impl Native for StreamTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let inner = self.inner.during_collection();
        visit.object(&inner.event_loop)?;
        inner.context.traverse(visit)?;
        visit_cell(visit, &inner.protocol)?;
        visit_cell(visit, &inner.extra)?;
        visit_cell(visit, &inner.waiter)?;
        visit_cell(visit, &inner.writable)?;
        visit_cell(visit, &inner.server)?;
        if let Ok(descriptor) = inner.descriptor.try_borrow()
            && let Descriptor::Socket(socket) = &*descriptor
        {
            visit.object(socket)?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        let inner = self.inner.get(py);
        drop(inner.protocol.take());
        drop(inner.extra.take());
        drop(inner.waiter.take());
        drop(inner.writable.take());
        drop(inner.server.take());
        inner.context.clear(py);
    }

    fn finalize(this: &This<'_, '_, Self>) {
        connection::finalize(this);
    }
}

impl StreamTransport {
    fn inner(&self, py: Python<'_>) -> &Inner {
        self.inner.get(py)
    }

    pub(crate) fn is_closing(&self, py: Python<'_>) -> bool {
        self.inner(py).flags.closing.get()
    }

    pub(crate) fn belongs_to(&self, py: Python<'_>, server: &Bound<'_, Server>) -> bool {
        self.inner(py)
            .server
            .borrow()
            .as_ref()
            .is_some_and(|own| own.is(server))
    }

    /// What a fork's child must register again.
    pub(crate) fn registration(&self) -> Option<(RawFd, Interest)> {
        let inner = self.inner.during_collection();
        inner.interest.get().map(|interest| (inner.fd, interest))
    }
}

impl Descriptor {
    /// Closes the descriptor, through its Python object where there is one.
    ///
    /// # Errors
    /// What the socket object's close() raises.
    pub(crate) fn close(self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Own(fd) => drop(fd),
            Self::Socket(socket) => drop(socket.bind(py).call_method0("close")?),
            Self::Closed => {}
        }
        Ok(())
    }
}

impl<'py> StreamThis<'_, 'py> {
    fn event_loop(&self) -> &Bound<'py, EventLoop> {
        self.payload().inner(self.py()).event_loop.bind(self.py())
    }

    fn loop_state(&self) -> &State {
        self.event_loop().get().state(self.py())
    }

    fn own(&self) -> &Inner {
        self.payload().inner(self.py())
    }

    fn protocol(&self) -> Option<Bound<'py, PyAny>> {
        let protocol = self.own().protocol.borrow();
        protocol
            .as_ref()
            .map(|protocol| protocol.bind(self.py()).clone())
    }

    /// What the transport wants to hear about.
    fn wanted(&self) -> Interest {
        let inner = self.own();
        let mut wanted = Interest::NONE;
        if self.wants_to_read() {
            wanted = wanted.with(Interest::READABLE);
        }
        if inner.queue.borrow().is_blocked() || inner.writable.borrow().is_some() {
            wanted = wanted.with(Interest::WRITABLE);
        }
        wanted
    }

    #[inline]
    fn wants_to_read(&self) -> bool {
        let flags = &self.own().flags;
        flags.started.get()
            && !flags.paused.get()
            && !flags.closing.get()
            && !flags.eof_received.get()
    }

    /// The loop keeps a transport alive exactly while it waits for the kernel.
    fn update_hold(&self) {
        let (inner, wanted) = (self.own(), !self.wanted().is_empty());
        let Some(token) = inner.token.get() else {
            return;
        };
        if inner.flags.held.replace(wanted) == wanted {
            return;
        }
        let transport = self.to_ref();
        let source = if wanted {
            Source::Stream(transport)
        } else {
            match transport.downgrade(self.py()) {
                Ok(weak) => Source::IdleStream(weak),
                // Without memory for a weak reference the loop goes on keeping it.
                Err(_) => return inner.flags.held.set(true),
            }
        };
        self.loop_state().hold_transport(token, source);
    }

    /// Registers what is wanted and missing.
    fn want_more(&self) {
        self.update_hold();
        let wanted = self.wanted();
        let has = self.own().interest.get();
        if has.is_none_or(|has| !has.contains(wanted)) {
            self.apply(wanted);
        }
    }

    /// Makes the kernel's interest exactly `wanted`. Without any, the descriptor leaves the poller:
    /// a hang-up is reported whether it is wanted or not, and would keep the loop spinning.
    fn apply(&self, wanted: Interest) {
        self.update_hold();
        let (inner, state) = (self.own(), self.loop_state());
        let Some(token) = inner.token.get() else {
            return;
        };
        let has = inner.interest.get();
        let applied = match (has, wanted.is_empty()) {
            (None, true) => return,
            (Some(_), true) => {
                state.suspend_registration(inner.fd);
                Ok(())
            }
            (None, false) => state.resume_registration(inner.fd, token, wanted),
            (Some(_), false) => {
                state.set_interest(inner.fd, token, wanted);
                Ok(())
            }
        };
        inner.interest.set((!wanted.is_empty()).then_some(wanted));
        if let Err(error) = applied {
            // The descriptor was closed behind the transport's back: nothing will come from it.
            let error = error.into_value(self.py()).into_any();
            if let Err(error) = self.force_close(Some(error)) {
                error.write_unraisable(self.py(), Some(&self.object()));
            }
        }
    }

    /// The kernel has something to say about the descriptor.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, and what the exception handler lets out.
    #[inline]
    pub(crate) fn on_event(&self, event: Event) -> PyResult<()> {
        if event.readable && self.wants_to_read() {
            self.read_ready()?;
        }
        if event.writable && self.own().queue.borrow().is_blocked() {
            self.write_ready()?;
        }
        if event.writable && self.own().flags.sendfile.get() {
            self.wake_sendfile()?;
        }
        let wanted = self.wanted();
        let unwanted = event.readable && !wanted.contains(Interest::READABLE)
            || event.writable && !wanted.contains(Interest::WRITABLE);
        if unwanted && self.own().interest.get().is_some_and(|has| has != wanted) {
            self.apply(wanted);
        }
        Ok(())
    }
}

/// Makes the type; called once, at import.
pub(crate) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<StreamTransport>>::new();
    connection::add_methods(&mut methods);
    read::add_methods(&mut methods);
    write::add_methods(&mut methods);
    flow_control::add_methods(&mut methods);
    extra_info::add_methods(&mut methods);
    sendfile::add_methods(&mut methods);
    let base = imports::transport(py)?.cast::<PyType>()?;
    create::<StreamTransport>(
        py,
        c"oxloop._oxloop.StreamTransport",
        c"A connected stream socket, see asyncio.Transport.",
        base,
        methods,
        Slots::with_repr::<OfNative<StreamTransport>, _>(extra_info::repr),
    )?;
    sendfile::declare(&CLASS.type_object(py))?;
    module.add("StreamTransport", CLASS.type_object(py))
}
