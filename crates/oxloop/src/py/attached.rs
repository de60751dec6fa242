//! `Attached<T>`: state that is used only while the thread is attached to Python.
//!
//! The loop's state is plain `Cell`s and `RefCell`s: one thread at a time runs Python code, and the
//! loop's own code runs only then. `Attached` makes that usable in classes, which PyO3 wants
//! `Sync`: the value can be reached only with a `Python` token.
//!
//! Invariants:
//! - no `RefCell` borrow obtained through it is alive across a call that can run Python code
//!   (a protocol's callback, a destructor, an allocation that may start a garbage collection).

use pyo3::Python;

/// A value that only an attached thread can reach.
#[derive(Debug, Default)]
#[repr(transparent)]
pub(crate) struct Attached<T>(T);

// SAFETY: the value is reached through `get` alone, which wants a token of the attached thread; the
// module declares `gil_used`, so no two threads are attached at once, and a `&T` cannot be carried
// into `Python::detach`, whose closure must be `Send`.
unsafe impl<T> Sync for Attached<T> {}
// SAFETY: as above: moving the value between threads happens only with the GIL held, and what it
// holds (Python references, reactor objects) has no thread affinity of its own.
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

    /// The value, for the collector's `tp_traverse`, which runs attached but must not use a token.
    #[inline(always)]
    pub(crate) const fn during_collection(&self) -> &T {
        &self.0
    }
}
