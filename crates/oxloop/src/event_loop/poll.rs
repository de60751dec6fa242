//! Polls the kernel, and dispatches each event to its owner.
//!
//! The GIL is released only for a call that may block, and is held while all events of a poll are
//! dispatched. In asyncio each event becomes a handle behind what is queued. Here an event of a
//! watched descriptor or of a listener does so too. A transport is served at once if no callback is
//! queued before it, and otherwise by a handle: callbacks run in asyncio's order. Serving at once
//! is the first part of the batch. Its other part, the timers that are due, is determined before;
//! what the transports queue is for the next batch. While the loop waits, other threads may change
//! what it watches.
//!
//! Cost: a poll allocates and copies nothing; one that finds nothing costs its system call. An
//! event costs a handle if a callback is queued.

use super::readiness::{wake, wake_soon};
use super::source::Source;
use super::unconfirmed::{Plan, confirm};
use super::{EventLoop, State};
use crate::error::{after_cleanup, leaves_the_loop, os_error};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::poller::{Event, Events};
use std::time::Duration;

/// Dispatches what is ready now. Without a descriptor to watch, the kernel is not asked.
///
/// # Errors
/// KeyboardInterrupt, SystemExit, or what epoll_wait(2) refuses.
#[inline(always)]
pub(super) fn ask(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    if this.get().state(this.py()).watches_descriptors() {
        return ask_kernel(this);
    }
    Ok(())
}

#[inline(never)]
fn ask_kernel(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let state = this.get().state(this.py());
    let plan = state.kernel.unconfirmed.borrow_mut().plan(false);
    if matches!(plan, Plan::Confirm) {
        confirm(this, state)?;
    }
    poll(this, state, Some(Duration::ZERO)).map(drop)
}

/// Waits until something is ready or `timeout` is over, and dispatches it.
///
/// # Errors
/// As `ask`.
pub(super) fn wait(this: &Bound<'_, EventLoop>, timeout: Option<Duration>) -> PyResult<()> {
    let state = this.get().state(this.py());
    if !state.unsent.is_empty() {
        // A flush has called the program, which wrote more.
        state.flush(this.py());
        return Ok(());
    }
    let plan = state.kernel.unconfirmed.borrow_mut().plan(true);
    match plan {
        Plan::Poll => {}
        Plan::Ask => {
            if poll(this, state, Some(Duration::ZERO))? > 0 {
                return Ok(());
            }
            confirm(this, state)?;
        }
        Plan::Confirm => confirm(this, state)?,
    }
    // Python code may have run since the turn began, and other threads with it. From this look on
    // none does, until `poll` lets go of the GIL.
    if state.has_work() || state.signals.borrow().has_arrived() {
        return Ok(());
    }
    poll(this, state, timeout).map(drop)
}

/// One call of epoll_wait(2); returns how many events it brought.
#[inline]
fn poll(this: &Bound<'_, EventLoop>, state: &State, timeout: Option<Duration>) -> PyResult<usize> {
    let py = this.py();
    state.leave_parent().map_err(|error| os_error(&error))?;
    let mut events = state.kernel.events.take().unwrap_or_default();
    events.reserve(state.kernel.sources.borrow().len());
    let outcome = poll_into(py, state, &mut events, timeout)
        .and_then(|count| dispatch_all(this, state, &events).map(|()| count));
    state.kernel.events.set(Some(events));
    state.drop_orphans(py);
    outcome
}

#[inline]
fn poll_into(
    py: Python<'_>,
    state: &State,
    events: &mut Events,
    timeout: Option<Duration>,
) -> PyResult<usize> {
    let waited = if timeout == Some(Duration::ZERO) {
        match &*state.kernel.poller.borrow() {
            Some(poller) => {
                state.metrics.time.turn_ends();
                poller.wait(events, timeout)
            }
            None => return state.check_closed().map(|()| 0),
        }
    } else {
        state.queues.shrink();
        let poller = state.kernel.poller.borrow().clone();
        let Some(poller) = poller else {
            return state.check_closed().map(|()| 0);
        };
        let time = &state.metrics.time;
        state.waker.waiting.set(true);
        let waited = match state.kernel.busy_poll.get() {
            None => time.detached(py, || poller.wait(events, timeout)),
            before @ Some(mut busy) => {
                let waited = time.detached(py, || busy.wait(&poller, events, timeout));
                // Another thread may have set it meanwhile.
                if state.kernel.busy_poll.get() == before {
                    state.kernel.busy_poll.set(Some(busy));
                }
                waited
            }
        };
        state.waker.waiting.set(false);
        waited
    };
    let count = waited.map_err(|error| os_error(&error))?;
    if events.interrupted() {
        py.check_signals()?;
    }
    Ok(count)
}

#[inline]
fn dispatch_all(this: &Bound<'_, EventLoop>, state: &State, events: &Events) -> PyResult<()> {
    if events.is_empty() {
        return Ok(());
    }
    state.metrics.work.events.add(events.len() as u64);
    let queue = state.must_queue(this.py(), events);
    if !queue {
        super::turn::begin_batch(this, state, None)?;
    }
    state.run.in_callback.set(true);
    let outcome = (0..events.len()).try_for_each(|index| {
        let outcome = dispatch(this, state, events.get(index), queue);
        if !state.unsent.is_empty() && (index + 1 == events.len() || state.unsent.is_due()) {
            state.flush(this.py());
        }
        match outcome.or_else(|error| report(this, error)) {
            Err(error) if !queue => {
                let rest = queue_first(this, state, events, index + 1);
                Err(after_cleanup(this.py(), error, rest))
            }
            outcome => outcome,
        }
    });
    state.run.in_callback.set(false);
    outcome
}

/// KeyboardInterrupt or SystemExit ended the dispatch before the events from index `from` on. Their
/// handles go to the front of the queue, before due timers and what was queued since.
#[cold]
fn queue_first(
    this: &Bound<'_, EventLoop>,
    state: &State,
    events: &Events,
    from: usize,
) -> PyResult<()> {
    let before = state.queues.ready.borrow().len();
    let outcome =
        (from..events.len()).try_for_each(|index| dispatch(this, state, events.get(index), true));
    let mut ready = state.queues.ready.borrow_mut();
    let queued = ready.len().saturating_sub(before);
    ready.rotate_right(queued);
    outcome
}

impl State {
    /// True if each event has to be a handle: a callback is queued before it, one of the events
    /// needs a handle anyway, or somebody observes handles (debug mode, a profiler).
    #[inline]
    fn must_queue(&self, py: Python<'_>, events: &Events) -> bool {
        if self.has_ready()
            || self.settings.debug.get()
            || !self.settings.handle_run.is_original(py)
        {
            return true;
        }
        let sources = self.kernel.sources.borrow();
        (0..events.len()).any(|index| {
            let source = sources.get(events.get(index).token);
            source.is_some_and(Source::queues_handles)
        })
    }
}

fn dispatch(this: &Bound<'_, EventLoop>, state: &State, event: Event, queue: bool) -> PyResult<()> {
    let py = this.py();
    let mut sources = state.kernel.sources.borrow_mut();
    match sources.get_mut(event.token) {
        Some(source @ (Source::Held(_) | Source::Idle(_))) => {
            let held = source.held(py);
            drop(sources);
            held.map_or(Ok(()), |held| held.on_event(py, event, queue))
        }
        Some(Source::Watch(watch)) => {
            let handles = [watch.ready_reader(py, event), watch.ready_writer(py, event)];
            let woken = watch.take_waiters(event);
            drop(sources);
            for handle in handles.into_iter().flatten() {
                state.enqueue(handle);
            }
            state.trim(py, event, &woken)?;
            if queue {
                wake_soon(this, woken)
            } else {
                wake(py, woken)
            }
        }
        Some(Source::Notifier) => {
            if let Some(notifier) = &*state.waker.notifier.borrow() {
                notifier.clear();
            }
            Ok(())
        }
        Some(Source::Signals) => {
            drop(sources);
            super::signals::on_readable(this)
        }
        None => {
            // Its registration ended earlier in this poll, or it is an orphan: see `readiness`.
            drop(sources);
            state.note_stale(event.token);
            Ok(())
        }
    }
}

/// Reports an exception that serving an event raised and that has no other receiver.
#[cold]
fn report(this: &Bound<'_, EventLoop>, error: PyErr) -> PyResult<()> {
    let py = this.py();
    if leaves_the_loop(py, &error) {
        return Err(error);
    }
    let context = PyDict::new(py);
    context.set_item("message", "Exception in callback of the event loop")?;
    context.set_item("exception", error.into_value(py))?;
    super::exceptions::report(this, &context)
}
