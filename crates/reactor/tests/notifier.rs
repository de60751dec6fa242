//! The notifier on a real eventfd, with a poller that it wakes.

#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use reactor::notifier::Notifier;
use reactor::poller::{Events, Interest, Poller};
use reactor::token::Token;

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);

fn watched() -> (Arc<Notifier>, Poller) {
    let notifier = Notifier::new().expect("eventfd");
    let poller = Poller::new().expect("epoll");
    poller
        .add(notifier.as_raw_fd(), Token::reserved(0), Interest::READABLE)
        .expect("add");
    (Arc::new(notifier), poller)
}

#[test]
fn a_notification_is_readable_until_it_is_cleared() {
    let (notifier, poller) = watched();
    assert_eq!(poller.wait(&mut Events::new(), AT_ONCE).expect("a wait"), 0);
    for _ in 0..3 {
        notifier.notify();
        notifier.notify();
        assert_eq!(poller.wait(&mut Events::new(), AT_ONCE).expect("a wait"), 1);
        assert_eq!(poller.wait(&mut Events::new(), AT_ONCE).expect("a wait"), 1);
        notifier.clear();
        assert_eq!(poller.wait(&mut Events::new(), AT_ONCE).expect("a wait"), 0);
    }
}

#[test]
fn clearing_without_a_notification_does_not_block() {
    let (notifier, poller) = watched();
    notifier.clear();
    assert_eq!(poller.wait(&mut Events::new(), AT_ONCE).expect("a wait"), 0);
}

const THREADS: usize = 4;
const PUSHES: usize = 20_000;

/// Threads push and notify as fast as they can; the loop waits without a timeout, so that one lost
/// wake-up would leave it waiting for ever.
#[test]
fn no_wake_up_is_lost() {
    let (notifier, poller) = watched();
    let pushed = Arc::new(AtomicUsize::new(0));
    let threads: Vec<_> = (0..THREADS)
        .map(|_| {
            let (notifier, pushed) = (Arc::clone(&notifier), Arc::clone(&pushed));
            thread::spawn(move || {
                for _ in 0..PUSHES {
                    pushed.fetch_add(1, Ordering::Relaxed);
                    notifier.notify();
                }
            })
        })
        .collect();
    while pushed.load(Ordering::Relaxed) < THREADS * PUSHES {
        poller.wait(&mut Events::new(), None).expect("a wait");
        notifier.clear();
    }
    for thread in threads {
        thread.join().expect("a notifying thread");
    }
}
