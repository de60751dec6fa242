//! Peers that speak something else, or TLS that somebody tampered with.

use proptest::prelude::*;
use tls::contexts::{Context, Version};
use tls::{Outcome, Session};

use crate::support::{self, Pair, fill, read_all, sent, versions};

const APPLICATION_DATA: u8 = 23;
const HANDSHAKE: u8 = 22;

fn record(kind: u8, length: u16, body: &[u8]) -> Vec<u8> {
    let [high, low] = length.to_be_bytes();
    [&[kind, 3, 3, high, low], body].concat()
}

/// The two sides of a connection after so many flights, each of which is one call.
fn after_flights(context: &Context, flights: usize) -> Pair<'_> {
    let mut pair = Pair::new(context);
    for flight in 0..flights {
        if flight % 2 == 0 {
            pair.client.session().handshake();
            pair.carry_to_server();
        } else {
            pair.server.session().handshake();
            pair.carry_to_client();
        }
    }
    pair
}

/// Reads to the failure, which stays one, whatever comes next.
fn fails(session: &mut Session, bytes: &[u8]) -> String {
    let (plaintext, outcome) = session.receive_with(bytes, read_all);
    assert_eq!((plaintext, outcome), (Vec::new(), Outcome::Failed));
    let reason = session.error().expect("a reason").reason;
    session.receive(bytes);
    assert!(matches!(
        session.read_onto(&mut Vec::new(), 64),
        Outcome::Failed | Outcome::CloseNotify
    ));
    assert_eq!(session.write(b"answer"), Outcome::Failed);
    reason
}

#[test]
fn plain_http_is_told_from_tls() {
    for version in versions() {
        let context = support::context(version);
        let mut server = context.server();
        let request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(
            server.session().receive_with(request, read_all),
            (Vec::new(), Outcome::Failed)
        );
        assert_eq!(
            server.session().error().expect("a reason").reason,
            "http request"
        );
        assert_eq!(
            server.session().unsent(),
            0,
            "an alert would not be understood"
        );
    }
}

#[test]
fn garbage_fails_in_every_state() {
    for version in versions() {
        let context = support::context(version);
        for flights in 0..6 {
            for to_server in [false, true] {
                let mut pair = after_flights(&context, flights);
                let side = if to_server {
                    &mut pair.server
                } else {
                    &mut pair.client
                };
                side.session().handshake();
                fails(side.session(), &fill(3, 64));
            }
        }
    }
}

#[test]
fn records_of_impossible_length_fail_before_they_are_whole() {
    for version in versions() {
        let context = support::context(version);
        for kind in [HANDSHAKE, APPLICATION_DATA] {
            let mut pair = Pair::established(&context);
            fails(pair.server.session(), &record(kind, u16::MAX, b""));
        }
        let mut server = context.server();
        fails(server.session(), &record(HANDSHAKE, u16::MAX, &[1, 0]));
    }
}

#[test]
fn empty_records_without_end_fail() {
    let context = support::context(Version::Tls12);
    let mut pair = Pair::established(&context);
    fails(
        pair.server.session(),
        &record(APPLICATION_DATA, 0, b"").repeat(100),
    );
}

#[test]
fn any_changed_byte_is_noticed() {
    for version in versions() {
        let context = support::context(version);
        for position in 0..5 + 8 {
            let mut pair = Pair::established(&context);
            pair.client.session().write(b"message");
            let mut bytes = sent(pair.client.session());
            bytes[position] ^= 0x40;
            let server = pair.server.session();
            let (plaintext, outcome) = server.receive_with(&bytes, read_all);
            assert_eq!(plaintext, b"", "byte {position}");
            assert_ne!(outcome, Outcome::CloseNotify, "byte {position}");
            if outcome == Outcome::WantRead {
                server.receive_eof(); // the length grew
                assert_eq!(
                    read_all(server),
                    (Vec::new(), Outcome::Failed),
                    "byte {position}"
                );
            }
        }
    }
}

#[test]
fn a_record_counts_once() {
    for version in versions() {
        let context = support::context(version);
        let mut pair = Pair::established(&context);
        pair.client.session().write(b"pay 1 coin");
        let bytes = sent(pair.client.session());
        let (plaintext, _) = pair.server.session().receive_with(&bytes, read_all);
        assert_eq!(plaintext, b"pay 1 coin");
        fails(pair.server.session(), &bytes);
    }
}

#[test]
fn the_peer_is_told_by_an_alert() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    fails(
        pair.server.session(),
        &record(APPLICATION_DATA, 32, &fill(4, 32)),
    );
    assert_eq!(pair.deliver_to_client(), (Vec::new(), Outcome::Failed));
    let reason = pair.client.session().error().expect("a reason").reason;
    assert!(reason.ends_with("alert bad record mac"), "{reason}");
}

#[test]
fn a_hello_of_the_wrong_version_is_refused() {
    let (old, new) = (
        support::context(Version::Tls12),
        support::context(Version::Tls13),
    );
    let mut pair = Pair {
        client: old.client(),
        server: new.server(),
    };
    pair.client.session().handshake();
    pair.carry_to_server();
    assert_eq!(pair.server.session().handshake(), Outcome::Failed);
    assert_eq!(
        pair.server.session().error().expect("a reason").reason,
        "unsupported protocol"
    );
    pair.carry_to_client();
    assert_eq!(pair.client.session().handshake(), Outcome::Failed);
}

#[test]
fn others_are_unharmed() {
    let context = support::context(Version::Tls13);
    let mut sound = Pair::established(&context);
    for seed in 0..100 {
        let mut broken = Pair::established(&context);
        fails(broken.server.session(), &fill(seed | 1, 64));
        sound.client.session().write(b"ping");
        assert_eq!(
            sound.deliver_to_server(),
            (b"ping".to_vec(), Outcome::WantRead)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tampered_handshakes_never_end_well(
        version in prop::sample::select(versions().to_vec()),
        flight in 0usize..4,
        position in any::<prop::sample::Index>(),
        change in 1u8..,
        cut in any::<bool>(),
    ) {
        let context = support::context(version);
        let mut pair = after_flights(&context, flight);
        let (from, to) = if flight % 2 == 0 {
            (&mut pair.client, &mut pair.server)
        } else {
            (&mut pair.server, &mut pair.client)
        };
        let done = from.session().handshake() == Outcome::Done(0);
        let mut bytes = sent(from.session());
        prop_assume!(!bytes.is_empty() && !done);
        let position = position.index(bytes.len());
        bytes[position] ^= change;
        if cut {
            bytes.truncate(position + 1);
        }
        to.session().receive(&bytes);
        to.session().receive_eof();
        let _ = to.session().handshake();
        // Either it fails at once, or the transcripts differ, and no data gets through.
        prop_assert_eq!(read_all(to.session()), (Vec::new(), Outcome::Failed));
    }
}
