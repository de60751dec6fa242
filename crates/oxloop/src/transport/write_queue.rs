//! `WriteQueue`: bytes that wait for the kernel to take them.
//!
//! Exact `bytes` are queued without a copy. Anything mutable is copied, so that the program may go
//! on changing it, and so are subclasses of `bytes`.

use crate::py::buffer::copy_to_bytes;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyMemoryView};
use std::collections::VecDeque;
use std::io::{self, IoSlice};

/// Most buffers that one sendmsg(2) or writev(2) takes (UIO_MAXIOV).
const SLICES_MOST: usize = 1024;
/// Up to so many buffers, their slices are put on the stack.
const SLICES_INLINE: usize = 16;

/// The two system calls that send from a queue.
pub(super) trait Sends {
    fn one(&self, bytes: &[u8]) -> io::Result<usize>;
    fn many(&self, slices: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// Bytes in one piece.
enum Chunk {
    Bytes(Py<PyBytes>),
    /// Made here: TLS records.
    Owned(Vec<u8>),
}

impl Chunk {
    fn as_slice(&self, py: Python<'_>) -> &[u8] {
        match self {
            Self::Bytes(bytes) => bytes.as_bytes(py),
            Self::Owned(bytes) => bytes,
        }
    }

    /// Drops the chunk. A `Bound` is dropped without PyO3's check that this thread is attached.
    /// Exact `bytes` have no destructor that could call back into the queue.
    fn release(self, py: Python<'_>, reuse: &mut impl FnMut(Vec<u8>)) {
        match self {
            Self::Bytes(bytes) => drop(bytes.into_bound(py)),
            Self::Owned(bytes) => reuse(bytes),
        }
    }
}

/// Bytes that wait to be sent.
pub(super) struct WriteQueue {
    chunks: VecDeque<Chunk>,
    /// How much of the first chunk is sent already.
    offset: usize,
    size: usize,
    /// The kernel took less than it was given: only a writable event sends more.
    blocked: bool,
}

impl WriteQueue {
    pub(super) const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            offset: 0,
            size: 0,
            blocked: false,
        }
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    /// True if one system call can take all of it, and `more` chunks.
    pub(super) fn has_slices_for(&self, more: usize) -> bool {
        self.chunks.len() + more <= SLICES_MOST
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) const fn set_blocked(&mut self, blocked: bool) {
        self.blocked = blocked;
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) fn push(&mut self, chunk: Bound<'_, PyBytes>) {
        self.size += chunk.as_bytes().len();
        self.chunks.push_back(Chunk::Bytes(chunk.unbind()));
    }

    /// Takes over bytes that are not Python's.
    pub(super) fn push_owned(&mut self, bytes: Vec<u8>) {
        self.size += bytes.len();
        self.chunks.push_back(Chunk::Owned(bytes));
    }

    /// Takes everything out, for the caller to drop.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    /// Sends from the front, with one system call.
    pub(super) fn send(&self, py: Python<'_>, to: &impl Sends) -> io::Result<usize> {
        let first = &self.chunks[0].as_slice(py)[self.offset..];
        if self.chunks.len() == 1 {
            return to.one(first);
        }
        let rest = self
            .chunks
            .iter()
            .skip(1)
            .map(|chunk| IoSlice::new(chunk.as_slice(py)));
        let slices = std::iter::once(IoSlice::new(first)).chain(rest);
        if self.chunks.len() <= SLICES_INLINE {
            let mut inline = [IoSlice::new(&[]); SLICES_INLINE];
            for (place, slice) in inline.iter_mut().zip(slices) {
                *place = slice;
            }
            return to.many(&inline[..self.chunks.len()]);
        }
        to.many(&slices.take(SLICES_MOST).collect::<Vec<_>>())
    }

    /// The queued bytes as Python objects, for the methods of a socket object.
    pub(super) fn objects<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyBytes>> {
        let mut offset = self.offset;
        let rest = |chunk: &Chunk| {
            let skipped = std::mem::take(&mut offset);
            match chunk {
                Chunk::Bytes(bytes) if skipped == 0 => bytes.bind(py).clone(),
                chunk => PyBytes::new(py, &chunk.as_slice(py)[skipped..]),
            }
        };
        self.chunks.iter().take(SLICES_MOST).map(rest).collect()
    }

    /// Removes `sent` bytes from the front; `reuse` gets each owned chunk that was sent.
    pub(super) fn advance(&mut self, py: Python<'_>, sent: usize, mut reuse: impl FnMut(Vec<u8>)) {
        self.size -= sent;
        let mut left = sent;
        while let Some(first) = self.chunks.front() {
            let length = first.as_slice(py).len() - self.offset;
            if left < length {
                self.offset += left;
                return;
            }
            left -= length;
            self.offset = 0;
            if let Some(chunk) = self.chunks.pop_front() {
                chunk.release(py, &mut reuse);
            }
        }
    }
}

/// The chunk to queue for `data`; None if it is empty.
///
/// # Errors
/// TypeError if it has no buffer; what its own methods raise.
#[inline]
pub(crate) fn chunk_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyBytes>>> {
    if !data.is_exact_instance_of::<PyBytes>() && !data.is_truthy()? {
        return Ok(None);
    }
    Ok(Some(bytes_of(data)?).filter(|chunk| !chunk.as_bytes().is_empty()))
}

/// Exact `bytes` of `data`. An instance of a subclass is copied: its destructor could call back
/// into the queue.
///
/// # Errors
/// As `chunk_of`.
#[inline]
pub(super) fn bytes_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match data.cast_exact::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => copy_to_bytes(data),
    }
}

/// The types that `write` takes.
pub(crate) fn is_writable_data(data: &Bound<'_, PyAny>) -> bool {
    data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
}
