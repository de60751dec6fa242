//! `Queues`: the callbacks and timers that are scheduled.

use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use pyo3::prelude::*;
use reactor::timer::TimerHeap;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;

/// So much room for callbacks is kept for the next ones, in any case.
const READY_KEPT: usize = 4096;

/// The ready queue and the timers.
pub(crate) struct Queues {
    /// Callbacks that run in this turn or the next.
    pub(super) ready: RefCell<VecDeque<HandleRef>>,
    /// How many of them, from the front, are this turn's, once that is known.
    pub(super) batch: Cell<Option<usize>>,
    /// What the loop's own clock showed when `call_later` made a timer last; NaN before.
    pub(super) clock_read: Cell<f64>,
    pub(super) timers: RefCell<TimerHeap<HandleRef>>,
}

impl Queues {
    pub(super) fn new() -> Self {
        Self {
            ready: RefCell::new(VecDeque::with_capacity(64)),
            batch: Cell::new(None),
            clock_read: Cell::new(f64::NAN),
            timers: RefCell::new(TimerHeap::new()),
        }
    }

    /// Gives memory back that a burst of callbacks has left. Called before the loop waits: half of
    /// it at a time, so that a program whose bursts come again and again keeps what it needs.
    #[inline]
    pub(super) fn shrink(&self) {
        let mut ready = self.ready.borrow_mut();
        let capacity = ready.capacity();
        if capacity > READY_KEPT {
            ready.shrink_to((capacity / 2).max(READY_KEPT));
        }
    }

    /// For the collector; a queue that is borrowed is left out, see `State::traverse`.
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        if let Ok(ready) = self.ready.try_borrow() {
            let mut handles = ready.iter();
            handles.try_for_each(|handle| handle.traverse_queued(visit))?;
        }
        if let Ok(timers) = self.timers.try_borrow() {
            let mut handles = timers.iter();
            handles.try_for_each(|(_, handle)| handle.traverse_queued(visit))?;
        }
        Ok(())
    }

    /// While the loop does not run, the collector has to track the handles that somebody else owns
    /// too.
    pub(super) fn track_shared_handles(&self) {
        let (ready, timers) = (self.ready.borrow(), self.timers.borrow());
        let timed = timers.iter().map(|(_, handle)| handle);
        ready
            .iter()
            .chain(timed)
            .for_each(HandleRef::track_if_shared);
    }

    /// Drops every handle.
    pub(super) fn release(&self, py: Python<'_>) {
        let ready = self.ready.take();
        let timers = self.timers.borrow_mut().drain();
        for handle in ready.into_iter().chain(timers) {
            handle.set_scheduled(false);
            handle.release_ref(py);
        }
    }
}
