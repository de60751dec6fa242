//! `TlsTransport`: a TLS connection as the program sees it.

use super::protocol::{TlsProtocol, TlsThis};
use crate::py::args::Args;
use crate::py::attached::Attached;
use crate::py::buffer::copy_to_bytes;
use crate::py::class::{Class, Native, OfNative, Ref, This, Visit, VisitStopped};
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::flow_control::FlowControl;
use crate::transport::{chunk_of, is_writable_data};
use pyo3::exceptions::{PyNotImplementedError, PyResourceWarning, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use std::cell::{Cell, RefCell};

/// The payload of a transport object.
pub(crate) struct TlsTransport {
    inner: Attached<TlsTransportState>,
}

struct TlsTransportState {
    /// None once the connection is over and the program closed it twice: asyncio's way to let go
    /// of an SSLContext that a protocol would keep, see `close`.
    protocol: RefCell<Option<Ref<TlsProtocol>>>,
    closed: Cell<bool>,
    closed_twice: Cell<bool>,
}

/// A borrowed transport while one of its methods runs.
type TransportThis<'a, 'py> = This<'a, 'py, TlsTransport>;

static CLASS: Class = Class::new();

impl Native for TlsTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self.inner.during_collection(visit).protocol.try_borrow() {
            Ok(protocol) => visit.option(protocol.as_ref().map(Ref::as_object)),
            Err(_) => Ok(()),
        }
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.inner.get(py).protocol.take());
    }

    fn finalize(this: &This<'_, '_, Self>) {
        if this.own().closed.replace(true) {
            return;
        }
        if let Err(error) = warn(this) {
            error.write_unraisable(this.py(), None);
        }
    }
}

fn warn(this: &TransportThis<'_, '_>) -> PyResult<()> {
    let py = this.py();
    let text = format!("unclosed transport {}", this.object().repr()?);
    imports::warnings(py)?
        .call_method1("warn", (text, py.get_type::<PyResourceWarning>()))
        .map(drop)
}

impl TlsTransport {
    pub(super) fn create(py: Python<'_>, protocol: Ref<TlsProtocol>) -> PyResult<Ref<Self>> {
        let inner = Attached::new(TlsTransportState {
            protocol: RefCell::new(Some(protocol)),
            closed: Cell::new(false),
            closed_twice: Cell::new(false),
        });
        Ref::new(py, Self { inner })
    }
}

pub(super) fn type_object(py: Python<'_>) -> Bound<'_, PyType> {
    CLASS.type_object(py)
}

/// What `start_tls` and `sendfile` look for.
pub(super) fn declare(py: Python<'_>) -> PyResult<()> {
    let class = type_object(py);
    class.setattr("_start_tls_compatible", true)?;
    class.setattr(
        "_sendfile_compatible",
        imports::sendfile_mode(py)?.getattr("FALLBACK")?,
    )
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<TlsTransport>>) {
    add_state(methods);
    add_closing(methods);
    add_reading(methods);
    add_writing(methods);
    add_limits(methods);
}

fn add_state(methods: &mut Methods<OfNative<TlsTransport>>) {
    methods.method(
        c"get_extra_info",
        "name, default=None",
        |this, args| {
            let [name, default] = args.bind("get_extra_info", ["name", "default"], 1)?;
            let name = name.expect("invariant: bind checked the required argument");
            let default = this.or_none(default.map(|default| default.to_owned()))?;
            let value = this.ask(|tls| tls.extra_info(&name, &default));
            value.unwrap_or(Ok(default))
        },
        c"sslcontext, ssl_object, peercert, cipher, compression, and what the transport below has.",
    );
    methods.procedure(
        c"set_protocol",
        "protocol",
        |this, args| {
            let protocol = args.one("set_protocol", "protocol")?;
            this.with_tls(|tls| tls.set_app_protocol(&protocol))
        },
        c"Replace the protocol.",
    );
    methods.nullary(
        c"get_protocol",
        |this| this.or_none(this.ask(|tls| tls.app_protocol()).flatten()),
        c"The current protocol.",
    );
    methods.nullary(
        c"is_closing",
        |this| {
            let closing = this.is_closing()?;
            this.boolean(closing)
        },
        c"True once closing began.",
    );
    methods.getter(c"_loop", |this| {
        this.or_none(this.ask(|tls| tls.event_loop().clone().into_any()))
    });
    methods.getter(c"_ssl_protocol", |this| {
        this.or_none(this.ask(|tls| tls.object().to_owned()))
    });
    methods.getter(c"_closed", |this| this.boolean(this.own().closed.get()));
}

fn add_closing(methods: &mut Methods<OfNative<TlsTransport>>) {
    methods.nullary_procedure(
        c"close",
        |this| this.close(),
        c"Send what is queued and close_notify, then close; connection_lost(None) follows.",
    );
    methods.nullary_procedure(
        c"abort",
        |this| this.force_close(None),
        c"Close at once; what is queued is lost.",
    );
    methods.procedure(
        c"_force_close",
        "exc",
        |this, args| {
            let error = args.one("_force_close", "exc")?;
            let error = (!error.is_none()).then(|| PyErr::from_value(error.to_owned()));
            this.force_close(error.as_ref())
        },
        c"Close at once because of an exception.",
    );
}

fn add_reading(methods: &mut Methods<OfNative<TlsTransport>>) {
    methods.nullary(
        c"is_reading",
        |this| {
            let paused = this.ask(|tls| tls.own().flags.app_reading_paused.get());
            this.boolean(paused == Some(false))
        },
        c"True unless paused.",
    );
    methods.nullary_procedure(
        c"pause_reading",
        |this| {
            this.ask(|tls| tls.pause_reading());
            Ok(())
        },
        c"Do not deliver data until resume_reading().",
    );
    methods.nullary_procedure(
        c"resume_reading",
        |this| this.with_tls(|tls| tls.resume_reading()),
        c"Deliver data again.",
    );
}

fn add_writing(methods: &mut Methods<OfNative<TlsTransport>>) {
    methods.procedure(
        c"write",
        "data",
        |this, args| this.write(&*args.one("write", "data")?),
        c"Encrypt and send or queue bytes; never blocks.",
    );
    methods.procedure(
        c"writelines",
        "list_of_data",
        writelines,
        c"Encrypt and send or queue an iterable of bytes objects.",
    );
    methods.nullary(
        c"write_eof",
        |_this| Err(PyNotImplementedError::new_err(())),
        c"TLS connections cannot be half-closed: raises NotImplementedError, as in asyncio.",
    );
    methods.nullary(
        c"can_write_eof",
        |this| this.boolean(false),
        c"False: TLS connections cannot be half-closed.",
    );
    methods.procedure(
        c"_test__append_write_backlog",
        "data",
        |this, args| {
            let data = copy_to_bytes(&*args.one("_test__append_write_backlog", "data")?)?;
            this.ask(|tls| tls.own().backlog.borrow_mut().push(data));
            Ok(())
        },
        c"asyncio's own tests make a backlog with it.",
    );
}

fn add_limits(methods: &mut Methods<OfNative<TlsTransport>>) {
    methods.nullary(
        c"get_write_buffer_size",
        |this| {
            let size = this.ask(|tls| tls.queued()).unwrap_or(0);
            Ok(size.into_pyobject(this.py())?.into_any())
        },
        c"Bytes that are queued and not yet sent.",
    );
    methods.nullary(
        c"get_write_buffer_limits",
        |this| {
            let limits = this.ask(|tls| tls.own().outgoing.limits(this.py()));
            limits.unwrap_or_else(|| this.none())
        },
        c"(low, high) water marks in bytes.",
    );
    methods.procedure(
        c"set_write_buffer_limits",
        "high=None, low=None",
        |this, args| {
            this.with_tls(|tls| {
                tls.own().outgoing.set_limits(&args)?;
                tls.apply_marks()
            })
        },
        c"Set the water marks in bytes; low defaults to a quarter of high.",
    );
    methods.nullary(
        c"get_read_buffer_size",
        |this| {
            let size = this.ask(|tls| tls.own().records.unread(this.py()));
            let size = size.unwrap_or(Ok(0))?;
            Ok(size.into_pyobject(this.py())?.into_any())
        },
        c"Bytes that arrived and are not yet decrypted.",
    );
    methods.nullary(
        c"get_read_buffer_limits",
        |this| {
            let limits = this.ask(|tls| tls.own().incoming.limits(this.py()));
            limits.unwrap_or_else(|| this.none())
        },
        c"(low, high) water marks in bytes.",
    );
    methods.procedure(
        c"set_read_buffer_limits",
        "high=None, low=None",
        |this, args| {
            this.with_tls(|tls| {
                let limits = &tls.own().incoming;
                limits.set_limits_by("set_read_buffer_limits", &args)?;
                tls.control_ssl_reading()
            })
        },
        c"Set the water marks in bytes; low defaults to a quarter of high.",
    );
    methods.getter(c"_protocol_paused", |this| {
        let paused = this.ask(|tls| tls.own().outgoing.is_paused());
        this.boolean(paused == Some(true))
    });
}

fn writelines<'py>(this: &TransportThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let lines = args.one("writelines", "list_of_data")?;
    let joined = PyBytes::new(this.py(), b"").call_method1("join", (lines,))?;
    this.write(&joined)
}

impl<'py> TransportThis<'_, 'py> {
    fn own(&self) -> &TlsTransportState {
        self.payload().inner.get(self.py())
    }

    fn tls(&self) -> Option<Ref<TlsProtocol>> {
        let protocol = self.own().protocol.borrow();
        protocol
            .as_ref()
            .map(|protocol| protocol.clone_ref(self.py()))
    }

    /// Calls `body`, while there is a connection.
    fn with_tls(&self, body: impl FnOnce(&TlsThis<'_, 'py>) -> PyResult<()>) -> PyResult<()> {
        match self.tls() {
            Some(tls) => body(&tls.this(self.py())),
            None => Ok(()),
        }
    }

    /// What the connection says; None without one.
    fn ask<R>(&self, question: impl FnOnce(&TlsThis<'_, 'py>) -> R) -> Option<R> {
        self.tls().map(|tls| question(&tls.this(self.py())))
    }

    fn is_closing(&self) -> PyResult<bool> {
        if self.own().closed.get() {
            return Ok(true);
        }
        let closing = self.ask(|tls| {
            let lower = tls.lower();
            lower.map_or(Ok(false), |lower| lower.is_closing(self.py()))
        });
        closing.unwrap_or(Ok(true))
    }

    fn close(&self) -> PyResult<()> {
        let own = self.own();
        if !own.closed.replace(true) {
            return self.with_tls(|tls| {
                tls.own().flags.app_closed.set(true);
                tls.start_shutdown()
            });
        }
        own.closed_twice.set(true);
        if self.ask(|tls| tls.is_lost()) != Some(false) {
            drop(own.protocol.take());
        }
        Ok(())
    }

    fn force_close(&self, error: Option<&PyErr>) -> PyResult<()> {
        self.own().closed.set(true);
        self.with_tls(|tls| tls.abort(error))
    }

    /// Takes marks that fit those of a TLS connection above.
    pub(super) fn stay_within(&self, above: &FlowControl) -> PyResult<()> {
        self.with_tls(|tls| {
            tls.own().outgoing.stay_within(above);
            tls.apply_marks()
        })
    }

    /// Closing has begun: nobody has to be warned of the connection.
    pub(super) fn mark_closed(&self) {
        self.own().closed.set(true);
    }

    /// The connection is over.
    pub(super) fn connection_lost(&self) {
        self.mark_closed();
        if self.own().closed_twice.get() {
            drop(self.own().protocol.take());
        }
    }

    fn write(&self, data: &Bound<'py, PyAny>) -> PyResult<()> {
        if !is_writable_data(data) {
            return Err(PyTypeError::new_err(format!(
                "data: expecting a bytes-like instance, got {}",
                data.get_type().name()?
            )));
        }
        match chunk_of(data)? {
            Some(chunk) => self.with_tls(|tls| tls.write_appdata(chunk)),
            None => Ok(()),
        }
    }
}
