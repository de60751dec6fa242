//! Lookups on resolver threads, and how their results come back.
//!
//! The coroutine waits for a future; its end is scheduled as `call_soon_threadsafe` would. Dropping
//! the `Pending` (its task was cancelled, or the coroutine closed) cancels the lookup: no result is
//! delivered any more, though the thread may go on waiting for the C library.
//!
//! Invariants:
//! - a result that arrives after the loop was closed is dropped silently.
//! - the resolver's threads hold the GIL only for a Python function: to run it and to deliver its
//!   result. What the C library found goes to the loop without it (see `event_loop::lookups`).

use super::answer;
use super::native::NativeQuestion;
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::lookups::{Lookup, end_soon};
use crate::py::coroutine::await_python;
use crate::py::object::call_with_tuple;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use reactor::resolver::{Job, SubmitError, Ticket};
use reactor::token::Token;

/// A lookup that is under way.
pub(super) struct Pending<'a> {
    /// Taken by `wait`.
    future: Option<Py<PyAny>>,
    ticket: Ticket,
    /// None if a Python function is called.
    _expected: Option<Expected<'a>>,
}

impl Pending<'_> {
    /// # Errors
    /// The lookup's own, and what the task throws in.
    pub(super) async fn wait(mut self) -> PyResult<Py<PyAny>> {
        // Not kept here: the collector has to see every reference to what a coroutine awaits.
        let future = self.future.take();
        await_python(future.expect("invariant: only wait takes the future, and self")).await
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        // Too late is fine: then the result was delivered.
        let _in_time = self.ticket.cancel();
    }
}

/// The loop expects a result for the future until this is dropped.
struct Expected<'a> {
    event_loop: &'a Py<EventLoop>,
    token: Token,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        let _forgotten = Python::try_attach(|py| {
            self.event_loop.get().state(py).forget_lookup(self.token);
        });
    }
}

/// Looks a name up without Python.
pub(super) fn look_up<'a>(
    py: Python<'_>,
    this: &'a Py<EventLoop>,
    question: NativeQuestion,
) -> PyResult<Pending<'a>> {
    let future = this.call_method0(py, intern!(py, "create_future"))?;
    let lookup = Lookup {
        future: future.clone_ref(py),
        outcome: answer::outcome,
    };
    let begun = this.get().state(py).lookup_begins(lookup);
    let (token, answers) = begun.map_err(|error| os_error(&error))?;
    let expected = Expected {
        event_loop: this,
        token,
    };
    let job = Job::new(
        move || question.look_up(),
        move |found| answers.give((token, found)),
    );
    Ok(Pending {
        future: Some(future),
        ticket: submit(py, this, job)?,
        _expected: Some(expected),
    })
}

/// Calls a blocking Python function.
pub(super) fn call_in_thread<'a>(
    this: &'a Py<EventLoop>,
    function: &Bound<'_, PyAny>,
    arguments: Bound<'_, PyTuple>,
) -> PyResult<Pending<'a>> {
    let py = function.py();
    let future = this.call_method0(py, intern!(py, "create_future"))?;
    let answering = Answering {
        to: Some((this.clone_ref(py), future.clone_ref(py))),
    };
    let (function, arguments) = (function.clone().unbind(), arguments.unbind());
    // None: the interpreter is about to end, and nobody waits any more.
    let job = Job::new(
        move || {
            Python::try_attach(move |py| {
                call_with_tuple(function.bind(py), arguments.bind(py)).map(Bound::unbind)
            })
        },
        move |outcome| {
            if let Some(outcome) = outcome {
                answering.deliver(outcome);
            }
        },
    );
    Ok(Pending {
        future: Some(future),
        ticket: submit(py, this, job)?,
        _expected: None,
    })
}

fn submit(py: Python<'_>, this: &Py<EventLoop>, job: Job) -> PyResult<Ticket> {
    let resolver = this.get().state(py).resolver();
    let resolver = resolver.map_err(|error| os_error(&error))?;
    resolver
        .submit(job)
        .map_err(|error @ (SubmitError::Spawn(_) | SubmitError::Closed)| {
            PyRuntimeError::new_err(error.to_string())
        })
}

/// The receiver of a Python function's result.
struct Answering {
    /// The loop, and the future that is waited for; taken by `deliver` or by the end.
    to: Option<(Py<EventLoop>, Py<PyAny>)>,
}

impl Answering {
    fn deliver(mut self, outcome: PyResult<Py<PyAny>>) {
        let _delivered = Python::try_attach(move |py| {
            if let Some((event_loop, future)) = self.to.take() {
                end_soon(event_loop.bind(py), future.bind(py), outcome);
            }
        });
    }
}

impl Drop for Answering {
    /// A lookup that was cancelled: its references are released now, not when this thread attaches
    /// again.
    fn drop(&mut self) {
        let to = self.to.take();
        if to.is_some() {
            let _dropped = Python::try_attach(move |_py| drop(to));
        }
    }
}
