//! The mailbox on a real eventfd, with an owner that waits for it.

#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::thread;

use reactor::mailbox::Mailbox;
use reactor::notifier::Notifier;
use reactor::poller::{Events, Interest, Poller};
use reactor::token::Token;

const THREADS: usize = 4;
const THINGS: usize = 20_000;

/// Threads give as fast as they can; the owner waits without a timeout, so that one lost wake-up
/// would leave it waiting for ever.
#[test]
fn everything_arrives_in_order_and_no_wake_up_is_lost() {
    let notifier = Arc::new(Notifier::new().expect("eventfd"));
    let poller = Poller::new().expect("epoll");
    poller
        .add(notifier.as_raw_fd(), Token::reserved(0), Interest::READABLE)
        .expect("add");
    let mailbox = Arc::new(Mailbox::new(Arc::downgrade(&notifier)));
    let threads: Vec<_> = (0..THREADS)
        .map(|thread| {
            let mailbox = Arc::clone(&mailbox);
            thread::spawn(move || (0..THINGS).for_each(|thing| mailbox.give((thread, thing))))
        })
        .collect();
    let mut next = [0; THREADS];
    while next.iter().sum::<usize>() < THREADS * THINGS {
        let mut events = Events::new();
        if mailbox.begin_wait() && poller.wait(&mut events, None).expect("a wait") > 0 {
            notifier.clear();
        }
        mailbox.end_wait();
        for (thread, thing) in mailbox.take() {
            assert_eq!(thing, next[thread]);
            next[thread] += 1;
        }
    }
    for thread in threads {
        thread.join().expect("no panic");
    }
    assert!(mailbox.is_empty());
}

#[test]
fn giving_to_an_owner_that_is_gone_does_nothing() {
    let notifier = Arc::new(Notifier::new().expect("eventfd"));
    let mailbox = Mailbox::new(Arc::downgrade(&notifier));
    assert!(mailbox.begin_wait());
    drop(notifier);
    mailbox.give(());
    assert_eq!(mailbox.take().len(), 1);
}
