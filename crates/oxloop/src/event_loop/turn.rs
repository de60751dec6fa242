//! One turn of the loop: poll, due timers, ready callbacks.
//!
//! A batch is exactly the handles that were queued when it began, first in, first out. Handles that
//! they schedule form the next batch, which runs without polling first while a budget lasts: a
//! system call per callback is what makes chains of callbacks slow. An armed timer does not end the
//! budget; a due one does, since it joins the queue behind what is already there.
//!
//! After each handle, the transports that it wrote to are flushed: all its writes to one peer leave
//! in one system call.
//!
//! Invariants:
//! - a turn polls at least once, so no callback chain can keep the kernel's events waiting for
//!   longer than `BUDGET_SECONDS` and one callback more.
//! - KeyboardInterrupt and SystemExit leave the loop at once; what was not run stays queued.

use super::{EventLoop, State};
use crate::py::handle::HandleRef;
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::prelude::*;
use reactor::clock;
use std::time::Duration;

/// Callbacks that may run between two polls beyond the first batch.
const BUDGET_CALLBACKS: usize = 16_384;
/// Time that callbacks may take between two polls beyond the first batch.
const BUDGET_SECONDS: f64 = 50e-6;
/// Most batches between two readings of the clock.
const STRIDE_MOST: u32 = 32;
/// asyncio's limit of one wait, in seconds.
const TIMEOUT_MOST: f64 = 24.0 * 3600.0;
/// A timer is due this much early: the clock's resolution, as in asyncio.
const CLOCK_RESOLUTION: f64 = 1e-9;

/// Turns until `stop()`.
///
/// # Errors
/// KeyboardInterrupt and SystemExit from anywhere.
pub(super) fn run(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let state = this.get().state(this.py());
    loop {
        let timeout = timeout(this, state)?;
        super::poll::poll(this, timeout)?;
        queue_due_timers(this, state)?;
        run_batches(this, state)?;
        if state.stopping.get() {
            return Ok(());
        }
    }
}

fn timeout(this: &Bound<'_, EventLoop>, state: &State) -> PyResult<Option<Duration>> {
    if state.stopping.get() || !state.ready.borrow().is_empty() {
        return Ok(Some(Duration::ZERO));
    }
    let Some(deadline) = next_deadline(this.py(), state) else {
        return Ok(None);
    };
    let left = (deadline - state.read_clock(this.as_any())?).min(TIMEOUT_MOST);
    if left <= 0.0 {
        return Ok(Some(Duration::ZERO));
    }
    // Up to the next nanosecond, so that the timer is due when the wait ends.
    Ok(Some(Duration::from_nanos((left * 1e9).ceil() as u64)))
}

/// The earliest deadline that counts; cancelled timers at the head are dropped on the way.
fn next_deadline(py: Python<'_>, state: &State) -> Option<f64> {
    loop {
        let cancelled = {
            let mut timers = state.timers.borrow_mut();
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

/// Moves the timers that are due by the clock behind what is ready.
fn queue_due_timers(this: &Bound<'_, EventLoop>, state: &State) -> PyResult<()> {
    if !state.timers.borrow().is_empty() {
        queue_timers_due_at(state, state.read_clock(this.as_any())?);
    }
    Ok(())
}

/// Moves the timers that are due at `now` behind what is ready.
fn queue_timers_due_at(state: &State, now: f64) {
    // One unit in the last place at least: far from zero, the resolution is less than that.
    let step = now.abs().next_up() - now.abs();
    let end = now + CLOCK_RESOLUTION.max(step);
    let mut timers = state.timers.borrow_mut();
    let mut ready = state.ready.borrow_mut();
    while let Some(handle) = timers.pop_due(end) {
        handle.set_scheduled(false);
        if handle.is_cancelled() {
            timers.note_cancelled_popped();
        }
        ready.push_back(handle);
    }
}

fn run_batches(this: &Bound<'_, EventLoop>, state: &State) -> PyResult<()> {
    let mut budget = Budget::new();
    state.in_callback.set(true);
    let outcome = loop {
        let count = state.ready.borrow().len();
        if let Err(error) = run_batch(this, state, count) {
            break Err(error);
        }
        // Timers that the latest reading of the clock says are due: `call_later(0, ...)` above all.
        let now = state.now.get();
        let due = state
            .timers
            .borrow()
            .peek()
            .is_some_and(|(when, _)| when <= now);
        if due {
            queue_timers_due_at(state, now);
        }
        if state.stopping.get() || state.ready.borrow().is_empty() || !budget.lasts(state, count) {
            break Ok(());
        }
    };
    state.in_callback.set(false);
    outcome
}

/// Runs `count` handles from the front of the queue.
#[inline(always)]
fn run_batch(this: &Bound<'_, EventLoop>, state: &State, count: usize) -> PyResult<()> {
    let py = this.py();
    let plain = !state.debug.get() && state.handle_run.is_original(py);
    for _ in 0..count {
        let Some(handle) = state.ready.borrow_mut().pop_front() else {
            return Ok(());
        };
        if handle.is_cancelled() {
            handle.release_ref(py);
            continue;
        }
        if plain {
            run_handle(this, &handle)?;
        } else {
            super::debug::run_handle(this, &handle)?;
        }
        handle.ran(py);
        handle.release_ref(py);
        flush_writes(py, state);
    }
    Ok(())
}

/// Runs one handle; its exception goes to the exception handler.
#[inline(always)]
pub(super) fn run_handle(this: &Bound<'_, EventLoop>, handle: &HandleRef) -> PyResult<()> {
    let outcome = handle.run(this.py());
    if handle.is_thread_safe() {
        crate::handle::callback_ended();
    }
    match outcome {
        Ok(()) => Ok(()),
        Err(error) => super::exceptions::report_handle(this, handle, error),
    }
}

/// Sends what the last callback wrote.
#[inline(always)]
pub(crate) fn flush_writes(py: Python<'_>, state: &State) {
    if !state.written.borrow().is_empty() {
        flush_written(py, state);
    }
}

#[inline(never)]
fn flush_written(py: Python<'_>, state: &State) {
    let mut written = state.written.take();
    for transport in written.drain(..) {
        transport.flush(py);
    }
    // Keep the allocation, unless a flush wrote again.
    let mut current = state.written.borrow_mut();
    if current.is_empty() {
        *current = written;
    }
}

/// True for the exceptions that no handler may swallow.
pub(crate) fn leaves_the_loop(py: Python<'_>, error: &PyErr) -> bool {
    error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py)
}

/// What may still run before the next poll.
struct Budget {
    callbacks: usize,
    end: f64,
    stride: u32,
    /// Batches until the clock is read again.
    unchecked: u32,
    checked_at: f64,
}

impl Budget {
    const fn new() -> Self {
        Self {
            callbacks: BUDGET_CALLBACKS,
            end: 0.0,
            stride: 1,
            unchecked: 1,
            checked_at: 0.0,
        }
    }

    /// True if another batch may run. Reads the clock rarely while batches are quick, and every
    /// time when they are slow.
    #[inline(always)]
    fn lasts(&mut self, state: &State, count: usize) -> bool {
        if count >= self.callbacks {
            return false;
        }
        self.callbacks -= count;
        self.unchecked -= 1;
        if self.unchecked > 0 {
            return true;
        }
        self.check(state)
    }

    fn check(&mut self, state: &State) -> bool {
        let now = clock::now();
        if !state.custom_time.get() {
            state.now.set(now);
        }
        if self.end == 0.0 {
            self.end = now + BUDGET_SECONDS;
        } else {
            let quick = now - self.checked_at < f64::from(self.stride) * 1e-6;
            self.stride = if quick {
                (self.stride * 2).min(STRIDE_MOST)
            } else {
                1
            };
        }
        self.checked_at = now;
        self.unchecked = self.stride;
        now < self.end
    }
}
