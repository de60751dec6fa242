//! `Waker`: wakes the loop's thread from its wait in the kernel.

use super::State;
use super::lookups::Answers;
use reactor::mailbox::Mailbox;
use reactor::notifier::Notifier;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// The eventfd, and what threads without the GIL give to the loop.
pub(crate) struct Waker {
    /// None once the loop is closed.
    pub(super) notifier: RefCell<Option<Arc<Notifier>>>,
    /// True while the loop's thread waits in the kernel without the GIL.
    pub(super) waiting: Cell<bool>,
    pub(super) answers: RefCell<Arc<Answers>>,
}

impl Waker {
    pub(super) fn new(notifier: Notifier) -> Self {
        let notifier = Arc::new(notifier);
        let answers = Mailbox::new(Arc::downgrade(&notifier));
        Self {
            notifier: RefCell::new(Some(notifier)),
            waiting: Cell::new(false),
            answers: RefCell::new(Arc::new(answers)),
        }
    }

    /// In the child of a fork: a thread of the parent may have held the mailbox's lock.
    pub(super) fn renew(&self, notifier: Notifier) {
        let new = Self::new(notifier);
        self.notifier.swap(&new.notifier);
        self.answers.swap(&new.answers);
        for answer in new.answers.borrow().take_inherited() {
            self.answers.borrow().give(answer);
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
            notifier.notify();
        }
    }
}
