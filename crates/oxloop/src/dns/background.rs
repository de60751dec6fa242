//! Lookups on resolver threads, and how their results come back.
//!
//! The coroutine waits for a future; the thread schedules the future's result as
//! `call_soon_threadsafe` does. Dropping the `Pending` (its task was cancelled, or the coroutine
//! closed) cancels the lookup: no result is delivered any more, though the thread may go on waiting
//! for the C library.
//!
//! Invariants:
//! - a result that arrives after the loop was closed is dropped silently.
//! - the resolver's threads hold the GIL only to deliver a result or to run a Python function.

use super::answer;
use super::native::NativeQuestion;
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::schedule::soon_from_thread;
use crate::py::coroutine::await_python;
use crate::py::object::call_with_tuple;
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple};
use reactor::resolver::{Job, SubmitError, Ticket};

/// A lookup that is under way.
pub(super) struct Pending {
    /// Taken by `wait`.
    future: Option<Py<PyAny>>,
    ticket: Ticket,
}

impl Pending {
    /// # Errors
    /// The lookup's own, and what the task throws in.
    pub(super) async fn wait(mut self) -> PyResult<Py<PyAny>> {
        // Not kept here: the collector has to see every reference to what a coroutine awaits.
        let future = self.future.take();
        await_python(future.expect("invariant: only wait takes the future, and self")).await
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        // Too late is fine: then the result was delivered.
        let _in_time = self.ticket.cancel();
    }
}

/// Looks a name up without Python.
pub(super) fn look_up(this: &Bound<'_, EventLoop>, question: NativeQuestion) -> PyResult<Pending> {
    let future = this.call_method0(intern!(this.py(), "create_future"))?;
    let answering = Answering::new(this, &future);
    let job = Job::new(
        move || question.look_up(),
        move |found| {
            answering.deliver(|py| match found {
                Ok(found) => answer::to_python(py, &found),
                Err(error) => Err(answer::to_error(py, error)),
            });
        },
    );
    submit(this, &future, job)
}

/// Calls a blocking Python function.
pub(super) fn call_in_thread<'py>(
    this: &Bound<'py, EventLoop>,
    function: &Bound<'py, PyAny>,
    arguments: Bound<'py, PyTuple>,
) -> PyResult<Pending> {
    let future = this.call_method0(intern!(this.py(), "create_future"))?;
    let answering = Answering::new(this, &future);
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
                answering.deliver(|_py| outcome);
            }
        },
    );
    submit(this, &future, job)
}

fn submit(this: &Bound<'_, EventLoop>, future: &Bound<'_, PyAny>, job: Job) -> PyResult<Pending> {
    let resolver = this.get().state(this.py()).resolver();
    let resolver = resolver.map_err(|error| os_error(&error))?;
    let jobs = &this.get().state(this.py()).metrics().jobs;
    match resolver.submit(job) {
        Ok(ticket) => {
            jobs.lookups_begun.add(1);
            Ok(Pending {
                future: Some(future.clone().unbind()),
                ticket,
            })
        }
        Err(error @ (SubmitError::Spawn(_) | SubmitError::Closed)) => {
            Err(PyRuntimeError::new_err(error.to_string()))
        }
    }
}

/// The receiver of a thread's result.
struct Answering {
    /// The loop, and the future that is waited for; taken by `deliver` or by the end.
    to: Option<(Py<EventLoop>, Py<PyAny>)>,
}

impl Answering {
    fn new(this: &Bound<'_, EventLoop>, future: &Bound<'_, PyAny>) -> Self {
        Self {
            to: Some((this.clone().unbind(), future.clone().unbind())),
        }
    }

    fn deliver(mut self, outcome: impl FnOnce(Python<'_>) -> PyResult<Py<PyAny>>) {
        let _delivered = Python::try_attach(move |py| {
            let Some((event_loop, future)) = self.to.take() else {
                return;
            };
            count_ended(py, &event_loop);
            let (name, value) = match outcome(py) {
                Ok(value) => (intern!(py, "set_result"), value),
                Err(error) => (
                    intern!(py, "set_exception"),
                    error.into_value(py).into_any(),
                ),
            };
            let arguments: [&Bound<'_, PyAny>; 3] =
                [future.bind(py), name.as_any(), value.bind(py)];
            let scheduled = settler(py)
                .and_then(|settle| soon_from_thread(event_loop.bind(py), settle, &arguments));
            if let Err(error) = scheduled {
                error.write_unraisable(py, None);
            }
        });
    }
}

impl Drop for Answering {
    /// A lookup that was cancelled: its references are released now, not when this thread attaches
    /// again.
    fn drop(&mut self) {
        if let Some((event_loop, future)) = self.to.take() {
            let _dropped = Python::try_attach(move |py| {
                count_ended(py, &event_loop);
                drop((event_loop, future));
            });
        }
    }
}

fn count_ended(py: Python<'_>, event_loop: &Py<EventLoop>) {
    let jobs = &event_loop.get().state(py).metrics().jobs;
    jobs.lookups_ended.add(1);
}

/// The function that gives a future its outcome, unless it was cancelled.
fn settler(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    #[pyfunction]
    fn _settle(
        future: &Bound<'_, PyAny>,
        name: &Bound<'_, PyString>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if future.call_method0("done")?.is_truthy()? {
            return Ok(());
        }
        future.call_method1(name, (value,)).map(drop)
    }
    static CELL: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let function = CELL.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(_settle, py)?.into_any().unbind())
    })?;
    Ok(function.bind(py))
}
