//! `ReadingSwitch`: whether a program has paused reading, and how often it has changed its mind.
//!
//! An event that waits for its turn remembers the count: what became readable before a change is
//! not read after it (see `Polled::reading_changes`).

use std::cell::Cell;

/// A new one is not paused. Each pause and each resume counts one, so that the count tells both.
#[derive(Debug, Default)]
pub(crate) struct ReadingSwitch(Cell<u32>);

impl ReadingSwitch {
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.0.get() % 2 == 1
    }

    /// Pauses what reads, and resumes what is paused.
    pub(crate) fn turn(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }

    /// How often it was turned. Wraps around.
    pub(crate) fn changes(&self) -> u32 {
        self.0.get()
    }
}
