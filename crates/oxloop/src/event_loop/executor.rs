//! `run_in_executor`, and setting and shutting down the default executor.

use super::{EventLoop, LoopThis, schedule};
use crate::py::args::{Args, missing_argument};
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::imports;
use crate::py::method::{Methods, OfPyClass};
use crate::py::object::{call_method, call_with_keyword, warn};
use pyo3::exceptions::{
    PyException, PyRuntimeError, PyRuntimeWarning, PyTimeoutError, PyTypeError,
};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyTuple};

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.method(
        c"run_in_executor",
        "executor, func, *args",
        run_in_executor,
        c"Run func(*args) in the executor (None: the default one); return a future.",
    );
    methods.procedure(
        c"_executor_call_ended",
        "future",
        |this, _args| {
            let jobs = &this.payload().state(this.py()).metrics().jobs;
            jobs.calls_ended.add(1);
            Ok(())
        },
        c"A call of run_in_executor has ended, in whichever thread.",
    );
}

fn run_in_executor<'py>(
    this: &LoopThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    let missing = |name| missing_argument("run_in_executor", name);
    let executor = args.positional(0).ok_or_else(|| missing("executor"))?;
    let function = args.positional(1).ok_or_else(|| missing("func"))?;
    args.no_keywords("run_in_executor")?;
    state.check_closed()?;
    if state.settings.debug.get() {
        schedule::reject_coroutines(py, &function, "run_in_executor")?;
    }
    let executor = if executor.is_none() {
        default_executor(this)?
    } else {
        executor.to_owned()
    };
    let function_and_arguments = (1..args.positional_count()).filter_map(|i| args.positional(i));
    let arguments = PyTuple::new(py, function_and_arguments.collect::<Vec<_>>())?;
    // The function may wait for what was written before to have an effect.
    state.flush(py);
    let submitted = executor.call_method1(intern!(py, "submit"), arguments)?;
    count_call(this, &submitted)?;
    call_with_keyword(
        imports::wrap_future(py)?,
        &submitted,
        intern!(py, "loop"),
        &this.object(),
    )
}

/// Counts a call, and has its end counted. Not of an executor whose `submit` returns something else
/// than `wrap_future` asks for.
fn count_call<'py>(this: &LoopThis<'_, 'py>, submitted: &Bound<'py, PyAny>) -> PyResult<()> {
    let py = this.py();
    if !submitted.is_instance(imports::concurrent_future(py)?)? {
        return Ok(());
    }
    let jobs = &this.payload().state(py).metrics().jobs;
    jobs.calls_begun.add(1);
    let ended = this.object().getattr(intern!(py, "_executor_call_ended"))?;
    call_method(submitted, intern!(py, "add_done_callback"), &[&ended]).map(drop)
}

fn default_executor<'py>(this: &LoopThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    if state.settings.executor_shutdown.get() {
        return Err(PyRuntimeError::new_err("Executor shutdown has been called"));
    }
    if let Some(executor) = state.settings.default_executor.get(py) {
        return Ok(executor);
    }
    let kwargs = [("thread_name_prefix", "asyncio")].into_py_dict(py)?;
    let executor = imports::thread_pool_executor(py)?.call((), Some(&kwargs))?;
    let made = executor.clone().unbind();
    state.settings.default_executor.set(Some(made));
    Ok(executor)
}

#[pymethods]
impl EventLoop {
    /// Set the ThreadPoolExecutor that run_in_executor(None, ...) uses.
    fn set_default_executor(&self, py: Python<'_>, executor: &Bound<'_, PyAny>) -> PyResult<()> {
        if !executor.is_instance(imports::thread_pool_executor(py)?)? {
            return Err(PyTypeError::new_err(
                "executor must be ThreadPoolExecutor instance",
            ));
        }
        let executor = executor.clone().unbind();
        self.state(py).settings.default_executor.set(Some(executor));
        Ok(())
    }

    /// Wait, for at most timeout seconds, until the default executor's threads have ended.
    #[pyo3(signature = (timeout=None))]
    fn shutdown_default_executor<'py>(
        slf: &Bound<'py, Self>,
        timeout: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        let shutdown = shutdown(this, timeout);
        Coroutine::object(slf.py(), "EventLoop.shutdown_default_executor", shutdown)
    }

    /// The body of the thread that waits for the executor.
    fn _do_shutdown(slf: &Bound<'_, Self>, future: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let Some(executor) = slf.get().state(py).settings.default_executor.get(py) else {
            return Ok(());
        };
        let kwargs = [("wait", true)].into_py_dict(py)?;
        let outcome = executor.call_method("shutdown", (), Some(&kwargs));
        if slf.get().state(py).closed.get() {
            return Ok(());
        }
        let call = intern!(py, "call_soon_threadsafe");
        match outcome {
            Ok(_) => {
                let set = imports::set_result_unless_cancelled(py)?;
                slf.call_method1(call, (set, future, py.None())).map(drop)
            }
            Err(error) if error.is_instance_of::<PyException>(py) => {
                let set = future.getattr("set_exception")?;
                slf.call_method1(call, (set, error.into_value(py)))
                    .map(drop)
            }
            Err(error) => Err(error),
        }
    }
}

struct Shutdown {
    future: Py<PyAny>,
    thread: Py<PyAny>,
    timeout: Py<PyAny>,
}

async fn shutdown(this: Py<EventLoop>, timeout: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let begun = Python::attach(|py| begin(this.bind(py), timeout.as_ref()))?;
    let Some(Shutdown {
        future,
        thread,
        timeout: manager,
    }) = begun
    else {
        return Ok(Python::attach(|py| py.None()));
    };
    let entering = Python::attach(|py| {
        manager
            .bind(py)
            .call_method0("__aenter__")
            .map(Bound::unbind)
    })?;
    await_python(entering).await?;
    let waited = await_python(future).await;
    let leaving = Python::attach(|py| leave(manager.bind(py), waited.as_ref().err()))?;
    let left = await_python(leaving).await;
    Python::attach(|py| {
        match left.and(waited) {
            Ok(_) => drop(thread.bind(py).call_method0("join")?),
            Err(error) if error.is_instance_of::<PyTimeoutError>(py) => {
                give_up(this.bind(py), timeout.as_ref())?;
            }
            Err(error) => return Err(error),
        }
        Ok(py.None())
    })
}

fn begin(this: &Bound<'_, EventLoop>, timeout: Option<&Py<PyAny>>) -> PyResult<Option<Shutdown>> {
    let py = this.py();
    let settings = &this.get().state(py).settings;
    settings.executor_shutdown.set(true);
    if settings.default_executor.is_empty() {
        return Ok(None);
    }
    let future = this.call_method0("create_future")?;
    let kwargs = PyDict::new(py);
    kwargs.set_item("target", this.getattr("_do_shutdown")?)?;
    kwargs.set_item("args", (&future,))?;
    let thread = imports::threading(py)?.call_method("Thread", (), Some(&kwargs))?;
    thread.call_method0("start")?;
    let timeout = imports::timeout(py)?.call1((timeout,))?;
    Ok(Some(Shutdown {
        future: future.unbind(),
        thread: thread.unbind(),
        timeout: timeout.unbind(),
    }))
}

/// `__aexit__` of the timeout's context manager with what ended the wait.
fn leave(manager: &Bound<'_, PyAny>, error: Option<&PyErr>) -> PyResult<Py<PyAny>> {
    let py = manager.py();
    let exit = match error {
        None => manager.call_method1("__aexit__", (py.None(), py.None(), py.None()))?,
        Some(error) => manager.call_method1(
            "__aexit__",
            (error.get_type(py), error.value(py), error.traceback(py)),
        )?,
    };
    Ok(exit.unbind())
}

fn give_up(this: &Bound<'_, EventLoop>, timeout: Option<&Py<PyAny>>) -> PyResult<()> {
    let py = this.py();
    let seconds = timeout.map_or_else(|| py.None(), |timeout| timeout.clone_ref(py));
    let text = format!(
        "The executor did not finishing joining its threads within {} seconds.",
        seconds.bind(py).str()?
    );
    warn::<PyRuntimeWarning>(&text, &[("stacklevel", 2)].into_py_dict(py)?)?;
    let Some(executor) = this.get().state(py).settings.default_executor.get(py) else {
        return Ok(());
    };
    let kwargs = [("wait", false)].into_py_dict(py)?;
    executor
        .call_method("shutdown", (), Some(&kwargs))
        .map(drop)
}
