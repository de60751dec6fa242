//! The engine as the peer of OpenSSL's own client and server, over real sockets.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{self, Child, Command, Stdio};
use std::time::Duration;

use tls::contexts::Version;
use tls::{Outcome, Session};

use crate::support;

const PATIENCE: Duration = Duration::from_secs(60);

/// A program that ends with the test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn openssl(arguments: &[&str]) -> Program {
    let child = Command::new("openssl")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn();
    Program(child.expect("the openssl program is installed"))
}

/// Sends what there is to send, then waits for more. False at the end of the stream.
fn exchange(session: &mut Session, stream: &mut TcpStream) -> bool {
    stream
        .write_all(&support::sent(session))
        .expect("the peer reads");
    let mut bytes = [0; 4096];
    match stream.read(&mut bytes).expect("the peer writes") {
        0 => {
            session.receive_eof();
            false
        }
        count => {
            session.receive(&bytes[..count]);
            true
        }
    }
}

fn shake_hands(session: &mut Session, stream: &mut TcpStream) {
    loop {
        match session.handshake() {
            Outcome::Done(_) => return,
            Outcome::WantRead => assert!(exchange(session, stream), "the peer hung up"),
            outcome => panic!("{outcome:?}: {:?}", session.error()),
        }
    }
}

/// Reads up to a line break, or to the end of the connection, which is returned.
fn read_line(session: &mut Session, stream: &mut TcpStream) -> (Vec<u8>, Outcome) {
    let mut line = Vec::new();
    loop {
        match session.read_onto(&mut line, 1 << 16) {
            Outcome::Done(_) if line.ends_with(b"\n") => return (line, Outcome::WantRead),
            Outcome::Done(_) => {}
            Outcome::WantRead => {
                exchange(session, stream);
            }
            outcome => return (line, outcome),
        }
    }
}

#[test]
fn openssl_client_is_served() {
    for (version, option) in [(Version::Tls12, "-tls1_2"), (Version::Tls13, "-tls1_3")] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound").to_string();
        let mut client = openssl(&["s_client", "-quiet", "-connect", &address, option]);
        let (mut stream, _) = listener.accept().expect("the client connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");

        let context = support::context(version);
        let mut server = context.server();
        shake_hands(server.session(), &mut stream);
        let mut input = client.0.stdin.take().expect("piped");
        input.write_all(b"from s_client\n").expect("it reads");
        let (line, _) = read_line(server.session(), &mut stream);
        assert_eq!(line, b"from s_client\n");

        server.session().write(b"from the engine\n");
        server.session().shutdown();
        stream
            .write_all(&support::sent(server.session()))
            .expect("the client reads");
        let mut output = BufReader::new(client.0.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it writes");
        assert_eq!(line, "from the engine\n");
        // It answers a close_notify with its own and goes.
        assert_eq!(
            read_line(server.session(), &mut stream),
            (Vec::new(), Outcome::CloseNotify)
        );
    }
}

/// A directory with `key.pem` and `certificate.pem`, for a name that no other test has.
struct Certificate(PathBuf);

impl Certificate {
    fn new() -> Self {
        let folder = env::temp_dir().join(format!("tls-engine-{}", process::id()));
        fs::create_dir_all(&folder).expect("a writable temporary directory");
        let this = Self(folder);
        let made = Command::new("openssl")
            .args([
                "req",
                "-x509",
                "-newkey",
                "ec",
                "-pkeyopt",
                "ec_paramgen_curve:P-256",
            ])
            .args(["-nodes", "-subj", "/CN=localhost", "-days", "1"])
            .args([
                "-keyout",
                &this.path("key.pem"),
                "-out",
                &this.path("certificate.pem"),
            ])
            .stderr(Stdio::null())
            .status();
        assert!(made.expect("the openssl program is installed").success());
        this
    }

    fn path(&self, name: &str) -> String {
        self.0
            .join(name)
            .to_str()
            .expect("a path of text")
            .to_owned()
    }
}

impl Drop for Certificate {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn openssl_server_serves() {
    let certificate = Certificate::new();
    for version in support::versions() {
        let (key, cert) = (
            certificate.path("key.pem"),
            certificate.path("certificate.pem"),
        );
        let options = ["-accept", "127.0.0.1:0", "-rev", "-naccept", "1"];
        let arguments = [&["s_server", "-key", &key, "-cert", &cert][..], &options].concat();
        let mut server = openssl(&arguments);
        let mut output = BufReader::new(server.0.stdout.take().expect("piped")).lines();
        let address = output
            .find_map(|line| Some(line.expect("text").strip_prefix("ACCEPT ")?.to_owned()))
            .expect("it says where it listens");

        let mut stream = TcpStream::connect(&address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let context = support::context(version);
        let mut client = context.client();
        shake_hands(client.session(), &mut stream);
        client.session().write(b"stressed\n");
        let (line, _) = read_line(client.session(), &mut stream);
        assert_eq!(line, b"desserts\n");
        client.session().shutdown();
        assert_eq!(read_line(client.session(), &mut stream).0, b"");
    }
}
