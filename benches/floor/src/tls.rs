//! Tls: what the TLS connections of a server share.
//!
//! Invariants:
//! - One connection is handled at a time, so one pair of buffers serves all: an idle
//!   connection holds what OpenSSL itself keeps for it and nothing else.
//!
//! Cost: no system call, and no allocation once the buffers have grown.

use std::cell::RefCell;
use std::io;
use std::path::Path;
use std::rc::Rc;

use crate::tls_sys::{Context, Session, Status};

/// A record holds no more than this.
const PLAINTEXT_LEN: usize = 16 * 1024;

/// The server's certificate and the buffers of whichever connection is handled just now.
pub(crate) struct Tls {
    context: Context,
    buffers: RefCell<Buffers>,
}

struct Buffers {
    plaintext: Vec<u8>,
    ciphertext: Vec<u8>,
}

impl Tls {
    /// Load OpenSSL from the named files, and `certificate.pem` and `key.pem` of a directory.
    pub(crate) fn open(libraries: &[String], directory: &Path) -> io::Result<Rc<Self>> {
        let buffers = Buffers {
            plaintext: vec![0; PLAINTEXT_LEN],
            ciphertext: Vec::new(),
        };
        Ok(Rc::new(Self {
            context: Context::open(
                libraries,
                &directory.join("certificate.pem"),
                &directory.join("key.pem"),
            )?,
            buffers: RefCell::new(buffers),
        }))
    }

    pub(crate) fn accept(self: &Rc<Self>) -> io::Result<TlsStream> {
        Ok(TlsStream {
            session: self.context.accept()?,
            tls: Rc::clone(self),
        })
    }

    /// Have ciphertext made and pass it on; false at the session's end.
    fn pass_on<E>(
        &self,
        send: impl FnOnce(&[u8]) -> Result<(), E>,
        make: impl FnOnce(&mut [u8], &mut Vec<u8>) -> Status,
    ) -> Result<bool, E> {
        let mut buffers = self.buffers.borrow_mut();
        let Buffers {
            plaintext,
            ciphertext,
        } = &mut *buffers;
        ciphertext.clear();
        let status = make(plaintext, ciphertext);
        if !ciphertext.is_empty() {
            send(ciphertext)?;
        }
        Ok(status == Status::Open)
    }
}

/// One connection's TLS.
pub(crate) struct TlsStream {
    session: Session,
    tls: Rc<Tls>,
}

impl TlsStream {
    /// Take what was received, give the contents of each record to `answer`, and pass on what
    /// has to be sent; false at the session's end.
    pub(crate) fn exchange<E>(
        &mut self,
        received: &[u8],
        answer: impl for<'a> FnMut(&'a [u8]) -> &'a [u8],
        send: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let session = &mut self.session;
        self.tls.pass_on(send, |plaintext, ciphertext| {
            session.exchange(received, plaintext, ciphertext, answer)
        })
    }

    /// Pass on what says `message`; false at the session's end.
    pub(crate) fn write<E>(
        &mut self,
        message: &[u8],
        send: impl FnOnce(&[u8]) -> Result<(), E>,
    ) -> Result<bool, E> {
        let session = &mut self.session;
        let write = |_: &mut [u8], ciphertext: &mut _| session.write(message, ciphertext);
        self.tls.pass_on(send, write)
    }

    /// Tell whether the handshake is done.
    pub(crate) fn is_established(&self) -> bool {
        self.session.is_established()
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::io::{Read, Write};
    use std::path::{Path, PathBuf};
    use std::rc::Rc;
    use std::sync::Arc;
    use std::{env, fs, process};

    use rcgen::generate_simple_self_signed;
    use rustls::crypto::ring;
    use rustls::pki_types::{CertificateDer, ServerName};
    use rustls::{ClientConfig, ClientConnection, RootCertStore};

    use super::{Tls, TlsStream};

    fn libraries() -> Vec<String> {
        crate::OPENSSL.split(':').map(String::from).collect()
    }

    /// The shared half of a server, and a client's configuration that trusts it.
    fn pair(test: &str) -> (Rc<Tls>, Arc<ClientConfig>) {
        let directory = env::temp_dir().join(format!("floor-{}-{test}", process::id()));
        fs::create_dir(&directory).expect("a new directory");
        let made = generate_simple_self_signed([String::from("localhost")]).expect("a certificate");
        let write = |name: &str, text: String| fs::write(directory.join(name), text);
        write("certificate.pem", made.cert.pem()).expect("a file");
        write("key.pem", made.signing_key.serialize_pem()).expect("a file");
        let tls = Tls::open(&libraries(), &directory);
        fs::remove_dir_all(&directory).expect("our own directory");
        let mut roots = RootCertStore::empty();
        roots
            .add(CertificateDer::from(made.cert))
            .expect("a good root");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        (tls.expect("a context"), Arc::new(config))
    }

    fn echo(bytes: &[u8]) -> &[u8] {
        bytes
    }

    fn connect(config: &Arc<ClientConfig>) -> ClientConnection {
        let name = ServerName::try_from("localhost").expect("a name");
        let mut client = ClientConnection::new(Arc::clone(config), name).expect("a client");
        client.set_buffer_limit(None);
        client
    }

    /// Carry bytes both ways, `step` of them at a time, until neither side has more; tell
    /// whether the server goes on.
    fn carry(client: &mut ClientConnection, server: &mut TlsStream, step: usize) -> bool {
        let mut is_open = true;
        while client.wants_write() {
            let mut words = Vec::new();
            client.write_tls(&mut words).expect("room in memory");
            for piece in words.chunks(step) {
                let mut answers = Vec::new();
                let sent = server.exchange(piece, echo, |answer| {
                    answers.extend_from_slice(answer);
                    Ok::<(), Infallible>(())
                });
                is_open &= sent.expect("room in memory");
                let mut answers = answers.as_slice();
                while !answers.is_empty() && client.read_tls(&mut answers).expect("memory") > 0 {
                    client.process_new_packets().expect("good records");
                }
            }
        }
        is_open
    }

    fn receive(client: &mut ClientConnection, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        client.reader().read_exact(&mut bytes).expect("the echo");
        bytes
    }

    #[test]
    fn echoes_records_however_they_are_cut() {
        let (tls, config) = pair("cut");
        for step in [1, 5, 100, 1 << 20] {
            let (mut client, mut server) = (connect(&config), tls.accept().expect("a session"));
            for message in [vec![1; 1], vec![2; 1024], vec![3; 16 * 1024]] {
                client.writer().write_all(&message).expect("no limit");
                assert!(carry(&mut client, &mut server, step));
                assert_eq!(receive(&mut client, message.len()), message);
            }
        }
    }

    #[test]
    fn messages_are_longer_than_records() {
        let (tls, config) = pair("messages");
        let (mut client, mut server) = (connect(&config), tls.accept().expect("a session"));
        assert!(!server.is_established());
        assert!(carry(&mut client, &mut server, 1 << 20));
        assert!(server.is_established());
        let message = vec![4; 3 * 16 * 1024 + 1];
        let mut received = Vec::new();
        let is_open = server.write(&message, |mut records| {
            while !records.is_empty() && client.read_tls(&mut records).expect("memory") > 0 {
                let state = client.process_new_packets().expect("good records");
                received.extend(receive(&mut client, state.plaintext_bytes_to_read()));
            }
            Ok::<(), Infallible>(())
        });
        assert_eq!(is_open, Ok(true));
        assert_eq!(received, message);
    }

    #[test]
    fn the_end_is_answered() {
        let (tls, config) = pair("end");
        let (mut client, mut server) = (connect(&config), tls.accept().expect("a session"));
        assert!(carry(&mut client, &mut server, 1 << 20));
        client.send_close_notify();
        assert!(!carry(&mut client, &mut server, 1 << 20));
        let count = client.reader().read(&mut [0; 1]).expect("close_notify");
        assert_eq!(count, 0);
    }

    #[test]
    fn sessions_are_apart_and_rubbish_ends_its_own() {
        let (tls, config) = pair("rubbish");
        let (mut client, mut server) = (connect(&config), tls.accept().expect("a session"));
        assert!(carry(&mut client, &mut server, 1 << 20));
        let mut other = tls.accept().expect("a session");
        let is_open = other.exchange(
            b"GET / HTTP/1.1\r\n\r\n",
            echo,
            |_| Ok::<(), Infallible>(()),
        );
        assert_eq!(is_open, Ok(false));
        client.writer().write_all(b"still here").expect("no limit");
        assert!(carry(&mut client, &mut server, 1 << 20));
        assert_eq!(receive(&mut client, 10), b"still here");
    }

    #[test]
    fn what_is_missing_is_named() {
        let nowhere = PathBuf::from("nowhere");
        for (files, directory, name) in [
            (
                vec![String::from("libnone.so")],
                Path::new(""),
                "libnone.so",
            ),
            (libraries(), nowhere.as_path(), "certificate.pem"),
        ] {
            let error = Tls::open(&files, directory).err().expect("an error");
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}
