//! Options: the command line.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, ValueEnum};
use rustls::ClientConfig;

use crate::tls::client_config;
use crate::workload::Workload;

/// Measure one server on this machine, and its CPU time.
#[derive(Debug, Parser)]
#[command(name = "load")]
pub(crate) struct CommandLine {
    #[command(flatten)]
    pub(crate) options: Option<Options>,

    /// Only write certificate.pem and key.pem, ECDSA P-256, self-signed
    #[arg(long, value_name = "DIRECTORY", exclusive = true)]
    pub(crate) make_certificate: Option<PathBuf>,
}

/// What to send, where, for how long.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// host:port, or the path of a Unix socket
    pub(crate) address: String,

    /// Connections, each with one request under way
    #[arg(long, default_value_t = 1, value_parser = at_least(1))]
    pub(crate) connections: u32,

    /// Further connections, which have one request answered before and then stay silent
    #[arg(long, default_value_t = 0)]
    pub(crate) idle: u32,

    /// What is sent
    #[arg(long, value_enum, default_value_t = Mode::Bytes)]
    pub(crate) mode: Mode,

    /// Length of a message in bytes, at least 17
    #[arg(long, default_value_t = 1024, value_parser = at_least(17))]
    pub(crate) size: u32,

    /// http: what to GET
    #[arg(long, default_value = "/")]
    path: String,

    /// http: the body that each response must have
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,

    /// Seconds before the window, not measured
    #[arg(long, value_name = "SECONDS", default_value = "0.5", value_parser = nanoseconds)]
    pub(crate) warmup: u64,

    /// Length of the measured window
    #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = nanoseconds)]
    pub(crate) seconds: u64,

    /// Speak TLS 1.3 to a server with this certificate (PEM)
    #[arg(long, value_name = "FILE", value_parser = client_config)]
    pub(crate) tls: Option<Arc<ClientConfig>>,

    /// A new connection for each request, without session resumption
    #[arg(long, value_name = "yes", value_parser = ["yes"])]
    reconnect: Option<String>,

    /// Run on this core
    #[arg(long)]
    pub(crate) core: Option<usize>,

    /// Report the CPU time of this process over the window
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Mode {
    /// Messages that must come back unchanged
    Bytes,
    /// The same, each with a newline at its end and nowhere else
    Line,
    /// GETs
    Http,
    /// UDP: one socket with so many requests under way as there are connections
    Datagrams,
    /// Bytes as fast as the server takes them, which says a dot for each 4 MiB received
    #[value(alias = "bulk")]
    BulkSend,
    /// Bytes as fast as the server sends them: messages whose numbers are modulo 16
    BulkReceive,
}

impl Mode {
    /// Whether requests are answered one by one on connections.
    const fn has_answers(self) -> bool {
        matches!(self, Self::Bytes | Self::Line | Self::Http)
    }
}

impl CommandLine {
    /// Take the arguments after the program's name.
    pub(crate) fn of(
        arguments: impl IntoIterator<Item = impl Into<OsString>>,
    ) -> Result<Self, clap::Error> {
        let arguments = arguments.into_iter().map(Into::into);
        let parsed =
            Self::try_parse_from(std::iter::once(OsString::from("load")).chain(arguments))?;
        match &parsed.options {
            Some(options) if options.idle > 0 && !options.mode.has_answers() => {
                let text = "--idle needs a mode with answers on connections";
                Err(Self::command().error(ErrorKind::ArgumentConflict, text))
            }
            _ => Ok(parsed),
        }
    }
}

impl Options {
    #[cfg(test)]
    pub(crate) fn of(line: &str) -> Self {
        let parsed = CommandLine::of(line.split_whitespace()).expect("a good command line");
        parsed.options.expect("an address")
    }

    pub(crate) fn workload(&self) -> Workload {
        match self.mode {
            Mode::Http => Workload::http(&self.path, self.body.as_deref()),
            mode => Workload::echo(self.size as usize, mode == Mode::Line),
        }
    }

    pub(crate) const fn is_reconnecting(&self) -> bool {
        self.reconnect.is_some()
    }
}

fn at_least(least: i64) -> impl clap::builder::TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(least..)
}

fn nanoseconds(seconds: &str) -> Result<u64, String> {
    match seconds.parse::<f64>() {
        Ok(seconds) if (0.0..1e6).contains(&seconds) => Ok((seconds * 1e9) as u64),
        _ => Err(String::from("not a number of seconds")),
    }
}

#[cfg(test)]
mod tests {
    use super::{CommandLine, Mode, Options};

    #[test]
    fn values_are_taken() {
        let options = Options::of(
            "--connections 20 127.0.0.1:80 --warmup 0.25 --seconds 1.5 --server-pid 7 --mode http",
        );
        assert_eq!(
            (options.address.as_str(), options.connections, options.mode),
            ("127.0.0.1:80", 20, Mode::Http)
        );
        assert_eq!(
            (options.warmup, options.seconds),
            (250_000_000, 1_500_000_000)
        );
        assert_eq!((options.core, options.server_pid), (None, Some(7)));
        assert!(!options.is_reconnecting());
    }

    #[test]
    fn a_certificate_needs_no_server() {
        let parsed = CommandLine::of(["--make-certificate", "here"]).expect("a good command line");
        assert!(parsed.options.is_none());
        assert_eq!(parsed.make_certificate.expect("given").as_os_str(), "here");
    }

    #[test]
    fn mistakes_are_named() {
        for (line, text) in [
            ("--size", "a value is required for '--size <SIZE>'"),
            ("--size x a:1", "invalid value 'x' for '--size <SIZE>'"),
            ("--size 16 a:1", "16 is not in 17.."),
            ("--connections 0 a:1", "0 is not in 1.."),
            ("--mode udp a:1", "invalid value 'udp' for '--mode <MODE>'"),
            (
                "--reconnect no a:1",
                "invalid value 'no' for '--reconnect <yes>'",
            ),
            ("--seconds -1 a:1", "'-1'"),
            (
                "--tls missing.pem a:1",
                "missing.pem: I/O error: No such file or directory",
            ),
            ("--fast yes a:1", "unexpected argument '--fast' found"),
            ("--size 64", "<ADDRESS>"),
            (
                "--mode bulk --idle 1 a:1",
                "--idle needs a mode with answers",
            ),
            (
                "--make-certificate here a:1",
                "cannot be used with one or more",
            ),
        ] {
            let error = CommandLine::of(line.split(' ')).expect_err("a bad command line");
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
