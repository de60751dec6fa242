//! asyncio's own streams, fed without a Python call between the socket and the reader's buffer.
//!
//! For a protocol that is exactly `asyncio.StreamReaderProtocol` with a reader that is exactly
//! `asyncio.StreamReader`, and while nobody has patched their methods, this does what
//! `StreamReader.feed_data` does: appends to the reader's bytearray, wakes its waiter, and pauses
//! reading above twice the limit. Anything else takes the ordinary way.
//!
//! Cost: one recv(2), one copy into the bytearray, no `bytes` object.

use super::StreamThis;
use super::connection::FatalError;
use crate::py::attached::Attached;
use crate::py::buffer::append_to_bytearray;
use crate::py::imports;
use crate::py::object::{TypeWatch, call_method};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyByteArray, PyType};
use reactor::socket;

/// The methods whose work is done here.
struct Patched {
    protocol: TypeWatch,
    reader: TypeWatch,
}

fn patched(py: Python<'_>) -> PyResult<&Patched> {
    static CELL: PyOnceLock<Attached<Patched>> = PyOnceLock::new();
    let cell = CELL.get_or_try_init(py, || {
        let protocol = imports::stream_reader_protocol(py)?.cast::<PyType>()?;
        let reader = imports::stream_reader(py)?.cast::<PyType>()?;
        Ok::<_, PyErr>(Attached::new(Patched {
            protocol: TypeWatch::new(protocol, "data_received")?,
            reader: TypeWatch::new(reader, "feed_data")?,
        }))
    })?;
    Ok(cell.get(py))
}

/// Remembers the methods as they are when the package is imported.
pub(crate) fn remember_methods(py: Python<'_>) -> PyResult<()> {
    patched(py).map(drop)
}

/// True for exactly asyncio's own protocol, with nothing replaced on the instance.
pub(super) fn is_plain_stream_reader_protocol(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    if !protocol.get_type().is(imports::stream_reader_protocol(py)?) {
        return Ok(false);
    }
    let replaced = protocol
        .getattr(intern!(py, "__dict__"))?
        .contains("data_received")?;
    Ok(!replaced)
}

/// The reader of a plain protocol, if it can be fed here.
fn plain_reader<'py>(protocol: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = protocol.py();
    let watches = patched(py)?;
    if !(watches.protocol.is_original(py) && watches.reader.is_original(py)) {
        return Ok(None);
    }
    let weak = protocol.getattr(intern!(py, "_stream_reader_wr"))?;
    if weak.is_none() {
        return Ok(None);
    }
    let reader = weak.call0()?;
    let plain = reader.get_type().is(imports::stream_reader(py)?)
        && !reader.getattr(intern!(py, "_eof"))?.is_truthy()?;
    Ok(plain.then_some(reader))
}

/// One read into the reader's buffer.
pub(super) fn feed(this: &StreamThis<'_, '_>) -> PyResult<()> {
    let Some(protocol) = this.protocol() else {
        return Ok(());
    };
    let reader = match plain_reader(&protocol) {
        Ok(Some(reader)) => reader,
        Ok(None) => return this.read_data(),
        Err(error) => return failed(this, error),
    };
    let buffer = match reader.getattr(intern!(this.py(), "_buffer")) {
        Ok(buffer) => buffer,
        Err(error) => return failed(this, error),
    };
    let Ok(buffer) = buffer.cast_into_exact::<PyByteArray>() else {
        return this.read_data();
    };
    let received = this.loop_state().with_scratch(|scratch| {
        let count = socket::recv_into_slice(this.own().fd, scratch)?;
        Ok((count > 0).then(|| append_to_bytearray(&buffer, &scratch[..count])))
    });
    match received {
        Err(error) => this.read_failed(&error),
        Ok(None) => this.on_eof(),
        Ok(Some(appended)) => appended
            .and_then(|size| wake(this, &reader, size))
            .or_else(|error| failed(this, error)),
    }
}

fn failed(this: &StreamThis<'_, '_>, error: PyErr) -> PyResult<()> {
    this.fatal_error(
        FatalError::Python(error),
        "Fatal error: protocol.data_received() call failed.",
    )
}

/// Wakes the reader's waiter and pauses above twice its limit.
fn wake(this: &StreamThis<'_, '_>, reader: &Bound<'_, PyAny>, size: usize) -> PyResult<()> {
    let py = reader.py();
    let waiter = reader.getattr(intern!(py, "_waiter"))?;
    if !waiter.is_none() {
        reader.setattr(intern!(py, "_waiter"), py.None())?;
        if !call_method(&waiter, intern!(py, "cancelled"), &[])?.is_truthy()? {
            let none = py.None().into_bound(py);
            call_method(&waiter, intern!(py, "set_result"), &[&none])?;
        }
    }
    let limit: usize = reader.getattr(intern!(py, "_limit"))?.extract()?;
    if size <= limit.saturating_mul(2) || reader.getattr(intern!(py, "_paused"))?.is_truthy()? {
        return Ok(());
    }
    let transport = reader.getattr(intern!(py, "_transport"))?;
    if transport.is_none() {
        return Ok(());
    }
    if transport.is(this.object()) {
        this.own().flags.paused.set(true);
    } else {
        transport.call_method0(intern!(py, "pause_reading"))?;
    }
    reader.setattr(intern!(py, "_paused"), true)
}
