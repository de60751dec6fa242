//! `Unsent`: the transports whose writes wait for the end of the batch.
//!
//! What the callbacks of a batch write leaves when the batch ends: all writes to one transport in
//! one system call, and one transport behind the other. A peer on the same machine is then woken
//! once a batch and not by each callback, which costs the sender less and lets the peer find more
//! when it wakes. If the oldest of these writes has waited for `PATIENCE_NS` when a callback
//! returns, all leave then.
//!
//! They leave earlier if the program could tell the difference: in debug mode behind each callback;
//! before any transport sends at once, ends, shows its socket or its queue; before a `sock_*`
//! method, a write to a pipe, a connect, a fork, a new child process or a signal to one, and before
//! an executor gets work. A transport whose socket object somebody else holds does not wait.
//!
//! Cost: a reading of the clock behind each callback that leaves something unsent, but for the last
//! of a batch. Differs from asyncio, which sends in `write`: see docs/compatibility.md.

use super::State;
use super::held::Held;
use pyo3::prelude::*;
use reactor::clock::now_ns;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// How long a write may wait while other callbacks run, in nanoseconds.
const PATIENCE_NS: u64 = 500_000;

/// The transports, in the order in which they were first written to.
#[derive(Default)]
pub(super) struct Unsent {
    transports: RefCell<VecDeque<Held>>,
    /// When the callback that wrote first had returned; None if nobody has looked yet.
    since: Cell<Option<u64>>,
}

impl Unsent {
    #[inline(always)]
    pub(super) fn is_empty(&self) -> bool {
        self.transports.borrow().is_empty()
    }

    /// True if the oldest write has waited long enough. To be asked when a callback has returned.
    #[inline(never)]
    pub(super) fn is_due(&self) -> bool {
        let now = now_ns();
        let Some(since) = self.since.get() else {
            self.since.set(Some(now));
            return false;
        };
        now.saturating_sub(since) >= PATIENCE_NS
    }

    /// What is written meanwhile waits for the next time.
    #[inline(never)]
    fn flush(&self, py: Python<'_>) {
        self.since.set(None);
        let count = self.transports.borrow().len();
        for _ in 0..count {
            let held = self.transports.borrow_mut().pop_front();
            if let Some(held) = held {
                held.flush(py);
            }
        }
    }
}

impl State {
    /// Sends what was written to transports and has not left yet.
    #[inline(always)]
    pub(crate) fn flush(&self, py: Python<'_>) {
        if !self.unsent.is_empty() {
            self.unsent.flush(py);
        }
    }

    /// How many transports wait.
    pub(crate) fn unsent_count(&self) -> usize {
        self.unsent.transports.borrow().len()
    }

    /// Flushes `transport` when the batch ends.
    #[inline]
    pub(crate) fn flush_later(&self, transport: Held) {
        self.unsent.transports.borrow_mut().push_back(transport);
    }
}
