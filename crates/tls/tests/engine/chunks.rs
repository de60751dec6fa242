//! However the wire cuts the bytes up, and however they are read, the plaintext is the same.

use proptest::collection::vec;
use proptest::prelude::*;
use tls::{Outcome, Session};

use crate::support::{self, Pair, fill, sent, versions};

/// What the receiving side does with the next bytes of the wire.
#[derive(Clone, Debug)]
struct Step {
    length: usize,
    lent: bool,
    reads: usize,
    room: usize,
}

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![Just(1), 1..100usize, 1..20_000usize];
    let room = prop_oneof![1..10usize, 1..40_000usize];
    (length, any::<bool>(), 0..4usize, room).prop_map(|(length, lent, reads, room)| Step {
        length,
        lent,
        reads,
        room,
    })
}

fn read(session: &mut Session, plaintext: &mut Vec<u8>, step: &Step) {
    for _ in 0..step.reads {
        let before = plaintext.len();
        match session.read_onto(plaintext, step.room) {
            Outcome::Done(count) => assert!(count > 0 && count <= step.room),
            Outcome::WantRead => assert_eq!(plaintext.len(), before),
            outcome => panic!("{outcome:?}: {:?}", session.error()),
        }
    }
}

fn receive(session: &mut Session, wire: &[u8], steps: &[Step]) -> Vec<u8> {
    let mut plaintext = Vec::new();
    let mut rest = wire;
    for step in steps.iter().cycle() {
        let (bytes, behind) = rest.split_at(step.length.min(rest.len()));
        rest = behind;
        if step.lent {
            session.receive_with(bytes, |session| read(session, &mut plaintext, step));
        } else {
            session.receive(bytes);
            read(session, &mut plaintext, step);
        }
        if rest.is_empty() {
            break;
        }
    }
    while !session.is_drained() {
        let outcome = session.read_onto(&mut plaintext, 1 << 16);
        assert!(matches!(outcome, Outcome::Done(1..)) || session.is_drained());
    }
    assert_eq!(session.read_onto(&mut plaintext, 1), Outcome::WantRead);
    plaintext
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plaintext_does_not_depend_on_chunks(
        version in prop::sample::select(versions().to_vec()),
        lengths in vec(1..50_000usize, 1..5),
        updates in any::<bool>(),
        steps in vec(step(), 1..20),
    ) {
        let context = support::context(version);
        let mut pair = Pair::established(&context);
        let mut expected = Vec::new();
        for (seed, &length) in lengths.iter().enumerate() {
            let message = fill(seed as u64, length);
            if updates {
                pair.client.update_keys();
            }
            prop_assert_eq!(pair.client.session().write(&message), Outcome::Done(length));
            expected.extend(message);
        }
        let wire = sent(pair.client.session());
        prop_assert!(receive(pair.server.session(), &wire, &steps) == expected);
        prop_assert_eq!(pair.server.session().capacity() > 2048, false);
    }
}
