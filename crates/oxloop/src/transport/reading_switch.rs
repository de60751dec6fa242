//! `ReadingSwitch`: whether the program has paused reading, and how often it has paused or resumed
//! it.
//!
//! A queued event remembers the count, and does not read if the count has changed since; the next
//! poll reports again what is readable.

use std::cell::Cell;

/// Counts pauses and resumes. Reading is paused while the count is odd.
#[derive(Debug, Default)]
pub(crate) struct ReadingSwitch(Cell<u32>);

impl ReadingSwitch {
    #[inline]
    pub(crate) fn is_paused(&self) -> bool {
        self.0.get() % 2 == 1
    }

    /// Pauses reading, or resumes it if it is paused.
    pub(crate) fn turn(&self) {
        self.0.set(self.0.get().wrapping_add(1));
    }

    /// How often reading was paused or resumed. Wraps around.
    pub(crate) fn changes(&self) -> u32 {
        self.0.get()
    }
}
