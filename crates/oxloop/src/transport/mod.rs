//! Transports: what connects a descriptor, or a child process, to a protocol.

pub(crate) mod datagram;
mod flow_control;
pub(crate) mod pipe;
pub(crate) mod stream;
pub(crate) mod subprocess;
mod write_queue;

use crate::event_loop::{EventLoop, exceptions};
use crate::py::class::{Ref, Visit, VisitStopped};
use crate::py::imports;
use datagram::DatagramTransport;
use pyo3::exceptions::PyResourceWarning;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::RefCell;
use stream::StreamTransport;

/// A transport that the callback that runs now wrote to.
pub(crate) enum Written {
    Stream(Ref<StreamTransport>),
    Datagram(Ref<DatagramTransport>),
}

impl From<Ref<StreamTransport>> for Written {
    fn from(transport: Ref<StreamTransport>) -> Self {
        Self::Stream(transport)
    }
}

impl From<Ref<DatagramTransport>> for Written {
    fn from(transport: Ref<DatagramTransport>) -> Self {
        Self::Datagram(transport)
    }
}

impl Written {
    /// Sends what was written.
    #[inline]
    pub(crate) fn flush(self, py: Python<'_>) {
        match self {
            Self::Stream(transport) => {
                transport.this(py).flush();
                transport.release(py);
            }
            Self::Datagram(transport) => {
                transport.this(py).flush_written();
                transport.release(py);
            }
        }
    }
}

fn visit_cell<T>(visit: &Visit<'_>, cell: &RefCell<Option<Py<T>>>) -> Result<(), VisitStopped> {
    // Borrowed: something allocates in the middle of a change. Its content counts as reachable.
    cell.try_borrow()
        .map_or(Ok(()), |value| visit.option(value.as_ref()))
}

/// Gives an exception to the loop's exception handler, with the keys that asyncio's transports use.
fn report_error(
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

/// The warning of a transport that dies without having been closed.
fn warn_unclosed(transport: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = transport.py();
    let kwargs = PyDict::new(py);
    kwargs.set_item("source", transport)?;
    let text = format!("unclosed transport {}", transport.repr()?);
    let category = py.get_type::<PyResourceWarning>();
    imports::warnings(py)?
        .call_method("warn", (text, category), Some(&kwargs))
        .map(drop)
}
