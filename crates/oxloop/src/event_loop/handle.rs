//! The Python methods of `Handle` and `TimerHandle`.
//!
//! The objects themselves (layout, free list, running) are in `py::handle` and `py::call`.
//!
//! Differs from asyncio: a handle releases its callback, arguments and loop when it has run, not
//! only when it is cancelled (asyncio never releases the loop). `asyncio.Handle` is the `__class__`
//! of a handle but not a base of its type.

use super::EventLoop;
use super::schedule::{runs_in_this_thread, timer_cancelled};
use crate::py::args::Args;
use crate::py::call::{Call, Trace};
use crate::py::class::This;
use crate::py::handle::{HandleRef, OfHandle, OfTimer, create_handle_type, create_timer_type};
use crate::py::imports;
use crate::py::method::{Access, Methods};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyType};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Makes both types; called once, at import.
pub(crate) fn create_types(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let base = imports::handle(py)?;
    let mut methods = Methods::<OfHandle>::new();
    add_methods(&mut methods);
    methods.getter(c"__class__", class_of_handle);
    let doc = c"A scheduled callback, see asyncio.Handle.";
    let handle = create_handle_type(py, c"oxloop._oxloop.Handle", doc, methods)?;
    for name in ["__repr__", "_repr_info", "_run"] {
        handle.setattr(name, base.getattr(name)?)?;
    }
    let mut methods = Methods::<OfTimer>::new();
    add_methods(&mut methods);
    methods.method(c"when", "", when, c"The deadline, in loop.time().");
    methods.getter(c"_when", |this| Ok(deadline(this)));
    methods.getter(c"_scheduled", |this| this.boolean(this.is_scheduled()));
    let doc = c"A callback scheduled for a time, see asyncio.TimerHandle.";
    let base = imports::timer_handle(py)?.cast::<PyType>()?;
    let timer = create_timer_type(py, c"oxloop._oxloop.TimerHandle", doc, base, methods)?;
    module.add("Handle", handle)?;
    module.add("TimerHandle", timer)
}

fn add_methods<A: Access<Target = Call>>(methods: &mut Methods<A>) {
    methods.procedure(c"cancel", "", cancel, c"Do not run the callback.");
    methods.method(c"cancelled", "", cancelled, c"True if cancel() was called.");
    methods.method(
        c"get_context",
        "",
        get_context,
        c"The context that the callback runs in.",
    );
    methods.getter(c"_cancelled", |this| this.boolean(this.is_cancelled()));
    methods.getter(c"_loop", |this| this.or_none(this.owner(this.py())));
    methods.getter(c"_context", |this| this.context().object(this.py()));
    methods.getter(c"_callback", |this| this.or_none(this.callback(this.py())));
    methods.getter(c"_args", |this| {
        this.or_none(this.arguments(this.py())?.map(Bound::into_any))
    });
    methods.getter(c"_source_traceback", |this| {
        traced(this, |trace| trace.source_traceback.as_ref())
    });
    methods.getter(c"_repr", |this| traced(this, |trace| trace.repr.as_ref()));
}

fn traced<'py>(
    this: &This<'_, 'py, Call>,
    field: impl Fn(&Trace) -> Option<&Py<PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let value = this.trace().and_then(field);
    this.or_none(value.map(|value| value.bind(this.py()).clone()))
}

/// `isinstance(handle, asyncio.Handle)` asks for this.
fn class_of_handle<'py>(this: &This<'_, 'py, Call>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    if cfg!(Py_3_14) && this.is_thread_safe() {
        return imports::asyncio_events(py)?.getattr(intern!(py, "_ThreadSafeHandle"));
    }
    imports::handle(py).cloned()
}

fn when<'py>(this: &This<'_, 'py, Call>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    args.none("when")?;
    Ok(deadline(this))
}

/// What the program gave as the time, or what was computed of it.
fn deadline<'py>(this: &This<'_, 'py, Call>) -> Bound<'py, PyAny> {
    let py = this.py();
    let given = this.trace().and_then(|trace| trace.when.as_ref());
    given.map_or_else(
        || PyFloat::new(py, this.timer_when()).into_any(),
        |when| when.bind(py).clone(),
    )
}

fn cancelled<'py>(this: &This<'_, 'py, Call>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    args.none("cancelled")?;
    wait_while_running_elsewhere(this)?;
    this.boolean(this.is_cancelled())
}

fn get_context<'py>(
    this: &This<'_, 'py, Call>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    args.none("get_context")?;
    this.context().object(this.py())
}

fn cancel(this: &This<'_, '_, Call>, args: Args<'_, '_>) -> PyResult<()> {
    args.none("cancel")?;
    let py = this.py();
    if !this.is_cancelled() {
        keep_repr(this)?;
        wait_while_running_elsewhere(this)?;
        let owner = this.owner(py);
        this.payload().cancel(py);
        if let Some(owner) = owner
            && this.is_scheduled()
        {
            timer_cancelled(&owner);
        }
    }
    Ok(())
}

/// Cancels a handle that the program never got: it sees it in debug mode's reports only.
///
/// # Errors
/// In debug mode, what the `repr` of its callback raises.
pub(crate) fn cancel_aloud(py: Python<'_>, handle: &HandleRef, debug: bool) -> PyResult<()> {
    if debug {
        return handle
            .object(py)
            .call_method0(intern!(py, "cancel"))
            .map(drop);
    }
    handle.cancel(py);
    Ok(())
}

/// In debug mode a cancelled handle can still show its callback.
fn keep_repr(this: &This<'_, '_, Call>) -> PyResult<()> {
    let py = this.py();
    let Some(owner) = this.owner(py) else {
        return Ok(());
    };
    if !asks_debug(&owner)? {
        return Ok(());
    }
    // asyncio words it after the cancellation, so that it says "cancelled" with the callback.
    let text = this.object().repr()?.to_string();
    let text = text.replacen("Handle ", "Handle cancelled ", 1);
    let repr = Some(text.into_pyobject(py)?.into_any().unbind());
    this.change_trace(py, |trace| trace.repr = repr);
    Ok(())
}

/// What the loop's `get_debug` says.
fn asks_debug(owner: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = owner.py();
    if let Ok(event_loop) = owner.cast::<EventLoop>()
        && !event_loop.get().state(py).settings.custom_get_debug.get()
    {
        return Ok(event_loop.get().state(py).is_debug());
    }
    owner.call_method0(intern!(py, "get_debug"))?.is_truthy()
}

/// The locks of threads that wait for a thread-safe handle's callback to end. When any such
/// callback ends, all are released, and each thread checks its own handle again.
static WAITERS: Mutex<Vec<Py<PyAny>>> = Mutex::new(Vec::new());
/// How many threads wait. With none, the end of a callback costs one load.
static WAITING: AtomicUsize = AtomicUsize::new(0);

fn waiters() -> MutexGuard<'static, Vec<Py<PyAny>>> {
    WAITERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From 3.14 on, `cancel()` and `cancelled()` of a thread-safe handle, called from another thread,
/// wait while its callback runs, so that it has ended when they return. They wait for a Python
/// lock, so that signal handlers run meanwhile; an exception of a handler ends the wait.
fn wait_while_running_elsewhere(this: &This<'_, '_, Call>) -> PyResult<()> {
    if !(cfg!(Py_3_14) && this.is_thread_safe() && this.is_running()) {
        return Ok(());
    }
    let py = this.py();
    let Some(owner) = this.owner(py) else {
        return Ok(());
    };
    if runs_in_this_thread(&owner)? {
        return Ok(());
    }
    while this.is_running() {
        let lock = imports::allocate_lock(py)?.call0()?;
        lock.call_method0(intern!(py, "acquire"))?;
        // This thread kept the GIL since the last check, unless a signal handler ran meanwhile.
        if !this.is_running() {
            break;
        }
        waiters().push(lock.clone().unbind());
        WAITING.fetch_add(1, Ordering::Relaxed);
        let released = lock.call_method0(intern!(py, "acquire"));
        let left = {
            let mut waiters = waiters();
            let index = waiters.iter().position(|own| own.is(&lock));
            index.map(|index| waiters.swap_remove(index))
        };
        drop(left);
        WAITING.fetch_sub(1, Ordering::Relaxed);
        released?;
    }
    Ok(())
}

/// A thread-safe handle's callback ended.
#[inline]
pub(crate) fn callback_ended(py: Python<'_>) {
    if cfg!(Py_3_14) && WAITING.load(Ordering::Relaxed) > 0 {
        release_waiters(py);
    }
}

#[cold]
fn release_waiters(py: Python<'_>) {
    let released = std::mem::take(&mut *waiters());
    for lock in released {
        if let Err(error) = lock.call_method0(py, intern!(py, "release")) {
            error.write_unraisable(py, Some(lock.bind(py)));
        }
    }
}
