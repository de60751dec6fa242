//! `Lookups`: the name lookups that are under way in threads, and how their results come back.
//!
//! A thread gives its plain result to the loop's mailbox, with the lookup's token. The loop's
//! thread takes what has arrived once a turn and behind each wait, and `call_soon_threadsafe` takes
//! it before it schedules. It makes Python objects of a result, and schedules the future's end as
//! `call_soon_threadsafe` would: the future ends in a callback of its own.
//!
//! Invariants:
//! - what a thread holds leads to no Python object; the loop owns the futures, and the collector
//!   sees them.
//! - a result for a lookup that was forgotten (cancelled, or the loop was closed) is dropped.
//! - results are scheduled in the order in which they arrived, behind what is queued by then.
//!
//! Cost: a load each turn; for a result, a lock and a handle.

use super::schedule::soon_from_thread;
use super::{EventLoop, State};
use crate::py::class::{Visit, VisitStopped};
use crate::py::future::is_done;
use crate::py::object::call_method;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;
use reactor::mailbox::Mailbox;
use reactor::resolver::{AddrInfo, ResolveError};
use reactor::token::{Registry, Token};
use std::cell::{Cell, RefCell};
use std::io;
use std::sync::Arc;

/// What a thread found.
pub(crate) type Found = Result<Vec<AddrInfo>, ResolveError>;

/// Where threads put what they found.
pub(crate) type Answers = Mailbox<(Token, Found)>;

/// A lookup that somebody waits for.
pub(crate) struct Lookup {
    pub(crate) future: Py<PyAny>,
    /// Converts what was found.
    pub(crate) outcome: fn(Python<'_>, Found) -> PyResult<Py<PyAny>>,
}

/// The lookups that somebody waits for.
#[derive(Default)]
pub(crate) struct Lookups {
    expected: RefCell<Registry<Lookup>>,
    /// True while there is one: else nobody looks into the mailbox, or waits for it.
    pub(super) any: Cell<bool>,
}

impl Lookups {
    /// For the collector; left out while borrowed, see `State::traverse`.
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let Ok(lookups) = self.expected.try_borrow() else {
            return Ok(());
        };
        lookups
            .iter()
            .try_for_each(|(_, lookup)| visit.object(&lookup.future))
    }

    /// Forgets all of them.
    pub(super) fn release(&self) {
        self.any.set(false);
        let lookups = self.expected.take();
        drop(lookups);
    }

    fn insert(&self, lookup: Lookup) -> Token {
        self.any.set(true);
        self.expected.borrow_mut().insert(lookup)
    }

    fn remove(&self, token: Token) -> Option<Lookup> {
        let mut expected = self.expected.borrow_mut();
        let lookup = expected.remove(token);
        self.any.set(!expected.is_empty());
        lookup
    }
}

impl State {
    /// A lookup begins: its token, and where its result goes.
    ///
    /// # Errors
    /// In the child of a fork, as `leave_parent`.
    pub(crate) fn lookup_begins(&self, lookup: Lookup) -> io::Result<(Token, Arc<Answers>)> {
        self.leave_parent()?;
        let token = self.lookups.insert(lookup);
        // A loop that waits, while another thread begins this, has to learn of the mailbox.
        self.wake();
        Ok((token, Arc::clone(&self.waker.answers.borrow())))
    }

    /// Nobody waits for the lookup any more.
    pub(crate) fn forget_lookup(&self, token: Token) {
        drop(self.lookups.remove(token));
    }

    /// Schedules the ends of the futures whose results have arrived.
    #[inline(always)]
    pub(super) fn look_for_answers(&self, owner: &Bound<'_, PyAny>) {
        if self.lookups.any.get()
            && !self.waker.answers.borrow().is_empty()
            && let Ok(this) = owner.cast::<EventLoop>()
        {
            schedule_ends(this, self);
        }
    }
}

#[inline(never)]
fn schedule_ends(this: &Bound<'_, EventLoop>, state: &State) {
    if state.leave_parent().is_err() {
        // The next poll raises it.
        return;
    }
    let arrived = state.waker.answers.borrow().take();
    for (token, found) in arrived {
        if let Some(Lookup { future, outcome }) = state.lookups.remove(token) {
            end_soon(this, future.bind(this.py()), outcome(this.py(), found));
        }
    }
}

/// Schedules that the future ends, unless it was cancelled by then.
pub(crate) fn end_soon(
    this: &Bound<'_, EventLoop>,
    future: &Bound<'_, PyAny>,
    outcome: PyResult<Py<PyAny>>,
) {
    let py = this.py();
    let (name, value) = match outcome {
        Ok(value) => (intern!(py, "set_result"), value),
        Err(error) => (
            intern!(py, "set_exception"),
            error.into_value(py).into_any(),
        ),
    };
    let arguments: [&Bound<'_, PyAny>; 3] = [future, name.as_any(), value.bind(py)];
    let scheduled = settler(py).and_then(|settle| soon_from_thread(this, settle, &arguments));
    if let Err(error) = scheduled {
        error.write_unraisable(py, None);
    }
}

/// The function that gives a future its outcome, unless it was cancelled.
fn settler(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    #[pyfunction]
    fn _settle(
        future: &Bound<'_, PyAny>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if is_done(future)? {
            return Ok(());
        }
        call_method(future, name, &[value]).map(drop)
    }
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let function = CELL.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(_settle, py)?.into_any().unbind())
    })?;
    Ok(function.bind(py))
}
