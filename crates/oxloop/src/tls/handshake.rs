//! The handshake: calls of `SSLObject.do_handshake` until it succeeds, fails or takes too long.

use super::lower::Lower;
use super::protocol::{AppState, HandshakeWaiter, ProtocolState, TlsProtocol, TlsThis};
use super::records::is_again;
use crate::error::caught;
use crate::event_loop::exceptions;
use crate::event_loop::metrics::ConnectionKind;
use crate::py::class::OfNative;
use crate::py::future::end_unless_cancelled;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::py::slot::Slot;
use pyo3::exceptions::{PyConnectionAbortedError, PyException};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::clock;

pub(super) fn add_methods(methods: &mut Methods<OfNative<TlsProtocol>>) {
    methods.nullary_procedure(
        c"_check_handshake_timeout",
        |this| this.check_handshake_timeout(),
        c"The time for the handshake is over.",
    );
}

impl<'py> TlsThis<'_, 'py> {
    pub(super) fn start_handshake(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        if self.loop_state().is_debug() {
            self.log_in_debug("%r starts SSL handshake")?;
            inner.handshake_start.set(Some(self.now()?));
        }
        inner.state.set(ProtocolState::DoHandshake);
        inner.flags.handshake_began.set(clock::now_ns());
        let check = self
            .object()
            .getattr(intern!(py, "_check_handshake_timeout"))?;
        let timer = self.call_later(&inner.handshake_timeout, &check)?;
        inner.handshake_timer.set(Some(timer));
        // A server waits for the client's first word: OpenSSL would only say so.
        if inner.server_side && inner.records.unread(py)? == 0 {
            return Ok(());
        }
        self.do_handshake()
    }

    pub(super) fn call_later(
        &self,
        delay: &Py<PyAny>,
        callback: &Bound<'py, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let timer = self
            .event_loop()
            .call_method1(intern!(self.py(), "call_later"), (delay, callback))?;
        Ok(timer.unbind())
    }

    fn now(&self) -> PyResult<f64> {
        self.event_loop()
            .call_method0(intern!(self.py(), "time"))?
            .extract()
    }

    fn check_handshake_timeout(&self) -> PyResult<()> {
        if self.own().state.get() != ProtocolState::DoHandshake {
            return Ok(());
        }
        let error = PyConnectionAbortedError::new_err(format!(
            "SSL handshake is taking longer than {} seconds: aborting the connection",
            self.own().handshake_timeout.bind(self.py()).str()?
        ));
        self.fatal_error(error, "Fatal error on transport")
    }

    pub(super) fn do_handshake(&self) -> PyResult<()> {
        let py = self.py();
        match self.own().records.call(intern!(py, "do_handshake")) {
            Ok(_) => self.handshake_succeeded(),
            Err(error) if is_again(py, &error)? => {
                self.own().records.free_buffers(py);
                self.process_outgoing()
            }
            Err(error) if error.is_instance(py, imports::ssl_error(py)?) => {
                self.handshake_failed(error)
            }
            Err(error) => Err(error),
        }
    }

    fn handshake_succeeded(&self) -> PyResult<()> {
        let inner = self.own();
        cancel(self.py(), &inner.handshake_timer)?;
        inner.state.set(ProtocolState::Wrapped);
        match self.learn() {
            Err(error) if error.is_instance_of::<PyException>(self.py()) => {
                return self.handshake_failed(error);
            }
            learned => learned?,
        }
        self.log_duration()?;
        self.count_handshake();
        if inner.app_state.get() == AppState::Init
            && let (Some(protocol), Some(transport)) = (self.app_protocol(), self.app_transport())
        {
            inner.app_state.set(AppState::ConnectionMade);
            let transport = transport.as_object().bind(self.py());
            call_method(
                &protocol,
                intern!(self.py(), "connection_made"),
                &[transport],
            )?;
        }
        self.wake_waiter(None)?;
        self.do_read(&[])
    }

    fn count_handshake(&self) {
        let (inner, metrics) = (self.own(), self.loop_state().metrics());
        let took = clock::now_ns().saturating_sub(inner.flags.handshake_began.get());
        metrics.tls.handshakes.add(1);
        metrics.tls.handshaking.add(took);
        metrics.connection_made(ConnectionKind::Tls, inner.server_side);
        inner.flags.secured.set(true);
    }

    /// The extra information that a handshake brings.
    fn learn(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let (ssl_object, extra) = (inner.ssl_object.bind(py), inner.extra.bind(py));
        for (name, method) in [
            (intern!(py, "peercert"), intern!(py, "getpeercert")),
            (intern!(py, "cipher"), intern!(py, "cipher")),
            (intern!(py, "compression"), intern!(py, "compression")),
        ] {
            extra.set_item(name, call_method(ssl_object, method, &[])?)?;
        }
        extra.set_item(intern!(py, "ssl_object"), ssl_object)
    }

    fn log_duration(&self) -> PyResult<()> {
        let Some(start) = self.own().handshake_start.take() else {
            return Ok(());
        };
        let milliseconds = (self.now()? - start) * 1e3;
        let arguments = (
            "%r: SSL handshake took %.1f ms",
            self.object(),
            milliseconds,
        );
        imports::logger(self.py())?
            .call_method1("debug", arguments)
            .map(drop)
    }

    pub(super) fn handshake_failed(&self, error: PyErr) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        cancel(py, &inner.handshake_timer)?;
        inner.state.set(ProtocolState::Unwrapped);
        let message = if error.is_instance(py, imports::certificate_error(py)?) {
            "SSL handshake failed on verifying the certificate"
        } else {
            "SSL handshake failed"
        };
        self.fatal_error(error.clone_ref(py), message)?;
        self.wake_waiter(Some(&error))
    }

    /// Tells whoever wants to know how the handshake ended.
    pub(super) fn wake_waiter(&self, error: Option<&PyErr>) -> PyResult<()> {
        match self.own().waiter.take() {
            HandshakeWaiter::Future(waiter) => self.finish(waiter.bind(self.py()), error),
            HandshakeWaiter::Server => {
                let reported = error.map_or(Ok(()), |error| self.report_to_server(error));
                let ended = match self.lower() {
                    Some(Lower::Stream(transport)) => transport.this(self.py()).accept_ends(),
                    _ => Ok(()),
                };
                reported.and(ended)
            }
            HandshakeWaiter::Nobody => Ok(()),
        }
    }

    fn finish(&self, waiter: &Bound<'py, PyAny>, error: Option<&PyErr>) -> PyResult<()> {
        let py = self.py();
        let outcome = error.map_or_else(|| Ok(py.None()), |error| Err(error.clone_ref(py)));
        end_unless_cancelled(waiter, outcome)
    }

    /// asyncio's report of a connection that a server accepted, in debug mode.
    fn report_to_server(&self, error: &PyErr) -> PyResult<()> {
        let py = self.py();
        if !self.loop_state().is_debug() {
            return Ok(());
        }
        let context = PyDict::new(py);
        context.set_item(
            "message",
            "Error on transport creation for incoming connection",
        )?;
        context.set_item("exception", caught(py, error))?;
        if let (Some(protocol), Some(transport)) = (self.app_protocol(), self.app_transport()) {
            context.set_item("protocol", protocol)?;
            context.set_item("transport", transport.as_object())?;
        }
        exceptions::report(self.event_loop(), &context)
    }
}

/// Cancels a timer, if it runs.
pub(super) fn cancel(py: Python<'_>, timer: &Slot) -> PyResult<()> {
    match timer.take() {
        Some(timer) => call_method(timer.bind(py), intern!(py, "cancel"), &[]).map(drop),
        None => Ok(()),
    }
}
