//! `floor [--http | --udp | --send SIZE | --receive] [--tls DIRECTORY] [--openssl FILES] [--core N]
//! ADDRESS`: what the kernel alone costs, and with `--tls` what it costs together with OpenSSL.
//!
//! It echoes, unless it answers HTTP, sends messages of SIZE bytes for ever, or receives only.
//! DIRECTORY holds `certificate.pem` and `key.pem`; FILES are OpenSSL's two libraries with a
//! colon between them, by default those that the system finds. ADDRESS is `host:port` (port 0
//! picks one) or the path of a Unix socket. The server prints `ready ADDRESS` once it listens
//! and runs until it is killed.

#![deny(unsafe_code)]

mod bulk;
mod connection;
mod datagrams;
mod server;
mod tls;
#[expect(unsafe_code, reason = "OpenSSL is called by its C functions")]
mod tls_sys;

use std::env;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::bulk::{Messages, Receipts};
use crate::connection::Answer;
use crate::server::Server;
use crate::tls::Tls;

const USAGE: &str = "usage: floor [--http | --udp | --send SIZE | --receive] \
    [--tls DIRECTORY] [--openssl FILES] [--core N] ADDRESS";
const OPENSSL: &str = "libcrypto.so.3:libssl.so.3";

struct Options {
    address: String,
    answer: Answer,
    is_udp: bool,
    tls: Option<PathBuf>,
    openssl: String,
    core: Option<usize>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut address = None;
        let (mut answer, mut is_udp, mut core) = (Answer::Echo, false, None);
        let (mut tls, mut openssl) = (None, String::from(OPENSSL));
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--http" => answer = Answer::Http,
                "--receive" => answer = Answer::Receive(Receipts::default()),
                "--send" => {
                    let value = args.next().ok_or("--send needs a size")?;
                    let size = value.parse().ok().and_then(Messages::new);
                    answer = Answer::Send(size.ok_or_else(|| format!("not a size: {value}"))?);
                }
                "--udp" => is_udp = true,
                "--tls" => tls = Some(args.next().ok_or("--tls needs a directory")?.into()),
                "--openssl" => openssl = args.next().ok_or("--openssl needs files")?,
                "--core" => {
                    let value = args.next().ok_or("--core needs a number")?;
                    let index = value.parse().map_err(|_| format!("not a core: {value}"))?;
                    core = Some(index);
                }
                option if option.starts_with("--") => {
                    return Err(format!("unknown option {option}"));
                }
                _ => address = Some(arg),
            }
        }
        let address = address.ok_or("no address given")?;
        if tls.is_some() && (is_udp || matches!(answer, Answer::Http)) {
            return Err(String::from("--tls goes with neither --http nor --udp"));
        }
        Ok(Self {
            address,
            answer,
            is_udp,
            tls,
            openssl,
            core,
        })
    }
}

impl Options {
    fn tls(&self) -> io::Result<Option<Rc<Tls>>> {
        let libraries: Vec<String> = self.openssl.split(':').map(String::from).collect();
        let open = |directory: &PathBuf| Tls::open(&libraries, directory);
        self.tls.as_ref().map(open).transpose()
    }
}

#[expect(
    clippy::print_stdout,
    reason = "the address is this program's answer to its caller"
)]
fn serve(options: &Options) -> io::Result<()> {
    if let Some(core) = options.core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    if options.is_udp {
        let socket = datagrams::bind(&options.address)?;
        println!("ready {}", socket.local_addr()?);
        return datagrams::echo(&socket);
    }
    let mut server = Server::bind(&options.address, options.answer.clone(), options.tls()?)?;
    println!("ready {}", server.address());
    server.run()
}

#[expect(
    clippy::print_stderr,
    reason = "a command line program reports its errors there"
)]
fn main() -> ExitCode {
    let options = match Options::parse(env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("floor: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match serve(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("floor: {}: {error}", options.address);
            ExitCode::FAILURE
        }
    }
}
