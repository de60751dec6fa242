//! `loop._metrics()`: the numbers of `oxloop.LoopMetrics`, by the names of its fields.
//!
//! What can go down is asked here and not counted. Cost: a look at each transport, for what it has
//! queued.

use super::histogram::{Histogram, bounds};
use super::metrics::{KINDS, Metrics};
use super::source::Source;
use super::{EventLoop, State};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use reactor::clock;

/// How much a transport has queued.
#[derive(Clone, Copy, Default)]
pub(crate) struct Backlog {
    pub(crate) bytes: usize,
    /// Its protocol was told to write no more.
    pub(crate) paused: bool,
}

#[pymethods]
impl EventLoop {
    /// The numbers of a LoopMetrics, by field.
    fn _metrics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let state = self.state(py);
        let numbers = PyDict::new(py);
        add_time(&numbers, &state.metrics)?;
        add_work(&numbers, state)?;
        add_connections(&numbers, &state.metrics)?;
        add_traffic(&numbers, state)?;
        add_jobs(&numbers, &state.metrics)?;
        Ok(numbers)
    }
}

fn add_time(numbers: &Bound<'_, PyDict>, metrics: &Metrics) -> PyResult<()> {
    let spent = metrics.time.spent();
    numbers.set_item("time_seconds", clock::now())?;
    numbers.set_item("busy_seconds", clock::seconds(spent.busy))?;
    numbers.set_item("waiting_seconds", clock::seconds(spent.waiting))?;
    numbers.set_item("gil_wait_seconds", clock::seconds(spent.gil_waiting))?;
    numbers.set_item(
        "turn_lengths",
        of_histogram(numbers.py(), &metrics.time.turns)?,
    )?;
    numbers.set_item(
        "timer_lags",
        of_histogram(numbers.py(), &metrics.time.timers)?,
    )
}

/// The arguments of an `oxloop.Histogram`.
fn of_histogram<'py>(py: Python<'py>, histogram: &Histogram) -> PyResult<Bound<'py, PyTuple>> {
    let counts = PyTuple::new(py, histogram.counts())?;
    let bounds = PyTuple::new(py, bounds().map(clock::seconds))?;
    let (sum, longest) = (histogram.sum(), histogram.longest());
    (counts, bounds, clock::seconds(sum), clock::seconds(longest)).into_pyobject(py)
}

fn add_work(numbers: &Bound<'_, PyDict>, state: &State) -> PyResult<()> {
    let work = &state.metrics.work;
    numbers.set_item("turns", work.turns.get())?;
    numbers.set_item("events", work.events.get())?;
    numbers.set_item("callbacks", work.callbacks.get())?;
    numbers.set_item("ready", state.queues.ready.borrow().len())?;
    numbers.set_item("ready_max", work.callbacks_most.get())?;
    numbers.set_item("timers_pending", state.queues.timers.borrow().live_len())?;
    numbers.set_item("timers_cancelled", work.timers_cancelled.get())?;
    numbers.set_item("wakeups", work.wakeups.get())?;
    numbers.set_item("signals", work.signals.get())?;
    numbers.set_item("exceptions", work.exceptions.get())
}

/// `(made, accepted, lost, failed)` by kind.
fn add_connections(numbers: &Bound<'_, PyDict>, metrics: &Metrics) -> PyResult<()> {
    let by_kind = PyDict::new(numbers.py());
    for (kind, name) in KINDS {
        let counts = metrics.of_kind(kind);
        let counters = [&counts.made, &counts.accepted, &counts.lost, &counts.failed];
        by_kind.set_item(name, counters.map(|counter| counter.get()))?;
    }
    numbers.set_item("connections", by_kind)
}

fn add_traffic(numbers: &Bound<'_, PyDict>, state: &State) -> PyResult<()> {
    let (traffic, queued) = (&state.metrics.traffic, state.backlogs(numbers.py()));
    numbers.set_item("bytes_received", traffic.bytes_received.get())?;
    numbers.set_item("bytes_sent", traffic.bytes_sent.get())?;
    numbers.set_item("datagrams_received", traffic.datagrams_received.get())?;
    numbers.set_item("datagrams_sent", traffic.datagrams_sent.get())?;
    let bytes: usize = queued.iter().map(|backlog| backlog.bytes).sum();
    numbers.set_item("bytes_queued", bytes)?;
    let paused = queued.iter().filter(|backlog| backlog.paused).count();
    numbers.set_item("writes_paused", paused)
}

fn add_jobs(numbers: &Bound<'_, PyDict>, metrics: &Metrics) -> PyResult<()> {
    let (tls, jobs) = (&metrics.tls, &metrics.jobs);
    numbers.set_item("tls_handshakes", tls.handshakes.get())?;
    numbers.set_item("tls_handshakes_failed", tls.handshakes_failed.get())?;
    let handshaking = clock::seconds(tls.handshaking.get());
    numbers.set_item("tls_handshake_seconds", handshaking)?;
    for (name, begun, ended) in [
        ("lookups", &jobs.lookups_begun, &jobs.lookups_ended),
        ("executor_calls", &jobs.calls_begun, &jobs.calls_ended),
        ("children", &jobs.children_begun, &jobs.children_ended),
    ] {
        let (begun, ended) = (begun.get(), ended.get());
        numbers.set_item(name, ended)?;
        let running = begun.saturating_sub(ended);
        numbers.set_item(format!("{name}_running"), running)?;
    }
    Ok(())
}

impl State {
    /// What the transports have queued. A look runs no Python code.
    fn backlogs(&self, py: Python<'_>) -> Vec<Backlog> {
        let sources = self.kernel.sources.borrow();
        let transports: Vec<_> = sources
            .iter()
            .filter_map(|(_, source)| Source::transport(source, py))
            .collect();
        drop(sources);
        let look = |(object, kind): &(Bound<'_, PyAny>, &super::held::TransportKind)| {
            (kind.backlog)(object)
        };
        transports.iter().map(look).collect()
    }
}
