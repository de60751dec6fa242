//! Reading: decrypts, delivers to the program's protocol, and pauses reading for both.
//!
//! Differs from asyncio: what was decrypted before an error is delivered before the error is
//! reported; asyncio drops it.

use super::lower::Lower;
use super::outcome::{Decrypted, ReadEnd};
use super::protocol::{AppState, ProtocolState, TlsProtocol, TlsThis};
use crate::error::{after_cleanup, leaves_the_loop};
use crate::py::class::{OfNative, Ref};
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::delivery::{Delivery, get_buffer};
use crate::transport::stream_reader::PlainReader;
use pyo3::exceptions::PyException;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyInt;

pub(super) fn add_methods(methods: &mut Methods<OfNative<TlsProtocol>>) {
    methods.nullary(
        c"eof_received",
        eof_received,
        c"The peer closed the transport below.",
    );
    methods.nullary_procedure(
        c"_do_read",
        |this| this.do_read(&[]),
        c"Decrypt and deliver what has arrived.",
    );
    methods.nullary_procedure(
        c"_resume",
        |this| {
            match this.own().state.get() {
                ProtocolState::Wrapped => this.do_read(&[])?,
                ProtocolState::Flushing => this.do_flush()?,
                ProtocolState::Shutdown => this.do_shutdown()?,
                ProtocolState::DoHandshake | ProtocolState::Unwrapped => {}
            }
            Ok(())
        },
        c"Go on after resume_reading().",
    );
}

/// True keeps the transport below open.
fn eof_received<'py>(this: &TlsThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    this.own().flags.eof_received.set(true);
    match this.at_eof() {
        Ok(true) => this.boolean(true),
        Ok(false) => this.none(),
        Err(error) => {
            let py = this.py();
            let lower = this
                .lower()
                .filter(|_| error.is_instance_of::<PyException>(py));
            let Some(lower) = lower else {
                return Err(error);
            };
            let closed = lower
                .as_object()
                .bind(py)
                .call_method0(intern!(py, "close"));
            Err(after_cleanup(py, error, closed))
        }
    }
}

impl<'py> TlsThis<'_, 'py> {
    fn at_eof(&self) -> PyResult<bool> {
        self.log_in_debug("%r received EOF")?;
        let inner = self.own();
        match inner.state.get() {
            ProtocolState::DoHandshake => {
                self.handshake_failed(pyo3::exceptions::PyConnectionResetError::new_err(()))?;
            }
            ProtocolState::Wrapped => {
                inner.state.set(ProtocolState::Flushing);
                if inner.flags.app_reading_paused.get() {
                    return Ok(true);
                }
                self.do_flush()?;
            }
            ProtocolState::Flushing => {
                self.do_write()?;
                inner.state.set(ProtocolState::Shutdown);
                self.do_shutdown()?;
            }
            ProtocolState::Shutdown => self.do_shutdown()?,
            ProtocolState::Unwrapped => {}
        }
        Ok(false)
    }

    /// Decrypts what was fed and `ciphertext`, and delivers it.
    ///
    /// # Errors
    /// What is no `Exception`; anything else ends the connection.
    pub(super) fn do_read(&self, ciphertext: &[u8]) -> PyResult<()> {
        let inner = self.own();
        if !matches!(
            inner.state.get(),
            ProtocolState::Wrapped | ProtocolState::Flushing
        ) {
            return inner.records.feed(self.py(), ciphertext);
        }
        let outcome = if inner.flags.app_reading_paused.get() {
            inner.records.feed(self.py(), ciphertext)
        } else {
            self.read_and_answer(ciphertext)
        };
        self.or_fatal(outcome.and_then(|()| self.control_ssl_reading()))
    }

    /// Turns an `Exception` into the connection's end.
    pub(super) fn or_fatal(&self, outcome: PyResult<()>) -> PyResult<()> {
        match outcome {
            Err(error) if error.is_instance_of::<PyException>(self.py()) => {
                self.fatal_error(error, "Fatal error on SSL protocol")
            }
            outcome => outcome,
        }
    }

    fn read_and_answer(&self, ciphertext: &[u8]) -> PyResult<()> {
        match self.own().delivery.get() {
            _ if self.own().flags.app_closed.get() => self.discard(ciphertext)?,
            Delivery::Buffered => self.read_into_buffer(ciphertext)?,
            Delivery::StreamReader => self.read_onto_reader(ciphertext)?,
            Delivery::Data | Delivery::Native(_) => self.read_data(ciphertext)?,
        }
        if self.own().backlog.borrow().is_empty() {
            self.process_outgoing()
        } else {
            self.do_write()
        }
    }

    fn read_data(&self, ciphertext: &[u8]) -> PyResult<()> {
        let py = self.py();
        let Decrypted { plaintext, end } = self.own().records.decrypt(py, ciphertext)?;
        if let Some(data) = plaintext
            && let Some(protocol) = self.app_protocol()
        {
            // TLS over TLS: our plaintext is the ciphertext of the one above.
            match Ref::<TlsProtocol>::from_exact(&protocol) {
                Some(above) => above.this(py).receive(data.as_bytes())?,
                None => drop(call_method(
                    &protocol,
                    intern!(py, "data_received"),
                    &[data.as_any()],
                )?),
            }
        }
        self.ended(end)
    }

    /// After `close()` nothing is delivered, but close_notify is looked for.
    fn discard(&self, ciphertext: &[u8]) -> PyResult<()> {
        let Decrypted { end, .. } = self.own().records.decrypt(self.py(), ciphertext)?;
        self.ended(end)
    }

    /// One `get_buffer()` a call; what does not fit is read in the next turn.
    fn read_into_buffer(&self, ciphertext: &[u8]) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.app_protocol() else {
            return Ok(());
        };
        let hint = self.own().records.unread(py)? + ciphertext.len();
        let buffer = match get_buffer(&protocol, hint as isize) {
            Ok(buffer) => buffer,
            Err(error) => {
                self.own().records.feed(py, ciphertext)?;
                return Err(error);
            }
        };
        let Decrypted { plaintext, end } = self.own().records.decrypt_into(&buffer, ciphertext)?;
        if let ReadEnd::Full = end {
            let again = self.object().getattr(intern!(py, "_do_read"))?;
            self.soon(&again)?;
        }
        if plaintext > 0 {
            let count = PyInt::new(py, plaintext);
            call_method(&protocol, intern!(py, "buffer_updated"), &[count.as_any()])?;
        }
        self.ended(end)
    }

    /// asyncio's own StreamReader, fed without a Python call.
    fn read_onto_reader(&self, ciphertext: &[u8]) -> PyResult<()> {
        let Some(protocol) = self.app_protocol() else {
            return Ok(());
        };
        let Some(reader) = PlainReader::of(&protocol)? else {
            return self.read_data(ciphertext);
        };
        let records = &self.own().records;
        let Decrypted { plaintext, end } = records.decrypt_onto(reader.buffer(), ciphertext)?;
        if let Some(size) = plaintext {
            reader.wake(self.py(), size)?;
        }
        self.ended(end)
    }

    fn ended(&self, end: ReadEnd) -> PyResult<()> {
        match end {
            ReadEnd::WantsMore | ReadEnd::Full => Ok(()),
            ReadEnd::CloseNotify => {
                self.call_eof_received()?;
                self.start_shutdown()
            }
            ReadEnd::Failed(error) => Err(error),
        }
    }

    pub(super) fn call_eof_received(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        if inner.app_state.get() != AppState::ConnectionMade {
            return Ok(());
        }
        inner.app_state.set(AppState::EofReceived);
        let Some(protocol) = self.app_protocol() else {
            return Ok(());
        };
        let keeps = call_method(&protocol, intern!(py, "eof_received"), &[])
            .and_then(|keeps| keeps.is_truthy());
        match keeps {
            Ok(false) => Ok(()),
            Ok(true) => imports::logger(py)?
                .call_method1(
                    "warning",
                    ("returning true from eof_received() has no effect when using ssl",),
                )
                .map(drop),
            Err(error) if leaves_the_loop(py, &error) => Err(error),
            Err(error) => self.fatal_error(error, "Error calling eof_received()"),
        }
    }

    pub(super) fn pause_reading(&self) {
        self.own().flags.app_reading_paused.set(true);
    }

    pub(super) fn resume_reading(&self) -> PyResult<()> {
        let py = self.py();
        if !self.own().flags.app_reading_paused.replace(false) {
            return Ok(());
        }
        let resume = self.object().getattr(intern!(py, "_resume"))?;
        self.soon(&resume)
    }

    /// Queues a method of ours in the connection's context: the caller of `resume_reading` has
    /// another.
    fn soon(&self, method: &Bound<'py, PyAny>) -> PyResult<()> {
        if let Some(Lower::Stream(transport)) = self.lower() {
            return transport.this(self.py()).soon(method, &[]);
        }
        self.event_loop()
            .call_method1(intern!(self.py(), "call_soon"), (method,))
            .map(drop)
    }

    /// Pauses the transport below while more has arrived than the high-water mark.
    pub(super) fn control_ssl_reading(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let unread = inner.records.unread(py)?;
        let method = if inner.incoming.pauses_from(unread) {
            intern!(py, "pause_reading")
        } else if inner.incoming.resumes_at(unread) {
            intern!(py, "resume_reading")
        } else {
            return Ok(());
        };
        match self.lower() {
            Some(lower) => call_method(lower.as_object().bind(py), method, &[]).map(drop),
            None => Ok(()),
        }
    }
}
