//! Mailbox: what threads give to the owner of a poller, which may be waiting.
//!
//! The owner looks whether something has arrived before it waits and behind each wait, and takes
//! it all at once. A thread that gives something writes to the [`Notifier`] only if the owner
//! waits and no thread has written.
//!
//! Invariants (checked by a loom model, see `state`):
//! - nothing is left lying: what is given before or during a wait is found by
//!   [`Mailbox::begin_wait`], or ends the wait;
//! - things arrive in the order in which they were given.
//!
//! Cost: a lock and two atomic operations for giving, with a write(2) if the owner waits; two swaps
//! for a wait; one load to see that nothing has arrived.
//! Differs from asyncio: a thread takes the GIL to schedule a callback.

#![forbid(unsafe_code)]

use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError, Weak};

use crate::notifier::Notifier;

use state::MailboxState;

/// Things for one owner, from any thread.
#[derive(Debug)]
pub struct Mailbox<T> {
    things: Mutex<Vec<T>>,
    state: MailboxState,
    /// The owner's: when it is gone, nobody waits.
    notifier: Weak<Notifier>,
}

impl<T> Mailbox<T> {
    /// An empty mailbox whose owner waits for `notifier`.
    pub fn new(notifier: Weak<Notifier>) -> Self {
        Self {
            things: Mutex::default(),
            state: MailboxState::new(),
            notifier,
        }
    }

    /// Gives something to the owner, and wakes it if it waits. From any thread.
    pub fn give(&self, thing: T) {
        {
            let mut things = self.lock();
            things.push(thing);
            self.state.arrived();
        }
        if self.state.ends_wait()
            && let Some(notifier) = self.notifier.upgrade()
        {
            notifier.notify();
        }
    }

    /// Whether nothing has arrived that was not taken.
    #[inline(always)]
    pub fn is_empty(&self) -> bool {
        !self.state.has_arrived()
    }

    /// What has arrived, the oldest first.
    pub fn take(&self) -> Vec<T> {
        let mut things = self.lock();
        self.state.taken();
        mem::take(&mut *things)
    }

    /// The same in a child of fork(2), for the mailbox that it inherited: nothing, if a thread was
    /// giving something when the process was copied, since that thread holds the lock for ever.
    pub fn take_inherited(&self) -> Vec<T> {
        match self.things.try_lock() {
            Ok(mut things) => mem::take(&mut *things),
            Err(TryLockError::Poisoned(poisoned)) => mem::take(&mut *poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Vec::new(),
        }
    }

    /// The owner is about to wait. `false`: it must not, something has arrived.
    #[inline]
    pub fn begin_wait(&self) -> bool {
        self.state.begin_wait()
    }

    /// The owner does not wait any more.
    #[inline]
    pub fn end_wait(&self) {
        self.state.ends_wait();
    }

    fn lock(&self) -> MutexGuard<'_, Vec<T>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

mod state {
    //! The state machine alone, so that loom can go through every interleaving of it.

    #[cfg(all(feature = "loom", test))]
    use loom::sync::atomic::{AtomicBool, Ordering};
    #[cfg(not(all(feature = "loom", test)))]
    use std::sync::atomic::{AtomicBool, Ordering};

    #[derive(Debug)]
    pub(super) struct MailboxState {
        /// True if something was given that the owner has not taken.
        arrived: AtomicBool,
        /// True while the owner waits and nobody has woken it. It is changed by swaps alone: each
        /// acquires what the one before has released, whoever made it.
        waiting: AtomicBool,
    }

    impl MailboxState {
        pub(super) fn new() -> Self {
            Self {
                arrived: AtomicBool::new(false),
                waiting: AtomicBool::new(false),
            }
        }

        /// Something is there; `ends_wait` must follow.
        #[inline]
        pub(super) fn arrived(&self) {
            self.arrived.store(true, Ordering::Release);
        }

        /// What was there is taken. The caller holds the lock that it held for `arrived`.
        #[inline]
        pub(super) fn taken(&self) {
            self.arrived.store(false, Ordering::Release);
        }

        #[inline(always)]
        pub(super) fn has_arrived(&self) -> bool {
            self.arrived.load(Ordering::Acquire)
        }

        /// Whether somebody waited.
        #[inline]
        pub(super) fn ends_wait(&self) -> bool {
            self.waiting.swap(false, Ordering::AcqRel)
        }

        /// Whether the owner may wait. Of it and a thread that gives something, one swaps later and
        /// sees what the other did before.
        #[inline]
        pub(super) fn begin_wait(&self) -> bool {
            self.waiting.swap(true, Ordering::AcqRel);
            !self.has_arrived()
        }
    }
}

#[cfg(all(feature = "loom", test))]
mod loom_tests {
    //! Interleavings of two threads that give with an owner that waits, under the C11 memory model.
    //! The notifier is a counter. With the lock there are too many: only those are gone through in
    //! which threads are interrupted three times.

    use loom::model::Builder;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::sync::{Arc, Mutex};
    use loom::thread;

    use super::state::MailboxState;

    const THINGS: [usize; 2] = [1, 2];

    struct Model {
        state: MailboxState,
        things: Mutex<usize>,
        notified: AtomicUsize,
    }

    impl Model {
        fn give(&self, thing: usize) {
            {
                let mut things = self.things.lock().expect("no panic");
                *things += thing;
                self.state.arrived();
            }
            if self.state.ends_wait() {
                self.notified.fetch_add(1, Ordering::Relaxed);
            }
        }

        fn take(&self) -> usize {
            if !self.state.has_arrived() {
                return 0;
            }
            let mut things = self.things.lock().expect("no panic");
            self.state.taken();
            std::mem::take(&mut *things)
        }
    }

    /// The owner waits twice while the threads give, each time no longer than a moment, and then
    /// once more. If that wait is not refused and nobody ends it, nothing may be left.
    #[test]
    fn loom_nothing_is_left_lying() {
        let mut interleavings = Builder::new();
        interleavings.preemption_bound = Some(3);
        interleavings.check(|| {
            let model = Arc::new(Model {
                state: MailboxState::new(),
                things: Mutex::new(0),
                notified: AtomicUsize::new(0),
            });
            let threads = THINGS.map(|thing| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.give(thing))
            });
            let mut taken = 0;
            model.state.begin_wait();
            model.state.ends_wait();
            taken += model.take();
            model.notified.store(0, Ordering::Relaxed);
            let waits = model.state.begin_wait();
            for thread in threads {
                thread.join().expect("no panic");
            }
            let woken = !waits || model.notified.load(Ordering::Relaxed) > 0;
            if woken {
                model.state.ends_wait();
                taken += model.take();
            }
            assert_eq!(taken, THINGS.iter().sum::<usize>());
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn what_was_given_is_taken_once_and_in_order() {
        let mailbox = Mailbox::new(Weak::new());
        assert!(mailbox.is_empty());
        mailbox.give(1);
        mailbox.give(2);
        assert!(!mailbox.is_empty());
        assert_eq!(mailbox.take(), [1, 2]);
        assert!(mailbox.is_empty());
        assert_eq!(mailbox.take(), []);
    }

    #[test]
    fn the_owner_does_not_wait_if_something_is_there() {
        let mailbox = Mailbox::new(Weak::new());
        assert!(mailbox.begin_wait());
        mailbox.end_wait();
        mailbox.give(());
        assert!(!mailbox.begin_wait());
        mailbox.end_wait();
        mailbox.take();
        assert!(mailbox.begin_wait());
    }

    #[test]
    fn only_the_first_ends_a_wait() {
        let mailbox = Mailbox::<()>::new(Weak::new());
        assert!(!mailbox.state.ends_wait());
        mailbox.begin_wait();
        assert!(mailbox.state.ends_wait());
        assert!(!mailbox.state.ends_wait());
    }

    #[test]
    fn an_inherited_mailbox_whose_lock_is_held_is_empty() {
        let mailbox = Arc::new(Mailbox::new(Weak::new()));
        mailbox.give(7);
        let held = mailbox.lock();
        assert_eq!(mailbox.take_inherited(), []);
        drop(held);
        assert_eq!(mailbox.take_inherited(), [7]);
    }
}
