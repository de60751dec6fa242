//! Sessions that share the few buffers that OpenSSL keeps: who loses its own must not notice.

use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;
use tls::contexts::Context;
use tls::{KeptBuffers, Outcome};

use crate::support::{self, Pair, fill, sent, versions};

/// A pair on whose wire something may be under way to the server.
struct Talk<'a> {
    pair: Pair<'a>,
    wire: Vec<u8>,
    written: Vec<u8>,
    read: Vec<u8>,
}

impl<'a> Talk<'a> {
    fn new(context: &'a Context, kept: &Rc<KeptBuffers>) -> Self {
        let mut pair = Pair::new(context);
        pair.client.keep_buffers(kept);
        pair.server.keep_buffers(kept);
        pair.shake_hands();
        Self {
            pair,
            wire: Vec::new(),
            written: Vec::new(),
            read: Vec::new(),
        }
    }

    fn write(&mut self, plaintext: &[u8]) {
        let client = self.pair.client.session();
        assert_eq!(client.write(plaintext), Outcome::Done(plaintext.len()));
        self.wire.extend(sent(client));
        self.written.extend(plaintext);
    }

    /// Carries `count` bytes, which may end anywhere in a record.
    fn carry(&mut self, count: usize) {
        let count = count.min(self.wire.len());
        let bytes: Vec<u8> = self.wire.drain(..count).collect();
        let server = self.pair.server.session();
        let (plaintext, outcome) = server.receive_with(&bytes, support::read_all);
        assert_eq!(outcome, Outcome::WantRead);
        self.read.extend(plaintext);
    }
}

/// Which pair, and what happens there.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize),
    Carry(usize, usize),
    Replace(usize),
}

const PAIRS: usize = 4;

fn step() -> impl Strategy<Value = Step> {
    let length = prop_oneof![Just(1), 1..2000usize, 1..40_000usize];
    prop_oneof![
        8 => (0..PAIRS, length.clone()).prop_map(|(pair, length)| Step::Write(pair, length)),
        8 => (0..PAIRS, length).prop_map(|(pair, length)| Step::Carry(pair, length)),
        1 => (0..PAIRS).prop_map(Step::Replace),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn nothing_is_lost_with_the_buffers(steps in vec(step(), 1..60), most in 0..6usize) {
        for version in versions() {
            let context = support::context(version);
            let kept = Rc::new(KeptBuffers::new(most));
            let mut talks: Vec<_> = (0..PAIRS).map(|_| Talk::new(&context, &kept)).collect();
            for (seed, step) in steps.iter().enumerate() {
                match *step {
                    Step::Write(pair, length) => talks[pair].write(&fill(seed as u64, length)),
                    Step::Carry(pair, count) => talks[pair].carry(count),
                    Step::Replace(pair) => talks[pair] = Talk::new(&context, &kept),
                }
            }
            for talk in &mut talks {
                talk.carry(usize::MAX);
                prop_assert_eq!(&talk.read, &talk.written);
            }
        }
    }
}

#[test]
fn more_sessions_than_places() {
    for version in versions() {
        let context = support::context(version);
        let kept = Rc::new(KeptBuffers::default());
        let mut talks: Vec<_> = (0..100).map(|_| Talk::new(&context, &kept)).collect();
        for round in 0..3 {
            for (index, talk) in talks.iter_mut().enumerate() {
                talk.write(&fill(index as u64 + round, 1024));
                talk.carry(usize::MAX);
                assert_eq!(talk.read, talk.written);
            }
        }
    }
}
