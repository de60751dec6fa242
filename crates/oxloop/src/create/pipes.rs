//! `connect_read_pipe` and `connect_write_pipe`; the transports are in `transport/pipe/`.

use super::transport::{Caller, Pair};
use crate::event_loop::EventLoop;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::imports;
use crate::transport::pipe::{ReadPipeTransport, WritePipeTransport};
use pyo3::intern;
use pyo3::prelude::*;
use std::rc::Rc;

/// Makes a transport: event loop, pipe, protocol, waiter.
type Start = fn(
    &Bound<'_, EventLoop>,
    &Bound<'_, PyAny>,
    &Bound<'_, PyAny>,
    &Bound<'_, PyAny>,
) -> PyResult<Py<PyAny>>;

/// One direction of a pipe.
struct Direction {
    /// The coroutine's name.
    name: &'static str,
    start: Start,
    /// What debug mode logs.
    log: &'static str,
}

static READ: Direction = Direction {
    name: "EventLoop.connect_read_pipe",
    start: ReadPipeTransport::start,
    log: "Read pipe %r connected: (%r, %r)",
};
static WRITE: Direction = Direction {
    name: "EventLoop.connect_write_pipe",
    start: WritePipeTransport::start,
    log: "Write pipe %r connected: (%r, %r)",
};

#[pymethods]
impl EventLoop {
    /// Read from a pipe, FIFO, socket or character device through a protocol.
    fn connect_read_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        READ.coroutine(slf, protocol_factory, pipe)
    }

    /// Write to a pipe, FIFO, socket or character device through a protocol.
    fn connect_write_pipe<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        WRITE.coroutine(slf, protocol_factory, pipe)
    }
}

impl Direction {
    fn coroutine<'py>(
        &'static self,
        this: &Bound<'py, EventLoop>,
        factory: Py<PyAny>,
        pipe: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let caller = (this.clone().unbind(), factory);
        Coroutine::of(this.py(), self.name, caller, |caller| {
            connect(caller, pipe, self)
        })
    }
}

async fn connect(
    caller: Rc<Caller>,
    pipe: Py<PyAny>,
    direction: &Direction,
) -> PyResult<Py<PyAny>> {
    let (this, factory) = &*caller;
    let (pair, waiter) = Python::attach(|py| {
        let (this, pipe) = (this.bind(py), pipe.bind(py));
        let protocol = factory.bind(py).call0()?;
        let waiter = this.call_method0(intern!(py, "create_future"))?;
        let transport = (direction.start)(this, pipe, &protocol, &waiter)?;
        let pair = Pair::new(transport, protocol.unbind());
        Ok::<_, PyErr>((pair, waiter.unbind()))
    })?;
    let outcome = await_python(waiter).await;
    Python::attach(|py| {
        if let Err(error) = outcome {
            return Err(pair.close_after(py, error));
        }
        if this.get().state(py).is_debug() {
            let number = pipe.bind(py).call_method0(intern!(py, "fileno"))?;
            let arguments = (direction.log, number, &pair.transport, &pair.protocol);
            imports::logger(py)?.call_method1("debug", arguments)?;
        }
        pair.into_python(py)
    })
}
