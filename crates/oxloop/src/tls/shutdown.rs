//! Closing: close_notify both ways, the shutdown timeout, and the end of the connection.

use super::backlog::Backlog;
use super::handshake::cancel;
use super::lower::Lower;
use super::protocol::{AppState, ProtocolState, TlsProtocol, TlsThis};
use super::records::is_again;
use crate::event_loop::metrics::ConnectionKind;
use crate::py::class::OfNative;
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::base::{log_failure_in_debug, report_error};
use pyo3::exceptions::{PyOSError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;

pub(super) fn add_methods(methods: &mut Methods<OfNative<TlsProtocol>>) {
    methods.procedure(
        c"connection_lost",
        "exc",
        |this, args| this.connection_lost(&*args.one("connection_lost", "exc")?),
        c"The transport below is closed.",
    );
    methods.nullary_procedure(
        c"_check_shutdown_timeout",
        |this| this.check_shutdown_timeout(),
        c"The time for closing is over.",
    );
}

impl<'py> TlsThis<'_, 'py> {
    /// `transport.close()`.
    pub(super) fn start_shutdown(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        match inner.state.get() {
            ProtocolState::Flushing | ProtocolState::Shutdown | ProtocolState::Unwrapped => {
                return Ok(());
            }
            ProtocolState::DoHandshake | ProtocolState::Wrapped => {}
        }
        self.mark_closed();
        if inner.state.get() == ProtocolState::DoHandshake {
            return self.abort(None);
        }
        inner.state.set(ProtocolState::Flushing);
        self.start_shutdown_timer(py)?;
        self.do_flush()
    }

    fn mark_closed(&self) {
        if let Some(transport) = self.app_transport() {
            transport.this(self.py()).mark_closed();
        }
    }

    /// Starts the timer, unless it runs.
    fn start_shutdown_timer(&self, py: Python<'py>) -> PyResult<()> {
        let inner = self.own();
        if !inner.shutdown_timer.is_empty() {
            return Ok(());
        }
        let check = self
            .object()
            .getattr(intern!(py, "_check_shutdown_timeout"))?;
        let timer = self.call_later(&inner.shutdown_timeout, &check)?;
        inner.shutdown_timer.set(Some(timer));
        Ok(())
    }

    fn check_shutdown_timeout(&self) -> PyResult<()> {
        if !matches!(
            self.own().state.get(),
            ProtocolState::Flushing | ProtocolState::Shutdown
        ) {
            return Ok(());
        }
        match self.lower() {
            Some(lower) => {
                let error = PyTimeoutError::new_err("SSL shutdown timed out");
                lower.force_close(self.py(), Some(&error))
            }
            None => Ok(()),
        }
    }

    /// Delivers what has arrived, encrypts what was written, and sends close_notify.
    pub(super) fn do_flush(&self) -> PyResult<()> {
        let inner = self.own();
        self.do_read(&[])?;
        if !inner.backlog.borrow().is_empty() {
            self.or_fatal(self.do_write())?;
        }
        // The protocol may have aborted meanwhile.
        if inner.state.get() != ProtocolState::Flushing {
            return Ok(());
        }
        inner.state.set(ProtocolState::Shutdown);
        self.do_shutdown()
    }

    pub(super) fn do_shutdown(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        if !inner.flags.eof_received.get() {
            match inner.records.call(intern!(py, "unwrap")) {
                Ok(_) => {}
                Err(error) if is_again(py, &error)? => return self.process_outgoing(),
                Err(error) if error.is_instance(py, imports::ssl_error(py)?) => {
                    cancel(py, &inner.shutdown_timer)?;
                    return self.fatal_error(error, "Fatal error on transport");
                }
                Err(error) => return Err(error),
            }
        }
        self.process_outgoing()?;
        self.call_eof_received()?;
        self.close_lower()
    }

    /// Closes the transport below in the next turn. It sends its queue first, which a peer that
    /// does not read can delay for ever: the timer goes on.
    fn close_lower(&self) -> PyResult<()> {
        let py = self.py();
        self.start_shutdown_timer(py)?;
        let Some(lower) = self.lower() else {
            return Ok(());
        };
        let close = lower.as_object().bind(py).getattr(intern!(py, "close"))?;
        self.event_loop()
            .call_method1(intern!(py, "call_soon"), (close,))
            .map(drop)
    }

    /// Ends the connection without close_notify.
    pub(super) fn abort(&self, error: Option<&PyErr>) -> PyResult<()> {
        self.own().state.set(ProtocolState::Unwrapped);
        match self.lower() {
            Some(lower) => lower.force_close(self.py(), error),
            None => Ok(()),
        }
    }

    /// Ends the connection because of `error`. An OSError is logged in debug mode only, because the
    /// peer causes it.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    #[cold]
    pub(super) fn fatal_error(&self, error: PyErr, message: &str) -> PyResult<()> {
        let py = self.py();
        let lower = self.lower();
        if let Some(lower) = &lower {
            let told = self.send_alert(lower);
            lower.force_close(py, Some(&error))?;
            told?;
        }
        if error.is_instance_of::<PyOSError>(py) {
            let value = error.into_value(py).into_bound(py);
            return log_failure_in_debug(self.event_loop(), &self.object(), &value, message);
        }
        if error.is_instance(py, imports::cancelled_error(py)?) {
            return Ok(());
        }
        let transport = lower.map(|lower| lower.as_object().bind(py).clone());
        let transport = self.or_none(transport)?;
        let own = Some(self.object().to_owned());
        let value = error.into_value(py).into_any();
        report_error(self.event_loop(), &transport, own, &value, message)
    }

    /// Sends OpenSSL's alert about an error to the peer, which asyncio does not.
    fn send_alert(&self, lower: &Lower) -> PyResult<()> {
        match self.own().records.take_ciphertext(self.py())? {
            Some(alert) => lower.write(self.py(), alert),
            None => Ok(()),
        }
    }

    /// True once the transport below is gone.
    pub(super) fn is_lost(&self) -> bool {
        self.own().transport.borrow().is_none() && self.own().flags.conn_lost.get() > 0
    }

    fn count_lost(&self, failed: bool) {
        let metrics = self.loop_state().metrics();
        if self.own().flags.secured.get() {
            metrics.connection_lost(ConnectionKind::Tls, failed);
        } else {
            metrics.tls.handshakes_failed.add(1);
        }
    }

    /// The transport below is gone: calls the program's `connection_lost` and releases everything.
    fn connection_lost(&self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let unsent = inner.backlog.replace(Backlog::default());
        drop(unsent);
        drop(inner.records.take_ciphertext(py)?);
        let lost = &inner.flags.conn_lost;
        lost.set(lost.get().saturating_add(1));
        self.count_lost(!error.is_none());
        if let Some(transport) = self.app_transport() {
            transport.this(py).connection_lost();
        }
        let told = matches!(
            inner.app_state.get(),
            AppState::ConnectionMade | AppState::EofReceived
        );
        if inner.state.get() != ProtocolState::DoHandshake
            && told
            && let Some(protocol) = self.app_protocol()
        {
            inner.app_state.set(AppState::ConnectionLost);
            let lost = protocol.getattr(intern!(py, "connection_lost"))?;
            self.event_loop()
                .call_method1(intern!(py, "call_soon"), (lost, error))?;
        }
        inner.state.set(ProtocolState::Unwrapped);
        let raised = (!error.is_none()).then(|| PyErr::from_value(error.clone()));
        let woken = self.wake_waiter(raised.as_ref());
        drop(inner.transport.take());
        drop(inner.app_transport.take());
        inner.app_protocol.set(None);
        woken?;
        cancel(py, &inner.shutdown_timer)?;
        cancel(py, &inner.handshake_timer)
    }
}
