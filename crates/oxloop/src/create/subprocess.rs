//! `_make_subprocess_transport`, which asyncio's own `subprocess_exec` and `subprocess_shell` call
//! (see `python/oxloop/_event_loop.py`). The transport is in `transport/subprocess/`.
//!
//! `subprocess.Popen` makes the child, so every keyword means what the standard library documents
//! for that version of Python. `Popen` blocks until the child has executed the program; tools that
//! report blocking calls allow this because asyncio's own frame is on the stack.

use crate::error::after_cleanup;
use crate::event_loop::EventLoop;
use crate::py::coroutine::{Coroutine, await_python, await_python_keeping};
use crate::py::imports;
use crate::transport::subprocess::{Command, SubprocessTransport};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;

#[pymethods]
impl EventLoop {
    /// Start a process and return its transport once its pipes are connected.
    #[pyo3(
        signature = (
            protocol, args, shell, stdin, stdout, stderr, bufsize, extra=None, **kwargs
        ),
        text_signature = "($self, protocol, args, shell, stdin, stdout, stderr, bufsize, \
            extra=None, **kwargs)"
    )]
    fn _make_subprocess_transport<'py>(
        slf: &Bound<'py, Self>,
        protocol: Py<PyAny>,
        args: Py<PyAny>,
        shell: bool,
        stdin: Py<PyAny>,
        stdout: Py<PyAny>,
        stderr: Py<PyAny>,
        bufsize: Py<PyAny>,
        extra: Option<Py<PyAny>>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let command = Command {
            arguments: args,
            shell,
            streams: [stdin, stdout, stderr],
            bufsize,
            extra,
            popen: kwargs.unwrap_or_else(|| PyDict::new(py).unbind()),
        };
        let name = "EventLoop._make_subprocess_transport";
        Coroutine::method(slf, name, move |this| async move {
            let (waiter, transport) = Python::attach(|py| {
                let this = this.bind(py);
                this.get().state(py).flush(py);
                let waiter = this.call_method0(intern!(py, "create_future"))?;
                let protocol = protocol.bind(py);
                let transport = SubprocessTransport::start(this, protocol, &command, &waiter)?;
                Ok::<_, PyErr>((waiter.unbind(), transport))
            })?;
            // All of these may lead to the waiter.
            drop((protocol, command));
            let (outcome, transport) = await_python_keeping(waiter, transport).await;
            let Err(error) = outcome else {
                return Ok(transport);
            };
            match Python::attach(|py| given_up(py, &transport, &error)) {
                Ok(Some(ended)) => drop(await_python(ended).await?),
                Ok(None) => {}
                Err(later) => {
                    return Err(Python::attach(|py| {
                        after_cleanup::<()>(py, error, Err(later))
                    }));
                }
            }
            Err(error)
        })
    }
}

/// Kills the process whose creation failed or was cancelled; returns what has to be awaited so that
/// it is reaped.
fn given_up(py: Python<'_>, transport: &Py<PyAny>, error: &PyErr) -> PyResult<Option<Py<PyAny>>> {
    if error.is_instance_of::<PyKeyboardInterrupt>(py) || error.is_instance_of::<PySystemExit>(py) {
        return Ok(None);
    }
    let transport = transport.bind(py);
    transport.call_method0(intern!(py, "close"))?;
    let ended = transport.call_method0(intern!(py, "_wait"))?;
    let ended = imports::shield(py)?.call1((ended,))?;
    Ok(Some(ended.unbind()))
}
