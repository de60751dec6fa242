//! `Held`: an object that the loop serves, and the `Kind` that says how.
//!
//! The loop does not know what transports, servers and child processes are: each gives it a table
//! of functions. An event costs one indirect call, and sending what a callback wrote another one.

use super::registrations::Registration;
use crate::py::class::{Visit, VisitStopped};
use pyo3::prelude::*;
use pyo3::types::{PyWeakrefMethods, PyWeakrefReference};
use reactor::poller::Event;
use reactor::token::Token;

/// What the loop asks of an object.
pub(crate) struct Kind {
    /// The kernel has an event: it is served at once, or, if the flag is
    /// set, by a handle behind what is queued.
    pub(crate) on_event: fn(&Bound<'_, PyAny>, Event, bool) -> PyResult<()>,
    /// What a new epoll instance must be told.
    pub(crate) registration: fn(&Bound<'_, PyAny>, Token) -> Option<Registration>,
    /// Sends what the callback that has just run wrote.
    pub(crate) flush: fn(&Bound<'_, PyAny>),
    /// The loop is closed.
    pub(crate) loop_closed: fn(&Bound<'_, PyAny>) -> PyResult<()>,
    /// What concerns the number of a transport's descriptor; None of what is no transport.
    pub(crate) transport: Option<TransportKind>,
    /// Its event is always a handle of its own making.
    pub(crate) queues_handles: bool,
    /// The child of a fork has it too.
    pub(crate) is_inherited: bool,
}

/// What the loop asks of a transport whose number somebody else wants to use.
pub(crate) struct TransportKind {
    pub(crate) is_closing: fn(&Bound<'_, PyAny>) -> bool,
    /// False if the program closed the socket or file under the transport: its number is free then.
    /// Raises what the object's own `fileno()` raises.
    pub(crate) has_descriptor: fn(&Bound<'_, PyAny>) -> PyResult<bool>,
    /// Tells a transport without a descriptor that its number has a new user.
    pub(crate) descriptor_lost: fn(&Bound<'_, PyAny>) -> PyResult<()>,
}

impl Kind {
    /// Of an object that nothing is asked of, to be completed.
    pub(crate) const NONE: Self = Self {
        on_event: |_, _, _| Ok(()),
        registration: |_, _| None,
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
