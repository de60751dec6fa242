//! `Waker`: wakes the loop's thread from its wait in the kernel.

use super::State;
use reactor::notifier::Notifier;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// The eventfd, and whether somebody waits for it.
pub(crate) struct Waker {
    /// None once the loop is closed.
    pub(super) notifier: RefCell<Option<Arc<Notifier>>>,
    /// True while the loop's thread waits in the kernel without the GIL.
    pub(super) waiting: Cell<bool>,
}

impl Waker {
    pub(super) fn new(notifier: Notifier) -> Self {
        Self {
            notifier: RefCell::new(Some(Arc::new(notifier))),
            waiting: Cell::new(false),
        }
    }
}

impl State {
    /// Wakes the loop's thread if it waits in the kernel.
    #[inline]
    pub(crate) fn wake(&self) {
        if self.waker.waiting.replace(false)
            && let Some(notifier) = &*self.waker.notifier.borrow()
        {
            self.metrics.work.wakeups.add(1);
            notifier.notify();
        }
    }
}
