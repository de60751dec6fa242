//! `connect_read_pipe` and `connect_write_pipe`; the transports are in `transport/pipe/`.

use super::EventLoop;
use super::connected::Pair;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::imports;
use crate::transport::pipe::{ReadPipeTransport, WritePipeTransport};
use pyo3::intern;
use pyo3::prelude::*;

/// Makes a transport: event loop, pipe, protocol, waiter.
type Start = fn(
    &Bound<'_, EventLoop>,
    &Bound<'_, PyAny>,
    &Bound<'_, PyAny>,
    &Bound<'_, PyAny>,
) -> PyResult<Py<PyAny>>;

#[pymethods]
impl EventLoop {
    /// Read from a pipe, FIFO, socket or character device through a protocol.
    fn connect_read_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        let connected = connect(
            this,
            protocol_factory,
            pipe,
            ReadPipeTransport::start,
            "Read pipe %r connected: (%r, %r)",
        );
        Coroutine::object(slf.py(), "EventLoop.connect_read_pipe", connected)
    }

    /// Write to a pipe, FIFO, socket or character device through a protocol.
    fn connect_write_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        let connected = connect(
            this,
            protocol_factory,
            pipe,
            WritePipeTransport::start,
            "Write pipe %r connected: (%r, %r)",
        );
        Coroutine::object(slf.py(), "EventLoop.connect_write_pipe", connected)
    }
}

async fn connect(
    this: Py<EventLoop>,
    factory: Py<PyAny>,
    pipe: Py<PyAny>,
    start: Start,
    log: &'static str,
) -> PyResult<Py<PyAny>> {
    let (pair, waiter) = Python::attach(|py| {
        let (this, pipe) = (this.bind(py), pipe.bind(py));
        let protocol = factory.bind(py).call0()?;
        let waiter = this.call_method0(intern!(py, "create_future"))?;
        let transport = start(this, pipe, &protocol, &waiter)?;
        let protocol = protocol.unbind();
        let pair = Pair {
            transport,
            protocol,
        };
        Ok::<_, PyErr>((pair, waiter.unbind()))
    })?;
    let outcome = await_python(waiter).await;
    Python::attach(|py| {
        if let Err(error) = outcome {
            pair.transport.bind(py).call_method0(intern!(py, "close"))?;
            return Err(error);
        }
        if this.get().state(py).is_debug() {
            let number = pipe.bind(py).call_method0(intern!(py, "fileno"))?;
            let arguments = (log, number, &pair.transport, &pair.protocol);
            imports::logger(py)?.call_method1("debug", arguments)?;
        }
        pair.into_python(py)
    })
}
