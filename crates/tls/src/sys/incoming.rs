//! Ciphertext from the wire that OpenSSL has not read yet.
//!
//! Bytes are lent for the duration of a call, so that those that OpenSSL takes at once are copied
//! only into its record buffer; what it leaves when the loan ends is kept in a vector. Kept bytes
//! come first. Memory goes back when the last kept byte is read.
//!
//! Invariant: `lent` points into a slice that outlives the loan, because [`super::bio::Loan`] ends
//! it before the borrow of the slice ends.

use std::fmt;
use std::ptr;

const NOTHING: *const [u8] = &[];

/// What the wire has brought.
pub(crate) struct Incoming {
    kept: Vec<u8>,
    read: usize,
    lent: *const [u8],
    ended: bool,
}

impl Incoming {
    pub(super) const fn new() -> Self {
        Self {
            kept: Vec::new(),
            read: 0,
            lent: NOTHING,
            ended: false,
        }
    }

    /// Adds a copy of `bytes`, behind what is lent.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.end_loan();
        self.keep(bytes);
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.read > self.kept.len() / 2 {
            self.kept.drain(..self.read);
            self.read = 0;
        }
        self.kept.extend_from_slice(bytes);
    }

    /// The wire will bring no more.
    pub(crate) fn end(&mut self) {
        self.ended = true;
    }

    /// Whether reading would find the end of the stream.
    pub(super) fn at_end(&self) -> bool {
        self.ended && self.is_empty()
    }

    /// Whether reading would find nothing, not even the end.
    #[inline]
    pub(crate) fn is_exhausted(&self) -> bool {
        !self.ended && self.is_empty()
    }

    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The number of bytes that are left to read.
    pub(crate) fn len(&self) -> usize {
        self.kept.len() - self.read + self.lent.len()
    }

    /// The memory that is held for what is left.
    pub(crate) fn capacity(&self) -> usize {
        self.kept.capacity()
    }

    /// Lets reads see `bytes` until [`Self::end_loan`]. Ends the loan that is under way.
    ///
    /// # Safety
    /// `bytes` stay valid and unchanged until then.
    pub(super) unsafe fn lend(&mut self, bytes: *const [u8]) {
        self.end_loan();
        self.lent = bytes;
    }

    /// Keeps what is left of the loan and forgets the pointer.
    pub(super) fn end_loan(&mut self) {
        // SAFETY: the loan has not ended yet, so that `lend` promises valid bytes; without a loan
        // this is NOTHING.
        let left = unsafe { &*self.lent };
        if !left.is_empty() {
            self.keep(left);
        }
        self.lent = NOTHING;
    }

    /// Moves up to `into.len()` bytes out and returns their number.
    ///
    /// # Safety
    /// `into` is valid for writes of `capacity` bytes.
    #[inline]
    pub(super) unsafe fn read_into(&mut self, into: *mut u8, capacity: usize) -> usize {
        let kept = self.kept.len() - self.read;
        if kept == 0 {
            // SAFETY: as the caller promises.
            return unsafe { self.read_lent(into, capacity) };
        }
        let count = kept.min(capacity);
        // SAFETY: `count` is within both the kept bytes and the caller's room, and a vector of ours
        // cannot overlap with memory that OpenSSL allocated.
        unsafe { ptr::copy_nonoverlapping(self.kept.as_ptr().add(self.read), into, count) };
        self.read += count;
        if self.read == self.kept.len() {
            self.kept = Vec::new();
            self.read = 0;
        }
        count
    }

    /// # Safety
    /// As for [`Self::read_into`].
    #[inline]
    unsafe fn read_lent(&mut self, into: *mut u8, capacity: usize) -> usize {
        let count = self.lent.len().min(capacity);
        let start = self.lent.cast::<u8>();
        // SAFETY: `count` is within both the loan, which has not ended, and the caller's room;
        // OpenSSL's buffer is not what the wire's bytes were lent from.
        unsafe { ptr::copy_nonoverlapping(start, into, count) };
        let left = self.lent.len() - count;
        // SAFETY: `count` is at most the length of the loan, so that this stays inside of it or
        // one past its end.
        self.lent = ptr::slice_from_raw_parts(unsafe { start.add(count) }, left);
        count
    }
}

impl fmt::Debug for Incoming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Incoming")
            .field("len", &self.len())
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
