//! `call_soon`, `call_soon_threadsafe`, `call_later`, `call_at` and `time`.
//!
//! Cost: a handle from the free list and a push; a context only if a variable is set in the current
//! one. `call_soon_threadsafe` makes a system call only if the loop waits in the kernel and nobody
//! has woken it yet: the GIL orders the two threads, so a flag is enough.
//!
//! Differs from asyncio: cancelled timers are removed when they become the majority, at the
//! cancellation and not in the next turn, so timeouts that never fire stay in the processor's
//! cache. A time that is not a number is refused when it is given; asyncio's run ends for it.

use super::{EventLoop, LoopThis, State};
use crate::py::args::Args;
use crate::py::context::Captured;
use crate::py::handle::HandleRef;
use crate::py::imports;
use crate::py::method::{Methods, OfPyClass};
use crate::py::schedule::{Scheduled, handle_for};
use pyo3::exceptions::{PyOverflowError, PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyString};
use pyo3::{Borrowed, intern};
use reactor::clock;
use reactor::resolver::Resolver;
use std::io;
use std::sync::Arc;

/// Most lookups that run at once; more wait.
const THREADS_MOST: usize = 64;

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.hot_method(
        c"call_soon",
        "callback, *args, context=None",
        call_soon,
        c"Schedule callback(*args) for the next iteration of the loop.",
    );
    methods.hot_method(
        c"call_soon_threadsafe",
        "callback, *args, context=None",
        call_soon_threadsafe,
        c"Like call_soon, from any thread; wakes the loop.",
    );
    methods.hot_method(
        c"call_later",
        "delay, callback, *args, context=None",
        call_later,
        c"Schedule callback(*args) in delay seconds.",
    );
    methods.hot_method(
        c"call_at",
        "when, callback, *args, context=None",
        call_at,
        c"Schedule callback(*args) at a time of loop.time().",
    );
    methods.hot_method(c"time", "", time, c"Seconds of the monotonic clock.");
    methods.procedure(
        c"_timer_handle_cancelled",
        "handle",
        |_this, _args| Ok(()),
        c"asyncio's hook; timers of this loop tell it themselves.",
    );
}

#[cold]
fn closed_error() -> PyErr {
    PyRuntimeError::new_err("Event loop is closed")
}

impl State {
    /// # Errors
    /// RuntimeError on a closed loop.
    #[inline(always)]
    pub(crate) fn check_closed(&self) -> PyResult<()> {
        if self.closed.get() {
            Err(closed_error())
        } else {
            Ok(())
        }
    }

    /// Appends to the ready queue.
    #[inline(always)]
    pub(crate) fn enqueue(&self, handle: HandleRef) {
        if self.run.thread.get() == 0 {
            handle.track();
        }
        self.queues.ready.borrow_mut().push_back(handle);
    }

    /// True if the next turn has something to do without a wait.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.run.stopping.get() || self.has_ready()
    }

    /// True if the kernel has to be asked for events. A wake-up from a thread is seen in memory,
    /// and so are signals, unless the loop has handlers: the program may have replaced the
    /// Python-level handler of one of them, and then only the kernel tells the loop.
    #[inline]
    pub(super) fn watches_descriptors(&self) -> bool {
        let signals = self.signals.borrow();
        let own = 1 + usize::from(signals.watches_channel() && !signals.has_handlers());
        drop(signals);
        self.kernel.sources.borrow().len() > own
    }

    /// True if handles wait for their turn.
    #[inline]
    pub(crate) fn has_ready(&self) -> bool {
        !self.queues.ready.borrow().is_empty()
    }

    pub(crate) fn is_debug(&self) -> bool {
        self.settings.debug.get()
    }

    /// The loop's resolver, made when it is first needed.
    ///
    /// # Errors
    /// In the child of a fork, as `leave_parent`.
    pub(crate) fn resolver(&self) -> io::Result<Arc<Resolver>> {
        self.leave_parent()?;
        let mut resolver = self.resolver.borrow_mut();
        let resolver = resolver.get_or_insert_with(|| Arc::new(Resolver::new(THREADS_MOST)));
        Ok(Arc::clone(resolver))
    }
}

#[inline(always)]
fn call_soon<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    let scheduled = Scheduled::parse("call_soon", ["callback"], &args)?;
    state.check_closed()?;
    if state.settings.debug.get() {
        super::debug::check_thread(py, state)?;
        this.check_callback(&scheduled.callback(), "call_soon")?;
    }
    let handle = scheduled.handle(this.object())?;
    state.trace_source(py, &handle)?;
    let object = handle.object(py);
    state.enqueue(handle);
    Ok(object)
}

fn call_soon_threadsafe<'py>(
    this: &LoopThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    let scheduled = Scheduled::parse("call_soon_threadsafe", ["callback"], &args)?;
    state.check_closed()?;
    if state.settings.debug.get() {
        this.check_callback(&scheduled.callback(), "call_soon_threadsafe")?;
    }
    let handle = scheduled.handle(this.object())?;
    handle.set_thread_safe();
    state.trace_source(py, &handle)?;
    let object = handle.object(py);
    state.enqueue(handle);
    state.wake();
    Ok(object)
}

fn call_later<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let scheduled = Scheduled::parse("call_later", ["delay", "callback"], &args)?;
    let delay = scheduled.leading[0];
    if delay.is_none() {
        return Err(PyTypeError::new_err("delay must not be None"));
    }
    let state = this.payload().state(this.py());
    match plain_delay(&delay)? {
        Some(delay) if !state.settings.custom_time.get() => {
            let now = clock::now();
            state.queues.clock_read.set(now);
            schedule_timer(this, now + delay, None, &scheduled)
        }
        _ => schedule_object(this, &later(this, &delay)?, &scheduled),
    }
}

fn call_at<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let scheduled = Scheduled::parse("call_at", ["when", "callback"], &args)?;
    let when = scheduled.leading[0];
    if when.is_none() {
        return Err(PyTypeError::new_err("when cannot be None"));
    }
    schedule_object(this, &when, &scheduled)
}

/// The delay, if Python would only convert it to add it to a float.
#[inline(always)]
fn plain_delay(delay: &Borrowed<'_, '_, PyAny>) -> PyResult<Option<f64>> {
    if let Ok(float) = delay.cast_exact::<PyFloat>() {
        return Ok(Some(float.value()));
    }
    if delay.is_exact_instance_of::<PyInt>() {
        return delay.extract().map(Some);
    }
    Ok(None)
}

/// `loop.time() + delay`, of whatever types these are.
#[cold]
fn later<'py>(
    this: &LoopThis<'_, 'py>,
    delay: &Borrowed<'_, 'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let time = intern!(this.py(), "time");
    this.object().call_method0(time)?.add(delay)
}

/// Schedules at the time that the program gave; a handle keeps a time that is not a plain float.
#[inline(always)]
fn schedule_object<'py>(
    this: &LoopThis<'_, 'py>,
    when: &Bound<'py, PyAny>,
    scheduled: &Scheduled<'_, 'py, 2>,
) -> PyResult<Bound<'py, PyAny>> {
    match when.cast_exact::<PyFloat>() {
        Ok(float) => schedule_timer(this, float.value(), None, scheduled),
        Err(_) => schedule_timer(this, deadline(when)?, Some(when), scheduled),
    }
}

/// The time as the timers compare it: a number that is too large for a float is infinite.
#[cold]
fn deadline(when: &Bound<'_, PyAny>) -> PyResult<f64> {
    when.extract::<f64>().or_else(|error| {
        if !error.is_instance_of::<PyOverflowError>(when.py()) {
            return Err(error);
        }
        Ok(if when.lt(0)? {
            f64::NEG_INFINITY
        } else {
            f64::INFINITY
        })
    })
}

#[inline(always)]
fn schedule_timer<'py>(
    this: &LoopThis<'_, 'py>,
    when: f64,
    original: Option<&Bound<'py, PyAny>>,
    scheduled: &Scheduled<'_, 'py, 2>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    state.check_closed()?;
    if state.settings.debug.get() {
        super::debug::check_thread(py, state)?;
        // asyncio's call_later() leaves the check to call_at().
        this.check_callback(&scheduled.callback(), "call_at")?;
    }
    // No time is before NaN or after it: so the callback waits for none.
    let deadline = if when.is_nan() {
        state.read_clock(&this.object())?
    } else {
        when
    };
    let handle = scheduled.timer(this.object(), when)?;
    if let Some(original) = original {
        handle.change_trace(py, |trace| trace.when = Some(original.clone().unbind()));
    }
    state.trace_source(py, &handle)?;
    if state.run.thread.get() == 0 {
        handle.track();
    }
    handle.set_scheduled(true);
    let object = handle.object(py);
    state.queues.timers.borrow_mut().push(deadline, handle);
    Ok(object)
}

#[inline(always)]
fn time<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    args.none("time")?;
    Ok(PyFloat::new(this.py(), clock::now()).into_any())
}

impl State {
    /// `loop.time()`, honouring an override.
    #[inline(always)]
    pub(super) fn read_clock(&self, event_loop: &Bound<'_, PyAny>) -> PyResult<f64> {
        if !self.settings.custom_time.get() {
            return Ok(clock::now());
        }
        let time = intern!(event_loop.py(), "time");
        event_loop.call_method0(time)?.extract()
    }
}

/// The number of the calling thread.
///
/// # Errors
/// MemoryError.
pub(super) fn thread_ident(py: Python<'_>) -> PyResult<u64> {
    imports::threading(py)?
        .call_method0(intern!(py, "get_ident"))?
        .extract()
}

/// True if the loop runs in the calling thread.
///
/// # Errors
/// As `thread_ident`.
pub(crate) fn runs_in_this_thread(owner: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = owner.py();
    match owner.cast::<EventLoop>() {
        Ok(event_loop) => Ok(event_loop.get().state(py).run.thread.get() == thread_ident(py)?),
        Err(_) => Ok(false),
    }
}

/// A timer handle was cancelled while it was scheduled.
pub(crate) fn timer_cancelled(owner: &Bound<'_, PyAny>) {
    let py = owner.py();
    let Ok(event_loop) = owner.cast::<EventLoop>() else {
        return;
    };
    let state = event_loop.get().state(py);
    state.metrics.work.timers_cancelled.add(1);
    let dead = {
        let mut timers = state.queues.timers.borrow_mut();
        timers.note_cancelled();
        if !timers.needs_compaction() {
            return;
        }
        timers.compact(|handle| !handle.is_cancelled())
    };
    for handle in dead {
        handle.set_scheduled(false);
        handle.release_ref(py);
    }
}

/// Schedules a bound method of a native object, in `context` if given, else in an empty one.
pub(crate) fn soon_method(
    py: Python<'_>,
    event_loop: &Bound<'_, EventLoop>,
    method: &Bound<'_, PyAny>,
    arguments: &[&Bound<'_, PyAny>],
    context: Captured,
) -> PyResult<()> {
    let state = event_loop.get().state(py);
    if state.is_debug() {
        super::debug::check_thread(py, state)?;
    }
    let handle = handle_for(
        py,
        event_loop.as_any().as_borrowed(),
        method,
        arguments,
        context,
    )?;
    state.trace_source(py, &handle)?;
    state.enqueue(handle);
    Ok(())
}

/// Raises asyncio's TypeError for coroutines and for callbacks that cannot be called.
pub(crate) fn reject_coroutines(
    py: Python<'_>,
    callback: &Bound<'_, PyAny>,
    function: &str,
) -> PyResult<()> {
    let coroutine = imports::is_coroutine(py)?.call1((callback,))?.is_truthy()?
        || super::debug::is_coroutine_function(callback)?;
    if coroutine {
        return Err(PyTypeError::new_err(format!(
            "coroutines cannot be used with {function}()"
        )));
    }
    if !callback.is_callable() {
        return Err(PyTypeError::new_err(format!(
            "a callable object was expected by {function}(), got {}",
            callback.repr()?.cast::<PyString>()?.to_str()?
        )));
    }
    Ok(())
}

/// Schedules a callback from one of the loop's own threads; does nothing if the loop is closed.
/// Debug mode does not record where it was made: such a thread has no Python code.
///
/// # Errors
/// MemoryError.
pub(crate) fn soon_from_thread(
    event_loop: &Bound<'_, EventLoop>,
    callback: &Bound<'_, PyAny>,
    arguments: &[&Bound<'_, PyAny>],
) -> PyResult<()> {
    let (py, state) = (event_loop.py(), event_loop.get().state(event_loop.py()));
    if state.check_closed().is_err() {
        return Ok(());
    }
    let owner = event_loop.as_any().as_borrowed();
    let handle = handle_for(py, owner, callback, arguments, Captured::empty())?;
    state.enqueue(handle);
    state.wake();
    Ok(())
}
