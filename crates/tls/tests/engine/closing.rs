//! The end of a connection: announced, cut off, or failed.

use tls::Outcome;
use tls::contexts::Version;

use crate::support::{self, Pair, read_all, sent, versions};

#[test]
fn close_notify_goes_both_ways() {
    for version in versions() {
        let context = support::context(version);
        let mut pair = Pair::established(&context);
        pair.client.session().write(b"last words");
        assert_eq!(pair.client.session().shutdown(), Outcome::WantRead);
        assert!(pair.client.session().close_notify_sent());
        assert_eq!(
            pair.deliver_to_server(),
            (b"last words".to_vec(), Outcome::CloseNotify)
        );
        assert!(pair.server.session().close_notify_received());
        assert!(!pair.client.session().close_notify_received());
        // One direction is closed, the other is not.
        assert_eq!(pair.server.session().write(b"noted"), Outcome::Done(5));
        assert_eq!(
            pair.deliver_to_client(),
            (b"noted".to_vec(), Outcome::WantRead)
        );
        assert_eq!(pair.server.session().shutdown(), Outcome::Done(0));
        pair.carry_to_client();
        assert_eq!(pair.client.session().shutdown(), Outcome::Done(0));
        assert!(pair.client.session().close_notify_received());
    }
}

#[test]
fn both_may_close_at_once() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    assert_eq!(pair.client.session().shutdown(), Outcome::WantRead);
    assert_eq!(pair.server.session().shutdown(), Outcome::WantRead);
    pair.carry_to_client();
    pair.carry_to_server();
    assert_eq!(pair.client.session().shutdown(), Outcome::Done(0));
    assert_eq!(pair.server.session().shutdown(), Outcome::Done(0));
    assert_eq!(
        pair.client.session().unsent(),
        0,
        "one close_notify is enough"
    );
}

#[test]
fn the_end_is_reported_again_and_again() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    pair.client.session().shutdown();
    assert_eq!(pair.deliver_to_server().1, Outcome::CloseNotify);
    assert_eq!(
        read_all(pair.server.session()),
        (Vec::new(), Outcome::CloseNotify)
    );
    pair.server.session().receive(b"bytes after the end");
    pair.server.session().receive_eof();
    assert_eq!(
        read_all(pair.server.session()),
        (Vec::new(), Outcome::CloseNotify)
    );
}

#[test]
fn nothing_is_written_after_a_close_notify() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    pair.client.session().shutdown();
    assert_eq!(pair.client.session().write(b"too late"), Outcome::Failed);
    let failure = pair.client.session().error().expect("a reason");
    assert_eq!(failure.reason, "protocol is shutdown");
}

#[test]
fn shutdown_in_the_handshake_is_an_error() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::new(&context);
    pair.client.session().handshake();
    assert_eq!(pair.client.session().shutdown(), Outcome::Failed);
    let failure = pair.client.session().error().expect("a reason");
    assert_eq!(failure.to_string(), "SSL routines: shutdown while in init");
}

#[test]
fn shutdown_does_not_pass_over_data() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    pair.server.session().write(b"unread");
    pair.carry_to_client();
    assert_eq!(pair.client.session().shutdown(), Outcome::Failed);
    let failure = pair.client.session().error().expect("a reason");
    assert_eq!(failure.reason, "application data after close notify");
}

/// OpenSSL before 3 has no reason to give.
fn is_truncation(pair: &mut Pair<'_>) -> bool {
    let failure = pair.server.session().error();
    failure.is_none_or(|failure| failure.reason == "unexpected eof while reading")
}

#[test]
fn an_end_without_close_notify_is_a_failure_after_the_data() {
    for version in versions() {
        let context = support::context(version);
        let mut pair = Pair::established(&context);
        pair.client.session().write(b"then it broke");
        pair.carry_to_server();
        pair.server.session().receive_eof();
        let (plaintext, outcome) = read_all(pair.server.session());
        assert_eq!(
            (plaintext.as_slice(), outcome),
            (&b"then it broke"[..], Outcome::Failed)
        );
        assert!(is_truncation(&mut pair));
    }
}

#[test]
fn an_end_inside_of_a_record_is_a_failure() {
    let context = support::context(Version::Tls13);
    for left in [1, 4, 5, 6, 20] {
        let mut pair = Pair::established(&context);
        pair.client.session().write(b"cut off");
        let bytes = sent(pair.client.session());
        let server = pair.server.session();
        assert_eq!(
            server.receive_with(&bytes[..left], read_all),
            (Vec::new(), Outcome::WantRead)
        );
        server.receive_eof();
        assert_eq!(read_all(server), (Vec::new(), Outcome::Failed));
        assert!(is_truncation(&mut pair));
    }
}

#[test]
fn an_end_in_the_handshake_is_a_failure() {
    for version in versions() {
        let context = support::context(version);
        for flights in 0..2 {
            let mut pair = Pair::new(&context);
            for _ in 0..flights {
                pair.client.session().handshake();
                pair.carry_to_server();
                assert_eq!(pair.server.session().handshake(), Outcome::WantRead);
            }
            pair.server.session().receive_eof();
            assert_eq!(pair.server.session().handshake(), Outcome::Failed);
            assert!(is_truncation(&mut pair));
        }
    }
}

#[test]
fn the_next_call_clears_the_errors_of_the_last() {
    let context = support::context(Version::Tls13);
    let mut broken = Pair::established(&context);
    let mut sound = Pair::established(&context);
    broken.server.session().receive(b"no TLS at all");
    assert_eq!(read_all(broken.server.session()).1, Outcome::Failed);
    assert!(broken.server.session().error().is_some());
    assert_eq!(read_all(sound.server.session()).1, Outcome::WantRead);
    assert_eq!(sound.server.session().error(), None);
    assert_eq!(read_all(broken.server.session()).1, Outcome::Failed);
    broken.server.session().clear_errors();
    assert_eq!(broken.server.session().error(), None);
}
