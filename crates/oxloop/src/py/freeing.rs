//! Freeing long chains of objects in a stack of fixed depth.
//!
//! A handle may be the last owner of another one, and that of a third: freeing such a chain would
//! need a few stack frames for each. CPython's own containers defer objects that are nested too
//! deeply, and from 3.14 on its deallocation checks the stack. Objects made here defer too, on
//! every version.
//!
//! Invariants:
//! - a deferred object is dead (nobody has a reference), not in the collector's lists and without
//!   weak references, so that nobody can reach it; it stays whole until it is freed.
//! - the outermost call on a thread returns when everything deferred inside it is freed.
//!
//! Cost: two accesses to thread-local memory, for objects that hold something when they die.

use pyo3::ffi;
use std::cell::{Cell, RefCell};

/// Objects that may be freed within each other.
const DEPTH_MOST: usize = 50;

/// Frees one object, which may let go of others.
pub(super) type Free = unsafe fn(*mut ffi::PyObject);

thread_local! {
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    static DEFERRED: RefCell<Vec<(*mut ffi::PyObject, Free)>> = const { RefCell::new(Vec::new()) };
}

/// Frees `object` now, or when the calls that lie around this one return.
///
/// # Safety
/// The thread is attached, `object` is dead and as the module's invariants say, and `free` frees
/// it.
pub(super) unsafe fn free_or_defer(object: *mut ffi::PyObject, free: Free) {
    let depth = DEPTH.get();
    if depth >= DEPTH_MOST {
        // The list is gone only while its thread ends, where nothing is that deep.
        if DEFERRED
            .try_with(|list| list.borrow_mut().push((object, free)))
            .is_ok()
        {
            return;
        }
    }
    DEPTH.set(depth + 1);
    // SAFETY: as the caller promises.
    unsafe { free(object) };
    if depth == 0 {
        while let Some((object, free)) = next_deferred() {
            // SAFETY: the object was deferred on the same promise, and is taken out just once.
            unsafe { free(object) };
        }
    }
    DEPTH.set(depth);
}

fn next_deferred() -> Option<(*mut ffi::PyObject, Free)> {
    DEFERRED
        .try_with(|list| list.borrow_mut().pop())
        .ok()
        .flatten()
}
