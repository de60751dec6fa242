//! `Held`: an object that the loop serves, and its `Kind`: a table of functions.
//!
//! The loop does not know the types of transports, servers and child processes; each gives it such
//! a table. An event costs one indirect call, and sending what was written costs another.

use super::registration::Renewal;
use super::snapshot::Backlog;
use crate::py::class::{Visit, VisitStopped};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use reactor::poller::Event;
use reactor::token::Token;

/// What the loop calls on an object.
pub(crate) struct Kind {
    /// Serves an event of the kernel: at once or, if the flag is set, by a handle that is queued.
    pub(crate) on_event: fn(&Bound<'_, PyAny>, Event, bool) -> PyResult<()>,
    /// What a new epoll instance must be told.
    pub(crate) renewal: fn(&Bound<'_, PyAny>, Token) -> Option<Renewal>,
    /// Sends what was written.
    pub(crate) flush: fn(&Bound<'_, PyAny>),
    /// The loop is closed.
    pub(crate) loop_closed: fn(&Bound<'_, PyAny>) -> PyResult<()>,
    /// The functions that only transports have; None for other objects.
    pub(crate) transport: Option<TransportKind>,
    /// True if its events always queue a handle.
    pub(crate) queues_handles: bool,
    /// True if the child of a fork goes on using it.
    pub(crate) is_inherited: bool,
}

/// What the loop calls on a transport whose descriptor number somebody else wants to use.
pub(crate) struct TransportKind {
    /// True if its number is free for others: it is closing, or the program closed the socket or
    /// file under it. Raises what the object's own `fileno()` raises.
    pub(crate) has_freed_number: fn(&Bound<'_, PyAny>) -> PyResult<bool>,
    /// Its number gets another user: a transport that lost its descriptor ends, and one that is
    /// closing goes on with a duplicate. Raises what either raises.
    pub(crate) number_taken: fn(&Bound<'_, PyAny>) -> PyResult<()>,
    /// What it has queued.
    pub(crate) backlog: fn(&Bound<'_, PyAny>) -> Backlog,
}

impl Kind {
    /// A table of functions that do nothing, to be completed.
    pub(crate) const NONE: Self = Self {
        on_event: |_, _, _| Ok(()),
        renewal: |_, _| None,
        flush: |_| (),
        loop_closed: |_| Ok(()),
        transport: None,
        queues_handles: false,
        is_inherited: true,
    };
}

/// An object, or a weak reference to it, and its kind.
pub(crate) struct Held {
    pub(crate) object: Py<PyAny>,
    pub(crate) kind: &'static Kind,
}

impl Held {
    #[inline]
    pub(super) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            object: self.object.clone_ref(py),
            kind: self.kind,
        }
    }

    /// The same with a weak reference in place of the object.
    ///
    /// # Errors
    /// MemoryError.
    pub(crate) fn downgrade(self, py: Python<'_>) -> PyResult<Self> {
        let object = PyWeakrefReference::new(self.object.bind(py))?;
        Ok(Self {
            object: object.into_any().unbind(),
            kind: self.kind,
        })
    }

    /// The same with the object in place of a weak reference, while it lives.
    #[inline]
    pub(super) fn upgrade(&self, py: Python<'_>) -> Option<Self> {
        let weak = self.object.bind(py).cast::<PyWeakrefReference>().ok()?;
        Some(Self {
            object: weak.upgrade()?.unbind(),
            kind: self.kind,
        })
    }

    #[inline]
    pub(super) fn on_event(self, py: Python<'_>, event: Event, queue: bool) -> PyResult<()> {
        (self.kind.on_event)(&self.object.into_bound(py), event, queue)
    }

    /// Sends what was written.
    #[inline]
    pub(super) fn flush(self, py: Python<'_>) {
        (self.kind.flush)(&self.object.into_bound(py));
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.object)
    }
}
