//! Writes of a callback leave when it returns: all of one transport in one system call.

use super::State;
use pyo3::prelude::*;

/// Sends what the last callback wrote.
#[inline(always)]
pub(crate) fn flush_writes(py: Python<'_>, state: &State) {
    if !state.written.borrow().is_empty() {
        flush_written(py, state);
    }
}

/// What a flush writes in turn waits for the next one.
#[inline(never)]
pub(super) fn flush_written(py: Python<'_>, state: &State) {
    let count = state.written.borrow().len();
    for _ in 0..count {
        let held = state.written.borrow_mut().pop_front();
        if let Some(held) = held {
            held.flush(py);
        }
    }
}
