//! Feeds asyncio's own streams without a Python call between the socket and the reader's buffer.
//!
//! For a protocol that is exactly `asyncio.StreamReaderProtocol` with a reader that is exactly
//! `asyncio.StreamReader`, and while nobody has patched their methods, this does what
//! `StreamReader.feed_data` does: appends to the reader's bytearray, wakes its waiter, and pauses
//! reading above twice the limit. For anything else `data_received` is called.

use crate::py::attached::Attached;
use crate::py::future::end_unless_cancelled;
use crate::py::imports;
use crate::py::object::TypeWatch;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{
    PyBool, PyByteArray, PyDict, PyString, PyType, PyWeakrefMethods, PyWeakrefReference,
};

/// The methods in whose place this module works, to notice a patch.
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

/// True for exactly asyncio's own protocol, without a `data_received` on the instance.
pub(crate) fn is_plain_stream_reader_protocol(protocol: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = protocol.py();
    if !protocol.get_type().is(imports::stream_reader_protocol(py)?) {
        return Ok(false);
    }
    let replaced = protocol
        .getattr(intern!(py, "__dict__"))?
        .contains("data_received")?;
    Ok(!replaced)
}

/// A reader that can be fed here, and its attributes, read straight from its `__dict__`.
pub(crate) struct PlainReader<'py> {
    object: Bound<'py, PyAny>,
    attributes: Bound<'py, PyDict>,
    buffer: Bound<'py, PyByteArray>,
}

impl<'py> PlainReader<'py> {
    /// The reader of a plain protocol, if it can be fed here.
    ///
    /// # Errors
    /// What looking at the protocol raises.
    pub(crate) fn of(protocol: &Bound<'py, PyAny>) -> PyResult<Option<Self>> {
        let py = protocol.py();
        let watches = patched(py)?;
        if !(watches.protocol.is_original(py) && watches.reader.is_original(py)) {
            return Ok(None);
        }
        let weak = protocol.getattr(intern!(py, "_stream_reader_wr"))?;
        let Ok(weak) = weak.cast::<PyWeakrefReference>() else {
            return Ok(None);
        };
        let Some(object) = weak.upgrade() else {
            return Ok(None);
        };
        if !object.get_type().is(imports::stream_reader(py)?) {
            return Ok(None);
        }
        let attributes = object
            .getattr(intern!(py, "__dict__"))?
            .cast_into::<PyDict>()?;
        let ended = attributes.get_item(intern!(py, "_eof"))?;
        if ended.is_none_or(|ended| !ended.is(PyBool::new(py, false)))
            || attributes.contains(intern!(py, "feed_data"))?
        {
            return Ok(None);
        }
        let buffer = attributes.get_item(intern!(py, "_buffer"))?;
        let Some(Ok(buffer)) = buffer.map(|buffer| buffer.cast_into_exact::<PyByteArray>()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            object,
            attributes,
            buffer,
        }))
    }

    /// The bytes that were received and that nobody has read yet.
    pub(crate) const fn buffer(&self) -> &Bound<'py, PyByteArray> {
        &self.buffer
    }

    fn attribute(&self, name: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        match self.attributes.get_item(name)? {
            Some(value) => Ok(value),
            None => self.object.getattr(name),
        }
    }

    /// The rest of `feed_data`, now that `size` bytes are buffered: wakes the waiter, and pauses
    /// reading above twice the limit.
    ///
    /// # Errors
    /// What the waiter and the transport raise.
    pub(crate) fn wake(&self, py: Python<'py>, size: usize) -> PyResult<()> {
        let waiter = self.attribute(intern!(py, "_waiter"))?;
        if !waiter.is_none() {
            self.object.setattr(intern!(py, "_waiter"), py.None())?;
            end_unless_cancelled(&waiter, Ok(py.None()))?;
        }
        let limit: usize = self.attribute(intern!(py, "_limit"))?.extract()?;
        if size <= limit.saturating_mul(2) || self.attribute(intern!(py, "_paused"))?.is_truthy()? {
            return Ok(());
        }
        let transport = self.attribute(intern!(py, "_transport"))?;
        if transport.is_none() {
            return Ok(());
        }
        transport.call_method0(intern!(py, "pause_reading"))?;
        self.object.setattr(intern!(py, "_paused"), true)
    }
}
