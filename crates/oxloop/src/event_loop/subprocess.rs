//! `subprocess_exec` and `subprocess_shell`; the transport is in `transport/subprocess/`.
//!
//! The child is made by `subprocess.Popen`, so every keyword of it means what the standard
//! library's documentation says, on each version of Python.

use super::EventLoop;
use super::connected::Pair;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::imports;
use crate::transport::subprocess::{Command, SubprocessTransport};
use pyo3::exceptions::{PyKeyboardInterrupt, PySystemExit, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyString, PyTuple};

#[pymethods]
impl EventLoop {
    /// Run a program; its pipes and its end are told to a SubprocessProtocol.
    #[pyo3(
        signature = (protocol_factory, program, *args, **kwargs),
        text_signature = "($self, protocol_factory, program, *args, stdin=-1, stdout=-1, \
            stderr=-1, universal_newlines=False, shell=False, bufsize=0, \
            encoding=None, errors=None, text=None, **kwargs)"
    )]
    fn subprocess_exec<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        program: Py<PyAny>,
        args: Py<PyTuple>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        Coroutine::object(slf.py(), "EventLoop.subprocess_exec", async move {
            let prepared = Python::attach(|py| {
                let kwargs = kwargs.map(|kwargs| kwargs.into_bound(py));
                let command = command(py, kwargs, false, |py| {
                    let mut arguments = vec![program.bind(py).clone()];
                    arguments.extend(args.bind(py).iter());
                    Ok(PyTuple::new(py, arguments)?.into_any())
                })?;
                let title = format!("execute program {}", program.bind(py).repr()?);
                Prepared::new(this.bind(py), &protocol_factory, command, title)
            })?;
            prepared.run(this).await
        })
    }

    /// Run a shell command; its pipes and its end are told to a SubprocessProtocol.
    #[pyo3(
        signature = (protocol_factory, cmd, **kwargs),
        text_signature = "($self, protocol_factory, cmd, *, stdin=-1, stdout=-1, stderr=-1, \
            universal_newlines=False, shell=True, bufsize=0, encoding=None, \
            errors=None, text=None, **kwargs)"
    )]
    fn subprocess_shell<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        cmd: Py<PyAny>,
        kwargs: Option<Py<PyDict>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        Coroutine::object(slf.py(), "EventLoop.subprocess_shell", async move {
            let prepared = Python::attach(|py| {
                let cmd = cmd.bind(py);
                if !cmd.is_instance_of::<PyString>() && !cmd.is_instance_of::<PyBytes>() {
                    return Err(PyValueError::new_err("cmd must be a string"));
                }
                let kwargs = kwargs.map(|kwargs| kwargs.into_bound(py));
                let command = command(py, kwargs, true, |_py| Ok(cmd.clone()))?;
                let title = format!("run shell command {}", cmd.repr()?);
                Prepared::new(this.bind(py), &protocol_factory, command, title)
            })?;
            prepared.run(this).await
        })
    }
}

/// Checks the keywords that asyncio restricts; the others are `Popen`'s.
fn command<'py>(
    py: Python<'py>,
    kwargs: Option<Bound<'py, PyDict>>,
    shell: bool,
    arguments: impl FnOnce(Python<'py>) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Command> {
    let kwargs = kwargs.map_or_else(|| Ok(PyDict::new(py)), |kwargs| kwargs.copy())?;
    let take = |name: &str| {
        let value = kwargs.get_item(name)?;
        if value.is_some() {
            kwargs.del_item(name)?;
        }
        Ok::<_, PyErr>(value)
    };
    let is_set = |name: &str| take(name)?.map_or(Ok(false), |value| value.is_truthy());
    let refused = |text: String| Err(PyValueError::new_err(text));
    if is_set("universal_newlines")? {
        return refused("universal_newlines must be False".to_owned());
    }
    if take("shell")?.map_or(Ok(shell), |value| value.is_truthy())? != shell {
        let must = if shell { "True" } else { "False" };
        return refused(format!("shell must be {must}"));
    }
    let bufsize = take("bufsize")?;
    if let Some(bufsize) = &bufsize
        && bufsize.ne(0)?
    {
        return refused("bufsize must be 0".to_owned());
    }
    if is_set("text")? {
        return refused("text must be False".to_owned());
    }
    for name in ["encoding", "errors"] {
        if take(name)?.is_some_and(|value| !value.is_none()) {
            return refused(format!("{name} must be None"));
        }
    }
    let pipe = imports::subprocess(py)?.getattr(intern!(py, "PIPE"))?;
    let stream = |name: &str| Ok::<_, PyErr>(take(name)?.unwrap_or_else(|| pipe.clone()).unbind());
    let streams = [stream("stdin")?, stream("stdout")?, stream("stderr")?];
    let extra = take("extra")?.filter(|extra| !extra.is_none());
    Ok(Command {
        arguments: arguments(py)?.unbind(),
        shell,
        streams,
        extra: extra.map(Bound::unbind),
        popen: kwargs.unbind(),
    })
}

/// A command, checked, and the protocol that will hear of it.
struct Prepared {
    command: Command,
    protocol: Py<PyAny>,
    /// What debug mode logs: arguments stay out of it, they may be secret.
    title: String,
}

impl Prepared {
    fn new(
        this: &Bound<'_, EventLoop>,
        factory: &Py<PyAny>,
        command: Command,
        title: String,
    ) -> PyResult<Self> {
        let py = this.py();
        let protocol = factory.bind(py).call0()?.unbind();
        if this.get().state(py).is_debug() {
            let text = describe(py, &title, &command)?;
            imports::logger(py)?.call_method1("debug", (text,))?;
        }
        Ok(Self {
            command,
            protocol,
            title,
        })
    }

    /// Starts the process and waits until its pipes are connected.
    async fn run(self, this: Py<EventLoop>) -> PyResult<Py<PyAny>> {
        let (transport, waiter) = Python::attach(|py| {
            let this = this.bind(py);
            let waiter = this.call_method0(intern!(py, "create_future"))?;
            let protocol = self.protocol.bind(py);
            let transport = SubprocessTransport::start(this, protocol, &self.command, &waiter)?;
            Ok::<_, PyErr>((transport, waiter.unbind()))
        })?;
        if let Err(error) = await_python(waiter).await {
            let ended = Python::attach(|py| given_up(py, &transport, &error))?;
            if let Some(ended) = ended {
                await_python(ended).await?;
            }
            return Err(error);
        }
        Python::attach(|py| {
            if this.get().state(py).is_debug() {
                let arguments = ("%s: %r", &self.title, &transport);
                imports::logger(py)?.call_method1("info", arguments)?;
            }
            let protocol = self.protocol;
            let pair = Pair {
                transport,
                protocol,
            };
            pair.into_python(py)
        })
    }
}

/// Kills the process of a creation that failed or was cancelled; returns what to wait for, so that
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

/// The log line of a command: its title and where its streams go.
fn describe(py: Python<'_>, title: &str, command: &Command) -> PyResult<String> {
    let module = imports::subprocess(py)?;
    let stdout_mark = module.getattr("STDOUT")?;
    let pipe = module.getattr("PIPE")?;
    let shown = |stream: &Bound<'_, PyAny>| -> PyResult<String> {
        if stream.eq(&pipe)? {
            return Ok("<pipe>".to_owned());
        }
        if stream.eq(&stdout_mark)? {
            return Ok("<stdout>".to_owned());
        }
        Ok(stream.repr()?.to_string())
    };
    let [stdin, stdout, stderr] = &command.streams;
    let (stdin, stdout, stderr) = (stdin.bind(py), stdout.bind(py), stderr.bind(py));
    let mut parts = vec![title.to_owned()];
    if !stdin.is_none() {
        parts.push(format!("stdin={}", shown(stdin)?));
    }
    let joined = !stdout.is_none() && stderr.eq(&stdout_mark)?;
    if joined {
        parts.push(format!("stdout=stderr={}", shown(stdout)?));
    } else {
        if !stdout.is_none() {
            parts.push(format!("stdout={}", shown(stdout)?));
        }
        if !stderr.is_none() {
            parts.push(format!("stderr={}", shown(stderr)?));
        }
    }
    Ok(parts.join(" "))
}
