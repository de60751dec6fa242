//! `load [options] ADDRESS`: a load generator for one server on this machine.
//!
//! Each connection has one request under way: the next is sent when the answer to the last is
//! complete and right. In the bulk modes bytes go one way instead. Prints one JSON object; a wrong
//! answer or a lost connection ends the run with status 1, because a rate of wrong answers means
//! nothing.

#![deny(unsafe_code)]

mod bulk;
mod connection;
mod datagrams;
mod events;
mod idle;
mod options;
mod run;
#[expect(unsafe_code, reason = "clock_getcpuclockid has no safe binding")]
mod sys;
mod tls;
mod tls_certificate;
mod window;
mod workload;

use std::env;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use rustix::thread::{CpuSet, sched_setaffinity};

use crate::idle::raise_file_limit;
use crate::options::{CommandLine, Mode, Options};
use crate::window::{Report, Results};

#[expect(
    clippy::print_stdout,
    reason = "the report is this program's answer to its caller"
)]
fn measure(options: &Options) -> io::Result<()> {
    if let Some(core) = options.core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    raise_file_limit()?;
    let report = match options.mode {
        Mode::Datagrams => datagrams::run(options)?,
        Mode::BulkSend | Mode::BulkReceive => bulk::run(options)?,
        Mode::Bytes | Mode::Line | Mode::Http => run::run(options)?,
    };
    println!("{}", to_json(&report));
    Ok(())
}

fn to_json(report: &Report) -> String {
    let Results {
        requests,
        bytes,
        latencies,
        idle_connections,
    } = &report.results;
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let microseconds = |quantile| {
        let is_known = !latencies.is_empty();
        or_null(is_known.then(|| latencies.value_at_quantile(quantile) as f64 / 1e3))
    };
    format!(
        "{{\"requests\": {requests}, \"bytes\": {}, \"seconds\": {}, \
         \"server_cpu_seconds\": {}, \"p50_us\": {}, \"p99_us\": {}, \"p999_us\": {}, \
         \"max_us\": {}, \"idle_connections\": {idle_connections}}}",
        or_null(*bytes),
        seconds(report.window_ns),
        or_null(report.server_cpu_ns.map(seconds)),
        microseconds(0.5),
        microseconds(0.99),
        microseconds(0.999),
        microseconds(1.0),
    )
}

fn or_null(value: Option<impl ToString>) -> String {
    value.map_or_else(|| String::from("null"), |value| value.to_string())
}

fn make_certificate(directory: &Path) -> Result<(), String> {
    tls_certificate::make(directory).map_err(|error| format!("{}: {error}", directory.display()))
}

#[expect(
    clippy::print_stderr,
    reason = "a command line program reports its errors there"
)]
fn main() -> ExitCode {
    let CommandLine {
        options,
        make_certificate: directory,
    } = match CommandLine::of(env::args_os().skip(1)) {
        Ok(parsed) => parsed,
        Err(error) => error.exit(),
    };
    let done = match (options, directory) {
        (Some(options), _) => {
            measure(&options).map_err(|error| format!("{}: {error}", options.address))
        }
        (None, Some(directory)) => make_certificate(&directory),
        (None, None) => Err(String::from("no address given")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {error}");
            ExitCode::FAILURE
        }
    }
}
