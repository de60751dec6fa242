//! An endpoint's life: made, closed, aborted, lost; and what ends it by force.

use super::queue::SendQueue;
use super::send::Flusher;
use super::{DatagramThis, DatagramTransport, Flags, Inner, Kind, extra_info};
use crate::event_loop::EventLoop;
use crate::event_loop::schedule::soon_method;
use crate::event_loop::source::Source;
use crate::event_loop::turn::leaves_the_loop;
use crate::py::args::Args;
use crate::py::attached::Attached;
use crate::py::class::{OfNative, Ref, This};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::datagram::peers::Peers;
use crate::transport::flow_control::FlowControl;
use crate::transport::stream::set_result_unless_cancelled;
use crate::transport::{report_error, warn_unclosed};
use pyo3::exceptions::PyOSError;
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
    /// The address that the endpoint was made for.
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
    let state = event_loop.get().state(py);
    state.check_closed()?;
    let socket = opened.socket.bind(py).clone();
    let fd = socket.call_method0(intern!(py, "fileno"))?.extract()?;
    let extra = extra_info::of_socket(&socket)?;
    let kind = kind_of(&socket, fd, &extra)?;
    let sends_runs = kind.native && datagram::sends_runs(fd);
    let address = opened.address;
    let address = match address {
        Some(address) if address.bind(py).is_truthy()? => Some(address),
        _ => None,
    };
    let inner = Inner {
        event_loop: event_loop.clone().unbind(),
        fd,
        socket: RefCell::new(Some(opened.socket)),
        kind,
        token: Cell::new(None),
        interest: Cell::new(None),
        protocol: RefCell::new(Some(opened.protocol.clone_ref(py))),
        context: opened.context,
        extra: extra.unbind(),
        address,
        peers: RefCell::new(Peers::new()),
        queue: RefCell::new(SendQueue::new(header_size(py)?, sends_runs)),
        undelivered: RefCell::new(VecDeque::new()),
        waiter: RefCell::new(Some(opened.waiter)),
        flags: Flags::default(),
        flow: FlowControl::new(),
    };
    let inner = Attached::new(inner);
    let transport = Ref::new(py, DatagramTransport { inner })?;
    let this = transport.this(py);
    this.schedule_connection_made(opened.protocol.bind(py))?;
    // The handles that were just queued keep it alive until it reads.
    let source = Source::IdleDatagram(transport.downgrade(py)?);
    let token = state.adopt_transport(fd, source);
    this.own().token.set(Some(token));
    Ok(transport.as_object().clone_ref(py))
}

/// What each datagram counts beside its bytes: eight in later releases of asyncio, else nothing.
fn header_size(py: Python<'_>) -> PyResult<usize> {
    let class = imports::selector_datagram_transport(py)?;
    class
        .getattr_opt("_header_size")?
        .map_or(Ok(0), |size| size.extract())
}

fn kind_of(socket: &Bound<'_, PyAny>, fd: i32, extra: &Bound<'_, PyDict>) -> PyResult<Kind> {
    let py = socket.py();
    let family = reactor::socket::socket_family(fd).unwrap_or(libc::AF_UNSPEC);
    let known = matches!(family, libc::AF_INET | libc::AF_INET6 | libc::AF_UNIX);
    // A subclass may have methods of its own, through a proxy for example.
    let native = known && socket.get_type().is(imports::socket_class(py)?);
    let peer = extra.get_item(intern!(py, "peername"))?;
    Ok(Kind {
        native,
        family,
        connected: peer.map_or(Ok(false), |peer| peer.is_truthy())?,
        receives_runs: native && datagram::is_udp(fd) && datagram::receive_runs(fd, true).is_ok(),
    })
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.nullary(
        c"close",
        |this| this.close().and_then(|()| this.none()),
        c"Send what is queued, then close; connection_lost(None) follows.",
    );
    methods.nullary(
        c"abort",
        |this| {
            // asyncio has sent what the callback wrote before it aborts.
            this.try_flush(Flusher::Program)?;
            this.force_close(None)?;
            this.none()
        },
        c"Close at once; what is queued is lost.",
    );
    methods.nullary(
        c"is_closing",
        |this| this.boolean(this.own().flags.closing.get()),
        c"True once closing began.",
    );
    methods.method(
        c"set_protocol",
        |this, args| {
            let protocol = args.one("set_protocol", "protocol")?.to_owned().unbind();
            let old = this.own().protocol.replace(Some(protocol));
            drop(old);
            this.none()
        },
        c"Replace the protocol.",
    );
    methods.nullary(
        c"get_protocol",
        |this| this.or_none(this.protocol()),
        c"The current protocol.",
    );
    methods.method(
        c"_call_connection_lost",
        |this, args| {
            this.call_connection_lost(&*args.one("_call_connection_lost", "exc")?)?;
            this.none()
        },
        c"The deferred end.",
    );
    methods.nullary(c"_begin", begin, c"Starts reading, after connection_made.");
    methods.method(
        c"_force_close",
        |this, args| {
            let error = args.one("_force_close", "exc")?;
            this.force_close((!error.is_none()).then(|| error.to_owned().unbind()))?;
            this.none()
        },
        c"Close at once because of an exception.",
    );
    methods.method(
        c"_fatal_error",
        fatal_error,
        c"Report an exception and close at once.",
    );
    methods.getter(c"_loop", |this| Ok(this.event_loop().clone().into_any()));
    methods.getter(c"_protocol", |this| this.or_none(this.protocol()));
    methods.getter(c"_closing", |this| {
        this.boolean(this.own().flags.closing.get())
    });
}

fn begin<'py>(this: &DatagramThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.own().flags.started.set(true);
    if !this.own().flags.closing.get() {
        this.want_more();
    }
    let waiter = this.own().waiter.take();
    if let Some(waiter) = waiter {
        set_result_unless_cancelled(waiter.bind(this.py()))?;
    }
    this.none()
}

fn fatal_error<'py>(
    this: &DatagramThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [error, message] = args.bind("_fatal_error", ["exc", "message"], 1)?;
    let error = error.expect("invariant: bind checked the required argument");
    let message = message.map_or_else(
        || Ok("Fatal error on transport".to_owned()),
        |message| message.extract::<String>(),
    )?;
    this.fatal_error(PyErr::from_value(error.to_owned()), &message)?;
    this.none()
}

impl<'py> DatagramThis<'_, 'py> {
    fn schedule_connection_made(&self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let made = protocol.getattr(intern!(py, "connection_made"))?;
        self.soon(&made, &[&self.object()])?;
        let begin = self.object().getattr(intern!(py, "_begin"))?;
        self.soon(&begin, &[])
    }

    /// Schedules a callback in the endpoint's context.
    fn soon(&self, callback: &Bound<'py, PyAny>, arguments: &[&Bound<'py, PyAny>]) -> PyResult<()> {
        let (py, context) = (self.py(), &self.own().context);
        let context = Captured::given(&context.object(py)?);
        soon_method(py, self.event_loop(), callback, arguments, context)
    }

    fn close(&self) -> PyResult<()> {
        self.try_flush(Flusher::Program)?;
        let (inner, flags) = (self.own(), &self.own().flags);
        if flags.closing.replace(true) {
            return Ok(());
        }
        self.apply(self.wanted());
        if inner.queue.borrow().is_empty() {
            flags.conn_lost.set(flags.conn_lost.get() + 1);
            self.schedule_connection_lost(None)?;
        }
        Ok(())
    }

    /// Drops what is queued and schedules `connection_lost(error)`.
    pub(super) fn force_close(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let (inner, flags) = (self.own(), &self.own().flags);
        if flags.conn_lost.get() > 0 {
            return Ok(());
        }
        let unsent = inner.queue.borrow_mut().take();
        drop(unsent);
        flags.closing.set(true);
        flags.conn_lost.set(1);
        self.apply(self.wanted());
        self.schedule_connection_lost(error)
    }

    /// Queues the deferred end.
    pub(super) fn schedule_connection_lost(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = self.py();
        self.loop_state().check_closed()?;
        let lost = self
            .object()
            .getattr(intern!(py, "_call_connection_lost"))?;
        let error = error.map_or_else(|| py.None().into_bound(py), |error| error.into_bound(py));
        self.soon(&lost, &[&error])
    }

    /// Tells the protocol, then lets everything go.
    fn call_connection_lost(&self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let told = self.protocol().map_or(Ok(()), |protocol| {
            call_method(&protocol, intern!(self.py(), "connection_lost"), &[error]).map(drop)
        });
        let closed = self.release();
        told.and(closed)
    }

    /// Ends the registration, closes the socket and forgets the protocol.
    fn release(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        if let Some(token) = inner.token.take() {
            let source = self.loop_state().deregister(inner.fd, token);
            drop(source);
        }
        inner.interest.set(None);
        drop(inner.protocol.take());
        let unsent = inner.queue.borrow_mut().take();
        drop(unsent);
        drop(inner.undelivered.take());
        let Some(socket) = inner.socket.take() else {
            return Ok(());
        };
        if inner.kind.receives_runs {
            // A duplicate of the descriptor may live on, with a reader who expects one datagram.
            let _ended = datagram::receive_runs(inner.fd, false);
        }
        socket.bind(py).call_method0(intern!(py, "close")).map(drop)
    }

    /// Reports an exception that the endpoint cannot survive, and closes at once. An OSError is
    /// told to the protocol, and logged in debug mode only.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    #[cold]
    pub(super) fn fatal_error(&self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let value = error.value(py).clone().into_any().unbind();
        if !error.is_instance_of::<PyOSError>(py) {
            self.report_value(&value, message)?;
        } else if self
            .event_loop()
            .call_method0(intern!(py, "get_debug"))?
            .is_truthy()?
        {
            let kwargs = PyDict::new(py);
            kwargs.set_item("exc_info", &value)?;
            let arguments = ("%r: %s", self.object(), message);
            imports::logger(py)?.call_method("debug", arguments, Some(&kwargs))?;
        }
        self.force_close(Some(value))
    }

    /// Reports an exception of a callback that the endpoint survives.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    #[cold]
    pub(super) fn report(&self, error: PyErr, message: &str) -> PyResult<()> {
        if leaves_the_loop(self.py(), &error) {
            return Err(error);
        }
        self.report_value(&error.into_value(self.py()).into_any(), message)
    }

    fn report_value(&self, error: &Py<PyAny>, message: &str) -> PyResult<()> {
        let protocol = self.protocol();
        report_error(self.event_loop(), &self.object(), protocol, error, message)
    }
}

/// The transport dies without having been closed.
pub(super) fn finalize(this: &This<'_, '_, DatagramTransport>) {
    let py = this.py();
    if this.own().socket.borrow().is_none() {
        return;
    }
    let warned = warn_unclosed(&this.object());
    let released = this.release();
    for outcome in [warned, released] {
        if let Err(error) = outcome {
            error.write_unraisable(py, None);
        }
    }
}
