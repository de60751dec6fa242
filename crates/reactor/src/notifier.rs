//! Notifier: waking a waiting poller from another thread, through an eventfd(2).
//!
//! The loop registers the descriptor as readable. Any thread makes its work visible (pushes it to a
//! queue) and calls [`Notifier::notify`]; the loop, woken, calls [`Notifier::clear`] and then looks
//! at the queue. Only the first notification since the last clear pays for a system call.
//!
//! A loop that does not wait need not be woken: between [`Notifier::disarm`] and [`Notifier::arm`]
//! a notification only sets a flag, and `arm` says whether one came.
//!
//! Invariants (checked by a loom model, see `state`):
//! - no notification is lost: after one, either the descriptor is or becomes readable, or the next
//!   `arm` says so, or the `clear`/`disarm` that took it happens before the loop looks at its
//!   queue;
//! - work pushed before `notify` is visible after the `clear`, `disarm` or `arm` that saw it.
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
    /// Makes a non-blocking eventfd that is closed on exec. It begins armed.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            eventfd: eventfd::create()?,
            state: NotifyState::new(),
        })
    }

    /// Makes the descriptor readable, unless it is already or the loop is awake (see
    /// [`Notifier::disarm`]). From any thread, and from a signal handler.
    #[inline]
    pub fn notify(&self) {
        if self.state.notify() {
            eventfd::add_one(self.as_raw_fd());
        }
    }

    /// Makes the descriptor not readable and arms it. Call it before looking at the work, never
    /// after.
    #[inline]
    pub fn clear(&self) {
        // In this order: a notification between the two steps finds the flag set, writes nothing,
        // and its work is looked at next. The other way round its write would be thrown away with
        // the flag still set, and nobody would write again.
        eventfd::reset(self.as_raw_fd());
        self.state.arm_again();
    }

    /// The loop is awake and will look at its work before it waits: until [`Notifier::arm`],
    /// notifications cost no system call. Returns whether there was one since the last look. The
    /// descriptor stays readable if it is; [`Notifier::drain`] clears it when the poller reports
    /// it.
    #[inline]
    pub fn disarm(&self) -> bool {
        self.state.disarm()
    }

    /// The loop is about to wait. `false`: there was a notification since [`Notifier::disarm`], so
    /// look at the work first and do not wait (it stays disarmed, and the notification counts as
    /// seen).
    #[inline]
    #[must_use]
    pub fn arm(&self) -> bool {
        self.state.arm()
    }

    /// Makes the descriptor not readable, for a loop that uses `disarm` and `arm`. Call it between
    /// them, when the poller has reported the descriptor.
    #[inline]
    pub fn drain(&self) {
        eventfd::reset(self.as_raw_fd());
    }

    /// Whether there was a notification since the last look.
    #[inline]
    pub fn is_notified(&self) -> bool {
        self.state.is_notified()
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

    #[cfg(all(loom, test))]
    use loom::sync::atomic::{AtomicU8, Ordering};
    #[cfg(not(all(loom, test)))]
    use std::sync::atomic::{AtomicU8, Ordering};

    /// The loop waits or may wait: a notification must write.
    const ARMED: u8 = 0;
    /// The loop is awake and looks before it waits: a notification need not write.
    const AWAKE: u8 = 1;
    /// There was a notification that the loop has not seen.
    const NOTIFIED: u8 = 2;

    #[derive(Debug)]
    pub(super) struct NotifyState(AtomicU8);

    impl NotifyState {
        pub(super) fn new() -> Self {
            Self(AtomicU8::new(ARMED))
        }

        /// Whether the caller must write.
        #[inline]
        pub(super) fn notify(&self) -> bool {
            self.0.swap(NOTIFIED, Ordering::AcqRel) == ARMED
        }

        #[inline]
        pub(super) fn arm_again(&self) {
            // A swap and not a store: it acquires what the notifying threads released.
            self.0.swap(ARMED, Ordering::AcqRel);
        }

        #[inline]
        pub(super) fn disarm(&self) -> bool {
            self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
        }

        #[inline]
        pub(super) fn arm(&self) -> bool {
            let armed = self
                .0
                .compare_exchange(AWAKE, ARMED, Ordering::AcqRel, Ordering::Acquire);
            if armed == Err(NOTIFIED) {
                self.0.swap(AWAKE, Ordering::AcqRel);
                return false;
            }
            true
        }

        #[inline]
        pub(super) fn is_notified(&self) -> bool {
            self.0.load(Ordering::Acquire) == NOTIFIED
        }
    }
}

#[cfg(all(loom, test))]
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

        /// One turn of a loop that uses `clear`.
        fn turn_with_clear(&self, taken: &mut usize) {
            self.reset();
            self.state.arm_again();
            *taken |= self.queue.load(Ordering::Relaxed);
        }

        /// One turn of a loop that uses `disarm` and `arm`.
        fn turn_with_arm(&self, taken: &mut usize) {
            self.state.disarm();
            if self.is_readable() {
                self.reset();
            }
            *taken |= self.queue.load(Ordering::Relaxed);
            while !self.state.arm() {
                *taken |= self.queue.load(Ordering::Relaxed);
            }
        }
    }

    /// The loop takes one turn while the threads notify, and then turns for as long as the poller
    /// would wake it. What it has not taken by then is lost.
    fn nothing_is_lost(turn: impl Fn(&Model, &mut usize) + Send + Sync + 'static) {
        loom::model(move || {
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
            turn(&model, &mut taken);
            for thread in threads {
                thread.join().expect("no panic");
            }
            while model.is_readable() {
                turn(&model, &mut taken);
            }
            assert_eq!(taken, ITEMS.iter().sum::<usize>());
        });
    }

    #[test]
    fn loom_nothing_is_lost_with_clear() {
        nothing_is_lost(Model::turn_with_clear);
    }

    #[test]
    fn loom_nothing_is_lost_with_arm() {
        nothing_is_lost(Model::turn_with_arm);
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::state::NotifyState;

    #[test]
    fn only_the_first_notification_writes() {
        let state = NotifyState::new();
        assert!(!state.is_notified());
        assert!(state.notify());
        assert!(!state.notify());
        assert!(state.is_notified());
        state.arm_again();
        assert!(!state.is_notified());
        assert!(state.notify());
    }

    #[test]
    fn a_loop_that_is_awake_is_not_written_to() {
        let state = NotifyState::new();
        assert!(!state.disarm());
        assert!(!state.notify());
        assert!(!state.arm());
        assert!(!state.is_notified());
        assert!(state.arm());
        assert!(state.notify());
        assert!(state.disarm());
        assert!(state.arm());
    }
}
