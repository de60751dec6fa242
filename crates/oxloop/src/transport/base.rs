//! `BaseTransport`: what all transports have in common.
//!
//! asyncio's transports inherit this from classes; here it is a trait, and its methods are generic
//! over the native type. A type says where its `Parties` are and what closing means for it.

use crate::error::leaves_the_loop;
use crate::event_loop::schedule::soon_method;
use crate::event_loop::{EventLoop, State, exceptions};
use crate::py::class::{Native, OfNative, This, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::{call_method, warn};
use crate::py::slot::Slot;
use pyo3::exceptions::{PyBaseException, PyResourceWarning};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict};
use std::cell::Cell;

/// From this count on, asyncio warns of a write to a lost connection.
const WARN_AFTER: u32 = 5;

/// The loop and the protocol of a transport, and the context in which the protocol is called.
pub(crate) struct Parties {
    event_loop: Py<EventLoop>,
    protocol: Slot,
    pub(super) context: Captured,
}

impl Parties {
    pub(super) fn new(
        event_loop: &Bound<'_, EventLoop>,
        protocol: Py<PyAny>,
        context: Captured,
    ) -> Self {
        Self {
            event_loop: event_loop.clone().unbind(),
            protocol: protocol.into(),
            context,
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.event_loop)?;
        self.context.traverse(visit)?;
        self.protocol.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        self.protocol.set(None);
        self.context.clear(py);
    }
}

/// asyncio's `BaseTransport`, and what a type provides for it.
pub(crate) trait BaseTransport: Native {
    fn parties(&self, py: Python<'_>) -> &Parties;

    fn is_closing(&self, py: Python<'_>) -> bool;

    /// # Errors
    /// RuntimeError on a closed loop.
    fn close(this: &This<'_, '_, Self>) -> PyResult<()>;

    /// Called before `protocol` takes the place of the current one.
    ///
    /// # Errors
    /// What looking at the new protocol raises.
    fn protocol_changes(_this: &This<'_, '_, Self>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(())
    }
}

impl<'py, T: BaseTransport> This<'_, 'py, T> {
    #[inline]
    fn parties(&self) -> &Parties {
        self.payload().parties(self.py())
    }

    #[inline]
    pub(super) fn event_loop(&self) -> &Bound<'py, EventLoop> {
        self.parties().event_loop.bind(self.py())
    }

    #[inline]
    pub(super) fn loop_state(&self) -> &State {
        self.event_loop().get().state(self.py())
    }

    #[inline]
    pub(super) fn protocol(&self) -> Option<Bound<'py, PyAny>> {
        self.parties().protocol.get(self.py())
    }

    pub(super) fn set_protocol(&self, protocol: &Bound<'py, PyAny>) -> PyResult<()> {
        T::protocol_changes(self, protocol)?;
        let protocol = protocol.clone().unbind();
        self.parties().protocol.set(Some(protocol));
        Ok(())
    }

    pub(super) fn forget_protocol(&self) {
        self.parties().protocol.set(None);
    }

    /// Queues a callback, in the transport's context.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(crate) fn soon(
        &self,
        callback: &Bound<'py, PyAny>,
        arguments: &[&Bound<'py, PyAny>],
    ) -> PyResult<()> {
        let py = self.py();
        self.loop_state().check_closed()?;
        let context = Captured::given(&self.parties().context.object(py)?);
        soon_method(py, self.event_loop(), callback, arguments, context)
    }

    /// Queues `connection_made`, and `_begin` behind it.
    pub(super) fn schedule_beginning(&self) -> PyResult<()> {
        let py = self.py();
        if let Some(protocol) = self.protocol() {
            let made = protocol.getattr(intern!(py, "connection_made"))?;
            self.soon(&made, &[&self.object()])?;
        }
        self.soon(&self.object().getattr(intern!(py, "_begin"))?, &[])
    }

    /// Queues `_call_connection_lost`.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(super) fn schedule_connection_lost(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let py = self.py();
        let lost = self
            .object()
            .getattr(intern!(py, "_call_connection_lost"))?;
        let error = error.map_or_else(|| py.None().into_bound(py), |error| error.into_bound(py));
        self.soon(&lost, &[&error])
    }

    /// Calls the protocol's `connection_lost`.
    pub(super) fn tell_connection_lost(&self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        self.protocol().map_or(Ok(()), |protocol| {
            call_method(&protocol, intern!(self.py(), "connection_lost"), &[error]).map(drop)
        })
    }

    /// Reports an exception of a callback; the transport goes on.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    #[cold]
    pub(super) fn report(&self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        self.call_exception_handler(&error.into_value(py).into_any(), message)
    }

    /// As `report`, where asyncio leaves the exception to the handle that runs the callback: the
    /// message is that of a handle of the protocol's method `name`.
    #[cold]
    pub(super) fn report_callback(&self, error: PyErr, name: &str) -> PyResult<()> {
        let Some(protocol) = self.protocol() else {
            return self.report(error, &format!("Exception in callback {name}()"));
        };
        let class = protocol.get_type().qualname()?;
        self.report(error, &format!("Exception in callback {class}.{name}()"))
    }

    /// Reports an exception that ends the transport, and returns the exception object. One that the
    /// peer caused (`expected`) is only logged, and only in debug mode.
    ///
    /// # Errors
    /// As `report`.
    #[cold]
    pub(super) fn report_fatal(
        &self,
        error: PyErr,
        expected: bool,
        message: &str,
    ) -> PyResult<Py<PyAny>> {
        let py = self.py();
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let value = error.into_value(py);
        if expected {
            log_failure_in_debug(self.event_loop(), &self.object(), value.bind(py), message)?;
            return Ok(value.into_any());
        }
        let value = value.into_any();
        self.call_exception_handler(&value, message)?;
        Ok(value)
    }

    fn call_exception_handler(&self, error: &Py<PyAny>, message: &str) -> PyResult<()> {
        let protocol = self.protocol();
        report_error(self.event_loop(), &self.object(), protocol, error, message)
    }

    pub(super) fn log_in_debug(&self, level: &str, text: &str) -> PyResult<()> {
        log_in_debug(self.event_loop(), &self.object(), level, text)
    }

    /// For the finalizer of a transport that was not closed: warns, then calls `close`.
    pub(super) fn finalize_open(&self, close: impl FnOnce() -> PyResult<()>) {
        let warned = warn_unclosed(&self.object());
        for outcome in [warned, close()] {
            if let Err(error) = outcome {
                error.write_unraisable(self.py(), None);
            }
        }
    }
}

/// Gives an exception to the loop's exception handler, with the keys that asyncio's transports use.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
pub(crate) fn report_error(
    event_loop: &Bound<'_, EventLoop>,
    transport: &Bound<'_, PyAny>,
    protocol: Option<Bound<'_, PyAny>>,
    error: &Py<PyAny>,
    message: &str,
) -> PyResult<()> {
    let context = PyDict::new(event_loop.py());
    context.set_item("message", message)?;
    context.set_item("exception", error)?;
    context.set_item("transport", transport)?;
    context.set_item("protocol", protocol)?;
    exceptions::report(event_loop, &context)
}

/// Logs `text` about a transport or protocol, in debug mode.
///
/// # Errors
/// What a log handler raises.
#[inline]
pub(crate) fn log_in_debug(
    event_loop: &Bound<'_, EventLoop>,
    subject: &Bound<'_, PyAny>,
    level: &str,
    text: &str,
) -> PyResult<()> {
    let py = event_loop.py();
    if !event_loop.get().state(py).is_debug() {
        return Ok(());
    }
    imports::logger(py)?
        .call_method1(level, (text, subject))
        .map(drop)
}

/// Logs a failure that the peer caused, in debug mode.
///
/// # Errors
/// What `get_debug` or a log handler raises.
#[cold]
pub(crate) fn log_failure_in_debug(
    event_loop: &Bound<'_, EventLoop>,
    subject: &Bound<'_, PyAny>,
    error: &Bound<'_, PyBaseException>,
    message: &str,
) -> PyResult<()> {
    let py = event_loop.py();
    let debug = event_loop.call_method0(intern!(py, "get_debug"))?;
    if !debug.is_truthy()? {
        return Ok(());
    }
    exceptions::log_exception(error, "debug", ("%r: %s", subject, message))
}

/// Counts a write to a lost connection. The write is dropped; from `WARN_AFTER` on, a warning is
/// logged.
///
/// # Errors
/// What a log handler raises.
#[cold]
pub(crate) fn count_lost_write(py: Python<'_>, lost: &Cell<u32>, warning: &str) -> PyResult<()> {
    if lost.get() >= WARN_AFTER {
        imports::logger(py)?.call_method1("warning", (warning,))?;
    }
    lost.set(lost.get().saturating_add(1));
    Ok(())
}

/// Issues the ResourceWarning of a transport that was not closed.
pub(super) fn warn_unclosed(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    let keywords = [("source", transport)].into_py_dict(py)?;
    let text = format!("unclosed transport {}", transport.repr()?);
    warn::<PyResourceWarning>(&text, &keywords)
}

pub(super) fn add_methods<T: BaseTransport>(methods: &mut Methods<OfNative<T>>) {
    methods.nullary_procedure(
        c"close",
        |this| T::close(this),
        c"Finish what is queued, then close; connection_lost(None) follows.",
    );
    methods.nullary(
        c"is_closing",
        |this| this.boolean(this.payload().is_closing(this.py())),
        c"True once closing began.",
    );
    methods.procedure(
        c"set_protocol",
        "protocol",
        |this, args| this.set_protocol(&*args.one("set_protocol", "protocol")?),
        c"Replace the protocol.",
    );
    methods.nullary(
        c"get_protocol",
        |this| this.or_none(this.protocol()),
        c"The current protocol.",
    );
    methods.getter(c"_loop", |this| Ok(this.event_loop().clone().into_any()));
    methods.getter(c"_protocol", |this| this.or_none(this.protocol()));
}
