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
    pub(crate) latencies: Histogram<u64>,
    pub(crate) window_ns: u64,
    pub(crate) server_cpu_ns: Option<u64>,
    /// Connections that got no answer in the window: a sign of starvation.
    pub(crate) idle_connections: usize,
}

/// Connections with requests under way.
pub(crate) trait Exchanging {
    /// Send, receive and check until that moment.
    fn exchange_until(&mut self, end_ns: u64) -> io::Result<()>;

    /// Forget what was counted and timed so far.
    fn forget(&mut self);

    /// How long each answer since then took, and how many connections got none.
    fn into_results(self) -> (Histogram<u64>, usize);
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
    let (latencies, idle_connections) = run.into_results();
    Ok(Report {
        latencies,
        window_ns: end_ns - start_ns,
        server_cpu_ns: end_cpu_ns.zip(start_cpu_ns).map(|(end, start)| end - start),
        idle_connections,
    })
}
