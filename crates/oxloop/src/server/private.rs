//! asyncio's private attributes and methods of a server, which programs and their tests use.
//!
//! The Python class inherits from `asyncio.Server`, whose methods use attributes that do not exist
//! here. Each of these methods is replaced in this file, so that none works halfway.
//!
//! Differs from asyncio: the attributes cannot be assigned; `_attach` and `_detach` only count, and
//! `close_clients` closes only connections that this server accepted.

use super::{Server, begin_serving};
use crate::event_loop::EventLoop;
use pyo3::prelude::*;

#[pymethods]
impl Server {
    #[getter(_loop)]
    fn private_loop(&self, py: Python<'_>) -> PyResult<Py<EventLoop>> {
        Ok(self.inner(py)?.event_loop.clone_ref(py))
    }

    #[getter]
    fn _protocol_factory(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.inner(py)?.factory.clone_ref(py))
    }

    #[getter]
    fn _backlog(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.inner(py)?.backlog.clone_ref(py))
    }

    /// None without TLS.
    #[getter]
    fn _ssl_context(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let tls = self.inner(py)?.tls.as_ref();
        Ok(tls.map(|tls| tls.ssl.clone_ref(py)))
    }

    #[getter]
    fn _ssl_handshake_timeout(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let tls = self.inner(py)?.tls.as_ref();
        let timeout = tls.and_then(|tls| tls.handshake_timeout.as_ref());
        Ok(timeout.map(|timeout| timeout.clone_ref(py)))
    }

    #[getter]
    fn _ssl_shutdown_timeout(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        let tls = self.inner(py)?.tls.as_ref();
        let timeout = tls.and_then(|tls| tls.shutdown_timeout.as_ref());
        Ok(timeout.map(|timeout| timeout.clone_ref(py)))
    }

    #[getter]
    fn _serving(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.inner(py)?.serving.get())
    }

    #[getter]
    fn _active_count(&self, py: Python<'_>) -> PyResult<usize> {
        Ok(self.inner(py)?.clients.open())
    }

    /// The futures of those who wait for the end; None when it has come.
    #[getter]
    fn _waiters(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<PyAny>>>> {
        Ok(self.inner(py)?.clients.waiters(py))
    }

    #[getter]
    fn _serving_forever_fut<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(self.inner(py)?.serving_forever.get(py))
    }

    /// One connection more.
    #[pyo3(signature = (transport=None))]
    fn _attach(&self, py: Python<'_>, transport: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let _ = transport;
        self.inner(py)?.clients.attach();
        Ok(())
    }

    /// One connection less.
    #[pyo3(signature = (transport=None))]
    fn _detach(&self, py: Python<'_>, transport: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let _ = transport;
        self.inner(py)?.clients.detach(py)
    }

    /// Wake everybody who waits for the end.
    fn _wakeup(&self, py: Python<'_>) -> PyResult<()> {
        self.inner(py)?.clients.wake_waiters(py)
    }

    /// Accept connections.
    fn _start_serving(slf: &Bound<'_, Self>) -> PyResult<()> {
        begin_serving(slf)
    }
}
