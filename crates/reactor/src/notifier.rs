//! Notifier: waking a waiting poller from another thread, through an eventfd(2).
//!
//! The loop registers the descriptor as readable. Any thread makes its work visible (pushes it to a
//! queue) and calls [`Notifier::notify`]; the loop, woken, calls [`Notifier::clear`] and then looks
//! at the queue. Only the first notification since the last clear pays for a system call.
//!
//! Invariants (checked by a loom model, see `state`):
//! - no notification is lost: after one, the descriptor is or becomes readable, or the `clear` that
//!   took it happens before the loop looks at its queue;
//! - work pushed before `notify` is visible after the `clear` that saw it.
//!
//! Cost: one atomic swap for a notification, and a write(2) for the first; a read(2) for a clear.
//! Differs from asyncio: the self-pipe writes a byte for every `call_soon_threadsafe`.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use crate::sys::eventfd;

use state::NotifyState;

/// A descriptor that becomes readable when somebody calls [`Notifier::notify`].
#[derive(Debug)]
pub struct Notifier {
    eventfd: OwnedFd,
    state: NotifyState,
}

impl Notifier {
    /// Makes a non-blocking eventfd that is closed on exec.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            eventfd: eventfd::create()?,
            state: NotifyState::new(),
        })
    }

    /// Makes the descriptor readable, unless it is already. From any thread, and from a signal
    /// handler.
    #[inline]
    pub fn notify(&self) {
        if self.state.notify() {
            eventfd::add_one(self.as_raw_fd());
        }
    }

    /// Makes the descriptor not readable. Call it before looking at the work, never after.
    #[inline]
    pub fn clear(&self) {
        // In this order: a notification between the two steps finds the flag set, writes nothing,
        // and its work is looked at next. The other way round its write would be thrown away with
        // the flag still set, and nobody would write again.
        eventfd::reset(self.as_raw_fd());
        self.state.clear();
    }
}

impl AsRawFd for Notifier {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}

mod state {
    //! The state machine alone, so that loom can go through every interleaving of it.

    #[cfg(all(feature = "loom", test))]
    use loom::sync::atomic::{AtomicBool, Ordering};
    #[cfg(not(all(feature = "loom", test)))]
    use std::sync::atomic::{AtomicBool, Ordering};

    /// True if there was a notification that the loop has not seen.
    #[derive(Debug)]
    pub(super) struct NotifyState(AtomicBool);

    impl NotifyState {
        pub(super) fn new() -> Self {
            Self(AtomicBool::new(false))
        }

        /// Whether the caller must write.
        #[inline]
        pub(super) fn notify(&self) -> bool {
            !self.0.swap(true, Ordering::AcqRel)
        }

        #[inline]
        pub(super) fn clear(&self) {
            // A swap and not a store: it acquires what the notifying threads released.
            self.0.swap(false, Ordering::AcqRel);
        }
    }
}

#[cfg(all(feature = "loom", test))]
mod loom_tests {
    //! Every interleaving of two notifying threads with a loop, under the C11 memory model. The
    //! eventfd is a counter and the queue a set of bits, touched with the weakest ordering so that
    //! only the state machine makes pushed work visible.

    use loom::sync::Arc;
    use loom::sync::atomic::{AtomicUsize, Ordering};
    use loom::thread;

    use super::state::NotifyState;

    const ITEMS: [usize; 2] = [1, 2];

    struct Model {
        state: NotifyState,
        eventfd: AtomicUsize,
        queue: AtomicUsize,
    }

    impl Model {
        fn push_and_notify(&self, item: usize) {
            self.queue.fetch_or(item, Ordering::Relaxed);
            if self.state.notify() {
                self.eventfd.fetch_add(1, Ordering::AcqRel);
            }
        }

        fn is_readable(&self) -> bool {
            self.eventfd.load(Ordering::Acquire) > 0
        }

        fn reset(&self) {
            self.eventfd.swap(0, Ordering::AcqRel);
        }

        fn turn(&self, taken: &mut usize) {
            self.reset();
            self.state.clear();
            *taken |= self.queue.load(Ordering::Relaxed);
        }
    }

    /// The loop takes one turn while the threads notify, and then turns for as long as the poller
    /// would wake it. What it has not taken by then is lost.
    #[test]
    fn loom_nothing_is_lost() {
        loom::model(|| {
            let model = Arc::new(Model {
                state: NotifyState::new(),
                eventfd: AtomicUsize::new(0),
                queue: AtomicUsize::new(0),
            });
            let threads = ITEMS.map(|item| {
                let model = Arc::clone(&model);
                thread::spawn(move || model.push_and_notify(item))
            });
            let mut taken = 0;
            model.turn(&mut taken);
            for thread in threads {
                thread.join().expect("no panic");
            }
            while model.is_readable() {
                model.turn(&mut taken);
            }
            assert_eq!(taken, ITEMS.iter().sum::<usize>());
        });
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::state::NotifyState;

    #[test]
    fn only_the_first_notification_writes() {
        let state = NotifyState::new();
        assert!(state.notify());
        assert!(!state.notify());
        state.clear();
        assert!(state.notify());
    }
}
