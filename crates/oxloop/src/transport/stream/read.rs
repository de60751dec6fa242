//! Reading: one recv(2) an event, whose data goes straight to the protocol.
//!
//! A message is read into the loop's scratch memory and copied into a `bytes` of its exact size.
//! When the peer sends in bulk, the `bytes` is made first and read into, which saves the copy.

use super::connection::FatalError;
use super::{StreamThis, reader};
use crate::py::buffer::{WritableBuffer, bytes_filled_by};
use crate::py::object::call_method;
use crate::transport::delivery::{Delivery, NativeProtocol, get_buffer};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt};
use reactor::poller::Interest;
use reactor::socket;
use std::io::{self, ErrorKind};

/// The most bytes of one read, as in asyncio.
const READ_MOST: usize = 256 * 1024;
/// The most bytes of one read in bulk while the protocol has never paused reading.
const READ_MOST_UNPAUSED: usize = 1024 * 1024;
/// From this size on, the next read goes straight into a `bytes`.
const BULK: usize = 32 * 1024;

/// What one recv(2) brought.
pub(super) enum Received<T> {
    Data(T),
    Eof,
    /// Nothing: a spurious event.
    Nothing,
}

impl<'py> StreamThis<'_, 'py> {
    #[inline]
    pub(super) fn read_ready(&self) -> PyResult<()> {
        if self.own().by_object {
            return self.read_by_object();
        }
        match self.own().delivery.get() {
            Delivery::Data => self.read_data(),
            Delivery::Buffered => self.read_into_buffer(),
            Delivery::StreamReader => reader::feed(self),
            Delivery::Native(native) => self.read_natively(native),
        }
    }

    /// Receives once, for `data_received`.
    pub(super) fn read_data(&self) -> PyResult<()> {
        match self.receive()? {
            Received::Data(data) => self.deliver(data.as_any()),
            Received::Eof => self.on_eof(),
            Received::Nothing => Ok(()),
        }
    }

    fn receive(&self) -> PyResult<Received<Bound<'py, PyBytes>>> {
        let (py, inner) = (self.py(), self.own());
        let received = if inner.last_read.get() < BULK {
            self.loop_state().with_scratch(|scratch| {
                let count = socket::recv_into_slice(self.fd()?, scratch)?;
                Ok(PyBytes::new(py, &scratch[..count]))
            })
        } else {
            let capacity = (inner.last_read.get() * 2).min(self.read_most());
            bytes_filled_by(py, capacity, |memory| socket::recv(self.fd()?, memory))?
        };
        match received {
            Ok(data) => {
                inner.last_read.set(data.as_bytes().len());
                self.count_received(data.as_bytes().len());
                Ok(if data.as_bytes().is_empty() {
                    Received::Eof
                } else {
                    Received::Data(data)
                })
            }
            Err(error) => self.read_failed(&error).map(|()| Received::Nothing),
        }
    }

    #[inline(always)]
    pub(super) fn count_received(&self, bytes: usize) {
        let traffic = &self.loop_state().metrics().traffic;
        traffic.bytes_received.add(bytes as u64);
    }

    /// A protocol that pauses gets no more at once than in asyncio: it bounds what it keeps. For
    /// others a larger read means that more is read while it is in the processor's cache.
    fn read_most(&self) -> usize {
        if self.own().flags.reading.changes() == 0 {
            READ_MOST_UNPAUSED
        } else {
            READ_MOST
        }
    }

    pub(super) fn read_failed(&self, error: &io::Error) -> PyResult<()> {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            return Ok(());
        }
        self.reading_failed(
            FatalError::Os(error),
            "Fatal read error on socket transport",
        )
    }

    /// Ends the connection. The exception handler runs in its context, as the protocol did.
    #[cold]
    pub(super) fn reading_failed(&self, error: FatalError<'_>, message: &str) -> PyResult<()> {
        self.own()
            .context
            .run(self.py(), || self.fatal_error(error, message))
    }

    #[inline]
    pub(super) fn deliver(&self, data: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let outcome = self.own().context.run(py, || {
            call_method(&protocol, intern!(py, "data_received"), &[data])
        });
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => self.reading_failed(
                FatalError::Python(error),
                "Fatal error: protocol.data_received() call failed.",
            ),
        }
    }

    /// Reads straight into what `get_buffer()` lends.
    fn read_into_buffer(&self) -> PyResult<()> {
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let Some(buffer) = self.lent_buffer(&protocol)? else {
            return Ok(());
        };
        let received = match WritableBuffer::of(&buffer, "recv_into() argument 1") {
            Ok(mut memory) => memory.with_memory(|memory| {
                let received = socket::recv(self.fd()?, memory)?;
                Ok(received.len())
            }),
            Err(error) => {
                return self.reading_failed(
                    FatalError::Python(error),
                    "Fatal read error on socket transport",
                );
            }
        };
        match received {
            Ok(0) => self.on_eof(),
            Ok(count) => {
                self.count_received(count);
                self.buffer_updated(count)
            }
            Err(error) => self.read_failed(&error),
        }
    }

    /// What `get_buffer()` lends; None if it raised, which ends the connection.
    pub(super) fn lent_buffer(
        &self,
        protocol: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let lent = self
            .own()
            .context
            .run(self.py(), || get_buffer(protocol, -1));
        match lent {
            Ok(buffer) => Ok(Some(buffer)),
            Err(error) => self
                .reading_failed(
                    FatalError::Python(error),
                    "Fatal error: protocol.get_buffer() call failed.",
                )
                .map(|()| None),
        }
    }

    /// Passes the bytes of one recv(2) to TLS, which decrypts them straight from the scratch
    /// memory.
    fn read_natively(&self, native: &NativeProtocol) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        self.loop_state().with_scratch(|scratch| {
            let received = self
                .fd()
                .and_then(|fd| socket::recv_into_slice(fd, scratch));
            let count = match received {
                Ok(0) => return self.on_eof(),
                Ok(count) => count,
                Err(error) => return self.read_failed(&error),
            };
            self.count_received(count);
            let outcome = self
                .own()
                .context
                .run(py, || (native.receive)(&protocol, &scratch[..count]));
            outcome.or_else(|error| {
                self.reading_failed(
                    FatalError::Python(error),
                    "Fatal error: protocol.buffer_updated() call failed.",
                )
            })
        })
    }

    pub(super) fn buffer_updated(&self, count: usize) -> PyResult<()> {
        let py = self.py();
        // get_buffer() may have set another one.
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let count = PyInt::new(py, count);
        let outcome = self.own().context.run(py, || {
            call_method(&protocol, intern!(py, "buffer_updated"), &[count.as_any()])
        });
        match outcome {
            Ok(_) => Ok(()),
            Err(error) => self.reading_failed(
                FatalError::Python(error),
                "Fatal error: protocol.buffer_updated() call failed.",
            ),
        }
    }

    /// Serves the peer's EOF: keeps the connection open if `eof_received` returns true, or closes
    /// it.
    pub(super) fn on_eof(&self) -> PyResult<()> {
        let py = self.py();
        self.log_in_debug("debug", "%r received EOF")?;
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let outcome = self.own().context.run(py, || {
            call_method(&protocol, intern!(py, "eof_received"), &[])?.is_truthy()
        });
        match outcome {
            Ok(true) => {
                self.own().eof_received.set(true);
                let wanted = self.wanted();
                if !wanted.contains(Interest::READABLE) {
                    self.apply(wanted);
                }
                Ok(())
            }
            Ok(false) => self.close(),
            Err(error) => self.reading_failed(
                FatalError::Python(error),
                "Fatal error: protocol.eof_received() call failed.",
            ),
        }
    }
}
