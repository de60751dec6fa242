//! `Metrics`: what a loop counts about itself, from its first turn on.
//!
//! Invariants:
//! - it is plain memory of who holds the GIL. Whoever looks holds it too, in whichever thread, and
//!   so neither waits for the loop nor sees half of a change. `Time::woke` alone is written without
//!   the GIL, by the loop's thread on its way back from the kernel.
//! - a count never goes back. What can is not counted: `snapshot` asks for it.
//!
//! Cost: three additions a turn, one reading of the clock a poll, three a wait in the kernel, and
//! an addition for what is read or sent at once. A callback costs nothing.

use super::State;
use super::histogram::{Counter, Histogram};
use pyo3::prelude::*;
use reactor::clock::now_ns;
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// In place of a time: the clock began when the machine did.
const NOT_NOW: u64 = 0;

/// Everything that is counted.
#[derive(Default)]
pub(crate) struct Metrics {
    pub(super) time: Time,
    pub(super) work: Work,
    pub(crate) traffic: Traffic,
    pub(crate) tls: Tls,
    pub(crate) jobs: Jobs,
    connections: [Connections; KINDS.len()],
}

/// Where the time of the runs went, in nanoseconds of `CLOCK_MONOTONIC`.
#[derive(Default)]
pub(super) struct Time {
    /// When the present run began.
    run_began: Cell<Option<u64>>,
    /// How long the runs before took.
    ran: Counter,
    /// When the present wait in the kernel began, or `NOT_NOW`.
    wait_began: Cell<u64>,
    waited: Counter,
    /// When the loop's thread came back from its latest wait, not yet attached.
    woke: AtomicU64,
    gil_waited: Counter,
    /// When the latest poll ended.
    turn_began: Cell<u64>,
    pub(super) turns: Histogram,
    pub(super) timers: Histogram,
}

/// The time of all runs: the sum of the three is how long they took.
pub(super) struct Spent {
    pub(super) busy: u64,
    pub(super) waiting: u64,
    pub(super) gil_waiting: u64,
}

/// What the loop did.
#[derive(Default)]
pub(super) struct Work {
    pub(super) turns: Counter,
    pub(super) events: Counter,
    pub(super) callbacks: Counter,
    /// The most callbacks of one turn.
    pub(super) callbacks_most: Cell<usize>,
    pub(super) timers_cancelled: Counter,
    pub(super) wakeups: Counter,
    pub(super) signals: Counter,
    pub(super) exceptions: Counter,
}

/// What transports read and sent.
#[derive(Default)]
pub(crate) struct Traffic {
    pub(crate) bytes_received: Counter,
    pub(crate) bytes_sent: Counter,
    pub(crate) datagrams_received: Counter,
    pub(crate) datagrams_sent: Counter,
}

/// TLS handshakes.
#[derive(Default)]
pub(crate) struct Tls {
    pub(crate) handshakes: Counter,
    pub(crate) handshakes_failed: Counter,
    /// How long those took that succeeded, in nanoseconds.
    pub(crate) handshaking: Counter,
}

/// What others do for the loop. As many are in flight as were begun and have not ended.
#[derive(Default)]
pub(crate) struct Jobs {
    pub(crate) lookups_begun: Counter,
    pub(crate) lookups_ended: Counter,
    pub(crate) calls_begun: Counter,
    pub(crate) calls_ended: Counter,
    pub(crate) children_begun: Counter,
    pub(crate) children_ended: Counter,
}

/// What a connection goes over. One of TLS is counted as such too, beside the one below it.
#[derive(Clone, Copy)]
pub(crate) enum ConnectionKind {
    Tcp,
    Unix,
    Tls,
    Pipe,
    Datagram,
}

/// The kinds by their numbers, with their names.
pub(super) const KINDS: [(ConnectionKind, &str); 5] = [
    (ConnectionKind::Tcp, "tcp"),
    (ConnectionKind::Unix, "unix"),
    (ConnectionKind::Tls, "tls"),
    (ConnectionKind::Pipe, "pipe"),
    (ConnectionKind::Datagram, "datagram"),
];

/// The transports of a kind.
#[derive(Default)]
pub(super) struct Connections {
    pub(super) made: Counter,
    /// Those of `made` that a server of the loop accepted.
    pub(super) accepted: Counter,
    pub(super) lost: Counter,
    /// Those of `lost` whose `connection_lost` got an exception.
    pub(super) failed: Counter,
}

impl Metrics {
    #[inline(always)]
    pub(super) const fn of_kind(&self, kind: ConnectionKind) -> &Connections {
        &self.connections[kind as usize]
    }

    pub(crate) fn connection_made(&self, kind: ConnectionKind, accepted: bool) {
        let counts = self.of_kind(kind);
        counts.made.add(1);
        counts.accepted.add(u64::from(accepted));
    }

    pub(crate) fn connection_lost(&self, kind: ConnectionKind, failed: bool) {
        let counts = self.of_kind(kind);
        counts.lost.add(1);
        counts.failed.add(u64::from(failed));
    }
}

impl Work {
    /// A batch of so many callbacks begins.
    #[inline(always)]
    pub(super) fn batch_begins(&self, count: usize) {
        self.turns.add(1);
        self.callbacks.add(count as u64);
        if count > self.callbacks_most.get() {
            self.callbacks_most.set(count);
        }
    }
}

impl Time {
    pub(super) fn run_begins(&self) {
        let now = now_ns();
        self.run_began.set(Some(now));
        self.turn_began.set(now);
    }

    pub(super) fn run_ends(&self) {
        let now = self.turn_ends();
        if let Some(began) = self.run_began.take() {
            self.ran.add(now.saturating_sub(began));
        }
    }

    /// The kernel is polled next, or the run ends; returns the time.
    #[inline]
    pub(super) fn turn_ends(&self) -> u64 {
        let now = now_ns();
        let began = self.turn_began.replace(now);
        self.turns.record(now.wrapping_sub(began));
        now
    }

    /// Waits in the kernel, detached from the interpreter.
    #[inline]
    pub(super) fn detached<T: Send>(&self, py: Python<'_>, wait: impl Send + FnOnce() -> T) -> T {
        let began = self.turn_ends();
        self.wait_began.set(began);
        let woke = &self.woke;
        let outcome = py.detach(|| {
            let outcome = wait();
            woke.store(now_ns(), Ordering::Relaxed);
            outcome
        });
        let (woke, attached) = (woke.load(Ordering::Relaxed), now_ns());
        self.wait_began.set(NOT_NOW);
        self.waited.add(woke.wrapping_sub(began));
        self.gil_waited.add(attached.wrapping_sub(woke));
        self.turn_began.set(attached);
        outcome
    }

    /// Up to now, also while the loop runs or waits.
    pub(super) fn spent(&self) -> Spent {
        let now = now_ns();
        let (mut waiting, mut gil_waiting) = (self.waited.get(), self.gil_waited.get());
        let began = self.wait_began.get();
        if began != NOT_NOW {
            // Of an earlier wait, if this one is not over.
            let woke = self.woke.load(Ordering::Relaxed);
            let over = if woke >= began { woke.min(now) } else { now };
            waiting += over.saturating_sub(began);
            gil_waiting += now.saturating_sub(over);
        }
        let running = self
            .run_began
            .get()
            .map_or(0, |began| now.saturating_sub(began));
        let busy = (self.ran.get() + running).saturating_sub(waiting + gil_waiting);
        Spent {
            busy,
            waiting,
            gil_waiting,
        }
    }
}

impl State {
    #[inline(always)]
    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}
