//! `Direct`: the data path on the libssl that CPython's `_ssl` has loaded.
//!
//! Cost: ciphertext is decrypted from the buffer of recv(2) into the object that the protocol gets;
//! plaintext is encrypted from the program's own `bytes`.
//!
//! If OpenSSL reports an error, the SSLObject is called to raise it: OpenSSL fails again in the
//! same way, and CPython makes its usual exception from that.

use super::chunks::Chunks;
use super::outcome::{Decrypted, Encrypted, ReadEnd};
use super::records::READ_MOST;
use crate::event_loop::memory::RecordMemory;
use crate::py::buffer::{WritableBuffer, bytearray_extended_by, bytes_filled_by};
use crate::py::class::{Visit, VisitStopped};
use crate::py::imports;
use crate::py::ssl::SslSession;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyInt, PyString};
use std::convert::Infallible;
use std::mem::MaybeUninit;
use tls::{Cursor, Library, Outcome, Session};

/// The least that is asked for: a record that came in parts may be larger than its last part.
const READ_LEAST: usize = 256;

/// A session of OpenSSL's behind an `ssl.SSLObject`.
pub(super) struct Direct(SslSession);

impl Direct {
    /// None if the object's own methods have to be called: it is a subclass, or its context has a
    /// message callback, whose exceptions only those methods can raise.
    ///
    /// # Errors
    /// What looking at the context raises.
    pub(super) fn adopt(
        library: &'static Library,
        ssl_object: &Bound<'_, PyAny>,
        context: &Bound<'_, PyAny>,
        memory: &RecordMemory,
    ) -> PyResult<Option<Self>> {
        let py = ssl_object.py();
        if !ssl_object.get_type().is(imports::ssl_object(py)?) {
            return Ok(None);
        }
        let callback = context.getattr_opt(intern!(py, "_msg_callback"))?;
        if callback.is_some_and(|callback| !callback.is_none()) {
            return Ok(None);
        }
        let Ok(session) = SslSession::adopt(library, ssl_object) else {
            return Ok(None);
        };
        if let Some(mut session) = session.take(py) {
            session.keep_buffers(memory.kept());
        }
        Ok(Some(Self(session)))
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.0.traverse(visit)
    }

    /// Calls a method of the SSLObject.
    ///
    /// # Errors
    /// What it raises.
    pub(super) fn call<'py, const N: usize>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        arguments: &[&Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        self.0.call(py, method, arguments)
    }

    pub(super) fn feed(&self, py: Python<'_>, ciphertext: &[u8]) {
        if let Some(mut session) = self.0.take(py) {
            session.receive(ciphertext);
        }
    }

    /// A handshake that the SSLObject has done a step of waits for its peer.
    pub(super) fn free_buffers(&self, py: Python<'_>) {
        if let Some(mut session) = self.0.take(py) {
            session.free_buffers();
        }
    }

    pub(super) fn unread(&self, py: Python<'_>) -> usize {
        self.0.take(py).map_or(0, |session| session.unread())
    }

    pub(super) fn take_ciphertext(&self, py: Python<'_>) -> Option<Vec<u8>> {
        let mut session = self.0.take(py)?;
        (session.unsent() > 0).then(|| session.to_send().take())
    }

    pub(super) fn decrypt<'py>(
        &self,
        py: Python<'py>,
        ciphertext: &[u8],
    ) -> PyResult<Decrypted<Option<Bound<'py, PyBytes>>>> {
        let mut chunks = Chunks::default();
        let end = self.reading(py, ciphertext, |session| {
            loop {
                let mut end = RawEnd::Full;
                let filled = bytes_filled_by(py, wanted(session), |memory| {
                    let (filled, ended) = fill(session, memory);
                    end = ended;
                    Ok::<_, Infallible>(filled)
                })?;
                let Ok(chunk) = filled;
                if !chunk.as_bytes().is_empty() {
                    chunks.push(chunk);
                }
                if !matches!(end, RawEnd::Full) {
                    return Ok(end);
                }
            }
        })?;
        Ok(Decrypted {
            plaintext: chunks.joined(py)?,
            end: self.raised(py, end),
        })
    }

    pub(super) fn decrypt_into(
        &self,
        buffer: &Bound<'_, PyAny>,
        ciphertext: &[u8],
    ) -> PyResult<Decrypted<usize>> {
        let mut memory = WritableBuffer::of(buffer, "read() argument 2")?;
        let mut plaintext = 0;
        let end = self.reading(buffer.py(), ciphertext, |session| {
            Ok(memory.with_memory(|memory| {
                let (filled, end) = fill(session, memory);
                plaintext = filled.len();
                end
            }))
        })?;
        drop(memory);
        let end = self.raised(buffer.py(), end);
        Ok(Decrypted { plaintext, end })
    }

    pub(super) fn decrypt_onto(
        &self,
        buffer: &Bound<'_, PyByteArray>,
        ciphertext: &[u8],
    ) -> PyResult<Decrypted<Option<usize>>> {
        let before = buffer.len();
        let mut size = before;
        let end = self.reading(buffer.py(), ciphertext, |session| {
            loop {
                let mut end = RawEnd::Full;
                size = bytearray_extended_by(buffer, wanted(session), |memory| {
                    let (filled, ended) = fill(session, memory);
                    end = ended;
                    filled
                })?;
                if !matches!(end, RawEnd::Full) {
                    return Ok(end);
                }
            }
        })?;
        Ok(Decrypted {
            plaintext: (size > before).then_some(size),
            end: self.raised(buffer.py(), end),
        })
    }

    /// Runs `body` while `ciphertext` is lent to the session.
    fn reading(
        &self,
        py: Python<'_>,
        ciphertext: &[u8],
        body: impl FnOnce(&mut Session) -> PyResult<RawEnd>,
    ) -> PyResult<RawEnd> {
        let Some(mut session) = self.0.take(py) else {
            return Ok(RawEnd::WantsMore);
        };
        session.receive_with(ciphertext, body)
    }

    pub(super) fn encrypt(&self, py: Python<'_>, data: &[u8], memory: &RecordMemory) -> Encrypted {
        let Some(mut session) = self.0.take(py) else {
            return Encrypted::Taken(0);
        };
        session.reuse(memory.take());
        let mut taken = 0;
        while taken < data.len() {
            match session.write(&data[taken..]) {
                Outcome::Done(count) => taken += count,
                Outcome::WantRead | Outcome::WantWrite => break,
                Outcome::CloseNotify | Outcome::Failed => {
                    drop(session);
                    let nothing = PyBytes::new(py, b"");
                    let error = self.error_of(py, intern!(py, "write"), nothing.as_any());
                    return Encrypted::Failed(error);
                }
            }
        }
        Encrypted::Taken(taken)
    }

    /// The exception behind a failure.
    fn raised(&self, py: Python<'_>, end: RawEnd) -> ReadEnd {
        match end {
            RawEnd::WantsMore => ReadEnd::WantsMore,
            RawEnd::CloseNotify => ReadEnd::CloseNotify,
            RawEnd::Full => ReadEnd::Full,
            RawEnd::Failed => {
                let one = PyInt::new(py, 1);
                ReadEnd::Failed(self.error_of(py, intern!(py, "read"), one.as_any()))
            }
        }
    }

    /// Calls the SSLObject, for the exception. Writing nothing, and reading from a connection that
    /// failed, have no other effect.
    fn error_of(
        &self,
        py: Python<'_>,
        method: &Bound<'_, PyString>,
        argument: &Bound<'_, PyAny>,
    ) -> PyErr {
        match self.call(py, method, &[argument]) {
            Err(error) => error,
            Ok(_) => ssl_error(py),
        }
    }
}

/// OpenSSL failed once and cannot tell why any more.
#[cold]
fn ssl_error(py: Python<'_>) -> PyErr {
    let made = imports::ssl_error(py).and_then(|class| class.call1((1, "unknown error")));
    made.map_or_else(|error| error, PyErr::from_value)
}

/// How reading ended, before an exception is made of it.
enum RawEnd {
    WantsMore,
    CloseNotify,
    Full,
    Failed,
}

/// How much the next read may bring.
fn wanted(session: &Session) -> usize {
    (session.unread() + session.pending()).clamp(READ_LEAST, READ_MOST)
}

/// Reads until `memory` is full or nothing more can be had. What arrived usually ends at a record's
/// boundary; OpenSSL is then not called once more in vain.
fn fill<'a>(session: &mut Session, memory: &'a mut [MaybeUninit<u8>]) -> (&'a mut [u8], RawEnd) {
    let mut plaintext = Cursor::new(memory);
    let end = loop {
        if plaintext.room() == 0 {
            break RawEnd::Full;
        }
        match session.read(&mut plaintext) {
            Outcome::Done(_) if session.is_drained() => break RawEnd::WantsMore,
            Outcome::Done(_) => {}
            Outcome::WantRead | Outcome::WantWrite => break RawEnd::WantsMore,
            Outcome::CloseNotify => break RawEnd::CloseNotify,
            Outcome::Failed => break RawEnd::Failed,
        }
    };
    (plaintext.into_filled(), end)
}
