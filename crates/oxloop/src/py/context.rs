//! Captures `contextvars` contexts without copying empty ones.
//!
//! A callback runs in the context that was current when it was scheduled. Copying that context
//! allocates an object that the collector tracks, and in most programs it is empty. So an empty
//! current context is stored as null, and the callback runs in an empty context from a pool of one.
//! If the callback sets a variable, the owner of the callback keeps that context, and the pool
//! makes another.
//!
//! To find the current context without copying it, `find_current` looks for its field in the thread
//! state at import, and tests the result with two contexts. If the test fails, every capture is a
//! real copy.
//!
//! Invariants:
//! - a pooled context is empty, not entered, and nobody else has a reference to it.
//! - every successful enter is followed by exactly one exit, on the same thread.

use super::class::{Visit, VisitStopped};
use super::object::release_anywhere;
use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// Byte offset of the current context in the thread state; 0 while unknown.
static CURRENT: AtomicUsize = AtomicUsize::new(0);

/// The pooled empty context. Touched only with the GIL held.
static POOL: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// How much of the thread state is looked at: less than the smallest one (288 bytes, 3.12).
const SEARCHED_WORDS: usize = 280 / size_of::<usize>();

/// A captured context; null stands for an empty one.
#[derive(Debug)]
#[repr(transparent)]
pub(crate) struct Captured(Cell<*mut ffi::PyObject>);

impl Captured {
    /// The current context, as of now.
    #[inline]
    pub(crate) fn current(py: Python<'_>) -> PyResult<Self> {
        if current_is_empty(py) {
            return Ok(Self(Cell::new(ptr::null_mut())));
        }
        // SAFETY: attached; the call returns a new reference or an error.
        let copy = unsafe { ffi::PyContext_CopyCurrent() };
        if copy.is_null() {
            return Err(PyErr::fetch(py));
        }
        Ok(Self(Cell::new(copy)))
    }

    /// The context that the caller chose.
    #[inline]
    pub(crate) fn given(context: &Bound<'_, PyAny>) -> Self {
        Self(Cell::new(context.clone().into_ptr()))
    }

    pub(crate) const fn empty() -> Self {
        Self(Cell::new(ptr::null_mut()))
    }

    /// An independent copy: each connection gets one of its server's context.
    pub(crate) fn copy(&self, py: Python<'_>) -> PyResult<Self> {
        let own = self.0.get();
        if own.is_null() {
            return Ok(Self::empty());
        }
        // SAFETY: `own` is an owned reference to a context.
        let copy = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_Copy(own))? };
        Ok(Self(Cell::new(copy.into_ptr())))
    }

    /// The context as an object; an empty one is made real, so that later runs use the same.
    pub(crate) fn object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        if self.0.get().is_null() {
            // SAFETY: attached; a new reference or an error.
            let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())? };
            self.0.set(made.into_ptr());
        }
        // SAFETY: the field owns a reference and is not null.
        Ok(unsafe { Bound::from_borrowed_ptr(py, self.0.get()) })
    }

    /// An object that was given as a context but is not one.
    pub(super) fn other<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the field owns a reference or is null.
        let own = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.0.get())? };
        // SAFETY: the object is alive.
        (unsafe { ffi::PyContext_CheckExact(own.as_ptr()) } == 0).then_some(own)
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        // SAFETY: the field owns a reference or is null, and a collector is running.
        unsafe { visit.raw(self.as_ptr()) }
    }

    pub(super) const fn as_ptr(&self) -> *mut ffi::PyObject {
        self.0.get()
    }

    /// Gives the reference up.
    pub(super) fn take(&self) -> *mut ffi::PyObject {
        self.0.replace(ptr::null_mut())
    }

    /// For a collector's `tp_clear`, or when the owner is done.
    pub(crate) fn clear(&self, py: Python<'_>) {
        let own = self.take();
        if !own.is_null() {
            // SAFETY: the field owned this reference.
            drop(unsafe { Bound::from_owned_ptr(py, own) });
        }
    }

    /// Runs `body` in this context.
    ///
    /// # Errors
    /// The RuntimeError of a context that is entered already, and what `body` raises.
    #[inline]
    pub(crate) fn run<R>(&self, py: Python<'_>, body: impl FnOnce() -> PyResult<R>) -> PyResult<R> {
        let entered = Entered::enter(py, self)?;
        let outcome = body();
        entered.exit(py, self);
        outcome
    }
}

impl Drop for Captured {
    fn drop(&mut self) {
        if let Some(own) = NonNull::new(self.take()) {
            // SAFETY: the field owned this reference.
            unsafe { release_anywhere(own) };
        }
    }
}

/// A context that this thread has entered.
pub(super) struct Entered {
    context: *mut ffi::PyObject,
    pooled: bool,
}

impl Entered {
    #[inline(always)]
    pub(super) fn enter(py: Python<'_>, captured: &Captured) -> PyResult<Self> {
        let own = captured.as_ptr();
        let entered = if own.is_null() {
            Self {
                context: take_pooled(py)?,
                pooled: true,
            }
        } else {
            Self {
                context: own,
                pooled: false,
            }
        };
        // SAFETY: `context` is a live object: owned here or by `captured`, which outlives the run.
        if unsafe { ffi::PyContext_Enter(entered.context) } < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(entered)
    }

    /// Leaves the context. A pooled one in which something was set becomes `captured`'s own.
    #[inline(always)]
    pub(super) fn exit(self, py: Python<'_>, captured: &Captured) {
        // SAFETY: `enter` entered this context on this thread.
        if unsafe { ffi::PyContext_Exit(self.context) } < 0 {
            PyErr::fetch(py).write_unraisable(py, None);
        }
        if !self.pooled {
            return;
        }
        // SAFETY: `context` is owned by this value and alive.
        let reusable = unsafe { ffi::Py_REFCNT(self.context) == 1 && is_empty(self.context) };
        if reusable && POOL.load(Ordering::Relaxed).is_null() {
            POOL.store(self.context, Ordering::Relaxed);
        } else if captured.as_ptr().is_null() {
            captured.0.set(self.context);
        } else {
            // SAFETY: the value owns this reference.
            drop(unsafe { Bound::from_owned_ptr(py, self.context) });
        }
    }
}

#[inline(always)]
fn take_pooled(py: Python<'_>) -> PyResult<*mut ffi::PyObject> {
    let pooled = POOL.load(Ordering::Relaxed);
    if !pooled.is_null() {
        POOL.store(ptr::null_mut(), Ordering::Relaxed);
        return Ok(pooled);
    }
    // SAFETY: attached; a new reference or an error.
    Ok(unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())? }.into_ptr())
}

/// # Safety
/// `context` is a live `contextvars.Context`.
#[inline(always)]
unsafe fn is_empty(context: *mut ffi::PyObject) -> bool {
    // SAFETY: Context is a mapping whose length slot only counts.
    unsafe {
        let mapping = (*ffi::Py_TYPE(context)).tp_as_mapping;
        let length = (*mapping)
            .mp_length
            .expect("invariant: Context has a length");
        length(context) == 0
    }
}

/// True if the current context is known to have nothing set.
#[inline(always)]
fn current_is_empty(_py: Python<'_>) -> bool {
    let offset = CURRENT.load(Ordering::Relaxed);
    if offset == 0 {
        return false;
    }
    // SAFETY: attached, so the thread state is this thread's own; `find_current` proved that the
    // word at `offset` is the current context or null.
    unsafe {
        let current = read_word(ffi::PyThreadState_Get(), offset / size_of::<usize>());
        current == 0 || is_empty(current as *mut ffi::PyObject)
    }
}

/// # Safety
/// `index` lies within the thread state.
#[inline(always)]
unsafe fn read_word(state: *mut ffi::PyThreadState, index: usize) -> usize {
    // SAFETY: as the caller promises; a thread state is aligned to words.
    unsafe { state.cast::<usize>().add(index).read_volatile() }
}

/// Finds where the thread state keeps the current context. Called once, at import.
pub(crate) fn find_current(py: Python<'_>) -> PyResult<()> {
    let first = words_equal_to_entered(py)?;
    let second = words_equal_to_entered(py)?;
    let common: Vec<usize> = first
        .into_iter()
        .filter(|index| second.contains(index))
        .collect();
    if let [index] = common[..] {
        CURRENT.store(index * size_of::<usize>(), Ordering::Relaxed);
    }
    Ok(())
}

/// Enters a new context and returns which words of the thread state point to it meanwhile.
fn words_equal_to_entered(py: Python<'_>) -> PyResult<Vec<usize>> {
    // SAFETY: attached; the context is owned by `context` until the end, and is entered and left on
    // this thread. Only words inside the thread state are read.
    unsafe {
        let state = ffi::PyThreadState_Get();
        let context = Bound::from_owned_ptr_or_err(py, ffi::PyContext_New())?;
        let address = context.as_ptr() as usize;
        if ffi::PyContext_Enter(context.as_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        let inside: Vec<usize> = (0..SEARCHED_WORDS)
            .filter(|index| read_word(state, *index) == address)
            .collect();
        if ffi::PyContext_Exit(context.as_ptr()) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(inside
            .into_iter()
            .filter(|index| read_word(state, *index) != address)
            .collect())
    }
}
