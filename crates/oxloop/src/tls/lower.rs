//! `Lower`: the transport below a TLS connection. Calls of oxloop's own transports bypass Python.

use super::outcome::Ciphertext;
use super::transport::TlsTransport;
use crate::error::caught;
use crate::py::class::{Ref, Visit, VisitStopped};
use crate::transport::base::BaseTransport;
use crate::transport::flow_control::{FlowControl, FlowControlled};
use crate::transport::stream::StreamTransport;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// The transport below.
pub(super) enum Lower {
    Stream(Ref<StreamTransport>),
    /// A TLS connection (TLS over TLS), or a transport of the program's.
    Other(Py<PyAny>),
}

impl Lower {
    pub(super) fn of(transport: &Bound<'_, PyAny>) -> Self {
        Ref::from_exact(transport)
            .map_or_else(|| Self::Other(transport.clone().unbind()), Self::Stream)
    }

    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        match self {
            Self::Stream(transport) => Self::Stream(transport.clone_ref(py)),
            Self::Other(transport) => Self::Other(transport.clone_ref(py)),
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(self.as_object())
    }

    pub(super) const fn as_object(&self) -> &Py<PyAny> {
        match self {
            Self::Stream(transport) => transport.as_object(),
            Self::Other(transport) => transport,
        }
    }

    /// # Errors
    /// What the transport's `write` raises.
    pub(super) fn write(&self, py: Python<'_>, ciphertext: Ciphertext) -> PyResult<()> {
        match (self, ciphertext) {
            (Self::Stream(transport), Ciphertext::Owned(bytes)) => {
                transport.this(py).write_owned(bytes)
            }
            (_, ciphertext) => {
                let bytes = match ciphertext {
                    Ciphertext::Owned(bytes) => PyBytes::new(py, &bytes),
                    Ciphertext::Bytes(bytes) => bytes.into_bound(py),
                };
                let transport = self.as_object().bind(py);
                transport
                    .call_method1(intern!(py, "write"), (bytes,))
                    .map(drop)
            }
        }
    }

    /// True for one of our transports whose water marks are within those of the TLS connection.
    pub(super) fn keeps_marks(&self, py: Python<'_>) -> bool {
        match self {
            Self::Stream(_) => true,
            Self::Other(transport) => Ref::<TlsTransport>::from_exact(transport.bind(py)).is_some(),
        }
    }

    /// Sets the water marks of one of our transports within those of the TLS connection.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    pub(super) fn stay_within(&self, py: Python<'_>, above: &FlowControl) -> PyResult<()> {
        match self {
            Self::Stream(transport) => {
                transport.flow(py).stay_within(above);
                let transport = transport.this(py);
                transport.flush();
                transport.maybe_pause_protocol()
            }
            Self::Other(transport) => {
                let Some(transport) = Ref::<TlsTransport>::from_exact(transport.bind(py)) else {
                    return Ok(());
                };
                transport.this(py).stay_within(above)
            }
        }
    }

    /// True if the transport told its protocol to write no more.
    pub(super) fn has_paused(&self, py: Python<'_>) -> bool {
        match self {
            Self::Stream(transport) => transport.flow(py).is_paused(),
            Self::Other(transport) => transport
                .bind(py)
                .getattr(intern!(py, "_protocol_paused"))
                .is_ok_and(|paused| paused.is_truthy().unwrap_or(false)),
        }
    }

    /// # Errors
    /// What the transport's `is_closing` raises.
    pub(super) fn is_closing(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Stream(transport) => Ok(transport.is_closing(py)),
            Self::Other(transport) => transport
                .bind(py)
                .call_method0(intern!(py, "is_closing"))?
                .is_truthy(),
        }
    }

    /// Bytes that the transport has not sent yet. A transport that cannot tell has none.
    pub(super) fn queued(&self, py: Python<'_>) -> usize {
        match self {
            Self::Stream(transport) => {
                let transport = transport.this(py);
                transport.flush();
                transport.queued()
            }
            Self::Other(transport) => transport
                .bind(py)
                .call_method0(intern!(py, "get_write_buffer_size"))
                .and_then(|size| size.extract())
                .unwrap_or(0),
        }
    }

    /// Ends the connection; what was written before is on its way, as in asyncio.
    ///
    /// # Errors
    /// What the transport raises.
    pub(super) fn force_close(&self, py: Python<'_>, error: Option<&PyErr>) -> PyResult<()> {
        if let Self::Stream(transport) = self {
            transport.this(py).flush();
        }
        let error = error.map(|error| caught(py, error));
        let transport = self.as_object().bind(py);
        transport
            .call_method1(intern!(py, "_force_close"), (error,))
            .map(drop)
    }
}
