//! Reads into the buffer of an `asyncio.StreamReader`, see `stream_reader`.
//!
//! Cost: one recv(2), one copy into the bytearray, no `bytes` object.

use super::StreamThis;
use super::connection::FatalError;
use crate::py::buffer::append_to_bytearray;
use crate::transport::stream_reader::PlainReader;
use pyo3::prelude::*;
use reactor::socket;

/// One read into the reader's buffer.
pub(super) fn feed(this: &StreamThis<'_, '_>) -> PyResult<()> {
    let Some(protocol) = this.protocol() else {
        return Ok(());
    };
    let reader = match PlainReader::of(&protocol) {
        Ok(Some(reader)) => reader,
        Ok(None) => return this.read_data(),
        Err(error) => return failed(this, error),
    };
    let received = this.loop_state().with_scratch(|scratch| {
        let count = socket::recv_into_slice(this.fd()?, scratch)?;
        this.count_received(count);
        Ok((count > 0).then(|| append_to_bytearray(reader.buffer(), &scratch[..count])))
    });
    match received {
        Err(error) => this.read_failed(&error),
        Ok(None) => this.on_eof(),
        Ok(Some(appended)) => appended
            .and_then(|size| reader.wake(this.py(), size))
            .or_else(|error| failed(this, error)),
    }
}

fn failed(this: &StreamThis<'_, '_>, error: PyErr) -> PyResult<()> {
    this.reading_failed(
        FatalError::Python(error),
        "Fatal error: protocol.data_received() call failed.",
    )
}
