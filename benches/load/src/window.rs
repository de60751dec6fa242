//! The window in which is measured: after a warm-up, and of one length for everything.
//!
//! The counters, the latencies and the server's CPU clock are read at the same two moments,
//! between two exchanges or batches of them, so that requests and CPU time belong to exactly one
//! window.
//!
//! Cost: two readings of two clocks.

use std::io;

use hdrhistogram::Histogram;

use crate::options::Options;
use crate::sys::{CpuClock, monotonic};

const LATENCY_DIGITS: u8 = 3;
const LATENCY_MAX_NS: u64 = 100_000_000_000;

/// What one window showed.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) results: Results,
    pub(crate) window_ns: u64,
    pub(crate) server_cpu_ns: Option<u64>,
}

/// What was counted and timed in it.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) requests: u64,
    /// Where bytes are counted and requests are only as many messages of them.
    pub(crate) bytes: Option<u64>,
    /// How long each answer took; empty where there are no answers.
    pub(crate) latencies: Histogram<u64>,
    /// Connections on which nothing happened: a sign of starvation.
    pub(crate) idle_connections: usize,
}

impl Results {
    /// What the latencies of answers say of themselves.
    pub(crate) fn of_answers(latencies: Histogram<u64>, idle_connections: usize) -> Self {
        Self {
            requests: latencies.len(),
            bytes: None,
            latencies,
            idle_connections,
        }
    }
}

/// Connections with requests under way.
pub(crate) trait Exchanging {
    /// Send, receive and check until that moment.
    fn exchange_until(&mut self, end_ns: u64) -> io::Result<()>;

    /// Forget what was counted and timed so far.
    fn forget(&mut self);

    /// What happened since then.
    fn into_results(self) -> io::Result<Results>;
}

/// An empty histogram of latencies in nanoseconds.
pub(crate) fn latencies() -> Histogram<u64> {
    Histogram::new_with_max(LATENCY_MAX_NS, LATENCY_DIGITS).expect("valid bounds")
}

/// Warm up, then measure for as long as the options say.
pub(crate) fn measure(options: &Options, mut run: impl Exchanging) -> io::Result<Report> {
    let server_clock = options.server_pid.map(CpuClock::of_process).transpose()?;
    let read_server_clock = || server_clock.map(CpuClock::read).transpose();
    run.exchange_until(monotonic() + options.warmup)?;
    run.forget();
    let (start_ns, start_cpu_ns) = (monotonic(), read_server_clock()?);
    run.exchange_until(start_ns + options.seconds)?;
    let (end_ns, end_cpu_ns) = (monotonic(), read_server_clock()?);
    Ok(Report {
        results: run.into_results()?,
        window_ns: end_ns - start_ns,
        server_cpu_ns: end_cpu_ns.zip(start_cpu_ns).map(|(end, start)| end - start),
    })
}
