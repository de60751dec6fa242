//! Checks `ssl=` and the keywords that go with it, and makes a TLS protocol from them.

use super::{HandshakeWaiter, Options, TlsProtocol};
use crate::event_loop::EventLoop;
use crate::py::class::{Ref, Visit, VisitStopped};
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyBool;

/// The keywords that come with `ssl=`.
pub(crate) struct TlsOptions {
    /// `ssl=`: an SSLContext, True for a default one, None or False for none.
    pub(crate) ssl: Py<PyAny>,
    pub(crate) server_hostname: Option<Py<PyAny>>,
    pub(crate) handshake_timeout: Option<Py<PyAny>>,
    pub(crate) shutdown_timeout: Option<Py<PyAny>>,
}

impl TlsOptions {
    pub(crate) fn new(
        py: Python<'_>,
        ssl: Option<Py<PyAny>>,
        server_hostname: Option<Py<PyAny>>,
        [handshake_timeout, shutdown_timeout]: [Option<Py<PyAny>>; 2],
    ) -> Self {
        Self {
            ssl: ssl.unwrap_or_else(|| py.None()),
            server_hostname,
            handshake_timeout,
            shutdown_timeout,
        }
    }

    /// For the collector, on behalf of the object that keeps these options.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.ssl)?;
        visit.option(self.server_hostname.as_ref())?;
        visit.option(self.handshake_timeout.as_ref())?;
        visit.option(self.shutdown_timeout.as_ref())
    }

    /// True if TLS was asked for.
    pub(crate) fn is_wanted(&self, py: Python<'_>) -> PyResult<bool> {
        self.ssl.bind(py).is_truthy()
    }

    /// # Errors
    /// ValueError for a timeout that would have no effect.
    pub(crate) fn check_timeouts(&self, meaningful: bool) -> PyResult<()> {
        let given = [
            (&self.handshake_timeout, "ssl_handshake_timeout"),
            (&self.shutdown_timeout, "ssl_shutdown_timeout"),
        ];
        match given.into_iter().find(|(timeout, _)| timeout.is_some()) {
            Some((_, name)) if !meaningful => Err(only_with_ssl(name)),
            _ => Ok(()),
        }
    }

    /// The checks of a server's keywords, where `ssl=True` is not enough.
    ///
    /// # Errors
    /// TypeError for a bool; ValueError for a timeout that would have no effect.
    pub(crate) fn check_server(&self, py: Python<'_>, meaningful: bool) -> PyResult<()> {
        if self.ssl.bind(py).is_instance_of::<PyBool>() {
            return Err(PyTypeError::new_err(
                "ssl argument must be an SSLContext or None",
            ));
        }
        self.check_timeouts(meaningful)
    }

    /// The protocol to put on a transport; the program gets its `app_transport`. `waiter` hears
    /// how the handshake ends.
    ///
    /// # Errors
    /// ValueError for what cannot be, and what the SSLContext raises.
    pub(crate) fn protocol<'py>(
        &self,
        event_loop: &Bound<'py, EventLoop>,
        protocol: &Bound<'py, PyAny>,
        waiter: HandshakeWaiter,
        server_side: bool,
        call_connection_made: bool,
    ) -> PyResult<Ref<TlsProtocol>> {
        let py = event_loop.py();
        let ssl = self.ssl.bind(py);
        let options = Options {
            context: (!ssl.is_instance_of::<PyBool>()).then(|| ssl.clone()),
            server_side,
            server_hostname: self.server_hostname.as_ref().map(|name| name.bind(py)),
            handshake_timeout: self.handshake_timeout.as_ref().map(|it| it.bind(py)),
            shutdown_timeout: self.shutdown_timeout.as_ref().map(|it| it.bind(py)),
            waiter,
            call_connection_made,
        };
        TlsProtocol::create(event_loop, protocol, options)
    }
}

pub(crate) fn only_with_ssl(name: &str) -> PyErr {
    PyValueError::new_err(format!("{name} is only meaningful with ssl"))
}
