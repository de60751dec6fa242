//! `DatagramTransport`: a UDP or Unix datagram socket, `asyncio.DatagramTransport` by inheritance.
//!
//! | asyncio's method | file |
//! |---|---|
//! | datagram_received | `receive` |
//! | sendto, error_received | `send`, `queue` |
//! | connection_made | `connection` |
//! | get_extra_info | `extra_info` |
//! | all that streams have too | `transport::selector` |
//!
//! `peers` translates addresses. A *run* is several datagrams that the kernel takes or gives as one
//! message, see `reactor::datagram`.
//!
//! Invariants:
//! - datagrams leave in the order of their `sendto`, each to its own address; all datagrams of a
//!   run have one address, and an error of the kernel counts for one datagram.
//! - datagrams are delivered in the order of their arrival. The rest of a run that was received
//!   before `pause_reading` waits for `resume_reading`; `close` drops it.
//! - nothing is borrowed while a protocol's method runs.
//!
//! Cost: to send or receive a run costs about as much as one datagram; an address that was seen
//! before costs a look-up. An event ends after `receive::RECEIVES_MOST` system calls or after
//! `receive::SECONDS_MOST`; then timers and other descriptors have their turn.
//!
//! Differs from asyncio: see the table in docs/compatibility.md (several datagrams a turn; what a
//! callback sends leaves when it returns, and `error_received` then).

mod connection;
mod extra_info;
mod peers;
mod queue;
mod receive;
mod send;

use crate::event_loop::metrics::ConnectionKind;
use crate::event_loop::snapshot::Backlog;
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Slots, This, Visit, VisitStopped, create};
use crate::py::file::Known;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::socket::{SocketObject, no_descriptor};
use crate::transport::flow_control::{FlowControl, FlowControlled};
use crate::transport::polled::{Polled, PolledState};
use crate::transport::selector::{self, SelectorState, SelectorTransport};
use peers::Peers;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyType};
use queue::SendQueue;
use receive::Expectation;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::ops::Deref;
use std::os::fd::RawFd;

pub(crate) use connection::{Opened, start};

/// A borrowed transport while one of its methods runs.
pub(crate) type DatagramThis<'a, 'py> = This<'a, 'py, DatagramTransport>;

/// The payload of a transport object.
pub(crate) struct DatagramTransport {
    inner: Attached<DatagramState>,
}

/// A datagram that was received and not delivered yet, with its sender.
type Undelivered = (Py<PyBytes>, Py<PyAny>);

struct DatagramState {
    state: SelectorState,
    /// None once the transport is closed.
    socket: RefCell<Option<SocketObject>>,
    kind: EndpointKind,
    /// The remote address that the endpoint was made for, if any.
    address: Option<Py<PyAny>>,
    peers: RefCell<Peers>,
    queue: RefCell<SendQueue>,
    undelivered: RefCell<VecDeque<Undelivered>>,
    expectation: Expectation,
    /// A handle that reads is scheduled.
    reading_soon: Cell<bool>,
}

/// What does not change about the socket.
struct EndpointKind {
    /// System calls are made here, not by the socket object's methods: it is a plain
    /// `socket.socket` of a family whose addresses are known here.
    native: bool,
    family: i32,
    /// connect(2) was called: datagrams are sent without an address.
    connected: bool,
    /// The peer has no address (`socket.socketpair`): a datagram without an address goes to it.
    paired: bool,
    /// The kernel was asked to deliver runs.
    receives_runs: bool,
}

/// In place of inheritance: asyncio's class has `_SelectorTransport` as its base.
impl Deref for DatagramState {
    type Target = SelectorState;

    #[inline(always)]
    fn deref(&self) -> &SelectorState {
        &self.state
    }
}

static CLASS: Class = Class::new();

impl Native for DatagramTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let inner = self.inner.during_collection(visit);
        inner.state.traverse(visit)?;
        visit.option(inner.address.as_ref())?;
        if let Ok(socket) = inner.socket.try_borrow() {
            socket
                .as_ref()
                .map_or(Ok(()), |socket| socket.traverse(visit))?;
        }
        if let Ok(queue) = inner.queue.try_borrow() {
            queue.traverse(visit)?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        self.inner.get(py).state.clear(py);
    }

    fn finalize(this: &This<'_, '_, Self>) {
        this.finalize();
    }
}

impl Polled for DatagramTransport {
    #[inline]
    fn polled(&self, py: Python<'_>) -> &PolledState {
        &self.inner.get(py).polled
    }

    fn connection_kind(_this: &DatagramThis<'_, '_>) -> ConnectionKind {
        ConnectionKind::Datagram
    }

    fn backlog(this: &DatagramThis<'_, '_>) -> Backlog {
        this.backlog_of_queue()
    }

    #[inline]
    fn on_event(this: &DatagramThis<'_, '_>, readable: bool, writable: bool) -> PyResult<()> {
        if readable && this.wants_to_read() {
            this.read_ready()?;
        }
        if writable && this.own().queue.borrow().is_blocked() {
            this.write_ready()?;
        }
        this.drop_unwanted(readable, writable);
        Ok(())
    }

    #[inline]
    fn flush(this: &DatagramThis<'_, '_>) {
        this.flush_written();
    }

    fn close(this: &DatagramThis<'_, '_>) -> PyResult<()> {
        this.close()
    }

    /// An error of what was sent before is for the protocol of then.
    fn protocol_changes(this: &DatagramThis<'_, '_>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        this.send_now()
    }

    fn fail(this: &DatagramThis<'_, '_>, error: Py<PyAny>) -> PyResult<()> {
        this.force_close(Some(error))
    }

    fn known(this: &DatagramThis<'_, '_>) -> Known {
        let socket = this.own().socket.borrow();
        let socket = socket.as_ref();
        socket.map_or(Known::Kept, |socket| socket.known(this.py()))
    }

    fn is_closed(this: &DatagramThis<'_, '_>) -> bool {
        this.own().socket.borrow().is_none()
    }

    fn close_file(this: &DatagramThis<'_, '_>) -> PyResult<()> {
        this.close_socket()
    }

    fn forget(this: &DatagramThis<'_, '_>) -> PyResult<()> {
        Self::drop_unsent(this);
        drop(this.own().undelivered.take());
        Ok(())
    }
}

impl FlowControlled for DatagramTransport {
    #[inline]
    fn flow(&self, py: Python<'_>) -> &FlowControl {
        &self.inner.get(py).flow
    }

    #[inline]
    fn queued(this: &DatagramThis<'_, '_>) -> usize {
        this.own().queue.borrow().size()
    }

    fn send_written(this: &DatagramThis<'_, '_>) -> PyResult<()> {
        this.send_now()
    }
}

impl SelectorTransport for DatagramTransport {
    #[inline]
    fn selector_state(&self, py: Python<'_>) -> &SelectorState {
        &self.inner.get(py).state
    }

    #[inline]
    fn wants_to_write(this: &DatagramThis<'_, '_>) -> bool {
        this.own().queue.borrow().is_blocked()
    }

    fn has_unsent(this: &DatagramThis<'_, '_>) -> bool {
        !this.own().queue.borrow().is_empty()
    }

    fn drop_unsent(this: &DatagramThis<'_, '_>) {
        let unsent = this.own().queue.borrow_mut().take();
        drop(unsent);
    }

    fn reading_resumed(this: &DatagramThis<'_, '_>) -> PyResult<()> {
        if this.own().undelivered.borrow().is_empty() {
            return Ok(());
        }
        this.read_soon()
    }
}

impl<'py> DatagramThis<'_, 'py> {
    fn own(&self) -> &DatagramState {
        self.payload().inner.get(self.py())
    }

    /// The socket object, until the transport is closed.
    fn socket(&self) -> Option<Bound<'py, PyAny>> {
        let socket = self.own().socket.borrow();
        socket
            .as_ref()
            .map(|socket| socket.object().bind(self.py()).clone())
    }

    /// True if somebody else holds the socket object, see `SocketObject::is_shared`.
    #[inline]
    fn is_socket_shared(&self) -> bool {
        let socket = self.own().socket.borrow();
        let socket = socket.as_ref();
        socket.is_some_and(|socket| socket.is_shared(self.py()))
    }

    /// The descriptor of a plain socket.
    ///
    /// # Errors
    /// EBADF if the program closed or detached the socket object.
    #[inline]
    fn fd(&self) -> io::Result<RawFd> {
        match &*self.own().socket.borrow() {
            Some(socket) => socket.fd(self.py()),
            None => Err(no_descriptor()),
        }
    }
}

/// The base class: asyncio's datagram transport inherits from `asyncio.Transport` too.
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
    selector::add_methods(&mut methods);
    receive::add_methods(&mut methods);
    send::add_methods(&mut methods);
    extra_info::add_methods(&mut methods);
    let base = base(py)?;
    create::<DatagramTransport>(
        py,
        c"oxloop._oxloop.DatagramTransport",
        c"A datagram socket, see asyncio.DatagramTransport.",
        &base,
        methods,
        Slots::with_repr::<OfNative<DatagramTransport>, _>(selector::repr),
    )?;
    module.add("DatagramTransport", CLASS.type_object(py))
}
