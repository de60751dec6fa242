//! `floor [--http | --udp] [--core N] ADDRESS`: what the kernel alone costs.
//!
//! ADDRESS is `host:port` (port 0 picks one) or the path of a Unix socket. The
//! server prints `ready ADDRESS` once it listens and runs until it is killed.

#![forbid(unsafe_code)]

mod connection;
mod datagrams;
mod server;

use std::env;
use std::io;
use std::process::ExitCode;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::connection::Answer;
use crate::server::Server;

const USAGE: &str = "usage: floor [--http | --udp] [--core N] ADDRESS";

struct Options {
    address: String,
    answer: Answer,
    is_udp: bool,
    core: Option<usize>,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut address = None;
        let mut answer = Answer::Echo;
        let (mut is_udp, mut core) = (false, None);
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--http" => answer = Answer::Http,
                "--udp" => is_udp = true,
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
        Ok(Self {
            address,
            answer,
            is_udp,
            core,
        })
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
    let mut server = Server::bind(&options.address, options.answer)?;
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
