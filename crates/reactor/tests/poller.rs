//! The poller's contract, on real descriptors.

#![forbid(unsafe_code)]

use std::fs::File;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::thread;
use std::time::Duration;

use reactor::clock;
use reactor::poller::{Event, Events, Interest, Poller};
use reactor::socket::{self, AF_UNIX, How, SOCK_STREAM};
use reactor::token::Token;

const AT_ONCE: Option<Duration> = Some(Duration::ZERO);
const LONG: Option<Duration> = Some(Duration::from_secs(30));

fn poller() -> Poller {
    Poller::new().expect("epoll")
}

fn stream_pair() -> (OwnedFd, OwnedFd) {
    socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a socket pair")
}

fn token(index: u32) -> Token {
    Token {
        index,
        generation: 7,
    }
}

fn events(poller: &Poller, timeout: Option<Duration>) -> Vec<Event> {
    events_in(&mut Events::new(), poller, timeout)
}

fn events_in(events: &mut Events, poller: &Poller, timeout: Option<Duration>) -> Vec<Event> {
    let ready = poller.wait(events, timeout).expect("a wait");
    (0..ready).map(|i| events.get(i)).collect()
}

fn errno<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

#[test]
fn readiness_is_reported_while_it_holds() {
    let poller = poller();
    let (near, far) = stream_pair();
    poller
        .add(near.as_raw_fd(), token(1), Interest::READABLE)
        .expect("add");
    assert_eq!(events(&poller, AT_ONCE), []);
    socket::send(far.as_raw_fd(), b"0123456789").expect("send");
    let readable = Event {
        token: token(1),
        readable: true,
        writable: false,
        error: false,
        hangup: false,
    };
    for _ in 0..10 {
        assert_eq!(events(&poller, LONG), [readable]);
        let mut one = [0];
        assert_eq!(
            socket::recv_into_slice(near.as_raw_fd(), &mut one).expect("recv"),
            1
        );
    }
    assert_eq!(events(&poller, AT_ONCE), []);
}

#[test]
fn interest_and_token_can_be_changed() {
    let poller = poller();
    let (near, far) = stream_pair();
    let fd = near.as_raw_fd();
    poller
        .add(fd, token(1), Interest::READABLE | Interest::WRITABLE)
        .expect("add");
    let event = events(&poller, LONG)[0];
    assert_eq!(
        (event.token, event.readable, event.writable),
        (token(1), false, true)
    );
    socket::send(far.as_raw_fd(), b"x").expect("send");
    let event = events(&poller, LONG)[0];
    assert_eq!((event.readable, event.writable), (true, true));
    poller
        .modify(fd, token(2), Interest::WRITABLE)
        .expect("modify");
    let event = events(&poller, LONG)[0];
    assert_eq!(
        (event.token, event.readable, event.writable),
        (token(2), false, true)
    );
    poller.delete(fd).expect("delete");
    assert_eq!(events(&poller, AT_ONCE), []);
}

#[test]
fn a_hangup_is_both_readable_and_writable_whatever_the_interest() {
    for interest in [Interest::NONE, Interest::READABLE, Interest::WRITABLE] {
        let poller = poller();
        let (near, far) = stream_pair();
        poller
            .add(near.as_raw_fd(), token(1), interest)
            .expect("add");
        drop(far);
        let event = events(&poller, LONG)[0];
        assert!(
            event.hangup && event.readable && event.writable,
            "{event:?}"
        );
    }
}

#[test]
fn the_end_of_a_half_closed_stream_is_readable_only() {
    let poller = poller();
    let (near, far) = stream_pair();
    poller
        .add(near.as_raw_fd(), token(1), Interest::READABLE)
        .expect("add");
    socket::shutdown(far.as_raw_fd(), How::Write).expect("shutdown");
    let event = events(&poller, LONG)[0];
    assert!(
        event.readable && !event.writable && !event.hangup,
        "{event:?}"
    );
}

#[test]
fn the_reader_s_leaving_is_an_error_for_a_pipe_s_writer() {
    let poller = poller();
    let (reader, writer) = socket::pipe().expect("a pipe");
    poller
        .add(writer.as_raw_fd(), token(1), Interest::NONE)
        .expect("add");
    drop(reader);
    let event = events(&poller, LONG)[0];
    assert!(event.error && event.readable && event.writable, "{event:?}");
}

#[test]
fn what_cannot_be_registered_is_refused() {
    let poller = poller();
    let (near, _far) = stream_pair();
    let fd = near.as_raw_fd();
    poller.add(fd, token(1), Interest::READABLE).expect("add");
    assert_eq!(
        errno(poller.add(fd, token(1), Interest::READABLE)),
        Some(libc::EEXIST)
    );
    let file = File::open("/proc/self/exe").expect("a regular file");
    let refused = poller.add(file.as_raw_fd(), token(2), Interest::READABLE);
    assert_eq!(
        refused.as_ref().map_err(std::io::Error::kind),
        Err(ErrorKind::PermissionDenied)
    );
    assert_eq!(
        errno(poller.add(-1, token(3), Interest::READABLE)),
        Some(libc::EBADF)
    );
    let (other, _other_far) = stream_pair();
    assert_eq!(
        errno(poller.modify(other.as_raw_fd(), token(4), Interest::NONE)),
        Some(libc::ENOENT)
    );
    assert_eq!(errno(poller.delete(other.as_raw_fd())), Some(libc::ENOENT));
    assert_eq!(errno(poller.delete(-1)), Some(libc::EBADF));
}

#[test]
fn a_reused_fd_comes_with_its_own_token() {
    let poller = poller();
    let (old, _old_far) = stream_pair();
    poller
        .add(old.as_raw_fd(), token(1), Interest::WRITABLE)
        .expect("add");
    let number: RawFd = old.as_raw_fd();
    drop(old);
    let (mut pairs, mut found) = (Vec::new(), None);
    while found.is_none() && pairs.len() < 64 {
        let pair = stream_pair();
        found = [pair.0.as_raw_fd(), pair.1.as_raw_fd()]
            .contains(&number)
            .then_some(number);
        pairs.push(pair);
    }
    // Other tests open descriptors too, so the number may be gone for good.
    if found.is_some() {
        poller
            .add(
                number,
                Token {
                    generation: 8,
                    ..token(1)
                },
                Interest::WRITABLE,
            )
            .expect("add");
        let event = events(&poller, LONG)[0];
        assert_eq!(event.token.generation, 8);
    }
}

/// The end of a wait is compared with its beginning only, because a busy machine may add any time.
fn assert_not_early(poller: &Poller, timeout: Duration) {
    let mut events = Events::new();
    let start = clock::now_ns();
    assert_eq!(poller.wait(&mut events, Some(timeout)).expect("a wait"), 0);
    let waited = Duration::from_nanos(clock::now_ns() - start);
    assert!(!events.interrupted());
    assert!(waited >= timeout, "{waited:?} instead of {timeout:?}");
}

#[test]
fn a_wait_is_never_early() {
    let mut poller = poller();
    for nanoseconds in [1, 999, 300_000, 1_000_001, 5_400_000] {
        assert_not_early(&poller, Duration::from_nanos(nanoseconds));
    }
    poller.use_milliseconds_only();
    for nanoseconds in [1, 300_000, 1_000_001, 5_400_000] {
        assert_not_early(&poller, Duration::from_nanos(nanoseconds));
    }
}

#[test]
fn milliseconds_are_rounded_up() {
    let mut poller = poller();
    poller.use_milliseconds_only();
    let start = clock::now_ns();
    assert_eq!(
        poller
            .wait(&mut Events::new(), Some(Duration::from_micros(100)))
            .expect("a wait"),
        0
    );
    assert!(clock::now_ns() - start >= 1_000_000);
}

#[test]
fn endless_and_huge_timeouts_wait_for_an_event() {
    for timeout in [
        None,
        Some(Duration::MAX),
        Some(Duration::from_secs(u64::from(u32::MAX))),
    ] {
        for milliseconds_only in [false, true] {
            let mut poller = poller();
            if milliseconds_only {
                poller.use_milliseconds_only();
            }
            let (near, far) = stream_pair();
            poller
                .add(near.as_raw_fd(), token(1), Interest::READABLE)
                .expect("add");
            let writer = thread::spawn(move || {
                socket::send(far.as_raw_fd(), b"x").expect("send");
                far
            });
            assert_eq!(events(&poller, timeout).len(), 1);
            writer.join().expect("the writer");
        }
    }
}

#[test]
fn a_wait_heeds_changes_from_another_thread() {
    let poller = poller();
    let (near, far) = stream_pair();
    let (other, silent) = stream_pair();
    socket::send(silent.as_raw_fd(), b"x").expect("send");
    poller
        .add(other.as_raw_fd(), token(1), Interest::NONE)
        .expect("add");
    thread::scope(|scope| {
        let waiting = scope.spawn(|| events(&poller, LONG));
        poller.delete(other.as_raw_fd()).expect("delete");
        poller
            .add(near.as_raw_fd(), token(2), Interest::NONE)
            .expect("add");
        poller
            .modify(near.as_raw_fd(), token(3), Interest::READABLE)
            .expect("modify");
        socket::send(far.as_raw_fd(), b"y").expect("send");
        let events = waiting.join().expect("the waiting thread");
        let tokens: Vec<Token> = events.iter().map(|event| event.token).collect();
        assert_eq!(tokens, [token(3)]);
    });
}

#[test]
fn one_wait_takes_all_that_there_is_room_for() {
    let poller = poller();
    let pairs: Vec<_> = (0..400).map(|_| stream_pair()).collect();
    for (index, (near, _)) in pairs.iter().enumerate() {
        poller
            .add(near.as_raw_fd(), token(index as u32), Interest::WRITABLE)
            .expect("add");
    }
    let mut room = Events::new();
    assert!(events_in(&mut room, &poller, LONG).len() < pairs.len());
    room.reserve(pairs.len());
    let all = events_in(&mut room, &poller, LONG);
    let mut seen: Vec<u32> = all.iter().map(|event| event.token.index).collect();
    seen.sort_unstable();
    assert_eq!(seen, (0..pairs.len() as u32).collect::<Vec<_>>());
}

#[test]
#[should_panic(expected = "out of bounds")]
fn an_event_past_the_last_wait_s_is_a_bug() {
    let poller = poller();
    let (near, _far) = stream_pair();
    poller
        .add(near.as_raw_fd(), token(1), Interest::WRITABLE)
        .expect("add");
    let mut events = Events::new();
    assert_eq!(poller.wait(&mut events, LONG).expect("a wait"), 1);
    poller.delete(near.as_raw_fd()).expect("delete");
    assert_eq!(poller.wait(&mut events, AT_ONCE).expect("a wait"), 0);
    events.get(0);
}

#[test]
fn interests_combine() {
    let both = Interest::READABLE | Interest::WRITABLE;
    assert!(both.contains(Interest::READABLE) && both.contains(Interest::WRITABLE));
    assert!(!Interest::READABLE.contains(both));
    assert_eq!(both.without(Interest::READABLE), Interest::WRITABLE);
    assert_eq!(Interest::NONE.with(Interest::READABLE), Interest::READABLE);
    assert!(both.without(both).is_empty());
    assert_eq!(format!("{both:?}"), "Interest(READABLE | WRITABLE)");
}
