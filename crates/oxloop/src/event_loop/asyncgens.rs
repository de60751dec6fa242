//! Asynchronous generators that the loop iterates, and their shutdown.

use super::EventLoop;
use crate::py::coroutine::{Coroutine, await_python_keeping};
use crate::py::imports;
use crate::py::object::warn;
use pyo3::exceptions::{PyException, PyResourceWarning};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyTuple};
use std::rc::Rc;

/// Makes the interpreter tell the loop about generators, while it runs.
pub(super) fn install(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = this.py();
    let first = this.getattr(intern!(py, "_asyncgen_firstiter_hook"))?;
    let last = this.getattr(intern!(py, "_asyncgen_finalizer_hook"))?;
    let kwargs = [("firstiter", first), ("finalizer", last)].into_py_dict(py)?;
    imports::sys(py)?
        .call_method("set_asyncgen_hooks", (), Some(&kwargs))
        .map(drop)
}

fn asyncgens<'py>(this: &Bound<'py, EventLoop>) -> Option<Bound<'py, PyAny>> {
    this.get()
        .state(this.py())
        .settings
        .asyncgens
        .get(this.py())
}

#[pymethods]
impl EventLoop {
    /// An asynchronous generator begins: remember it.
    fn _asyncgen_firstiter_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if slf.get().state(py).settings.asyncgens_shutdown.get() {
            let text = format!(
                "asynchronous generator {} was scheduled after loop.shutdown_asyncgens() call",
                agen.repr()?
            );
            warn::<PyResourceWarning>(&text, &[("source", slf)].into_py_dict(py)?)?;
        }
        asyncgens(slf).map_or(Ok(()), |set| set.call_method1("add", (agen,)).map(drop))
    }

    /// An asynchronous generator was dropped unfinished: close it in the loop.
    fn _asyncgen_finalizer_hook(slf: &Bound<'_, Self>, agen: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        if let Some(set) = asyncgens(slf) {
            set.call_method1("discard", (agen,))?;
        }
        if slf.get().state(py).closed.get() {
            return Ok(());
        }
        let create_task = slf.getattr(intern!(py, "create_task"))?;
        let closing = agen.call_method0("aclose")?;
        slf.call_method1(intern!(py, "call_soon_threadsafe"), (create_task, closing))?;
        Ok(())
    }

    /// Close every asynchronous generator that is still active.
    fn shutdown_asyncgens<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop.shutdown_asyncgens", shutdown)
    }
}

async fn shutdown(this: Rc<Py<EventLoop>>) -> PyResult<Py<PyAny>> {
    let started = Python::attach(|py| begin_shutdown(this.bind(py)))?;
    let Some((generators, closing)) = started else {
        return Ok(Python::attach(|py| py.None()));
    };
    let (results, generators) = await_python_keeping(closing, generators.into_any()).await;
    let results = results?;
    Python::attach(|py| {
        report_failures(this.bind(py), generators.bind(py).cast()?, results.bind(py))?;
        Ok(py.None())
    })
}

type Closing = (Py<PyList>, Py<PyAny>);

fn begin_shutdown(this: &Bound<'_, EventLoop>) -> PyResult<Option<Closing>> {
    let py = this.py();
    this.get().state(py).settings.asyncgens_shutdown.set(true);
    let Some(set) = asyncgens(this) else {
        return Ok(None);
    };
    if set.len()? == 0 {
        return Ok(None);
    }
    let generators = PyList::empty(py);
    let closing = PyList::empty(py);
    for generator in set.try_iter()? {
        let generator = generator?;
        closing.append(generator.call_method0("aclose")?)?;
        generators.append(generator)?;
    }
    set.call_method0("clear")?;
    let kwargs = [("return_exceptions", true)].into_py_dict(py)?;
    let arguments = PyTuple::new(py, closing)?;
    let all = imports::gather(py)?.call(arguments, Some(&kwargs))?;
    Ok(Some((generators.unbind(), all.unbind())))
}

fn report_failures(
    this: &Bound<'_, EventLoop>,
    generators: &Bound<'_, PyList>,
    results: &Bound<'_, PyAny>,
) -> PyResult<()> {
    for (result, generator) in results.try_iter()?.zip(generators) {
        let result = result?;
        if !result.is_instance_of::<PyException>() {
            continue;
        }
        let context = PyDict::new(this.py());
        let text = format!(
            "an error occurred during closing of asynchronous generator {}",
            generator.repr()?
        );
        context.set_item("message", text)?;
        context.set_item("exception", result)?;
        context.set_item("asyncgen", generator)?;
        super::exceptions::report_later(this, &context)?;
    }
    Ok(())
}
