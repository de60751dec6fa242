//! Starts a process, connects its pipes, and tells its protocol what the pipes receive.
//!
//! The pipes' protocols are asyncio's own `ReadSubprocessPipeProto` and `WriteSubprocessPipeProto`,
//! which call the methods here.

use super::{PendingCall, ProcessState, SubprocessThis, SubprocessTransport};
use crate::error::{after_cleanup, leaves_the_loop, then_cleaned};
use crate::event_loop::EventLoop;
use crate::py::args::Args;
use crate::py::attached::Attached;
use crate::py::class::{OfNative, Ref};
use crate::py::context::Captured;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::future::end_unless_cancelled;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::base::Parties;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::{Cell, RefCell};

/// The standard streams of a `Popen`, in the order of their descriptors.
const STREAMS: [&str; 3] = ["stdin", "stdout", "stderr"];

/// What to run.
pub(crate) struct Command {
    /// A tuple, or the shell's command line.
    pub(crate) arguments: Py<PyAny>,
    pub(crate) shell: bool,
    /// stdin, stdout and stderr as `Popen` takes them.
    pub(crate) streams: [Py<PyAny>; 3],
    pub(crate) bufsize: Py<PyAny>,
    pub(crate) extra: Option<Py<PyAny>>,
    /// The other keywords of `Popen`.
    pub(crate) popen: Py<PyDict>,
}

impl Command {
    fn spawn<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let kwargs = self.popen.bind(py).copy()?;
        kwargs.set_item("shell", self.shell)?;
        for (name, stream) in STREAMS.iter().zip(&self.streams) {
            kwargs.set_item(name, stream)?;
        }
        kwargs.set_item("universal_newlines", false)?;
        kwargs.set_item("bufsize", &self.bufsize)?;
        imports::subprocess(py)?
            .getattr(intern!(py, "Popen"))?
            .call((&self.arguments,), Some(&kwargs))
    }
}

impl SubprocessTransport {
    /// Starts the process, begins to watch for its exit, and connects its pipes in a task, which
    /// sets `waiter`'s result in the end.
    ///
    /// # Errors
    /// What `Popen` raises.
    pub(crate) fn start(
        event_loop: &Bound<'_, EventLoop>,
        protocol: &Bound<'_, PyAny>,
        command: &Command,
        waiter: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let py = event_loop.py();
        let process = command.spawn(py)?;
        let pipe = imports::subprocess(py)?.getattr(intern!(py, "PIPE"))?;
        let pipes = PyDict::new(py);
        for (fd, stream) in command.streams.iter().enumerate() {
            if stream.bind(py).eq(&pipe)? {
                pipes.set_item(fd, py.None())?;
            }
        }
        let inner = ProcessState {
            parties: Parties::new(
                event_loop,
                protocol.clone().unbind(),
                Captured::current(py)?,
            ),
            pid: process.getattr(intern!(py, "pid"))?.extract()?,
            process: process.clone().unbind().into(),
            returncode: Cell::new(None),
            pipes: pipes.unbind(),
            pending: RefCell::new(Some(Vec::new())),
            exit_waiters: RefCell::new(Vec::new()),
            pidfd: RefCell::new(None),
            closed: Cell::new(false),
            finished: Cell::new(false),
        };
        let inner = Attached::new(inner);
        let transport = Ref::new(py, Self { inner })?;
        let this = transport.this(py);
        this.remember_extra(command, &process)?;
        this.log_created(command)?;
        let connected = connect_pipes(transport.clone_ref(py), waiter.clone().unbind());
        let connected = Coroutine::object(py, "SubprocessTransport._connect_pipes", connected)?;
        event_loop.call_method1(intern!(py, "create_task"), (connected,))?;
        this.watch_exit()?;
        Ok(transport.as_object().clone_ref(py))
    }
}

/// Connects stdin, stdout and stderr, then tells the protocol that the connection is made.
async fn connect_pipes(
    transport: Ref<SubprocessTransport>,
    waiter: Py<PyAny>,
) -> PyResult<Py<PyAny>> {
    let connected = connect_each(&transport).await;
    Python::attach(|py| {
        let this = transport.this(py);
        let outcome = connected.and_then(|()| this.connection_made());
        let outcome = outcome.map_err(|error| {
            if leaves_the_loop(py, &error) {
                return error;
            }
            after_cleanup(py, error, this.close_pipes())
        });
        match outcome {
            Err(error) if leaves_the_loop(py, &error) => return Err(error),
            outcome => end_unless_cancelled(waiter.bind(py), outcome.map(|()| py.None()))?,
        }
        Ok(py.None())
    })
}

async fn connect_each(transport: &Ref<SubprocessTransport>) -> PyResult<()> {
    for (fd, name) in STREAMS.into_iter().enumerate() {
        let connecting = Python::attach(|py| transport.this(py).connect_pipe(fd, name))?;
        let Some(connecting) = connecting else {
            continue;
        };
        let pair = await_python(connecting).await?;
        Python::attach(|py| {
            let protocol = pair.bind(py).get_item(1)?;
            transport.this(py).pipes().set_item(fd, protocol)
        })?;
    }
    Ok(())
}

fn close(pipe: &Bound<'_, PyAny>) -> PyResult<()> {
    if pipe.is_none() {
        return Ok(());
    }
    pipe.call_method0(intern!(pipe.py(), "close")).map(drop)
}

impl<'py> SubprocessThis<'_, 'py> {
    fn remember_extra(&self, command: &Command, process: &Bound<'py, PyAny>) -> PyResult<()> {
        let py = self.py();
        let extra = match &command.extra {
            Some(extra) => extra.bind(py).clone(),
            None => PyDict::new(py).into_any(),
        };
        extra.set_item("subprocess", process)?;
        self.object().setattr(intern!(py, "_extra"), extra)
    }

    fn log_created(&self, command: &Command) -> PyResult<()> {
        let py = self.py();
        if !self.loop_state().is_debug() {
            return Ok(());
        }
        let arguments = command.arguments.bind(py);
        let program = match arguments.cast::<PyTuple>() {
            Ok(arguments) => arguments.get_item(0)?,
            Err(_) => arguments.clone(),
        };
        let values = ("process %r created: pid %s", program, self.own().pid);
        imports::logger(py)?.call_method1("debug", values).map(drop)
    }

    /// Begins to connect one stream; None if it is not a pipe.
    fn connect_pipe(&self, fd: usize, name: &str) -> PyResult<Option<Py<PyAny>>> {
        let py = self.py();
        let Some(process) = self.process() else {
            return Ok(None);
        };
        let pipe = process.getattr(name)?;
        if pipe.is_none() {
            return Ok(None);
        }
        let (class, method) = if fd == 0 {
            (
                imports::write_subprocess_pipe_proto(py)?,
                "connect_write_pipe",
            )
        } else {
            (
                imports::read_subprocess_pipe_proto(py)?,
                "connect_read_pipe",
            )
        };
        let factory = imports::partial(py)?.call1((class, self.object(), fd))?;
        let connecting = self.event_loop().call_method1(method, (factory, pipe))?;
        Ok(Some(connecting.unbind()))
    }

    /// Queues `connection_made`, and behind it the callbacks that waited for it.
    fn connection_made(&self) -> PyResult<()> {
        let py = self.py();
        let pending = self.own().pending.take();
        if let Some(protocol) = self.protocol() {
            let made = protocol.getattr(intern!(py, "connection_made"))?;
            self.soon(&made, &[&self.object()])?;
        }
        for call in pending.into_iter().flatten() {
            let arguments: Vec<_> = call
                .arguments
                .iter()
                .map(|argument| argument.bind(py))
                .collect();
            self.soon(call.callback.bind(py), &arguments)?;
        }
        Ok(())
    }

    /// Closes all pipes after the creation failed: no descriptor may stay open.
    ///
    /// # Errors
    /// The first that a pipe raises; the others are closed all the same.
    fn close_pipes(&self) -> PyResult<()> {
        let py = self.py();
        let mut outcome = Ok(());
        for (_, protocol) in self.pipes() {
            if !protocol.is_none() {
                let closed = close(&protocol.getattr("pipe")?);
                outcome = then_cleaned(py, outcome, closed);
            }
        }
        let Some(process) = self.process() else {
            return outcome;
        };
        for name in STREAMS {
            outcome = then_cleaned(py, outcome, close(&process.getattr(name)?));
        }
        outcome
    }

    /// Queues a method of the protocol, behind `connection_made`.
    pub(super) fn call(&self, method: &str, arguments: &[&Bound<'py, PyAny>]) -> PyResult<()> {
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        self.call_later(&protocol.getattr(method)?, arguments)
    }

    fn call_later(
        &self,
        callback: &Bound<'py, PyAny>,
        arguments: &[&Bound<'py, PyAny>],
    ) -> PyResult<()> {
        let waits = self.own().pending.borrow().is_some();
        if !waits {
            return self.soon(callback, arguments);
        }
        let arguments = arguments
            .iter()
            .map(|argument| (*argument).clone().unbind())
            .collect();
        let callback = callback.clone().unbind();
        if let Some(pending) = &mut *self.own().pending.borrow_mut() {
            pending.push(PendingCall {
                callback,
                arguments,
            });
        }
        Ok(())
    }

    /// Queues `connection_lost` if the process and every pipe have ended.
    pub(super) fn try_finish(&self) -> PyResult<()> {
        let (py, own) = (self.py(), self.own());
        if own.returncode.get().is_none() || own.finished.get() {
            return Ok(());
        }
        for (_, protocol) in self.pipes() {
            let ended = !protocol.is_none() && protocol.getattr("disconnected")?.is_truthy()?;
            if !ended {
                return Ok(());
            }
        }
        own.finished.set(true);
        let lost = self
            .object()
            .getattr(intern!(py, "_call_connection_lost"))?;
        self.call_later(&lost, &[&py.None().into_bound(py)])
    }
}

fn pipe_data_received<'py>(this: &SubprocessThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let [fd, data] = args
        .bind("_pipe_data_received", ["fd", "data"], 2)?
        .map(|value| value.expect("invariant: both are required"));
    this.call("pipe_data_received", &[&fd, &data])
}

fn pipe_connection_lost<'py>(this: &SubprocessThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let [fd, error] = args
        .bind("_pipe_connection_lost", ["fd", "exc"], 2)?
        .map(|value| value.expect("invariant: both are required"));
    this.call("pipe_connection_lost", &[&fd, &error])?;
    this.try_finish()
}

fn connection_lost<'py>(this: &SubprocessThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let py = this.py();
    let error = args.one("_call_connection_lost", "exc")?;
    let told = this.protocol().map_or(Ok(()), |protocol| {
        call_method(&protocol, intern!(py, "connection_lost"), &[&error]).map(drop)
    });
    this.own().process.set(None);
    this.forget_protocol();
    told
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<SubprocessTransport>>) {
    methods.procedure(
        c"_pipe_data_received",
        "fd, data",
        pipe_data_received,
        c"A pipe's protocol received data.",
    );
    methods.procedure(
        c"_pipe_connection_lost",
        "fd, exc",
        pipe_connection_lost,
        c"A pipe's protocol lost its connection.",
    );
    methods.procedure(
        c"_call_connection_lost",
        "exc",
        connection_lost,
        c"The deferred end.",
    );
}
