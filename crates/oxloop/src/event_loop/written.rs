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

#[inline(never)]
pub(super) fn flush_written(py: Python<'_>, state: &State) {
    let mut written = state.written.take();
    for transport in written.drain(..) {
        transport.flush(py);
    }
    // Keep the allocation, unless a flush wrote again.
    let mut current = state.written.borrow_mut();
    if current.is_empty() {
        *current = written;
    }
}
