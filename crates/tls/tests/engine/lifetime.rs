//! Sessions, connections and contexts that go in any order and in any state.

use tls::Outcome;
use tls::contexts::Version;

use crate::support::{self, Pair, sent, states, versions};

#[test]
fn the_connection_may_go_first() {
    for version in versions() {
        let context = support::context(version);
        drop(states(&context)); // an endpoint frees its SSL* before its session
    }
}

#[test]
fn the_session_may_go_first() {
    for version in versions() {
        let context = support::context(version);
        for mut pair in states(&context) {
            pair.client.drop_session();
            pair.server.drop_session();
            // What the owner does now goes to buffers that nobody empties, without a fault.
            pair.client.borrowed().handshake();
            pair.server.borrowed().write(b"anybody there?");
        }
    }
}

#[test]
fn a_new_session_takes_over() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::established(&context);
    for _ in 0..3 {
        pair.client.adopt_again();
        pair.server.drop_session();
        pair.server.adopt_again();
        pair.client.session().write(b"same keys");
        assert_eq!(
            pair.deliver_to_server(),
            (b"same keys".to_vec(), Outcome::WantRead)
        );
    }
}

#[test]
fn a_new_session_takes_over_in_the_handshake() {
    let context = support::context(Version::Tls13);
    let mut pair = Pair::new(&context);
    pair.client.session().handshake();
    let hello = sent(pair.client.session());
    pair.client.adopt_again();
    pair.server.session().receive(&hello);
    pair.shake_hands();
}
