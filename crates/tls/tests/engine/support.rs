//! Two endpoints and the wire between them.

use std::env;
use std::path::Path;

use tls::contexts::{Context, Endpoint, Version};
use tls::{Library, Outcome, Session};

/// The libssl to test with: the one that the environment's LIBSSL names, or the system's.
pub(crate) fn library() -> &'static Library {
    if let Some(path) = env::var_os("LIBSSL") {
        return tls::contexts::load(Path::new(&path)).expect("LIBSSL is the path of one");
    }
    for name in ["libssl.so.3", "libssl.so.1.1"] {
        if let Ok(library) = tls::contexts::load(Path::new(name)) {
            return library;
        }
    }
    panic!("the tests need a libssl.so.3 or libssl.so.1.1");
}

pub(crate) fn context(version: Version) -> Context {
    Context::new(library(), version).expect("OpenSSL makes a context and its certificate")
}

pub(crate) fn versions() -> [Version; 2] {
    [Version::Tls12, Version::Tls13]
}

/// Bytes that differ from place to place and from seed to seed.
pub(crate) fn fill(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..length).map(|_| next()).collect()
}

/// Takes what a session has to send.
pub(crate) fn sent(session: &mut Session) -> Vec<u8> {
    session.to_send().take()
}

/// Reads until something else than data comes, and returns that too.
pub(crate) fn read_all(session: &mut Session) -> (Vec<u8>, Outcome) {
    let mut plaintext = Vec::new();
    loop {
        let outcome = session.read_onto(&mut plaintext, 4096);
        if !matches!(outcome, Outcome::Done(_)) {
            return (plaintext, outcome);
        }
    }
}

/// A client and a server, with a wire that carries everything at once.
#[derive(Debug)]
pub(crate) struct Pair<'a> {
    pub(crate) client: Endpoint<'a>,
    pub(crate) server: Endpoint<'a>,
}

impl<'a> Pair<'a> {
    pub(crate) fn new(context: &'a Context) -> Self {
        Self {
            client: context.client(),
            server: context.server(),
        }
    }

    /// A pair whose handshake is over, with nothing left on the wire.
    pub(crate) fn established(context: &'a Context) -> Self {
        let mut pair = Self::new(context);
        pair.shake_hands();
        pair
    }

    pub(crate) fn shake_hands(&mut self) {
        let (mut client, mut server) = (Outcome::WantRead, Outcome::WantRead);
        for _ in 0..10 {
            client = self.client.session().handshake();
            self.carry_to_server();
            server = self.server.session().handshake();
            self.carry_to_client();
        }
        assert_eq!((client, server), (Outcome::Done(0), Outcome::Done(0)));
        // The session tickets of TLS 1.3.
        assert_eq!(
            read_all(self.client.session()),
            (Vec::new(), Outcome::WantRead)
        );
        assert_eq!(self.client.session().unread(), 0);
    }

    pub(crate) fn carry_to_server(&mut self) {
        let bytes = sent(self.client.session());
        self.server.session().receive(&bytes);
    }

    pub(crate) fn carry_to_client(&mut self) {
        let bytes = sent(self.server.session());
        self.client.session().receive(&bytes);
    }

    /// Carries what the client has sent and reads it.
    pub(crate) fn deliver_to_server(&mut self) -> (Vec<u8>, Outcome) {
        let bytes = sent(self.client.session());
        self.server.session().receive_with(&bytes, read_all)
    }

    /// Carries what the server has sent and reads it.
    pub(crate) fn deliver_to_client(&mut self) -> (Vec<u8>, Outcome) {
        let bytes = sent(self.server.session());
        self.client.session().receive_with(&bytes, read_all)
    }
}

/// A pair in each state that a connection goes through.
pub(crate) fn states(context: &Context) -> Vec<Pair<'_>> {
    let mut shaking = Pair::new(context);
    shaking.client.session().handshake();
    shaking.carry_to_server();
    let mut answered = Pair::new(context);
    answered.client.session().handshake();
    answered.carry_to_server();
    answered.server.session().handshake();
    let mut loaded = Pair::established(context);
    loaded.client.session().write(&fill(5, 100_000));
    loaded.carry_to_server();
    loaded.server.session().read_onto(&mut Vec::new(), 10);
    let mut closed = Pair::established(context);
    closed.client.session().shutdown();
    closed.deliver_to_server();
    let mut failed = Pair::established(context);
    failed.server.session().receive(&fill(6, 64));
    failed.server.session().read_onto(&mut Vec::new(), 10);
    vec![
        Pair::new(context),
        shaking,
        answered,
        Pair::established(context),
        loaded,
        closed,
        failed,
    ]
}
