//! asyncio's exception handler protocol, for exceptions that nobody awaits.
//!
//! KeyboardInterrupt and SystemExit are never handled here; every function returns them to its
//! caller.
//!
//! A program's context may be any object that has `get` and can be iterated; anything else is
//! reported as a failure of the handler.

use super::{EventLoop, State};
use crate::error::leaves_the_loop;
use crate::py::handle::HandleRef;
use crate::py::handled::handling;
use crate::py::imports;
use pyo3::call::PyCallArgs;
use pyo3::exceptions::{PyBaseException, PyTypeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyString};

#[pymethods]
impl EventLoop {
    /// The exception handler that was set, or None.
    fn get_exception_handler<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state(py).settings.exception_handler.get(py)
    }

    /// Set a callable (loop, context) for what callbacks raise; None for the default handler.
    fn set_exception_handler(&self, py: Python<'_>, handler: Bound<'_, PyAny>) -> PyResult<()> {
        if !handler.is_none() && !handler.is_callable() {
            return Err(PyTypeError::new_err(format!(
                "A callable object or None is expected, got {}",
                handler.repr()?
            )));
        }
        let handler = (!handler.is_none()).then(|| handler.unbind());
        self.state(py).settings.exception_handler.set(handler);
        Ok(())
    }

    /// Log the context's message, exception and other keys to the asyncio logger.
    fn default_exception_handler(
        &self,
        py: Python<'_>,
        context: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let lines = PyList::empty(py);
        lines.append(message(context)?)?;
        let exc_info = exc_info(context)?;
        add_handle_traceback(self.state(py), context)?;
        let keys = PyList::empty(py);
        for key in context.try_iter()? {
            keys.append(key?)?;
        }
        keys.sort()?;
        for key in keys {
            if !key.eq("message")? && !key.eq("exception")? {
                lines.append(describe(context, &key)?)?;
            }
        }
        let text = PyString::new(py, "\n").call_method1("join", (lines,))?;
        let kwargs = [("exc_info", exc_info)].into_py_dict(py)?;
        imports::logger(py)?.call_method("error", (text,), Some(&kwargs))?;
        Ok(())
    }

    /// Give the context to the handler that was set, or to the default one.
    fn call_exception_handler(slf: &Bound<'_, Self>, context: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        slf.get().state(py).metrics.work.exceptions.add(1);
        let Some(handler) = slf.get().state(py).settings.exception_handler.get(py) else {
            return run_default(slf, context, "Exception in default exception handler");
        };
        let Err(error) = run_custom(slf, &handler, context) else {
            return Ok(());
        };
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let unhandled = PyDict::new(py);
        unhandled.set_item("message", "Unhandled error in exception handler")?;
        let error = error.into_value(py).into_bound(py);
        unhandled.set_item("exception", &error)?;
        unhandled.set_item("context", context)?;
        let failure = "Exception in default exception handler while handling an unexpected error \
            in custom exception handler";
        handling(&error, || run_default(slf, unhandled.as_any(), failure))
    }
}

/// `context.get(key)`.
fn entry<'py>(context: &Bound<'py, PyAny>, key: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
    let value = context.call_method1(intern!(context.py(), "get"), (key,))?;
    Ok((!value.is_none()).then_some(value))
}

fn message<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    match entry(context, "message")? {
        Some(message) if message.is_truthy()? => Ok(message),
        _ => Ok(PyString::new(context.py(), "Unhandled exception in event loop").into_any()),
    }
}

fn exc_info<'py>(context: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = context.py();
    match entry(context, "exception")? {
        Some(exception) => {
            let traceback = exception.getattr("__traceback__")?;
            Ok((exception.get_type(), exception, traceback)
                .into_pyobject(py)?
                .into_any())
        }
        None => Ok(false.into_pyobject(py)?.to_owned().into_any()),
    }
}

fn describe(context: &Bound<'_, PyAny>, key: &Bound<'_, PyAny>) -> PyResult<String> {
    let value = context.get_item(key)?;
    let made_at = match key.extract::<String>().as_deref() {
        Ok("source_traceback") => Some("Object created at (most recent call last):\n"),
        Ok("handle_traceback") => Some("Handle created at (most recent call last):\n"),
        _ => None,
    };
    let Some(heading) = made_at else {
        return Ok(format!("{key}: {}", value.repr()?));
    };
    let lines = imports::format_list(context.py())?.call1((value,))?;
    let lines: Vec<String> = lines.extract()?;
    Ok(format!("{key}: {heading}{}", lines.concat().trim_end()))
}

/// In debug mode, adds the place where the running handle was made.
fn add_handle_traceback(state: &State, context: &Bound<'_, PyAny>) -> PyResult<()> {
    if context.contains("source_traceback")? {
        return Ok(());
    }
    let py = context.py();
    let traceback = {
        let current = state.settings.current_handle.borrow();
        let trace = current.as_ref().and_then(|handle| handle.trace());
        trace.and_then(|trace| {
            trace
                .source_traceback
                .as_ref()
                .map(|stack| stack.clone_ref(py))
        })
    };
    match traceback {
        Some(traceback) if traceback.bind(py).is_truthy()? => {
            context.set_item("handle_traceback", traceback)
        }
        _ => Ok(()),
    }
}

/// The default handler, guarded against its own errors (a subclass may override it).
fn run_default(
    this: &Bound<'_, EventLoop>,
    context: &Bound<'_, PyAny>,
    failure: &str,
) -> PyResult<()> {
    let py = this.py();
    let outcome = this.call_method1(intern!(py, "default_exception_handler"), (context,));
    let Err(error) = outcome else { return Ok(()) };
    if leaves_the_loop(py, &error) {
        return Err(error);
    }
    log_exception(&error.into_value(py).into_bound(py), "error", (failure,))
}

/// Logs with `exc_info=True`, as from the `except` clause that caught `error`.
///
/// # Errors
/// What a log handler raises.
pub(crate) fn log_exception<'py>(
    error: &Bound<'py, PyBaseException>,
    level: &str,
    arguments: impl PyCallArgs<'py>,
) -> PyResult<()> {
    let py = error.py();
    let kwargs = [("exc_info", true)].into_py_dict(py)?;
    let logger = imports::logger(py)?;
    handling(error, || {
        logger.call_method(level, arguments, Some(&kwargs))
    })
    .map(drop)
}

/// The program's handler; from 3.12 on in the context of the task, future or handle concerned.
fn run_custom(
    this: &Bound<'_, EventLoop>,
    handler: &Bound<'_, PyAny>,
    context: &Bound<'_, PyAny>,
) -> PyResult<()> {
    if let Some(run) = run_of_context(context)? {
        return run.call1((handler, this, context)).map(drop);
    }
    handler.call1((this, context)).map(drop)
}

#[cfg(not(Py_3_12))]
fn run_of_context<'py>(_context: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    Ok(None)
}

#[cfg(Py_3_12)]
fn run_of_context<'py>(context: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    for key in ["task", "future", "handle"] {
        let Some(thing) = entry(context, key)? else {
            continue;
        };
        let Some(get_context) = thing.getattr_opt("get_context")? else {
            return Ok(None);
        };
        return get_context.call0()?.getattr_opt("run");
    }
    Ok(None)
}

/// Reports the exception of a handle's callback.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
#[cold]
pub(crate) fn report_handle(
    this: &Bound<'_, EventLoop>,
    handle: &HandleRef,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    if leaves_the_loop(py, &error) {
        return Err(error);
    }
    let callback = handle.callback(py);
    let arguments = handle.arguments(py)?;
    let kwargs = PyDict::new(py);
    if cfg!(Py_3_13) {
        kwargs.set_item("debug", this.get().state(py).settings.debug.get())?;
    }
    let source = imports::format_callback_source(py)?.call((callback, arguments), Some(&kwargs))?;
    let context = PyDict::new(py);
    context.set_item("message", format!("Exception in callback {source}"))?;
    context.set_item("exception", error.into_value(py))?;
    context.set_item("handle", handle.object(py))?;
    if let Some(stack) = handle
        .trace()
        .and_then(|trace| trace.source_traceback.as_ref())
    {
        context.set_item("source_traceback", stack)?;
    }
    report(this, &context)
}

/// Reports as from the `except` clause that caught the context's exception.
///
/// # Errors
/// What the handler lets out.
pub(crate) fn report(this: &Bound<'_, EventLoop>, context: &Bound<'_, PyDict>) -> PyResult<()> {
    let error = context.get_item("exception")?;
    match error.as_ref().map(|error| error.cast::<PyBaseException>()) {
        Some(Ok(error)) => handling(error, || report_later(this, context)),
        _ => report_later(this, context),
    }
}

/// Gives `context` to the loop's exception handler, through the loop's own attribute: programs
/// replace `call_exception_handler` on the instance.
///
/// # Errors
/// What the handler lets out.
pub(super) fn report_later(
    this: &Bound<'_, EventLoop>,
    context: &Bound<'_, PyDict>,
) -> PyResult<()> {
    this.call_method1(intern!(this.py(), "call_exception_handler"), (context,))
        .map(drop)
}
