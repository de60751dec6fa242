//! `load [options] ADDRESS`: a load generator for one server on this machine.
//!
//! Each connection has one request under way: the next is sent when the answer to the last
//! is complete and right. Prints one JSON object; a wrong answer or a lost connection ends
//! the run with status 1, because a rate of wrong answers means nothing.

#![deny(unsafe_code)]

mod connection;
mod datagrams;
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

use crate::options::{Options, USAGE};
use crate::window::Report;

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
    let report = if options.is_udp {
        datagrams::run(options)?
    } else {
        run::run(options)?
    };
    println!("{}", to_json(&report));
    Ok(())
}

fn to_json(report: &Report) -> String {
    let latencies = &report.latencies;
    let microseconds = |quantile| latencies.value_at_quantile(quantile) as f64 / 1e3;
    let server_cpu = report.server_cpu_ns.map_or_else(
        || String::from("null"),
        |time| (time as f64 / 1e9).to_string(),
    );
    format!(
        "{{\"requests\": {}, \"seconds\": {}, \"server_cpu_seconds\": {server_cpu}, \
         \"p50_us\": {}, \"p99_us\": {}, \"p999_us\": {}, \"max_us\": {}, \
         \"idle_connections\": {}}}",
        latencies.len(),
        report.window_ns as f64 / 1e9,
        microseconds(0.5),
        microseconds(0.99),
        microseconds(0.999),
        microseconds(1.0),
        report.idle_connections,
    )
}

#[expect(
    clippy::print_stderr,
    reason = "a command line program reports its errors there"
)]
fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if let [option, directory] = arguments.as_slice()
        && option == "--make-certificate"
    {
        return match tls_certificate::make(Path::new(directory)) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("load: {directory}: {error}");
                ExitCode::FAILURE
            }
        };
    }
    let options = match Options::parse(arguments.into_iter()) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("load: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match measure(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("load: {}: {error}", options.address);
            ExitCode::FAILURE
        }
    }
}
