//! A connection's life: made, closed, aborted, lost; and what ends it by force.

use super::{Delivery, Descriptor, Flags, Inner, StreamThis, StreamTransport, reader};
use crate::error::os_error;
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
use crate::server::{self, Server};
use crate::transport::flow_control::FlowControl;
use crate::transport::write_queue::WriteQueue;
use crate::transport::{report_error, warn_unclosed};
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::addr::SocketAddress;
use reactor::socket;
use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::RawFd;

/// A connected socket and everything that its transport needs.
pub(crate) struct Connected {
    pub(crate) fd: RawFd,
    pub(crate) descriptor: Descriptor,
    pub(crate) protocol: Py<PyAny>,
    /// A future that is done once `connection_made` was called.
    pub(crate) waiter: Option<Py<PyAny>>,
    /// The peer's address, where it is known already.
    pub(crate) peer: Option<SocketAddress>,
    pub(crate) server: Option<Py<Server>>,
    pub(crate) context: Captured,
}

/// What ended a connection by force.
pub(super) enum FatalError<'a> {
    Os(&'a io::Error),
    Python(PyErr),
}

/// Makes the transport and schedules `connection_made`, then reading, then the waiter.
///
/// # Errors
/// What registering the descriptor or scheduling raises. The descriptor is closed then.
pub(crate) fn start(
    event_loop: &Bound<'_, EventLoop>,
    connected: Connected,
) -> PyResult<Ref<StreamTransport>> {
    let py = event_loop.py();
    let state = event_loop.get().state(py);
    state.check_closed()?;
    let fd = connected.fd;
    let peer = connected.peer.or_else(|| socket::peer_address(fd).ok());
    disable_nagle(fd, peer.as_ref());
    let protocol = connected.protocol.bind(py).clone();
    let inner = Inner {
        event_loop: event_loop.clone().unbind(),
        fd,
        descriptor: RefCell::new(connected.descriptor),
        token: Cell::new(None),
        interest: Cell::new(None),
        protocol: RefCell::new(None),
        delivery: Cell::new(Delivery::Data),
        context: connected.context,
        server: RefCell::new(connected.server),
        extra: RefCell::new(None),
        peer: RefCell::new(peer),
        local: RefCell::new(None),
        queue: RefCell::new(WriteQueue::new()),
        waiter: RefCell::new(connected.waiter),
        writable: RefCell::new(None),
        flags: Flags::default(),
        flow: FlowControl::new(),
        last_read: Cell::new(0),
    };
    let transport = Ref::new(
        py,
        StreamTransport {
            inner: Attached::new(inner),
        },
    )?;
    let this = transport.this(py);
    this.set_protocol(&protocol)?;
    if let Some(server) = &*this.own().server.borrow() {
        server::attach(server.bind(py))?;
    }
    this.schedule_connection_made(&protocol)?;
    // The handles that were just queued keep it alive until it reads.
    let source = Source::IdleStream(transport.downgrade(py)?);
    let token = state.adopt_transport(fd, source);
    this.own().token.set(Some(token));
    Ok(transport)
}

/// Small writes should not wait for the peer's acknowledgement. Fails on what is not TCP.
fn disable_nagle(fd: RawFd, peer: Option<&SocketAddress>) {
    if let Some(SocketAddress::V4(_) | SocketAddress::V6(_)) = peer {
        let _ignored = socket::set_nodelay(fd, true);
    }
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.nullary(
        c"close",
        |this| this.close().and_then(|()| this.none()),
        c"Send what is queued, then close; connection_lost(None) follows.",
    );
    methods.nullary(
        c"abort",
        |this| this.abort().and_then(|()| this.none()),
        c"Close at once; what is queued is lost.",
    );
    methods.nullary(
        c"is_closing",
        |this| this.boolean(this.is_closing(this.py())),
        c"True once closing began.",
    );
    methods.method(
        c"set_protocol",
        |this, args| {
            this.set_protocol(&*args.one("set_protocol", "protocol")?)?;
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
        connection_lost,
        c"The deferred end.",
    );
    methods.nullary(c"_begin", begin, c"Starts reading, after connection_made.");
    methods.method(
        c"_force_close",
        force_close,
        c"Close at once because of an exception.",
    );
    methods.method(
        c"_fatal_error",
        fatal_error,
        c"Report an exception and close at once.",
    );
    methods.getter(c"_loop", |this| Ok(this.event_loop().clone().into_any()));
    methods.getter(c"_protocol", |this| this.or_none(this.protocol()));
    methods.getter(c"_closing", |this| this.boolean(this.is_closing(this.py())));
    methods.getter(c"_paused", |this| {
        this.boolean(this.own().flags.paused.get())
    });
    methods.getter(c"_start_tls_compatible", |this| this.boolean(true));
}

fn begin<'py>(this: &StreamThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    this.own().flags.started.set(true);
    if this.own().flags.conn_lost.get() == 0 {
        this.want_more();
    }
    let waiter = this.own().waiter.take();
    if let Some(waiter) = waiter {
        set_result_unless_cancelled(waiter.bind(py))?;
    }
    this.none()
}

/// Wakes whoever awaits `waiter`, unless it was cancelled meanwhile.
pub(crate) fn set_result_unless_cancelled(waiter: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = waiter.py();
    if waiter.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
        return Ok(());
    }
    waiter
        .call_method1(intern!(py, "set_result"), (py.None(),))
        .map(drop)
}

fn connection_lost<'py>(
    this: &StreamThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let error = args.one("_call_connection_lost", "exc")?;
    let error = (!error.is_none()).then(|| error.to_owned().unbind());
    this.call_connection_lost(error)?;
    this.none()
}

fn force_close<'py>(
    this: &StreamThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let error = args.one("_force_close", "exc")?;
    this.force_close((!error.is_none()).then(|| error.to_owned().unbind()))?;
    this.none()
}

fn fatal_error<'py>(
    this: &StreamThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [error, message] = args.bind("_fatal_error", ["exc", "message"], 1)?;
    let error = error.expect("invariant: bind checked the required argument");
    let message = message.map_or_else(
        || Ok("Fatal error on transport".to_owned()),
        |message| message.extract::<String>(),
    )?;
    this.fatal_error(
        FatalError::Python(PyErr::from_value(error.to_owned())),
        &message,
    )?;
    this.none()
}

impl<'py> StreamThis<'_, 'py> {
    fn schedule_connection_made(&self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let context = self.own().context.object(py)?;
        let made = protocol.getattr(intern!(py, "connection_made"))?;
        let transport = self.object();
        soon_method(
            py,
            self.event_loop(),
            &made,
            &[&transport],
            Captured::given(&context),
        )?;
        let begin = self.object().getattr(intern!(py, "_begin"))?;
        soon_method(
            py,
            self.event_loop(),
            &begin,
            &[],
            Captured::given(&context),
        )
    }

    pub(super) fn set_protocol(&self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let delivery = if protocol.is_instance(imports::buffered_protocol(py)?)? {
            Delivery::Buffered
        } else if reader::is_plain_stream_reader_protocol(protocol)? {
            Delivery::StreamReader
        } else {
            Delivery::Data
        };
        inner.delivery.set(delivery);
        let old = inner.protocol.replace(Some(protocol.clone().unbind()));
        drop(old);
        Ok(())
    }

    pub(super) fn close(&self) -> PyResult<()> {
        self.flush();
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

    pub(super) fn abort(&self) -> PyResult<()> {
        // asyncio has sent what the callback wrote before it aborts.
        self.flush();
        self.force_close(None)
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
        self.apply(self.wanted());
        flags.conn_lost.set(1);
        self.schedule_connection_lost(error)
    }

    /// Queues the deferred end.
    pub(super) fn schedule_connection_lost(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = self.py();
        if self.event_loop().get().state(py).check_closed().is_err() {
            return Err(self
                .loop_state()
                .check_closed()
                .expect_err("invariant: just seen closed"));
        }
        let lost = self
            .object()
            .getattr(intern!(py, "_call_connection_lost"))?;
        let error = error.map_or_else(|| py.None().into_bound(py), |error| error.into_bound(py));
        let context = self.own().context.object(py)?;
        soon_method(
            py,
            self.event_loop(),
            &lost,
            &[&error],
            Captured::given(&context),
        )
    }

    /// Tells the protocol, then lets everything go.
    fn call_connection_lost(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = self.py();
        let error = error.map_or_else(|| py.None().into_bound(py), |error| error.into_bound(py));
        let told = self.protocol().map_or(Ok(()), |protocol| {
            call_method(&protocol, intern!(py, "connection_lost"), &[&error]).map(drop)
        });
        let closed = self.release();
        told.and(closed)
    }

    /// Takes the transport out of the loop's registry, and the descriptor out of the poller if it
    /// is there.
    fn deregister(&self) {
        let (inner, state) = (self.own(), self.loop_state());
        let Some(token) = inner.token.take() else {
            return;
        };
        let source = match inner.interest.take() {
            Some(_) => state.deregister(inner.fd, token),
            None => state.forget(inner.fd, token),
        };
        drop(source);
    }

    /// Ends the registration, closes the descriptor and forgets protocol and server.
    fn release(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        self.deregister();
        *inner.local.borrow_mut() = socket::local_address(inner.fd).ok();
        let descriptor = inner.descriptor.replace(Descriptor::Closed);
        let closed = descriptor.close(py);
        let failed = self.fail_sendfile();
        drop(inner.protocol.take());
        drop(inner.queue.borrow_mut().take());
        let server = inner.server.take();
        if let Some(server) = server {
            server::detach(server.bind(py))?;
        }
        closed.and(failed)
    }

    /// Reports an exception that the connection cannot survive, and closes at once. An OSError is a
    /// peer's doing: it is logged in debug mode only, and told to the protocol.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    #[cold]
    pub(super) fn fatal_error(&self, error: FatalError<'_>, message: &str) -> PyResult<()> {
        let py = self.py();
        let error = match error {
            FatalError::Os(error) => os_error(error),
            FatalError::Python(error) => error,
        };
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let value = error.value(py).clone().into_any().unbind();
        if error.is_instance_of::<PyOSError>(py) {
            if self
                .event_loop()
                .call_method0(intern!(py, "get_debug"))?
                .is_truthy()?
            {
                let kwargs = PyDict::new(py);
                kwargs.set_item("exc_info", &value)?;
                let arguments = ("%r: %s", self.object(), message);
                imports::logger(py)?.call_method("debug", arguments, Some(&kwargs))?;
            }
        } else {
            self.report(&value, message)?;
        }
        self.force_close(Some(value))
    }

    fn report(&self, error: &Py<PyAny>, message: &str) -> PyResult<()> {
        let protocol = self.protocol();
        report_error(self.event_loop(), &self.object(), protocol, error, message)
    }
}

/// Reports an exception of a callback that the connection survives.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
pub(super) fn report_failure(
    this: &StreamThis<'_, '_>,
    error: PyErr,
    message: &str,
) -> PyResult<()> {
    if leaves_the_loop(this.py(), &error) {
        return Err(error);
    }
    this.report(&error.into_value(this.py()).into_any(), message)
}

/// The transport dies without having been closed.
pub(super) fn finalize(this: &This<'_, '_, StreamTransport>) {
    let py = this.py();
    if matches!(&*this.own().descriptor.borrow(), Descriptor::Closed) {
        return;
    }
    let warned = warn_unclosed(&this.object());
    let descriptor = this.own().descriptor.replace(Descriptor::Closed);
    this.deregister();
    let closed = descriptor.close(py);
    let server = this.own().server.take();
    let detached = server.map_or(Ok(()), |server| server::detach(server.bind(py)));
    for outcome in [warned, closed, detached] {
        if let Err(error) = outcome {
            error.write_unraisable(py, None);
        }
    }
}
