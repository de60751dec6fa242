//! TLS: the client's half of a session, and the one certificate it accepts.
//!
//! TLS 1.3 with one cipher suite and one key exchange, those that OpenSSL 3 prefers of the
//! classical ones: every server then does the same arithmetic, whatever it would choose.
//! Sessions are never resumed. The certificate must be the given one, byte for byte, and its
//! signature of the handshake is checked.
//!
//! Cost: one `recv` for all that has arrived, one `writev` for up to 64 records.

use std::io::{self, BufRead, IoSlice, Write};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::io::{Errno, writev};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, Error,
    SignatureScheme, version,
};

const SERVER_NAME: &str = "localhost";

/// The client's side of one TLS connection; the socket is the caller's.
#[derive(Debug)]
pub(crate) struct Session(ClientConnection);

impl Session {
    pub(crate) fn new(config: &Arc<ClientConfig>) -> io::Result<Self> {
        let name = ServerName::try_from(SERVER_NAME).map_err(io::Error::other)?;
        let mut session =
            ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        // A request is taken whole, also before the handshake is done.
        session.set_buffer_limit(None);
        Ok(Self(session))
    }

    /// Take bytes to encrypt; `flush` sends them, after the handshake if that is under way.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.writer().write_all(bytes)
    }

    /// Take the end of what is sent.
    pub(crate) fn write_end(&mut self) {
        self.0.send_close_notify();
    }

    /// Send what the socket takes; true when nothing is left, or the handshake comes first.
    pub(crate) fn flush(&mut self, socket: &OwnedFd) -> io::Result<bool> {
        while self.0.wants_write() {
            match self.0.write_tls(&mut Socket(socket)) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    pub(crate) fn is_flushed(&self) -> bool {
        !self.0.wants_write()
    }

    pub(crate) fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Take received bytes and pass on what they say; true when `accept` was, once.
    pub(crate) fn receive(
        &mut self,
        mut ciphertext: &[u8],
        mut accept: impl FnMut(&[u8]) -> io::Result<bool>,
    ) -> io::Result<bool> {
        let mut is_accepted = false;
        while !ciphertext.is_empty() {
            if self.0.read_tls(&mut ciphertext)? == 0 {
                break; // after the server's close_notify
            }
            self.0
                .process_new_packets()
                .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let mut reader = self.0.reader();
            loop {
                let count = match reader.fill_buf() {
                    Ok([]) => break,
                    Ok(plaintext) => {
                        is_accepted |= accept(plaintext)?;
                        plaintext.len()
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                };
                reader.consume(count);
            }
        }
        Ok(is_accepted)
    }
}

struct Socket<'a>(&'a OwnedFd);

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match writev(self.0, parts) {
            Err(Errno::INTR) => Err(Errno::AGAIN.into()),
            result => Ok(result?),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Make what all sessions share, from the file of the server's certificate.
pub(crate) fn client_config(certificate: &str) -> Result<Arc<ClientConfig>, String> {
    let pinned = CertificateDer::from_pem_file(certificate)
        .map_err(|error| format!("{certificate}: {error}"))?;
    let provider = Arc::new(CryptoProvider {
        cipher_suites: vec![ring::cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![ring::kx_group::X25519],
        ..ring::default_provider()
    });
    let mut config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&version::TLS13])
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Pinned { pinned, provider }))
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Accepts one certificate and no other.
#[derive(Debug)]
struct Pinned {
    pinned: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        if *end_entity != self.pinned {
            return Err(CertificateError::UnknownIssuer.into());
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General(String::from("only TLS 1.3 is offered")))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::path::{Path, PathBuf};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::{env, fs, process, thread};

    use rustls::crypto::ring;
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    use rustls::{ServerConfig, ServerConnection, StreamOwned};

    use crate::options::Options;
    use crate::run::run;
    use crate::tls_certificate;

    /// A new certificate's directory, removed at the end of the test.
    struct Directory(PathBuf);

    impl Directory {
        fn new() -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let number = COUNT.fetch_add(1, Ordering::Relaxed);
            let path = env::temp_dir().join(format!("load-{}-{number}", process::id()));
            fs::create_dir(&path).expect("a new directory");
            tls_certificate::make(&path).expect("a certificate");
            Self(path)
        }

        fn certificate(&self) -> PathBuf {
            self.0.join("certificate.pem")
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    /// A TLS server, a thread a connection, that changes what it got by `answer` and returns it.
    fn serve(directory: &Path, answer: fn(&mut [u8])) -> String {
        let certificate = CertificateDer::from_pem_file(directory.join("certificate.pem"));
        let key = PrivateKeyDer::from_pem_file(directory.join("key.pem")).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.expect("a certificate")], key)
            .expect("a pair");
        let config = Arc::new(config);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let session = ServerConnection::new(Arc::clone(&config)).expect("a session");
                thread::spawn(move || {
                    let mut stream = StreamOwned::new(session, stream);
                    let mut buffer = vec![0; 1 << 16];
                    while let Ok(count @ 1..) = stream.read(&mut buffer) {
                        answer(&mut buffer[..count]);
                        // The client may leave at the end of its window.
                        if stream.write_all(&buffer[..count]).is_err() {
                            break;
                        }
                    }
                });
            }
        });
        address
    }

    fn options(address: &str, certificate: &Path, arguments: &str) -> Options {
        let certificate = certificate.display();
        Options::of(&format!(
            "{address} --tls {certificate} --warmup 0.05 --seconds 0.2 {arguments}"
        ))
    }

    #[test]
    fn echoes_come_back_through_tls() {
        let directory = Directory::new();
        let address = serve(&directory.0, |_| {});
        for arguments in ["", "--size 1000000", "--connections 3 --reconnect yes"] {
            let options = options(&address, &directory.certificate(), arguments);
            let report = run(&options).expect("a good server");
            assert!(report.results.requests > 0, "{arguments}");
            assert_eq!(report.results.idle_connections, 0, "{arguments}");
        }
    }

    #[test]
    fn a_changed_byte_is_found_out() {
        let directory = Directory::new();
        let address = serve(&directory.0, |bytes| bytes[0] ^= 1);
        let error =
            run(&options(&address, &directory.certificate(), "")).expect_err("a wrong echo");
        assert_eq!(error.to_string(), "what came back is not what was sent");
    }

    #[test]
    fn another_certificate_is_refused() {
        let (directory, other) = (Directory::new(), Directory::new());
        let address = serve(&directory.0, |_| {});
        let error = run(&options(&address, &other.certificate(), "")).expect_err("a stranger");
        assert!(error.to_string().contains("UnknownIssuer"), "{error}");
    }
}
