//! Ciphertext that waits to be sent.
//!
//! OpenSSL appends records at the end; the owner of the connection removes bytes from the front as
//! the peer accepts them. Removing moves an offset, not the bytes. Memory is freed once everything
//! is removed, except for what a small message needs, so that an idle connection holds no more than
//! [`KEPT_CAPACITY`].

use std::fmt;
use std::mem;
use std::ops::Deref;

/// The capacity that an empty queue keeps: a message of 1 KiB with its record around it.
pub const KEPT_CAPACITY: usize = 2048;

/// A queue of bytes; dereferences to those that are left.
#[derive(Default)]
pub struct Outgoing {
    bytes: Vec<u8>,
    taken: usize,
}

impl Outgoing {
    /// Adds `bytes` at the end.
    #[inline]
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.taken > self.bytes.len() / 2 {
            self.bytes.drain(..self.taken);
            self.taken = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Puts the next bytes into `memory`, unless there is memory already.
    #[inline]
    pub(crate) fn reuse(&mut self, mut memory: Vec<u8>) {
        if self.bytes.capacity() == 0 {
            memory.clear();
            self.bytes = memory;
        }
    }

    /// Makes room for `more` bytes at once.
    #[inline]
    pub(crate) fn reserve(&mut self, more: usize) {
        self.bytes.reserve_exact(more);
    }

    /// Takes the first `count` bytes off: they were sent.
    #[inline]
    pub fn advance(&mut self, count: usize) {
        self.taken += count;
        assert!(
            self.taken <= self.bytes.len(),
            "more was taken than there is"
        );
        if self.taken == self.bytes.len() {
            self.clear();
        }
    }

    /// Takes everything out as a vector of its own.
    pub fn take(&mut self) -> Vec<u8> {
        let mut bytes = mem::take(&mut self.bytes);
        bytes.drain(..mem::take(&mut self.taken));
        bytes
    }

    /// Drops what is left.
    #[inline]
    pub fn clear(&mut self) {
        self.taken = 0;
        if self.bytes.capacity() > KEPT_CAPACITY {
            self.bytes = Vec::new();
        } else {
            self.bytes.clear();
        }
    }

    /// The memory that the queue holds.
    pub fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl Deref for Outgoing {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.bytes[self.taken..]
    }
}

impl fmt::Debug for Outgoing {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Outgoing")
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}
