//! A connection between two sessions: handshake, data, buffers and what goes on below them.

use std::path::Path;

use tls::contexts::Version;
use tls::outgoing::KEPT_CAPACITY;
use tls::{Cursor, Library, Outcome, Session, Unavailable};

use crate::support::{self, Pair, fill, read_all, sent, versions};

#[test]
fn data_goes_both_ways() {
    for version in versions() {
        let context = support::context(version);
        let mut pair = Pair::established(&context);
        for length in [1, 1024, 16 * 1024, 16 * 1024 + 1, 1 << 20] {
            let message = fill(length as u64, length);
            assert_eq!(pair.client.session().write(&message), Outcome::Done(length));
            assert_eq!(
                pair.deliver_to_server(),
                (message.clone(), Outcome::WantRead)
            );
            assert_eq!(pair.server.session().write(&message), Outcome::Done(length));
            assert_eq!(pair.deliver_to_client(), (message, Outcome::WantRead));
        }
    }
}

#[test]
fn version_and_context_are_the_owners() {
    for (version, name) in [(Version::Tls12, "TLSv1.2"), (Version::Tls13, "TLSv1.3")] {
        let context = support::context(version);
        let pair = Pair::established(&context);
        assert_eq!(pair.client.version(), name);
        assert_eq!(pair.server.borrowed().context(), context.as_ptr());
    }
}

#[test]
fn library_is_found_once() {
    let library = support::library();
    assert!(std::ptr::eq(library, support::library()));
    assert!(library.version().starts_with("OpenSSL "), "{library:?}");
    assert!(library.version_number() >= 0x1010_1000);
}

#[test]
fn a_byte_at_a_time() {
    for version in versions() {
        let context = support::context(version);
        let mut pair = Pair::new(&context);
        let byte_by_byte = |from: &mut Session, to: &mut Session| {
            for byte in sent(from) {
                assert_eq!(to.read_onto(&mut Vec::new(), 1), Outcome::WantRead);
                to.receive(&[byte]);
            }
        };
        for _ in 0..4 {
            pair.client.session().handshake();
            byte_by_byte(pair.client.session(), pair.server.session());
            pair.server.session().handshake();
            byte_by_byte(pair.server.session(), pair.client.session());
        }
        assert_eq!(pair.client.session().handshake(), Outcome::Done(0));
        pair.client.session().write(b"hello");
        let mut plaintext = Vec::new();
        for byte in sent(pair.client.session()) {
            let server = pair.server.session();
            server.receive_with(&[byte], |server| server.read_onto(&mut plaintext, 64));
        }
        assert_eq!(plaintext, b"hello");
    }
}

#[test]
fn writing_waits_for_the_handshake() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::new(&context);
    assert_eq!(pair.client.session().write(b"early"), Outcome::WantRead);
    pair.carry_to_server();
    assert_eq!(pair.server.session().handshake(), Outcome::WantRead);
    pair.carry_to_client();
    // The same bytes from another place.
    let again = b"early".to_vec();
    assert_eq!(pair.client.session().write(&again), Outcome::Done(5));
    assert_eq!(pair.deliver_to_server(), (again, Outcome::WantRead));
}

#[test]
fn nothing_to_read_into_or_to_write_is_done() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    assert_eq!(pair.client.session().write(b""), Outcome::Done(0));
    assert_eq!(
        pair.client.session().read(&mut Cursor::new(&mut [])),
        Outcome::Done(0)
    );
    assert_eq!(
        pair.client.session().read_onto(&mut Vec::new(), 0),
        Outcome::Done(0)
    );
    assert_eq!(pair.client.session().unsent(), 0);
}

#[test]
fn drained_tells_whether_a_read_could_yield() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    assert!(pair.server.session().is_drained());
    pair.client.session().write(b"first");
    pair.client.session().write(b"second");
    let bytes = sent(pair.client.session());
    let (whole, rest) = bytes.split_at(bytes.len() - 1);
    let server = pair.server.session();
    let mut plaintext = Vec::new();
    server.receive_with(whole, |server| {
        assert!(!server.is_drained());
        assert_eq!(server.read_onto(&mut plaintext, 3), Outcome::Done(3));
        assert_eq!((server.pending(), server.is_drained()), (2, false));
        assert_eq!(server.read_onto(&mut plaintext, 64), Outcome::Done(2));
        assert!(!server.is_drained(), "most of a record is left");
        assert_eq!(server.read_onto(&mut plaintext, 64), Outcome::WantRead);
        assert!(server.is_drained(), "its last byte is still to come");
    });
    server.receive(rest);
    assert!(!server.is_drained());
    assert_eq!(read_all(server), (b"second".to_vec(), Outcome::WantRead));
    assert!(server.is_drained());
    server.receive_eof();
    assert!(!server.is_drained(), "the end is left to find");
}

#[test]
fn what_a_loan_leaves_is_kept_in_order() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    let mut records = Vec::new();
    for message in [b"one ", b"two ", b"tri ", b"four"] {
        pair.client.session().write(message);
        records.push(sent(pair.client.session()));
    }
    let server = pair.server.session();
    server.receive_with(&records[0], |server| {
        server.receive(&records[1]);
        server.receive_with(&records[2], |server| {
            assert_eq!(server.unread(), records[..3].concat().len());
        });
        let mut plaintext = Vec::new();
        assert_eq!(server.read_onto(&mut plaintext, 64), Outcome::Done(4));
        assert_eq!(plaintext, b"one ");
    });
    server.receive(&records[3]);
    assert_eq!(
        read_all(server),
        (b"two tri four".to_vec(), Outcome::WantRead)
    );
}

#[test]
fn a_loan_ends_when_its_body_panics() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    pair.client.session().write(b"kept");
    let bytes = sent(pair.client.session());
    let server = pair.server.session();
    let body = std::panic::AssertUnwindSafe(|| {
        server.receive_with(&bytes, |_| std::panic::resume_unwind(Box::new(())));
    });
    assert!(std::panic::catch_unwind(body).is_err());
    drop(bytes);
    assert_eq!(read_all(server), (b"kept".to_vec(), Outcome::WantRead));
}

#[test]
fn output_is_taken_in_any_portions() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    let message = fill(1, 100_000);
    let mut wire = Vec::new();
    for part in message.chunks(10_000) {
        pair.client.session().write(part);
        let mut output = pair.client.session().to_send();
        let count = output.len() * 2 / 3;
        wire.extend_from_slice(&output[..count]);
        output.advance(count);
    }
    assert_ne!(pair.client.session().unsent(), 0);
    wire.extend(sent(pair.client.session()));
    let server = pair.server.session();
    assert_eq!(
        server.receive_with(&wire, read_all),
        (message, Outcome::WantRead)
    );
}

#[test]
#[should_panic(expected = "more was taken than there is")]
fn more_than_the_output_cannot_be_taken() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    pair.client.session().to_send().advance(1);
}

#[test]
fn idle_sessions_hold_no_large_buffer() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    let message = fill(2, 1 << 20);
    pair.client.session().write(&message);
    assert!(pair.client.session().capacity() > 1 << 20);
    let mut output = pair.client.session().to_send();
    pair.server.session().receive(&output);
    let count = output.len();
    output.advance(count);
    drop(output);
    assert!(pair.server.session().capacity() > 1 << 20);
    assert_eq!(read_all(pair.server.session()).0, message);
    assert!(pair.client.session().capacity() <= KEPT_CAPACITY);
    assert_eq!(pair.server.session().capacity(), 0);
}

#[test]
fn keys_are_updated_on_demand() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    for round in 0..3 {
        assert!(pair.client.update_keys());
        let message = fill(round, 40_000);
        assert_eq!(
            pair.client.session().write(&message),
            Outcome::Done(message.len())
        );
        assert_eq!(
            pair.deliver_to_server(),
            (message.clone(), Outcome::WantRead)
        );
        // The server owes an update of its own, which goes before what it writes next.
        assert_eq!(
            pair.server.session().write(&message),
            Outcome::Done(message.len())
        );
        assert_eq!(pair.deliver_to_client(), (message, Outcome::WantRead));
    }
}

#[test]
fn renegotiation_is_refused_where_the_owner_forbids_it() {
    let strict = support::context(Version::Tls12);
    let lax = support::context(Version::Tls12);
    lax.allow_renegotiation();
    let mut pair = Pair {
        client: lax.client(),
        server: strict.server(),
    };
    pair.shake_hands();
    assert!(pair.client.renegotiate());
    assert_eq!(pair.client.session().handshake(), Outcome::WantRead);
    assert_eq!(pair.deliver_to_server(), (Vec::new(), Outcome::WantRead));
    assert_ne!(pair.server.session().unsent(), 0, "a warning that refuses");
    assert_eq!(
        pair.server.session().write(b"still here"),
        Outcome::Done(10)
    );
    assert_eq!(pair.deliver_to_client(), (Vec::new(), Outcome::Failed));
}

#[test]
fn renegotiation_goes_through_where_both_allow_it() {
    let context = support::context(Version::Tls12);
    context.allow_renegotiation();
    let mut pair = Pair::established(&context);
    // By the server: OpenSSL 3 wants one more permission for clients.
    assert!(pair.server.renegotiate());
    pair.server.session().handshake();
    assert_eq!(pair.deliver_to_client(), (Vec::new(), Outcome::WantRead));
    assert_ne!(pair.client.session().unsent(), 0, "another hello");
    while pair.client.session().unsent() != 0 {
        assert_eq!(pair.deliver_to_server(), (Vec::new(), Outcome::WantRead));
        assert_eq!(pair.deliver_to_client(), (Vec::new(), Outcome::WantRead));
    }
    pair.client.session().write(b"after");
    assert_eq!(
        pair.deliver_to_server(),
        (b"after".to_vec(), Outcome::WantRead)
    );
}

#[test]
fn owner_and_session_take_turns() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::new(&context);
    for _ in 0..3 {
        pair.client.borrowed().handshake();
        pair.carry_to_server();
        pair.server.session().handshake();
        pair.carry_to_client();
    }
    assert_eq!(pair.client.session().write(b"session "), Outcome::Done(8));
    assert_eq!(pair.client.borrowed().write(b"owner "), Outcome::Done(6));
    assert_eq!(pair.client.session().write(b"session"), Outcome::Done(7));
    assert_eq!(
        pair.deliver_to_server(),
        (b"session owner session".to_vec(), Outcome::WantRead)
    );
}

#[test]
fn what_is_not_loaded_is_not_found() {
    let nowhere = Path::new("nowhere/libssl.so.3");
    let error = Library::of_loaded_object(Some(nowhere)).expect_err("there is no such file");
    assert_eq!(
        error,
        Unavailable::NotLoaded("nowhere/libssl.so.3".to_owned())
    );
    assert_eq!(error.to_string(), "nowhere/libssl.so.3 is not loaded");
}

#[test]
fn an_object_without_openssl_offers_nothing() {
    support::library();
    let error = Library::of_loaded_object(Some(Path::new("libc.so.6"))).expect_err("no OpenSSL");
    assert!(error.to_string().starts_with("libssl has no "), "{error}");
}
