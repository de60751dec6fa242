//! `Delivery`: how a stream gives its protocol what it has received.

use super::stream_reader::is_plain_stream_reader_protocol;
use crate::py::class::Class;
use crate::py::imports;
use crate::py::object::call_method;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;
use std::sync::OnceLock;

/// Which calls the protocol gets; its class decides.
#[derive(Clone, Copy)]
pub(crate) enum Delivery {
    /// `data_received(bytes)`.
    Data,
    /// `get_buffer()` and `buffer_updated()`.
    Buffered,
    /// asyncio's own StreamReaderProtocol, fed natively.
    StreamReader,
    /// A protocol of our own, fed from the loop's memory: TLS.
    Native(&'static NativeProtocol),
}

/// A native type of protocols, and the functions that are called in place of Python methods.
pub(crate) struct NativeProtocol {
    pub(crate) class: &'static Class,
    /// Takes bytes that the peer sent.
    pub(crate) receive: fn(&Bound<'_, PyAny>, &[u8]) -> PyResult<()>,
    /// The transport that the protocol has made for the program's protocol, if there is one.
    pub(crate) transport: for<'py> fn(&Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>>,
}

static NATIVE: OnceLock<&'static NativeProtocol> = OnceLock::new();

/// Makes the type known; called once, at import.
pub(crate) fn register(native: &'static NativeProtocol) {
    NATIVE.get_or_init(|| native);
}

impl Delivery {
    /// # Errors
    /// What looking at the protocol raises.
    pub(crate) fn of(protocol: &Bound<'_, PyAny>) -> PyResult<Self> {
        if let Some(native) = NATIVE.get()
            && native.class.is_class_of(protocol)
        {
            return Ok(Self::Native(native));
        }
        if protocol.is_instance(imports::buffered_protocol(protocol.py())?)? {
            return Ok(Self::Buffered);
        }
        Ok(if is_plain_stream_reader_protocol(protocol)? {
            Self::StreamReader
        } else {
            Self::Data
        })
    }
}

/// Asks a buffered protocol for memory to receive into. `hint` is the expected size, -1 if it is
/// unknown.
///
/// # Errors
/// What `get_buffer` raises; RuntimeError for an empty buffer.
pub(crate) fn get_buffer<'py>(
    protocol: &Bound<'py, PyAny>,
    hint: isize,
) -> PyResult<Bound<'py, PyAny>> {
    let py = protocol.py();
    let hint = PyInt::new(py, hint);
    let buffer = call_method(protocol, intern!(py, "get_buffer"), &[hint.as_any()])?;
    if buffer.len()? == 0 {
        return Err(PyRuntimeError::new_err(
            "get_buffer() returned an empty buffer",
        ));
    }
    Ok(buffer)
}
