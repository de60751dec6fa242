//! `serve_forever` and `wait_closed`, which wait for the server to be closed.

use super::{Server, closed_error};
use crate::py::coroutine::await_python;
use crate::py::imports;
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use std::rc::Rc;

pub(super) async fn serve_forever(this: Rc<Py<Server>>) -> PyResult<Py<PyAny>> {
    let future = Python::attach(|py| begin_serving_forever(this.bind(py)))?;
    let outcome = await_python(future).await;
    Python::attach(|py| {
        let inner = this.get().inner(py)?;
        inner.serving_forever.set(None);
        Ok::<_, PyErr>(())
    })?;
    let Err(error) = outcome else { return outcome };
    let cancelled =
        Python::attach(|py| Ok::<_, PyErr>(error.matches(py, imports::cancelled_error(py)?)?))?;
    if !cancelled {
        return Err(error);
    }
    let closed = Python::attach(|py| close_after_cancellation(this.bind(py)));
    if let Ok(waiting) = closed {
        // Whatever happens to this wait, the cancellation is what the caller gets.
        let _waited = await_python(waiting).await;
    }
    Err(error)
}

fn begin_serving_forever(this: &Bound<'_, Server>) -> PyResult<Py<PyAny>> {
    let py = this.py();
    let inner = this.get().inner(py)?;
    if !inner.serving_forever.is_empty() {
        return Err(PyRuntimeError::new_err(format!(
            "server {} is already being awaited on serve_forever()",
            this.repr()?
        )));
    }
    if inner.is_closed() {
        return Err(closed_error(this));
    }
    inner.start_serving(this)?;
    let future = inner
        .event_loop
        .bind(py)
        .call_method0("create_future")?
        .unbind();
    inner.serving_forever.set(Some(future.clone_ref(py)));
    Ok(future)
}

fn close_after_cancellation(this: &Bound<'_, Server>) -> PyResult<Py<PyAny>> {
    this.call_method0("close")?;
    if cfg!(Py_3_14) {
        this.call_method0("close_clients")?;
    }
    this.call_method0("wait_closed").map(Bound::unbind)
}

pub(super) async fn wait_closed(this: Rc<Py<Server>>) -> PyResult<Py<PyAny>> {
    let waiter = Python::attach(|py| {
        let inner = this.get().inner(py)?;
        // Before 3.12 a closed server did not wait for its connections.
        if inner.clients.are_over() || (cfg!(not(Py_3_12)) && inner.is_closed()) {
            return Ok(None);
        }
        let waiter = inner
            .event_loop
            .bind(py)
            .call_method0("create_future")?
            .unbind();
        inner.clients.push_waiter(waiter.clone_ref(py));
        Ok::<_, PyErr>(Some(waiter))
    })?;
    match waiter {
        Some(waiter) => await_python(waiter)
            .await
            .map(|_| Python::attach(|py| py.None())),
        None => Ok(Python::attach(|py| py.None())),
    }
}
