//! Options: the command line.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use rustls::ClientConfig;

use crate::tls::client_config;
use crate::workload::{HEADER_LEN, Workload};

pub(crate) const USAGE: &str = "usage: load [options] ADDRESS
  ADDRESS              host:port, or the path of a Unix socket
  --connections N      connections, each with one request under way (default 1)
  --mode MODE          bytes (default), line (messages end with a newline), http,
                       datagrams (UDP: one socket with N requests under way)
  --size N             message length in bytes, at least 17 (default 1024)
  --path PATH          http: what to GET (default /)
  --body TEXT          http: the body that each response must have
  --warmup SECONDS     not measured, before the window (default 0.5)
  --seconds SECONDS    length of the measured window (default 2)
  --tls FILE           speak TLS 1.3 to a server with this certificate (PEM)
  --reconnect yes      a new connection for each request, without session resumption
  --core N             run on this core
  --server-pid PID     report the CPU time of this process over the window
usage: load --make-certificate DIRECTORY
  write certificate.pem and key.pem, ECDSA P-256, self-signed";

/// What to send, where, for how long.
#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) address: String,
    pub(crate) connections: usize,
    pub(crate) is_udp: bool,
    pub(crate) workload: Workload,
    pub(crate) warmup_ns: u64,
    pub(crate) window_ns: u64,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) is_reconnecting: bool,
    pub(crate) core: Option<usize>,
    pub(crate) server_pid: Option<i32>,
}

impl Options {
    pub(crate) fn parse(mut args: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut address = None;
        let (mut mode, mut size, mut connections) = (String::from("bytes"), 1024, 1);
        let (mut path, mut body) = (String::from("/"), None);
        let (mut warmup, mut window) = (0.5, 2.0);
        let (mut core, mut server_pid) = (None, None);
        let (mut tls, mut is_reconnecting) = (None, false);
        while let Some(option) = args.next() {
            if !option.starts_with("--") {
                address = Some(option);
                continue;
            }
            let value = args
                .next()
                .ok_or_else(|| format!("{option} needs a value"))?;
            match option.as_str() {
                "--connections" => connections = number(&option, &value)?,
                "--mode" => mode = value,
                "--size" => size = number(&option, &value)?,
                "--path" => path = value,
                "--body" => body = Some(value),
                "--warmup" => warmup = number(&option, &value)?,
                "--seconds" => window = number(&option, &value)?,
                "--tls" => tls = Some(client_config(Path::new(&value))?),
                "--reconnect" if value == "yes" => is_reconnecting = true,
                "--core" => core = Some(number(&option, &value)?),
                "--server-pid" => server_pid = Some(number(&option, &value)?),
                _ => return Err(format!("unknown option {option}")),
            }
        }
        let address = address.ok_or("no address given")?;
        if connections == 0 || size <= HEADER_LEN {
            return Err(format!(
                "at least 1 connection and {} bytes",
                HEADER_LEN + 1
            ));
        }
        let workload = match mode.as_str() {
            "bytes" | "datagrams" => Workload::echo(size, false),
            "line" => Workload::echo(size, true),
            "http" => Workload::http(&path, body.as_deref()),
            _ => return Err(format!("unknown mode {mode}")),
        };
        let (warmup_ns, window_ns) = (nanoseconds(warmup), nanoseconds(window));
        Ok(Self {
            address,
            connections,
            is_udp: mode == "datagrams",
            workload,
            warmup_ns,
            window_ns,
            tls,
            is_reconnecting,
            core,
            server_pid,
        })
    }
}

fn number<T: FromStr>(option: &str, value: &str) -> Result<T, String> {
    value
        .parse()
        .map_err(|_| format!("{option}: not a number: {value}"))
}

const fn nanoseconds(seconds: f64) -> u64 {
    (seconds * 1e9) as u64
}

#[cfg(test)]
mod tests {
    use super::Options;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(line.split(' ').map(String::from))
    }

    #[test]
    fn values_are_taken() {
        let line = "--connections 20 127.0.0.1:80 --warmup 0.25 --seconds 1.5 --server-pid 7";
        let options = parse(line).expect("a good command line");
        assert_eq!(
            (options.address.as_str(), options.connections),
            ("127.0.0.1:80", 20)
        );
        assert_eq!(
            (options.warmup_ns, options.window_ns),
            (250_000_000, 1_500_000_000)
        );
        assert_eq!((options.core, options.server_pid), (None, Some(7)));
    }

    #[test]
    fn mistakes_are_named() {
        for (line, text) in [
            ("--size", "--size needs a value"),
            ("--size x a:1", "--size: not a number: x"),
            ("--size 16 a:1", "at least 1 connection and 17 bytes"),
            ("--mode udp a:1", "unknown mode udp"),
            ("--reconnect no a:1", "unknown option --reconnect"),
            (
                "--tls missing.pem a:1",
                "missing.pem: I/O error: No such file or directory (os error 2)",
            ),
            ("--fast yes a:1", "unknown option --fast"),
            ("--size 64", "no address given"),
        ] {
            assert_eq!(parse(line).expect_err("a bad command line"), text);
        }
    }
}
