//! `DatagramTransport`: a UDP or Unix datagram socket, `asyncio.DatagramTransport` by inheritance.
//!
//! | asyncio's method | file |
//! |---|---|
//! | datagram_received, pause_reading, resume_reading | `receive` |
//! | sendto | `send`, `queue` |
//! | pause_writing, resume_writing, water marks, write buffer size | `flow_control` |
//! | connection_made, connection_lost, error_received, close, abort | `connection` |
//! | get_extra_info, repr | `extra_info` |
//!
//! `peers` translates addresses, `registration` tells the loop what to wait for.
//!
//! Invariants:
//! - datagrams leave in the order of their `sendto`, each to its own address; a run of them in one
//!   message has one address, and an error of the kernel counts for one datagram.
//! - datagrams are delivered in the order of their arrival; what a run brought after
//!   `pause_reading` waits for `resume_reading`, and `close` drops it.
//! - nothing is borrowed while a protocol's method runs.
//!
//! Cost: a run of datagrams costs about what one does, both ways; an address that was seen before
//! costs a look-up. An event is at most `receive::RECEIVES_MOST` system calls or
//! `receive::SECONDS_MOST` of callbacks, then timers and others have their turn.
//!
//! Differs from asyncio: see the table in docs/compatibility.md (several datagrams a turn; what a
//! callback sends leaves when it returns, and `error_received` then).

mod connection;
mod extra_info;
mod flow_control;
mod peers;
mod queue;
mod receive;
mod registration;
mod send;

use crate::event_loop::{EventLoop, State};
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Slots, This, Visit, VisitStopped, create};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::flow_control::FlowControl;
use crate::transport::visit_cell;
use peers::Peers;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use queue::SendQueue;
use reactor::poller::Interest;
use reactor::token::Token;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;

pub(crate) use connection::{Opened, start};

/// A borrowed transport while one of its methods runs.
pub(crate) type DatagramThis<'a, 'py> = This<'a, 'py, DatagramTransport>;

/// The payload of a transport object.
pub(crate) struct DatagramTransport {
    inner: Attached<Inner>,
}

/// A datagram that was received and not delivered yet, with its sender.
type Undelivered = (Py<PyBytes>, Py<PyAny>);

struct Inner {
    event_loop: Py<EventLoop>,
    fd: RawFd,
    /// None once the transport is closed.
    socket: RefCell<Option<Py<PyAny>>>,
    kind: Kind,
    token: Cell<Option<Token>>,
    /// What the kernel has; `None` while the descriptor is taken out of the poller.
    interest: Cell<Option<Interest>>,
    protocol: RefCell<Option<Py<PyAny>>>,
    context: Captured,
    extra: Py<PyDict>,
    /// Where the endpoint was told to send, if it was.
    address: Option<Py<PyAny>>,
    peers: RefCell<Peers>,
    queue: RefCell<SendQueue>,
    undelivered: RefCell<VecDeque<Undelivered>>,
    /// Waits for `connection_made` to have been called.
    waiter: RefCell<Option<Py<PyAny>>>,
    flags: Flags,
    flow: FlowControl,
}

/// What does not change about the socket.
struct Kind {
    /// Read and written here, and not by the socket object's methods: a plain `socket.socket` of a
    /// family whose addresses are known here.
    native: bool,
    family: i32,
    /// connect(2) was called: datagrams are sent without an address.
    connected: bool,
    /// The kernel was asked to deliver runs.
    receives_runs: bool,
}

/// asyncio's own attributes of a transport, by their names there.
#[derive(Default)]
struct Flags {
    /// `connection_made` was called and reading may begin.
    started: Cell<bool>,
    paused: Cell<bool>,
    closing: Cell<bool>,
    /// Counts `connection_lost` being scheduled, and datagrams sent after it.
    conn_lost: Cell<u32>,
    /// The loop's registry has a strong reference.
    held: Cell<bool>,
    /// Linked into the loop's list of transports to flush.
    written: Cell<bool>,
    /// A handle that reads is scheduled.
    reading_soon: Cell<bool>,
}

static CLASS: Class = Class::new();

impl Native for DatagramTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let inner = self.inner.during_collection();
        visit.object(&inner.event_loop)?;
        visit.object(&inner.extra)?;
        visit.option(inner.address.as_ref())?;
        inner.context.traverse(visit)?;
        for cell in [&inner.socket, &inner.protocol, &inner.waiter] {
            visit_cell(visit, cell)?;
        }
        if let Ok(queue) = inner.queue.try_borrow() {
            queue.traverse(visit)?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        let inner = self.inner.get(py);
        drop(inner.protocol.take());
        drop(inner.waiter.take());
        inner.context.clear(py);
    }

    fn finalize(this: &This<'_, '_, Self>) {
        connection::finalize(this);
    }
}

impl DatagramTransport {
    fn inner(&self, py: Python<'_>) -> &Inner {
        self.inner.get(py)
    }

    pub(crate) fn is_closing(&self, py: Python<'_>) -> bool {
        self.inner(py).flags.closing.get()
    }

    /// What a fork's child must register again.
    pub(crate) fn registration(&self) -> Option<(RawFd, Interest)> {
        let inner = self.inner.during_collection();
        inner.interest.get().map(|interest| (inner.fd, interest))
    }
}

impl<'py> DatagramThis<'_, 'py> {
    fn event_loop(&self) -> &Bound<'py, EventLoop> {
        self.own().event_loop.bind(self.py())
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

    /// The socket object, until the transport is closed.
    fn socket(&self) -> Option<Bound<'py, PyAny>> {
        let socket = self.own().socket.borrow();
        socket.as_ref().map(|socket| socket.bind(self.py()).clone())
    }
}

/// asyncio's datagram transport is an `asyncio.Transport` too, by the way it is made.
fn base(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let bases = (imports::transport(py)?, imports::datagram_transport(py)?);
    let attributes = PyDict::new(py);
    attributes.set_item("__slots__", ())?;
    attributes.set_item("__module__", "oxloop._oxloop")?;
    let made = py
        .get_type::<PyType>()
        .call1(("SocketDatagramTransport", bases, attributes))?;
    Ok(made.cast_into::<PyType>()?)
}

/// Makes the type; called once, at import.
pub(crate) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<DatagramTransport>>::new();
    connection::add_methods(&mut methods);
    receive::add_methods(&mut methods);
    send::add_methods(&mut methods);
    flow_control::add_methods(&mut methods);
    extra_info::add_methods(&mut methods);
    let base = base(py)?;
    create::<DatagramTransport>(
        py,
        c"oxloop._oxloop.DatagramTransport",
        c"A datagram socket, see asyncio.DatagramTransport.",
        &base,
        methods,
        Slots::with_repr::<OfNative<DatagramTransport>, _>(extra_info::repr),
    )?;
    module.add("DatagramTransport", CLASS.type_object(py))
}
