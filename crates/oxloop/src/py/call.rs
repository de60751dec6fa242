//! `Call`: a callback with its arguments and its context; part of every kind of handle.
//!
//! The arguments are stored behind the struct, so scheduling allocates once, whatever their number.
//!
//! Invariants:
//! - `callback`, the arguments and the loop are owned while the call is pending or running. They
//!   are released when it has run or was cancelled, not only when the handle dies. So a handle that
//!   an object keeps keeps neither that object nor the loop alive, in a cycle that the collector
//!   could not see.
//! - while RUNNING is set, nothing of the call is released; cancelling it then only sets a flag.

use super::class::{Visit, VisitStopped};
use super::context::{Captured, Entered};
use super::interpreter_exit;
use pyo3::ffi;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use std::cell::Cell;
use std::ptr;

const CANCELLED: u8 = 1;
const RUNNING: u8 = 1 << 1;
/// The call sits in the loop's timer heap.
const SCHEDULED: u8 = 1 << 2;
/// Made by `call_soon_threadsafe`.
const THREAD_SAFE: u8 = 1 << 3;
/// Runs once per event (a watcher's, a signal's): not released after a run.
const REPEATING: u8 = 1 << 4;
/// The collector was told of the object.
const TRACKED: u8 = 1 << 5;

/// What only few handles have: what asyncio keeps for debug mode, and a time that is not a plain
/// float.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) source_traceback: Option<Py<PyAny>>,
    pub(crate) repr: Option<Py<PyAny>>,
    /// What `call_at` was given.
    pub(crate) when: Option<Py<PyAny>>,
}

impl Trace {
    fn copy(&self, py: Python<'_>) -> Self {
        let copy = |object: &Option<Py<PyAny>>| object.as_ref().map(|it| it.clone_ref(py));
        Self {
            source_traceback: copy(&self.source_traceback),
            repr: copy(&self.repr),
            when: copy(&self.when),
        }
    }
}

#[derive(Debug)]
#[repr(C)]
pub(crate) struct Call {
    callback: Cell<*mut ffi::PyObject>,
    context: Captured,
    /// The loop, owned; null once the callback ran or was cancelled.
    owner: Cell<*mut ffi::PyObject>,
    trace: Cell<*mut Trace>,
    /// A byte: a wider load just after the store of one of its bytes would have to wait for that
    /// store.
    flags: Cell<u8>,
    /// The object is a timer handle. No flag: a reference that is dropped without the GIL reads it.
    is_timer: bool,
    count: u32,
    arguments: [*mut ffi::PyObject; 0],
}

impl Call {
    /// Fills the memory behind `call`, which has room for `arguments`.
    ///
    /// # Safety
    /// `call` is writable for the struct and that many pointers; the pointers are live objects.
    #[inline(always)]
    pub(super) unsafe fn fill(
        call: *mut Self,
        owner: *mut ffi::PyObject,
        callback: *mut ffi::PyObject,
        arguments: &[*mut ffi::PyObject],
        context: Captured,
        is_timer: bool,
    ) {
        // SAFETY: as the caller promises; every pointer stored gets a reference of its own.
        unsafe {
            call.write(Self {
                callback: Cell::new(ffi::Py_NewRef(callback)),
                context,
                owner: Cell::new(ffi::Py_NewRef(owner)),
                trace: Cell::new(ptr::null_mut()),
                flags: Cell::new(0),
                is_timer,
                count: arguments.len() as u32,
                arguments: [],
            });
            let first = (&raw mut (*call).arguments).cast::<*mut ffi::PyObject>();
            for (index, argument) in arguments.iter().enumerate() {
                first.add(index).write(ffi::Py_NewRef(*argument));
            }
        }
    }

    #[inline(always)]
    fn has(&self, flag: u8) -> bool {
        self.flags.get() & flag != 0
    }

    #[inline(always)]
    fn set(&self, flag: u8) {
        self.flags.set(self.flags.get() | flag);
    }

    #[inline(always)]
    pub(crate) fn is_cancelled(&self) -> bool {
        self.has(CANCELLED)
    }

    /// True if the collector may have the object in its lists.
    #[inline(always)]
    pub(super) fn was_tracked(&self) -> bool {
        self.has(TRACKED)
    }

    pub(super) fn set_tracked(&self) {
        self.set(TRACKED);
    }

    pub(crate) fn is_running(&self) -> bool {
        self.has(RUNNING)
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        self.has(SCHEDULED)
    }

    pub(crate) fn set_scheduled(&self, scheduled: bool) {
        let others = self.flags.get() & !SCHEDULED;
        self.flags.set(if scheduled {
            others | SCHEDULED
        } else {
            others
        });
    }

    pub(crate) fn is_thread_safe(&self) -> bool {
        self.has(THREAD_SAFE)
    }

    pub(crate) fn set_thread_safe(&self) {
        self.set(THREAD_SAFE);
    }

    pub(crate) fn set_repeating(&self) {
        self.set(REPEATING);
    }

    /// What follows a run: a call that runs once releases what it holds.
    #[inline(always)]
    pub(crate) fn ran(&self, py: Python<'_>) {
        if !self.has(REPEATING) || self.is_cancelled() {
            self.release(py);
        }
    }

    #[inline(always)]
    pub(crate) const fn is_timer(&self) -> bool {
        self.is_timer
    }

    pub(super) const fn count(&self) -> usize {
        self.count as usize
    }

    pub(crate) const fn context(&self) -> &Captured {
        &self.context
    }

    /// The loop that the handle belongs to, or None once the callback ran or was cancelled.
    pub(crate) fn owner<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the field owns a reference or is null.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, self.owner.get()) }
    }

    /// The callback, or None once it ran or was cancelled, even if it runs still.
    pub(crate) fn callback<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        if self.is_cancelled() {
            return None;
        }
        // SAFETY: the field owns a reference or is null.
        unsafe { Bound::from_borrowed_ptr_or_opt(py, self.callback.get()) }
    }

    #[inline(always)]
    fn arguments_ptr(&self) -> *const *mut ffi::PyObject {
        // Through the address of `self` and not of the zero-length field, whose provenance would
        // not reach the arguments behind it.
        ptr::from_ref(self).wrapping_add(1).cast()
    }

    /// The arguments, as long as there is a callback.
    pub(crate) fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyTuple>>> {
        if self.is_cancelled() || self.is_released() {
            return Ok(None);
        }
        let first = self.arguments_ptr();
        let items = (0..self.count()).map(|index| {
            // SAFETY: `count` arguments lie behind the struct, owned while `callback` is set.
            unsafe { Bound::from_borrowed_ptr(py, *first.add(index)) }
        });
        PyTuple::new(py, items.collect::<Vec<_>>()).map(Some)
    }

    /// Runs the callback in its context, without releasing anything.
    ///
    /// # Errors
    /// What the callback raised, or the context that could not be entered. Boxed: an outcome that
    /// is wider than a register is copied, and the copy waits for the parts to be written.
    #[inline(always)]
    pub(crate) fn run(&self, py: Python<'_>) -> Result<(), Box<PyErr>> {
        let entered = match Entered::enter(py, &self.context) {
            Ok(entered) => entered,
            Err(error) => return self.run_in_other(py, error).map_err(Box::new),
        };
        self.set(RUNNING);
        // SAFETY: the callback and `count` arguments are owned and not released while RUNNING.
        let result = unsafe {
            interpreter_exit::vectorcall(
                self.callback.get(),
                self.arguments_ptr(),
                self.count(),
                ptr::null_mut(),
            )
        };
        let outcome = if result.is_null() {
            raised(py)
        } else {
            // SAFETY: a vectorcall returns a new reference.
            unsafe { ffi::Py_DECREF(result) };
            Ok(())
        };
        entered.exit(py, &self.context);
        self.flags.set(self.flags.get() & !RUNNING);
        outcome
    }

    /// The context could not be entered. What is none of `contextvars` has a `run` of its own, or
    /// the error is that it has none, as in asyncio.
    #[cold]
    fn run_in_other(&self, py: Python<'_>, error: PyErr) -> PyResult<()> {
        let Some(context) = self.context.other(py) else {
            return Err(error);
        };
        let callback = self.callback(py).into_iter();
        let arguments = self.arguments(py)?;
        let items = callback.chain(arguments.iter().flatten());
        let arguments = PyTuple::new(py, items.collect::<Vec<_>>())?;
        self.set(RUNNING);
        let outcome = context
            .getattr(intern!(py, "run"))
            .and_then(|run| run.call1(arguments));
        self.flags.set(self.flags.get() & !RUNNING);
        outcome.map(drop)
    }

    /// Marks the call cancelled; false if it was already.
    pub(crate) fn cancel(&self, py: Python<'_>) -> bool {
        if self.is_cancelled() {
            return false;
        }
        self.set(CANCELLED);
        if !self.has(RUNNING) {
            self.release(py);
        }
        true
    }

    /// True if callback, arguments, context and loop are released.
    #[inline(always)]
    pub(super) const fn is_released(&self) -> bool {
        self.callback.get().is_null()
    }

    /// Releases callback, arguments, context and loop: the call will not run (again).
    #[inline(always)]
    pub(crate) fn release(&self, py: Python<'_>) {
        let callback = self.callback.replace(ptr::null_mut());
        if callback.is_null() {
            return;
        }
        let first = self.arguments_ptr();
        // SAFETY: the call owned the callback and each argument, and `callback` is null now, so
        // nobody releases them again, even if a destructor comes back here.
        unsafe {
            ffi::Py_DECREF(callback);
            for index in 0..self.count() {
                ffi::Py_DECREF(*first.add(index));
            }
        }
        let context = self.context.take();
        if !context.is_null() {
            // SAFETY: the field owned this reference.
            drop(unsafe { Bound::from_owned_ptr(py, context) });
        }
        let owner = self.owner.replace(ptr::null_mut());
        // SAFETY: the field owned this reference, as `callback` was not null.
        unsafe { ffi::Py_DECREF(owner) };
    }

    pub(crate) fn trace(&self) -> Option<&Trace> {
        let trace = self.trace.get();
        // SAFETY: a non-null trace is a leaked box that only `finish` frees.
        (!trace.is_null()).then(|| unsafe { &*trace })
    }

    /// Changes what few handles have.
    #[cold]
    pub(crate) fn change_trace(&self, py: Python<'_>, change: impl FnOnce(&mut Trace)) {
        let mut trace = self.trace().map_or_else(Trace::default, |old| old.copy(py));
        change(&mut trace);
        let old = self.trace.replace(Box::into_raw(Box::new(trace)));
        if !old.is_null() {
            // SAFETY: `old` came from a box, and no borrow of it outlives a statement of ours.
            drop(unsafe { Box::from_raw(old) });
        }
    }

    /// Releases everything; the handle is dying.
    #[inline(always)]
    pub(super) fn finish(&self, py: Python<'_>) {
        self.release(py);
        let context = self.context.take();
        if !context.is_null() {
            // SAFETY: the field owned this reference.
            drop(unsafe { Bound::from_owned_ptr(py, context) });
        }
        let trace = self.trace.replace(ptr::null_mut());
        if !trace.is_null() {
            // SAFETY: a non-null trace came from a box.
            drop(unsafe { Box::from_raw(trace) });
        }
    }

    /// Shows the collector what the call owns.
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        // SAFETY: every pointer is null or owned; arguments are owned while `callback` is set.
        unsafe {
            visit.raw(self.owner.get())?;
            visit.raw(self.context.as_ptr())?;
            if let Some(trace) = self.trace() {
                visit.option(trace.source_traceback.as_ref())?;
                visit.option(trace.repr.as_ref())?;
                visit.option(trace.when.as_ref())?;
            }
            let callback = self.callback.get();
            if callback.is_null() {
                return Ok(());
            }
            visit.raw(callback)?;
            let first = self.arguments_ptr();
            (0..self.count()).try_for_each(|index| visit.raw(*first.add(index)))
        }
    }
}

#[cold]
fn raised(py: Python<'_>) -> Result<(), Box<PyErr>> {
    Err(Box::new(PyErr::fetch(py)))
}
