//! `Cursor`: memory that is being filled from its start, and how far it is.
//!
//! Invariant: the first `filled` bytes are initialised. Only a call that wrote them says so.

use std::fmt;
use std::mem::MaybeUninit;
use std::slice;

/// Memory for plaintext, of which a prefix is filled.
pub struct Cursor<'a> {
    memory: &'a mut [MaybeUninit<u8>],
    filled: usize,
}

impl<'a> Cursor<'a> {
    /// Nothing of `memory` is filled.
    #[inline]
    pub const fn new(memory: &'a mut [MaybeUninit<u8>]) -> Self {
        Self { memory, filled: 0 }
    }

    /// The number of bytes that are filled.
    #[inline]
    pub const fn filled(&self) -> usize {
        self.filled
    }

    /// The number of bytes that can be filled yet.
    #[inline]
    pub const fn room(&self) -> usize {
        self.memory.len() - self.filled
    }

    /// What is filled.
    #[inline]
    pub const fn into_filled(self) -> &'a mut [u8] {
        // SAFETY: the first `filled` bytes of the memory are initialised, and borrowed during 'a.
        unsafe { slice::from_raw_parts_mut(self.memory.as_mut_ptr().cast(), self.filled) }
    }

    #[inline]
    pub(super) fn unfilled(&mut self) -> &mut [MaybeUninit<u8>] {
        &mut self.memory[self.filled..]
    }

    /// # Safety
    /// The first `count` bytes of [`Self::unfilled`] are initialised.
    #[inline]
    pub(super) const unsafe fn advance(&mut self, count: usize) {
        self.filled += count;
    }
}

impl fmt::Debug for Cursor<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Cursor")
            .field("filled", &self.filled)
            .field("room", &self.room())
            .finish()
    }
}
