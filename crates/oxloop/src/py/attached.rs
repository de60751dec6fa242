//! `Attached<T>`: state that is used only while the thread is attached to Python.
//!
//! The loop's state is plain `Cell`s and `RefCell`s: one thread at a time runs Python code, and the
//! loop's own code runs only then. `Attached` makes that usable in classes, which PyO3 wants
//! `Sync`: the value can be reached only with a `Python` token.
//!
//! Invariants:
//! - no `RefCell` borrow obtained through it is alive across a call that can run Python code
//!   (a protocol's callback, a destructor, an allocation that may start a garbage collection).

use super::class::Visit;
use pyo3::Python;
#[cfg(debug_assertions)]
use pyo3::ffi;

/// A value that only an attached thread can reach.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Attached<T>(T);

// SAFETY: a `&T` is had from `get`, which wants a token, or from `during_collection`, which wants a
// visitor: either is had by an attached thread alone. Builds without a GIL are refused (`py`), so
// that no two threads are attached at once; and a `&T` cannot be carried into `Python::detach`,
// whose closure must be `Send`.
unsafe impl<T> Sync for Attached<T> {}
// SAFETY: PyO3 asks for `Send` of the classes and cells that an `Attached` is put into. The value
// moves in an attached thread alone, from `new` into its Python object or its cell, and is dropped
// by `tp_dealloc`, attached, if ever: no thread of ours is given one (the resolver's have Python
// references at most). Being attached, a thread sees what the one before has written, the counts
// of an `Rc` included, and neither Python references nor the reactor's objects belong to a thread.
// `Drop` looks in debug builds that this is so.
unsafe impl<T> Send for Attached<T> {}

impl<T> Attached<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value. The token proves that this thread is attached.
    #[inline(always)]
    pub(crate) const fn get(&self, _py: Python<'_>) -> &T {
        &self.0
    }

    /// The value, for the collector's `tp_traverse`, which runs attached but must not use a token:
    /// the visitor proves it.
    #[inline(always)]
    pub(crate) const fn during_collection<'a>(&'a self, _visit: &'a Visit<'_>) -> &'a T {
        &self.0
    }
}

#[cfg(debug_assertions)]
impl<T> Drop for Attached<T> {
    fn drop(&mut self) {
        // SAFETY: may be called at any time.
        let attached = unsafe { ffi::PyGILState_Check() };
        debug_assert!(attached != 0, "dropped by a thread that is not attached");
    }
}
