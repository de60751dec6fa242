//! `MemoryBio`: the data path through the `ssl` module's own objects, used if libssl cannot be
//! called directly.
//!
//! Cost: a call of `SSLObject.read` or `write` for each record, and two copies through a MemoryBIO.
//! Differs from asyncio: a call has no more than one record's worth, which is all that it would
//! take or give; and once everything that arrived is decrypted, there is no call more whose only
//! result would be an exception.

use super::chunks::Chunks;
use super::outcome::{Decrypted, Encrypted, ReadEnd};
use super::records::is_again;
use crate::py::buffer::{WritableBuffer, append_to_bytearray};
use crate::py::class::{Visit, VisitStopped};
use crate::py::imports;
use crate::py::object::call_method;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyDict, PyInt, PyMemoryView, PySlice, PyString};
use tls::session::RECORD;

/// An SSLObject between two MemoryBIOs.
pub(super) struct MemoryBio {
    ssl_object: Py<PyAny>,
    incoming: Py<PyAny>,
    outgoing: Py<PyAny>,
}

impl MemoryBio {
    /// # Errors
    /// What the SSLContext raises.
    pub(super) fn new<'py>(
        context: &Bound<'py, PyAny>,
        server_side: bool,
        server_hostname: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Self> {
        let py = context.py();
        let (incoming, outgoing) = (
            imports::memory_bio(py)?.call0()?,
            imports::memory_bio(py)?.call0()?,
        );
        let kwargs = PyDict::new(py);
        kwargs.set_item(intern!(py, "server_side"), server_side)?;
        kwargs.set_item(intern!(py, "server_hostname"), server_hostname)?;
        let wrap = context.getattr(intern!(py, "wrap_bio"))?;
        let ssl_object = wrap.call((&incoming, &outgoing), Some(&kwargs))?;
        Ok(Self {
            ssl_object: ssl_object.unbind(),
            incoming: incoming.unbind(),
            outgoing: outgoing.unbind(),
        })
    }

    pub(super) fn ssl_object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        self.ssl_object.bind(py).clone()
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.ssl_object)?;
        visit.object(&self.incoming)?;
        visit.object(&self.outgoing)
    }

    pub(super) fn feed(&self, py: Python<'_>, ciphertext: &[u8]) -> PyResult<()> {
        if ciphertext.is_empty() {
            return Ok(());
        }
        let ciphertext = PyBytes::new(py, ciphertext);
        let incoming = self.incoming.bind(py);
        call_method(incoming, intern!(py, "write"), &[ciphertext.as_any()]).map(drop)
    }

    pub(super) fn unread(&self, py: Python<'_>) -> PyResult<usize> {
        pending(self.incoming.bind(py))
    }

    pub(super) fn decrypt<'py>(
        &self,
        py: Python<'py>,
    ) -> PyResult<Decrypted<Option<Bound<'py, PyBytes>>>> {
        let mut chunks = Chunks::default();
        let end = self.decrypt_each(py, |chunk| {
            chunks.push(chunk);
            Ok(())
        })?;
        Ok(Decrypted {
            plaintext: chunks.joined(py)?,
            end,
        })
    }

    /// Decrypts all that has arrived and passes it on, a record's plaintext at a time.
    fn decrypt_each<'py>(
        &self,
        py: Python<'py>,
        mut taken: impl FnMut(Bound<'py, PyBytes>) -> PyResult<()>,
    ) -> PyResult<ReadEnd> {
        let most = PyInt::new(py, RECORD);
        loop {
            let chunk = match self.call(intern!(py, "read"), &[most.as_any()]) {
                Ok(chunk) => chunk.cast_into::<PyBytes>()?,
                Err(error) => return end_of(py, error),
            };
            if chunk.as_bytes().is_empty() {
                return Ok(ReadEnd::CloseNotify);
            }
            taken(chunk)?;
            if self.unread(py)? == 0 {
                return Ok(ReadEnd::WantsMore);
            }
        }
    }

    pub(super) fn decrypt_into(&self, buffer: &Bound<'_, PyAny>) -> PyResult<Decrypted<usize>> {
        let py = buffer.py();
        drop(WritableBuffer::of(buffer, "read() argument 2")?);
        let view = PyMemoryView::from(buffer)?;
        let (wanted, mut filled) = (view.len()?, 0);
        let end = loop {
            if filled == wanted {
                break ReadEnd::Full;
            }
            let rest = view.get_item(PySlice::new(py, filled as isize, wanted as isize, 1))?;
            let count = PyInt::new(py, wanted - filled);
            match self.call(intern!(py, "read"), &[count.as_any(), &rest]) {
                Ok(count) => match count.extract::<usize>()? {
                    0 => break ReadEnd::CloseNotify,
                    count => filled += count,
                },
                Err(error) => break end_of(py, error)?,
            }
            // Of a record that did not fit the SSLObject has the rest; then the buffer is full.
            if filled < wanted && self.unread(py)? == 0 {
                break ReadEnd::WantsMore;
            }
        };
        Ok(Decrypted {
            plaintext: filled,
            end,
        })
    }

    pub(super) fn decrypt_onto(
        &self,
        buffer: &Bound<'_, PyByteArray>,
    ) -> PyResult<Decrypted<Option<usize>>> {
        let mut size = None;
        let end = self.decrypt_each(buffer.py(), |chunk| {
            size = Some(append_to_bytearray(buffer, chunk.as_bytes())?);
            Ok(())
        })?;
        Ok(Decrypted {
            plaintext: size,
            end,
        })
    }

    /// Calls a method of the SSLObject.
    ///
    /// # Errors
    /// What it raises.
    pub(super) fn call<'py, const N: usize>(
        &self,
        method: &Bound<'py, PyString>,
        arguments: &[&Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        call_method(self.ssl_object.bind(method.py()), method, arguments)
    }

    pub(super) fn encrypt(&self, py: Python<'_>, data: &[u8]) -> PyResult<Encrypted> {
        let mut taken = 0;
        while taken < data.len() {
            let end = data.len().min(taken + RECORD);
            let record = PyBytes::new(py, &data[taken..end]);
            match self.call(intern!(py, "write"), &[record.as_any()]) {
                Ok(count) => taken += count.extract::<usize>()?,
                Err(error) if is_again(py, &error)? => break,
                Err(error) => return Ok(Encrypted::Failed(error)),
            }
        }
        Ok(Encrypted::Taken(taken))
    }

    pub(super) fn take_ciphertext(&self, py: Python<'_>) -> PyResult<Option<Py<PyBytes>>> {
        let outgoing = self.outgoing.bind(py);
        if pending(outgoing)? == 0 {
            return Ok(None);
        }
        let ciphertext = call_method(outgoing, intern!(py, "read"), &[])?;
        Ok(Some(ciphertext.cast_into::<PyBytes>()?.unbind()))
    }
}

fn pending(bio: &Bound<'_, PyAny>) -> PyResult<usize> {
    bio.getattr(intern!(bio.py(), "pending"))?.extract()
}

fn end_of(py: Python<'_>, error: PyErr) -> PyResult<ReadEnd> {
    Ok(if is_again(py, &error)? {
        ReadEnd::WantsMore
    } else {
        ReadEnd::Failed(error)
    })
}
