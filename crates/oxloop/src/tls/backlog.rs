//! `Backlog`: plaintext that waits to be encrypted.

use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::collections::VecDeque;

#[derive(Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Py<PyBytes>>,
    /// How much of the first chunk is encrypted already.
    offset: usize,
    size: usize,
}

impl Backlog {
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    pub(super) fn push(&mut self, chunk: Bound<'_, PyBytes>) {
        self.size += chunk.as_bytes().len();
        self.chunks.push_back(chunk.unbind());
    }

    /// The first chunk, and how much of it is done.
    pub(super) fn first<'py>(&self, py: Python<'py>) -> Option<(Bound<'py, PyBytes>, usize)> {
        let first = self.chunks.front()?;
        Some((first.bind(py).clone(), self.offset))
    }

    /// `count` more bytes of the first chunk are done.
    pub(super) fn advance(&mut self, py: Python<'_>, count: usize) {
        self.size -= count;
        self.offset += count;
        let done = self
            .chunks
            .front()
            .is_some_and(|first| first.as_bytes(py).len() <= self.offset);
        if done {
            self.offset = 0;
            // A bytes object has no destructor that could come back here.
            drop(self.chunks.pop_front());
        }
    }
}
