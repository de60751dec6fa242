//! `TlsProtocol`: the state of a TLS connection, and what the transport below calls.

use super::lower::Lower;
use super::records::{READ_MOST, Records};
use super::transport::TlsTransport;
use crate::event_loop::{EventLoop, State};
use crate::py::args::Args;
use crate::py::attached::Attached;
use crate::py::buffer::ReadableBuffer;
use crate::py::class::{Class, Native, OfNative, Ref, This, Visit, VisitStopped};
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::slot::Slot;
use crate::transport::base::log_in_debug;
use crate::transport::delivery::{Delivery, NativeProtocol};
use crate::transport::flow_control::FlowControl;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyDict, PyString};
use std::cell::{Cell, RefCell};

use super::backlog::Backlog;

/// A borrowed protocol while one of its methods runs.
pub(crate) type TlsThis<'a, 'py> = This<'a, 'py, TlsProtocol>;

/// asyncio's states of a TLS connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ProtocolState {
    /// Not begun, or over.
    Unwrapped,
    DoHandshake,
    Wrapped,
    /// Closing: what arrived is delivered and what was written is encrypted.
    Flushing,
    /// Our close_notify is sent.
    Shutdown,
}

/// What the program's protocol was told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum AppState {
    Init,
    ConnectionMade,
    EofReceived,
    ConnectionLost,
}

/// What `ssl=` and its companions, or `start_tls`, ask for.
pub(crate) struct Options<'a, 'py> {
    /// None for a default context of a client.
    pub(crate) context: Option<Bound<'py, PyAny>>,
    pub(crate) server_side: bool,
    pub(crate) server_hostname: Option<&'a Bound<'py, PyAny>>,
    /// In seconds; None or Python's None for asyncio's default.
    pub(crate) handshake_timeout: Option<&'a Bound<'py, PyAny>>,
    pub(crate) shutdown_timeout: Option<&'a Bound<'py, PyAny>>,
    pub(crate) waiter: HandshakeWaiter,
    /// False for `start_tls`, whose protocol has a connection already.
    pub(crate) call_connection_made: bool,
}

/// Who wants to know how the handshake ends.
#[derive(Default)]
pub(crate) enum HandshakeWaiter {
    /// A future, done once the handshake is.
    Future(Py<PyAny>),
    /// A server: in debug mode it reports a failure.
    Server,
    /// Nobody, or nobody any more.
    #[default]
    Nobody,
}

/// The payload of a protocol object.
pub(crate) struct TlsProtocol {
    inner: Attached<TlsState>,
}

/// The fields have asyncio's names where it has them.
pub(super) struct TlsState {
    pub(super) event_loop: Py<EventLoop>,
    pub(super) records: Records,
    pub(super) ssl_object: Py<PyAny>,
    pub(super) extra: Py<PyDict>,
    pub(super) server_side: bool,
    pub(super) transport: RefCell<Option<Lower>>,
    pub(super) app_transport: RefCell<Option<Ref<TlsTransport>>>,
    pub(super) app_protocol: Slot,
    pub(super) delivery: Cell<Delivery>,
    pub(super) waiter: RefCell<HandshakeWaiter>,
    pub(super) state: Cell<ProtocolState>,
    pub(super) app_state: Cell<AppState>,
    pub(super) handshake_timeout: Py<PyAny>,
    pub(super) shutdown_timeout: Py<PyAny>,
    pub(super) handshake_timer: Slot,
    pub(super) shutdown_timer: Slot,
    /// By the loop's clock; read in debug mode only.
    pub(super) handshake_start: Cell<Option<f64>>,
    pub(super) backlog: RefCell<Backlog>,
    /// Water marks of what was written and what arrived.
    pub(super) outgoing: FlowControl,
    pub(super) incoming: FlowControl,
    /// Lent to a transport below that is not ours.
    pub(super) lent: Slot<PyByteArray>,
    pub(super) flags: TlsFlags,
}

#[derive(Default)]
pub(super) struct TlsFlags {
    pub(super) app_reading_paused: Cell<bool>,
    /// The transport below told us to write no more.
    pub(super) ssl_writing_paused: Cell<bool>,
    pub(super) eof_received: Cell<bool>,
    /// The program closed the transport: what still arrives is not delivered.
    pub(super) app_closed: Cell<bool>,
    /// For the loop's metrics: when the handshake began, in nanoseconds of the kernel's clock, and
    /// whether it succeeded.
    pub(super) handshake_began: Cell<u64>,
    pub(super) secured: Cell<bool>,
    /// Counts the connection's end and writes after it.
    pub(super) conn_lost: Cell<u32>,
}

/// What a transport calls instead of the protocol's Python methods.
pub(super) static NATIVE: NativeProtocol = NativeProtocol {
    class: &CLASS,
    receive: |protocol, ciphertext| {
        TlsThis::of(protocol).map_or(Ok(()), |this| this.receive(ciphertext))
    },
    transport: |protocol| {
        let transport = TlsThis::of(protocol)?.app_transport()?;
        Some(transport.as_object().bind(protocol.py()).clone())
    },
};

static CLASS: Class = Class::new();

impl Native for TlsProtocol {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let inner = self.inner.during_collection(visit);
        visit.object(&inner.event_loop)?;
        visit.object(&inner.ssl_object)?;
        visit.object(&inner.extra)?;
        visit.object(&inner.handshake_timeout)?;
        visit.object(&inner.shutdown_timeout)?;
        inner.records.traverse(visit)?;
        inner.app_protocol.traverse(visit)?;
        if let Ok(waiter) = inner.waiter.try_borrow()
            && let HandshakeWaiter::Future(waiter) = &*waiter
        {
            visit.object(waiter)?;
        }
        inner.handshake_timer.traverse(visit)?;
        inner.shutdown_timer.traverse(visit)?;
        if let Ok(transport) = inner.transport.try_borrow()
            && let Some(transport) = &*transport
        {
            transport.traverse(visit)?;
        }
        match inner.app_transport.try_borrow() {
            Ok(transport) => visit.option(transport.as_ref().map(Ref::as_object)),
            Err(_) => Ok(()),
        }
    }

    fn clear(&self, py: Python<'_>) {
        let inner = self.inner.get(py);
        drop(inner.transport.take());
        drop(inner.app_transport.take());
        inner.app_protocol.set(None);
        drop(inner.waiter.take());
        inner.handshake_timer.set(None);
        inner.shutdown_timer.set(None);
    }
}

impl TlsProtocol {
    /// Makes the protocol and its transport.
    ///
    /// # Errors
    /// ValueError for a timeout that is not positive or a server without a context, and what the
    /// SSLContext raises.
    pub(crate) fn create<'py>(
        event_loop: &Bound<'py, EventLoop>,
        app_protocol: &Bound<'py, PyAny>,
        options: Options<'_, 'py>,
    ) -> PyResult<Ref<Self>> {
        let py = event_loop.py();
        let handshake_timeout = timeout(
            options.handshake_timeout,
            "ssl_handshake_timeout",
            intern!(py, "SSL_HANDSHAKE_TIMEOUT"),
        )?;
        let shutdown_timeout = timeout(
            options.shutdown_timeout,
            "ssl_shutdown_timeout",
            intern!(py, "SSL_SHUTDOWN_TIMEOUT"),
        )?;
        let context = match options.context {
            Some(context) => context,
            None => default_context(py, options.server_side, options.server_hostname)?,
        };
        let hostname = match options.server_hostname {
            Some(name) if !options.server_side && name.is_truthy()? => Some(name),
            _ => None,
        };
        let (records, ssl_object) = Records::new(
            &context,
            options.server_side,
            hostname,
            event_loop.get().state(py).record_memory(),
        )?;
        let extra = PyDict::new(py);
        extra.set_item(intern!(py, "sslcontext"), &context)?;
        let write_mark = intern!(py, "FLOW_CONTROL_HIGH_WATER_SSL_WRITE");
        let read_mark = intern!(py, "FLOW_CONTROL_HIGH_WATER_SSL_READ");
        let inner = TlsState {
            event_loop: event_loop.clone().unbind(),
            records,
            ssl_object: ssl_object.unbind(),
            extra: extra.unbind(),
            server_side: options.server_side,
            transport: RefCell::new(None),
            app_transport: RefCell::new(None),
            app_protocol: Slot::default(),
            delivery: Cell::new(Delivery::Data),
            waiter: RefCell::new(options.waiter),
            state: Cell::new(ProtocolState::Unwrapped),
            app_state: Cell::new(if options.call_connection_made {
                AppState::Init
            } else {
                AppState::ConnectionMade
            }),
            handshake_timeout,
            shutdown_timeout,
            handshake_timer: Slot::default(),
            shutdown_timer: Slot::default(),
            handshake_start: Cell::new(None),
            backlog: RefCell::new(Backlog::default()),
            outgoing: FlowControl::with_high_water(water_mark(write_mark)?),
            incoming: FlowControl::with_high_water(water_mark(read_mark)?),
            lent: Slot::default(),
            flags: TlsFlags::default(),
        };
        let inner = Attached::new(inner);
        let protocol = Ref::new(py, Self { inner })?;
        let this = protocol.this(py);
        this.set_app_protocol(app_protocol)?;
        let transport = TlsTransport::create(py, protocol.clone_ref(py))?;
        *this.own().app_transport.borrow_mut() = Some(transport);
        Ok(protocol)
    }
}

/// Seconds as a Python number: the parameter's value, or asyncio's constant.
fn timeout(
    given: Option<&Bound<'_, PyAny>>,
    parameter: &str,
    constant: &Bound<'_, PyString>,
) -> PyResult<Py<PyAny>> {
    match given.filter(|given| !given.is_none()) {
        Some(given) if given.le(0)? => Err(PyValueError::new_err(format!(
            "{parameter} should be a positive number, got {}",
            given.str()?
        ))),
        Some(given) => Ok(given.clone().unbind()),
        None => {
            let constants = imports::asyncio_constants(constant.py())?;
            Ok(constants.getattr(constant)?.unbind())
        }
    }
}

/// asyncio's own number of bytes.
fn water_mark(constant: &Bound<'_, PyString>) -> PyResult<usize> {
    let constants = imports::asyncio_constants(constant.py())?;
    let kibibytes: usize = constants.getattr(constant)?.extract()?;
    Ok(kibibytes * 1024)
}

/// The context of `ssl=True`.
fn default_context<'py>(
    py: Python<'py>,
    server_side: bool,
    server_hostname: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    if server_side {
        return Err(PyValueError::new_err(
            "Server side SSL needs a valid SSLContext",
        ));
    }
    let context = imports::ssl_module(py)?.call_method0("create_default_context")?;
    let named = server_hostname.map_or(Ok(false), |name| name.is_truthy())?;
    if !named {
        context.setattr("check_hostname", false)?;
    }
    Ok(context)
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<TlsProtocol>>) {
    methods.procedure(
        c"connection_made",
        "transport",
        |this, args| this.connection_made(&*args.one("connection_made", "transport")?),
        c"The transport below is connected: begin the handshake.",
    );
    methods.method(c"get_buffer", "n", get_buffer, c"Memory for ciphertext.");
    methods.procedure(
        c"buffer_updated",
        "nbytes",
        buffer_updated,
        c"Ciphertext arrived in the memory of get_buffer().",
    );
    methods.getter(c"_transport", |this| {
        this.or_none(
            this.lower()
                .map(|it| it.as_object().bind(this.py()).clone()),
        )
    });
    methods.getter(c"_app_reading_paused", |this| {
        this.boolean(this.own().flags.app_reading_paused.get())
    });
    methods.getter(c"_app_protocol", |this| this.or_none(this.app_protocol()));
    methods.getter(c"_app_transport", |this| {
        let transport = this.app_transport();
        this.or_none(transport.map(|it| it.as_object().bind(this.py()).clone()))
    });
    methods.getter(c"_sslcontext", |this| {
        let extra = this.own().extra.bind(this.py());
        this.or_none(extra.get_item(intern!(this.py(), "sslcontext"))?)
    });
    methods.getter(c"_sslobj", |this| {
        Ok(this.own().ssl_object.bind(this.py()).clone())
    });
}

fn get_buffer<'py>(this: &TlsThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let wanted: isize = args.one("get_buffer", "n")?.extract()?;
    let size = match usize::try_from(wanted) {
        Ok(size @ 1..=READ_MOST) => size,
        _ => READ_MOST,
    };
    let memory = PyByteArray::new_with(this.py(), size, |_| Ok(()))?;
    this.own().lent.set(Some(memory.clone().unbind()));
    Ok(memory.into_any())
}

fn buffer_updated(this: &TlsThis<'_, '_>, args: Args<'_, '_>) -> PyResult<()> {
    let count: usize = args.one("buffer_updated", "nbytes")?.extract()?;
    let lent = this.own().lent.take();
    if let Some(lent) = lent {
        // A copy: whoever the memory was lent to may keep it, and write to it from the callbacks.
        let received = {
            let memory = ReadableBuffer::of(lent.bind(this.py()))?;
            let memory = memory.as_slice();
            memory[..count.min(memory.len())].to_vec()
        };
        this.receive(&received)?;
    }
    Ok(())
}

impl<'py> TlsThis<'_, 'py> {
    pub(super) fn own(&self) -> &TlsState {
        self.payload().inner.get(self.py())
    }

    pub(super) fn event_loop(&self) -> &Bound<'py, EventLoop> {
        self.own().event_loop.bind(self.py())
    }

    pub(super) fn loop_state(&self) -> &State {
        self.event_loop().get().state(self.py())
    }

    pub(super) fn lower(&self) -> Option<Lower> {
        let lower = self.own().transport.borrow();
        lower.as_ref().map(|lower| lower.clone_ref(self.py()))
    }

    pub(super) fn app_protocol(&self) -> Option<Bound<'py, PyAny>> {
        self.own().app_protocol.get(self.py())
    }

    /// None once the connection is over.
    pub(crate) fn app_transport(&self) -> Option<Ref<TlsTransport>> {
        let transport = self.own().app_transport.borrow();
        transport
            .as_ref()
            .map(|transport| transport.clone_ref(self.py()))
    }

    pub(super) fn set_app_protocol(&self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        self.own().delivery.set(Delivery::of(protocol)?);
        let protocol = protocol.clone().unbind();
        self.own().app_protocol.set(Some(protocol));
        Ok(())
    }

    fn connection_made(&self, transport: &Bound<'py, PyAny>) -> PyResult<()> {
        let old = self.own().transport.replace(Some(Lower::of(transport)));
        drop(old);
        self.apply_marks()?;
        self.start_handshake()
    }

    /// The TLS protocol replaces the program's on `transport`. If that protocol was told to pause
    /// writing, it must be told when it may resume.
    pub(crate) fn inherit_pause(&self, transport: &Bound<'py, PyAny>) {
        if Lower::of(transport).has_paused(self.py()) {
            self.own().flags.ssl_writing_paused.set(true);
            self.own().outgoing.set_paused();
        }
    }

    /// Ciphertext arrived.
    ///
    /// # Errors
    /// What asyncio's SSLProtocol lets out: exceptions of `connection_made`, and those that are no
    /// `Exception`.
    pub(crate) fn receive(&self, ciphertext: &[u8]) -> PyResult<()> {
        match self.own().state.get() {
            ProtocolState::Wrapped => self.do_read(ciphertext),
            state => {
                self.own().records.feed(self.py(), ciphertext)?;
                match state {
                    ProtocolState::DoHandshake => self.do_handshake(),
                    ProtocolState::Flushing => self.do_flush(),
                    ProtocolState::Shutdown => self.do_shutdown(),
                    ProtocolState::Wrapped | ProtocolState::Unwrapped => Ok(()),
                }
            }
        }
    }

    /// Keeps what a StreamReader took in before `start_tls`: the start of the handshake.
    ///
    /// # Errors
    /// MemoryError.
    pub(crate) fn feed(&self, ciphertext: &[u8]) -> PyResult<()> {
        self.own().records.feed(self.py(), ciphertext)
    }

    pub(super) fn extra_info(
        &self,
        name: &Bound<'py, PyAny>,
        default: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        if let Some(value) = self.own().extra.bind(py).get_item(name)? {
            return Ok(value);
        }
        let Some(lower) = self.lower() else {
            return Ok(default.clone());
        };
        let lower = lower.as_object().bind(py);
        lower.call_method1(intern!(py, "get_extra_info"), (name, default))
    }

    /// Logs at level DEBUG, in debug mode.
    ///
    /// # Errors
    /// What a log handler raises.
    pub(super) fn log_in_debug(&self, text: &str) -> PyResult<()> {
        log_in_debug(self.event_loop(), &self.object(), "debug", text)
    }
}
