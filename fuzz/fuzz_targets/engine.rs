//! A hostile peer for the TLS engine: bytes and calls in any order.

#![no_main]

use std::path::Path;
use std::rc::Rc;

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use tls::contexts::{Context, Endpoint, Version};
use tls::{KeptBuffers, Outcome, Session};

thread_local! {
    static CONTEXTS: [Context; 2] = [Version::Tls12, Version::Tls13].map(|version| {
        let libraries = ["libssl.so.3", "libssl.so.1.1"].map(Path::new);
        let library = libraries.into_iter().find_map(|path| tls::contexts::load(path).ok());
        Context::new(library.expect("libssl is installed"), version).expect("a context")
    });
}

/// What happens to the side under attack.
#[derive(Arbitrary, Debug)]
enum Step<'a> {
    Receive(&'a [u8]),
    ReceiveWith(&'a [u8], u16),
    Record { kind: u8, body: &'a [u8] },
    ReceiveEof,
    Read(u16),
    Write(u16),
    Handshake,
    Shutdown,
    Send(u16),
    AdoptAgain,
}

#[derive(Arbitrary, Debug)]
struct Attack<'a> {
    tls13: bool,
    server: bool,
    keeps_buffers: bool,
    /// How many calls of the handshake the two sides make before the peer turns hostile.
    flights: u8,
    steps: Vec<Step<'a>>,
}

fn carry(from: &mut Session, to: &mut Session) {
    from.handshake();
    to.receive(&from.to_send().take());
}

fn shake_hands(client: &mut Endpoint<'_>, server: &mut Endpoint<'_>, flights: u8) {
    for flight in 0..flights {
        if flight % 2 == 0 {
            carry(client.session(), server.session());
        } else {
            carry(server.session(), client.session());
        }
    }
}

/// Nobody but the peer has the keys, and the peer has written nothing.
fn read(session: &mut Session, room: u16) -> Outcome {
    let mut plaintext = Vec::new();
    let outcome = session.read_onto(&mut plaintext, usize::from(room));
    assert!(plaintext.is_empty(), "forged: {plaintext:?}");
    outcome
}

fn take(victim: &mut Endpoint<'_>, step: &Step<'_>) -> Outcome {
    let session = victim.session();
    match *step {
        Step::Receive(bytes) => session.receive(bytes),
        Step::ReceiveWith(bytes, room) => {
            return session.receive_with(bytes, |session| read(session, room));
        }
        Step::Record { kind, body } => {
            let [high, low] = (body.len() as u16).to_be_bytes();
            session.receive(&[&[kind, 3, 3, high, low], body].concat());
        }
        Step::ReceiveEof => session.receive_eof(),
        Step::Read(room) => return read(session, room),
        Step::Write(length) => return session.write(&vec![0; usize::from(length)]),
        Step::Handshake => return session.handshake(),
        Step::Shutdown => return session.shutdown(),
        Step::Send(count) => {
            let mut output = session.to_send();
            let count = output.len().min(usize::from(count));
            output.advance(count);
        }
        Step::AdoptAgain => victim.adopt_again(),
    }
    Outcome::Done(0)
}

fn attack(context: &Context, plan: &Attack<'_>) {
    let (mut client, mut server) = (context.client(), context.server());
    if plan.keeps_buffers {
        // One place for two: each call of one side's frees the other side's.
        let kept = Rc::new(KeptBuffers::new(1));
        client.keep_buffers(&kept);
        server.keep_buffers(&kept);
    }
    shake_hands(&mut client, &mut server, plan.flights % 8);
    let victim = if plan.server {
        &mut server
    } else {
        &mut client
    };
    for step in &plan.steps {
        let outcome = take(victim, step);
        let session = victim.session();
        if matches!(step, Step::Read(1..) | Step::Handshake) && outcome == Outcome::Failed {
            assert!(
                !matches!(read(session, 1), Outcome::Done(_)),
                "it failed before"
            );
        }
        if session.is_drained() {
            assert_eq!((session.unread(), session.pending()), (0, 0));
        }
    }
}

fuzz_target!(|plan: Attack<'_>| {
    CONTEXTS.with(|contexts| attack(&contexts[usize::from(plan.tls13)], &plan));
});
