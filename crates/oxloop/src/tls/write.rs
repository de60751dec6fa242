//! Writing: from the program to ciphertext, and flow control.
//!
//! Data written during the handshake, or while OpenSSL has to read first, waits in the backlog as
//! plaintext. Everything else is encrypted at once and queued by the transport below.

use super::outcome::Encrypted;
use super::protocol::{ProtocolState, TlsProtocol, TlsThis};
use crate::error::leaves_the_loop;
use crate::py::class::OfNative;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::base::{count_lost_write, report_error};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

pub(super) fn add_methods(methods: &mut Methods<OfNative<TlsProtocol>>) {
    methods.nullary_procedure(
        c"pause_writing",
        |this| {
            this.own().flags.ssl_writing_paused.set(true);
            Ok(())
        },
        c"The transport below has enough.",
    );
    methods.nullary_procedure(
        c"resume_writing",
        |this| {
            this.own().flags.ssl_writing_paused.set(false);
            this.control_app_writing()
        },
        c"The transport below takes more.",
    );
}

impl<'py> TlsThis<'_, 'py> {
    /// Encrypts and sends, or keeps what cannot be encrypted yet.
    ///
    /// # Errors
    /// What is no `Exception`; anything else ends the connection.
    pub(super) fn write_appdata(&self, chunk: Bound<'py, PyBytes>) -> PyResult<()> {
        let inner = self.own();
        if !matches!(
            inner.state.get(),
            ProtocolState::DoHandshake | ProtocolState::Wrapped
        ) {
            return count_lost_write(
                self.py(),
                &inner.flags.conn_lost,
                "SSL connection is closed",
            );
        }
        let first = inner.backlog.borrow().is_empty();
        if inner.state.get() != ProtocolState::Wrapped {
            inner.backlog.borrow_mut().push(chunk);
            return self.control_app_writing();
        }
        let outcome = if first {
            self.encrypt_and_send(chunk)
        } else {
            inner.backlog.borrow_mut().push(chunk);
            self.do_write()
        };
        self.or_fatal(outcome)
    }

    fn encrypt_and_send(&self, chunk: Bound<'py, PyBytes>) -> PyResult<()> {
        let shared = self.loop_state().record_memory();
        let records = &self.own().records;
        match records.encrypt(self.py(), chunk.as_bytes(), shared)? {
            Encrypted::Taken(count) if count < chunk.as_bytes().len() => {
                let mut backlog = self.own().backlog.borrow_mut();
                backlog.push(chunk);
                backlog.advance(self.py(), count);
            }
            Encrypted::Taken(_) => {}
            Encrypted::Failed(error) => return Err(error),
        }
        self.process_outgoing()
    }

    /// Encrypts the backlog and sends the ciphertext.
    pub(super) fn do_write(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        loop {
            let first = inner.backlog.borrow().first(py);
            let Some((chunk, offset)) = first else { break };
            let rest = &chunk.as_bytes()[offset..];
            let shared = self.loop_state().record_memory();
            match inner.records.encrypt(py, rest, shared)? {
                Encrypted::Taken(count) => {
                    inner.backlog.borrow_mut().advance(py, count);
                    if count < rest.len() {
                        break;
                    }
                }
                Encrypted::Failed(error) => return Err(error),
            }
        }
        self.process_outgoing()
    }

    /// Hands what OpenSSL wants to send to the transport below.
    pub(super) fn process_outgoing(&self) -> PyResult<()> {
        let py = self.py();
        if let Some(ciphertext) = self.own().records.take_ciphertext(py)?
            && let Some(lower) = self.lower()
        {
            lower.write(py, ciphertext)?;
        }
        self.control_app_writing()
    }

    /// Bytes that were written and are not sent: the backlog, and the queue of the transport below.
    /// The queue of a transport that is not ours counts only while it has paused us.
    pub(super) fn queued(&self) -> usize {
        let paused = self.own().flags.ssl_writing_paused.get();
        let below = self
            .lower()
            .filter(|lower| paused || lower.keeps_marks(self.py()))
            .map_or(0, |lower| lower.queued(self.py()));
        self.own().backlog.borrow().size() + below
    }

    /// The water marks have changed: the transport below has to pause and resume us within them.
    ///
    /// # Errors
    /// As `control_app_writing`.
    pub(super) fn apply_marks(&self) -> PyResult<()> {
        if let Some(lower) = self.lower() {
            lower.stay_within(self.py(), &self.own().outgoing)?;
        }
        self.control_app_writing()
    }

    /// Tells the program's protocol to pause or to resume.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    pub(super) fn control_app_writing(&self) -> PyResult<()> {
        let inner = self.own();
        // The queue of the transport below counts only while that transport has paused us (which it
        // does at our water marks, at the latest): only then does it tell us when it has sent
        // enough. With a backlog we are told in any case.
        let backlog = inner.backlog.borrow().size();
        let queued = if backlog > 0 || inner.flags.ssl_writing_paused.get() {
            self.queued()
        } else {
            0
        };
        let py = self.py();
        let (method, message) = if inner.outgoing.pauses_from(queued) {
            (
                intern!(py, "pause_writing"),
                "protocol.pause_writing() failed",
            )
        } else if inner.outgoing.resumes_at(queued) {
            (
                intern!(py, "resume_writing"),
                "protocol.resume_writing() failed",
            )
        } else {
            return Ok(());
        };
        let Some(protocol) = self.app_protocol() else {
            return Ok(());
        };
        let Err(error) = call_method(&protocol, method, &[]) else {
            return Ok(());
        };
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let transport = self.app_transport();
        let transport = self.or_none(transport.map(|it| it.as_object().bind(py).clone()))?;
        let value = error.into_value(py).into_any();
        let own = Some(self.object().to_owned());
        report_error(self.event_loop(), &transport, own, &value, message)
    }
}
