//! One turn of the loop: poll, due timers, ready callbacks.
//!
//! A batch is exactly the handles that were queued when it began, and runs first in, first out.
//! Transports that are served in the poll (see `poll`) come before them. What they schedule is the
//! next batch, and the kernel is polled before it, as in asyncio: a callback sees everything that
//! arrived before its batch. A loop that watches no descriptor for the program does not poll: calls
//! from other threads are in its queue, and signals are seen in memory.
//!
//! What a batch wrote to transports leaves when it ends, or earlier: see `unsent`.
//!
//! Invariants:
//! - the check of what other threads and Python code have queued is the last thing before a wait;
//!   from then on, whoever queues something writes to the eventfd (`State::wake`).
//! - KeyboardInterrupt and SystemExit end the run at once; callbacks that did not run stay queued.
//!
//! Cost: one epoll_wait(2) a batch, without waiting and with the GIL held, if the program watches a
//! descriptor; one reading of the clock, if there is a timer.

use super::{EventLoop, State};
use crate::py::handle::HandleRef;
use pyo3::prelude::*;
use std::time::Duration;

/// asyncio's limit of one wait, in seconds.
const TIMEOUT_MOST: f64 = 24.0 * 3600.0;
/// A timer is due this much early: the clock's resolution, as in asyncio.
const CLOCK_RESOLUTION: f64 = 1e-9;

/// Runs turns until `stop()`.
///
/// # Errors
/// KeyboardInterrupt and SystemExit from anywhere.
pub(super) fn run(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let state = this.get().state(this.py());
    state.queues.batch.set(None);
    loop {
        super::signals::look(this)?;
        let now = if state.has_work() {
            super::poll::ask(this)?;
            None
        } else {
            rest(this, state)?
        };
        state.raise_interruption(this.py())?;
        begin_batch(this, state, now)?;
        run_batch(this, state)?;
        state.raise_interruption(this.py())?;
        if state.run.stopping.get() {
            return Ok(());
        }
    }
}

/// Waits until there is something to do. If a timer is due already and no poll was made, returns
/// the time that was read, so that the clock need not be read again.
fn rest(this: &Bound<'_, EventLoop>, state: &State) -> PyResult<Option<f64>> {
    let Some(deadline) = next_deadline(this.py(), state) else {
        return super::poll::wait(this, None).map(|()| None);
    };
    let watches = state.watches_descriptors();
    if !watches && let Some(now) = due_when_made(state, deadline) {
        return Ok(Some(now));
    }
    let now = state.read_clock(this.as_any())?;
    let left = (deadline - now).min(TIMEOUT_MOST);
    if left > 0.0 {
        // Up to the next nanosecond, so that the timer is due when the wait ends.
        let timeout = Duration::from_nanos((left * 1e9).ceil() as u64);
        return super::poll::wait(this, Some(timeout)).map(|()| None);
    }
    if !watches {
        return Ok(Some(now));
    }
    super::poll::ask(this).map(|()| None)
}

/// If the only timer was due when it was made: the time that was read then. It need not be read
/// again, as no other timer can be due.
fn due_when_made(state: &State, deadline: f64) -> Option<f64> {
    let now = state.queues.clock_read.get();
    let only = || state.queues.timers.borrow().len() == 1;
    (deadline <= now && !state.settings.custom_time.get() && only()).then_some(now)
}

/// The earliest deadline that counts; cancelled timers at the head are dropped on the way.
fn next_deadline(py: Python<'_>, state: &State) -> Option<f64> {
    loop {
        let cancelled = {
            let mut timers = state.queues.timers.borrow_mut();
            let (deadline, handle) = timers.peek()?;
            if !handle.is_cancelled() {
                return Some(deadline);
            }
            timers.note_cancelled_popped();
            timers.pop()
        };
        if let Some((_, handle)) = cancelled {
            handle.set_scheduled(false);
            handle.release_ref(py);
        }
    }
}

/// Determines the batch, once a turn: what is queued, and the timers that are due at `now`.
///
/// # Errors
/// What a replaced `loop.time` raises.
#[inline(always)]
pub(super) fn begin_batch(
    this: &Bound<'_, EventLoop>,
    state: &State,
    now: Option<f64>,
) -> PyResult<()> {
    if state.queues.batch.get().is_none() {
        if !state.queues.timers.borrow().is_empty() {
            queue_due_timers(this, state, now)?;
        }
        state
            .queues
            .batch
            .set(Some(state.queues.ready.borrow().len()));
    }
    Ok(())
}

/// Moves the timers that are due behind what is ready: at `now`, or by a new reading of the clock.
#[inline(never)]
fn queue_due_timers(this: &Bound<'_, EventLoop>, state: &State, now: Option<f64>) -> PyResult<()> {
    let now = now.map_or_else(|| state.read_clock(this.as_any()), Ok)?;
    queue_timers_due_at(state, now);
    Ok(())
}

fn queue_timers_due_at(state: &State, now: f64) {
    // One unit in the last place at least: far from zero, the resolution is less than that.
    let step = now.abs().next_up() - now.abs();
    let end = now + CLOCK_RESOLUTION.max(step);
    let mut timers = state.queues.timers.borrow_mut();
    let mut ready = state.queues.ready.borrow_mut();
    while let Some((deadline, handle)) = timers.pop_due(end) {
        handle.set_scheduled(false);
        if handle.is_cancelled() {
            timers.note_cancelled_popped();
        } else {
            state
                .metrics
                .time
                .timers
                .record(((now - deadline) * 1e9) as u64);
        }
        ready.push_back(handle);
    }
}

/// Runs the batch; what its handles queue is for the next one.
#[inline]
fn run_batch(this: &Bound<'_, EventLoop>, state: &State) -> PyResult<()> {
    let count = state.queues.batch.take().unwrap_or(0);
    state.metrics.work.batch_begins(count);
    state.run.in_callback.set(true);
    let outcome = run_handles(this, state, count);
    state.run.in_callback.set(false);
    outcome
}

/// Runs `count` handles from the front of the queue, and looks for signals behind each, and behind
/// what it freed and sent.
#[inline(always)]
fn run_handles(this: &Bound<'_, EventLoop>, state: &State, count: usize) -> PyResult<()> {
    let py = this.py();
    let plain = !state.settings.debug.get() && state.settings.handle_run.is_original(py);
    for left in (0..count).rev() {
        let Some(handle) = state.queues.ready.borrow_mut().pop_front() else {
            return Ok(());
        };
        if handle.is_cancelled() {
            handle.release_ref(py);
            if left == 0 {
                state.flush(py);
            }
            continue;
        }
        let outcome = if plain {
            run_handle(this, &handle)
        } else {
            super::debug::run_handle(this, &handle)
        };
        // It ran, whatever came of it: the collector does not know what it holds any more.
        handle.ran(py);
        handle.release_ref(py);
        outcome?;
        if !state.unsent.is_empty() && (left == 0 || !plain || state.unsent.is_due()) {
            state.flush(py);
            state.raise_interruption(py)?;
        }
        state.look_for_signals(py)?;
    }
    Ok(())
}

/// Runs one handle; its exception goes to the exception handler.
#[inline(always)]
pub(super) fn run_handle(this: &Bound<'_, EventLoop>, handle: &HandleRef) -> PyResult<()> {
    let outcome = handle.run(this.py());
    if handle.is_thread_safe() {
        crate::event_loop::handle::callback_ended(this.py());
    }
    match outcome {
        Ok(()) => look_behind(this, handle),
        Err(error) => super::exceptions::report_handle(this, handle, *error),
    }
}

/// Looks for signals behind a callback, as asyncio's own Python code does: what a signal's handler
/// raises there is an exception of the callback.
#[inline(always)]
fn look_behind(this: &Bound<'_, EventLoop>, handle: &HandleRef) -> PyResult<()> {
    match this.get().state(this.py()).look_for_signals(this.py()) {
        Ok(()) => Ok(()),
        Err(error) => super::exceptions::report_handle(this, handle, error),
    }
}
