//! `Records`: encrypts and decrypts for one connection, by either data path.

use super::data_path::DataPath;
use super::direct::Direct;
use super::memory_bio::MemoryBio;
use super::outcome::{Ciphertext, Decrypted, Encrypted};
use crate::event_loop::memory::RecordMemory;
use crate::py::class::{Visit, VisitStopped};
use crate::py::imports;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyString};

/// What one read asks for at most, as in asyncio.
pub(super) const READ_MOST: usize = 256 * 1024;

/// The two ways.
pub(super) enum Records {
    Direct(Direct),
    MemoryBio(MemoryBio),
}

impl Records {
    /// Makes the `ssl.SSLObject` and its records.
    ///
    /// # Errors
    /// What the SSLContext raises.
    pub(super) fn new<'py>(
        context: &Bound<'py, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'py, PyAny>>,
        shared: &RecordMemory,
    ) -> PyResult<(Self, Bound<'py, PyAny>)> {
        let memory = MemoryBio::new(context, server_side, server_hostname)?;
        let ssl_object = memory.ssl_object(context.py());
        let direct = match DataPath::chosen() {
            DataPath::Direct(library) => Direct::adopt(library, &ssl_object, context, shared)?,
            DataPath::MemoryBio => None,
        };
        let records = direct.map_or(Self::MemoryBio(memory), Self::Direct);
        Ok((records, ssl_object))
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Direct(direct) => direct.traverse(visit),
            Self::MemoryBio(memory) => memory.traverse(visit),
        }
    }

    /// Calls a method of the SSLObject that takes nothing.
    ///
    /// # Errors
    /// What it raises.
    pub(super) fn call<'py>(&self, method: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Direct(direct) => direct.call(method.py(), method, &[]),
            Self::MemoryBio(memory) => memory.call(method, &[]),
        }
    }

    /// Keeps ciphertext for the next call of OpenSSL.
    ///
    /// # Errors
    /// MemoryError.
    pub(super) fn feed(&self, py: Python<'_>, ciphertext: &[u8]) -> PyResult<()> {
        if ciphertext.is_empty() {
            return Ok(());
        }
        match self {
            Self::Direct(direct) => {
                direct.feed(py, ciphertext);
                Ok(())
            }
            Self::MemoryBio(memory) => memory.feed(py, ciphertext),
        }
    }

    /// Frees memory while a handshake waits for its peer, which may never continue it.
    pub(super) fn free_buffers(&self, py: Python<'_>) {
        if let Self::Direct(direct) = self {
            direct.free_buffers(py);
        }
    }

    /// Ciphertext that OpenSSL has not taken yet, in bytes.
    ///
    /// # Errors
    /// None but MemoryError.
    pub(super) fn unread(&self, py: Python<'_>) -> PyResult<usize> {
        match self {
            Self::Direct(direct) => Ok(direct.unread(py)),
            Self::MemoryBio(memory) => memory.unread(py),
        }
    }

    /// Decrypts all that was fed, and `ciphertext` after it.
    ///
    /// # Errors
    /// MemoryError. What OpenSSL says is in the result.
    pub(super) fn decrypt<'py>(
        &self,
        py: Python<'py>,
        ciphertext: &[u8],
    ) -> PyResult<Decrypted<Option<Bound<'py, PyBytes>>>> {
        match self {
            Self::Direct(direct) => direct.decrypt(py, ciphertext),
            Self::MemoryBio(memory) => {
                memory.feed(py, ciphertext)?;
                memory.decrypt(py)
            }
        }
    }

    /// Decrypts into memory that a protocol lends; the plaintext is its length.
    ///
    /// # Errors
    /// What taking the memory raises.
    pub(super) fn decrypt_into(
        &self,
        buffer: &Bound<'_, PyAny>,
        ciphertext: &[u8],
    ) -> PyResult<Decrypted<usize>> {
        match self {
            Self::Direct(direct) => direct.decrypt_into(buffer, ciphertext),
            Self::MemoryBio(memory) => {
                memory.feed(buffer.py(), ciphertext)?;
                memory.decrypt_into(buffer)
            }
        }
    }

    /// Decrypts to the end of a bytearray; the plaintext is how many bytes it has then, if any
    /// came.
    ///
    /// # Errors
    /// BufferError while the bytearray lends its memory, MemoryError.
    pub(super) fn decrypt_onto(
        &self,
        buffer: &Bound<'_, PyByteArray>,
        ciphertext: &[u8],
    ) -> PyResult<Decrypted<Option<usize>>> {
        match self {
            Self::Direct(direct) => direct.decrypt_onto(buffer, ciphertext),
            Self::MemoryBio(memory) => {
                memory.feed(buffer.py(), ciphertext)?;
                memory.decrypt_onto(buffer)
            }
        }
    }

    /// Encrypts from the start of `data`, which nothing can change meanwhile.
    ///
    /// # Errors
    /// MemoryError. What OpenSSL says is in the result.
    pub(super) fn encrypt(
        &self,
        py: Python<'_>,
        data: &[u8],
        shared: &RecordMemory,
    ) -> PyResult<Encrypted> {
        match self {
            Self::Direct(direct) => Ok(direct.encrypt(py, data, shared)),
            Self::MemoryBio(memory) => memory.encrypt(py, data),
        }
    }

    /// The ciphertext that was made since the last call.
    ///
    /// # Errors
    /// MemoryError.
    pub(super) fn take_ciphertext(&self, py: Python<'_>) -> PyResult<Option<Ciphertext>> {
        match self {
            Self::Direct(direct) => Ok(direct.take_ciphertext(py).map(Ciphertext::Owned)),
            Self::MemoryBio(memory) => Ok(memory.take_ciphertext(py)?.map(Ciphertext::Bytes)),
        }
    }
}

/// True for the exceptions after which OpenSSL goes on when more has arrived.
pub(super) fn is_again(py: Python<'_>, error: &PyErr) -> PyResult<bool> {
    Ok(error.is_instance(py, imports::ssl_want_read_error(py)?)
        || error.is_instance(py, imports::ssl_syscall_error(py)?))
}
