//! `Room`: how much the kernel has promised to take, so that a large write may wait as well.
//!
//! asyncio decides in `write` whether the protocol has to pause: if the kernel has left more than
//! the high-water mark. A write that waits for the end of the batch leaves nothing if the kernel
//! has room for all of it. So the kernel is asked when the mark is crossed, and the next send is of
//! up to `WAITING_MOST` bytes where it was of one write more than the mark: half as many sends in
//! bulk, each of which wakes the peer.
//!
//! Only a connection that has written before in this turn, and is the only one, waits like that:
//! the large messages of many connections would leave the processor's cache, and take memory.
//!
//! Invariants:
//! - a promise is for what is queued since the last send, and ends with the next.
//! - if the kernel breaks it (the system is short of memory, the peer's window is tiny), the
//!   protocol is told to pause when that is seen, and the connection does not ask again.
//!
//! Cost: one getsockopt(2) for each send of more than the high-water mark. Differs from asyncio,
//! which sends in `write`: see docs/compatibility.md.

use super::StreamThis;
use pyo3::prelude::*;
use reactor::socket;
use std::cell::Cell;

/// The most bytes that wait: more does not stay in the processor's cache.
const WAITING_MOST: usize = 256 * 1024;

/// In place of a promise: the kernel cannot be asked, or has broken one.
const NONE_EVER: u32 = u32::MAX;

/// The bytes that the next send will take for certain.
#[derive(Default)]
pub(super) struct Room(Cell<u32>);

impl Room {
    /// True if there is a promise for `size` bytes.
    pub(super) fn holds(&self, size: usize) -> bool {
        self.is_asked() && size <= self.0.get() as usize
    }

    fn is_asked(&self) -> bool {
        self.0.get() != NONE_EVER
    }

    /// Ends the promise: what it was for is sent.
    #[inline]
    pub(super) fn end(&self) {
        if self.0.get() != 0 && self.is_asked() {
            self.0.set(0);
        }
    }
}

impl StreamThis<'_, '_> {
    /// True if the kernel would take the `size` bytes that are queued, and they may wait.
    #[inline(never)]
    pub(super) fn kernel_takes(&self, size: usize) -> bool {
        let room = &self.own().room;
        let alone = self.own().written.get() && self.loop_state().unsent_count() == 1;
        if size >= WAITING_MOST || !alone || !room.is_asked() {
            return false;
        }
        if room.holds(size) {
            return true;
        }
        match self.fd().and_then(socket::send_room) {
            Ok(bytes) => room.0.set(bytes.min(WAITING_MOST) as u32),
            Err(_cannot_tell) => room.0.set(NONE_EVER),
        }
        room.holds(size)
    }

    /// The kernel took less than it had promised: asyncio would have paused in `write`.
    ///
    /// In the context of whoever sends now, which may be the connection's already.
    ///
    /// # Errors
    /// As `maybe_pause_protocol`.
    #[cold]
    pub(super) fn promise_broken(&self) -> PyResult<()> {
        self.own().room.0.set(NONE_EVER);
        self.maybe_pause_protocol()
    }
}
