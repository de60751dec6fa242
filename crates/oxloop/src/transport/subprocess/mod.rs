//! `SubprocessTransport`: a child process and its pipes, `asyncio.SubprocessTransport` by
//! inheritance.
//!
//! | What | File |
//! |---|---|
//! | starting it, connecting its pipes, what they receive | `pipes` |
//! | noticing its exit, `_wait` | `exit` |
//! | signals, close, repr | here |
//!
//! The process is a `subprocess.Popen`. Only its own `poll()` reaps it, under its own lock, so that
//! the program may call `poll()` and `wait()` on it too, from any thread.
//!
//! Invariants:
//! - callbacks come in asyncio's order: `connection_made` first, `connection_lost` last, after the
//!   exit and the end of every pipe; `process_exited` whenever the process ends.
//! - no signal is sent to a process that was reaped: its number may be another's.
//! - the loop keeps the transport alive until the exit was seen.
//!
//! Cost: one pidfd a child; no thread, no SIGCHLD handler, no polling.
//! Differs from asyncio: `wait()` ends with the process on every version, even while a grandchild
//! holds a pipe open; asyncio has that from 3.14 on.

mod exit;
mod pipes;

pub(crate) use pipes::Command;

use crate::event_loop::registration::Registration;
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Slots, This, Visit, VisitStopped, create};
use crate::py::method::Methods;
use crate::py::slot::Slot;
use crate::py::{coroutine_method, imports};
use crate::transport::base::{self, BaseTransport, Parties, warn_unclosed};
use pyo3::exceptions::{PyPermissionError, PyProcessLookupError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyType};
use std::cell::{Cell, RefCell};

/// The payload of a transport object.
pub(crate) struct SubprocessTransport {
    inner: Attached<ProcessState>,
}

struct ProcessState {
    parties: Parties,
    /// The `Popen`; None after `connection_lost`.
    process: Slot,
    pid: i32,
    returncode: Cell<Option<i32>>,
    /// From the child's descriptor to the protocol of our end, or None while that is not connected.
    pipes: Py<PyDict>,
    /// The callbacks that wait for `connection_made`; None once that is queued.
    pending: RefCell<Option<Vec<PendingCall>>>,
    exit_waiters: RefCell<Vec<Py<PyAny>>>,
    pidfd: RefCell<Option<Registration>>,
    closed: Cell<bool>,
    finished: Cell<bool>,
}

/// A callback that waits for `connection_made`.
struct PendingCall {
    callback: Py<PyAny>,
    arguments: Vec<Py<PyAny>>,
}

/// A borrowed transport while one of its methods runs.
pub(crate) type SubprocessThis<'a, 'py> = This<'a, 'py, SubprocessTransport>;

static CLASS: Class = Class::new();

impl Native for SubprocessTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let inner = self.inner.during_collection(visit);
        inner.parties.traverse(visit)?;
        visit.object(&inner.pipes)?;
        inner.process.traverse(visit)?;
        if let Ok(waiters) = inner.exit_waiters.try_borrow() {
            waiters.iter().try_for_each(|waiter| visit.object(waiter))?;
        }
        if let Ok(pending) = inner.pending.try_borrow() {
            for call in pending.iter().flatten() {
                visit.object(&call.callback)?;
                call.arguments
                    .iter()
                    .try_for_each(|argument| visit.object(argument))?;
            }
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        let inner = self.inner.get(py);
        inner.parties.clear(py);
        inner.process.set(None);
        drop(inner.pending.take());
        drop(inner.exit_waiters.take());
    }

    fn finalize(this: &This<'_, '_, Self>) {
        let mut outcomes = Vec::new();
        if !this.own().closed.get() {
            outcomes.push(warn_unclosed(&this.object()));
            outcomes.push(this.close());
        }
        outcomes.push(this.stop_watching());
        for outcome in outcomes {
            if let Err(error) = outcome {
                error.write_unraisable(this.py(), None);
            }
        }
    }
}

impl BaseTransport for SubprocessTransport {
    fn parties(&self, py: Python<'_>) -> &Parties {
        &self.inner.get(py).parties
    }

    fn is_closing(&self, py: Python<'_>) -> bool {
        self.inner.get(py).closed.get()
    }

    fn close(this: &This<'_, '_, Self>) -> PyResult<()> {
        this.close()
    }
}

impl<'py> SubprocessThis<'_, 'py> {
    fn own(&self) -> &ProcessState {
        self.payload().inner.get(self.py())
    }

    fn process(&self) -> Option<Bound<'py, PyAny>> {
        self.own().process.get(self.py())
    }

    fn pipes(&self) -> &Bound<'py, PyDict> {
        self.own().pipes.bind(self.py())
    }

    /// The transport of our end of a pipe; None for a stream that is no pipe.
    fn pipe_transport(&self, fd: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        match self.pipes().get_item(fd)? {
            Some(protocol) => protocol.getattr(intern!(self.py(), "pipe")),
            None => self.none(),
        }
    }

    fn close(&self) -> PyResult<()> {
        let (py, own) = (self.py(), self.own());
        if own.closed.replace(true) {
            return Ok(());
        }
        if self.loop_state().check_closed().is_ok() {
            for (_, protocol) in self.pipes() {
                if !protocol.is_none() {
                    let pipe = protocol.getattr(intern!(py, "pipe"))?;
                    pipe.call_method0(intern!(py, "close"))?;
                }
            }
        }
        let Some(process) = self.process() else {
            return Ok(());
        };
        if own.returncode.get().is_some() || !process.call_method0(intern!(py, "poll"))?.is_none() {
            return Ok(());
        }
        if self.loop_state().is_debug() {
            let text = "Close running child process: kill %r";
            imports::logger(py)?.call_method1("warning", (text, self.object()))?;
        }
        match process.call_method0(intern!(py, "kill")) {
            // It has ended already, or runs setuid.
            Err(error)
                if error.is_instance_of::<PyProcessLookupError>(py)
                    || error.is_instance_of::<PyPermissionError>(py) =>
            {
                Ok(())
            }
            killed => killed.map(drop),
        }
    }

    fn send_signal(&self, signal: &Bound<'py, PyAny>) -> PyResult<()> {
        let (py, own) = (self.py(), self.own());
        let Some(process) = self.process() else {
            return Err(PyProcessLookupError::new_err(()));
        };
        let reaped = own.returncode.get().is_some()
            || !process.getattr(intern!(py, "returncode"))?.is_none();
        if reaped {
            return Ok(());
        }
        // The child may look for what was written before.
        self.loop_state().flush(py);
        let sent = imports::os(py)?.call_method1(intern!(py, "kill"), (own.pid, signal));
        match sent {
            Err(error) if error.is_instance_of::<PyProcessLookupError>(py) => Ok(()),
            sent => sent.map(drop),
        }
    }

    fn send_named(&self, name: &str) -> PyResult<()> {
        let signal = imports::signal(self.py())?.getattr(name)?;
        self.send_signal(&signal)
    }
}

/// asyncio's form: the class, the state, and the pipes.
fn repr<'py>(this: &SubprocessThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let (py, own) = (this.py(), this.own());
    let mut parts = vec![this.object().get_type().name()?.to_string()];
    if own.closed.get() {
        parts.push("closed".to_owned());
    }
    parts.push(format!("pid={}", own.pid));
    parts.push(
        own.returncode
            .get()
            .map_or_else(|| "running".to_owned(), |code| format!("returncode={code}")),
    );
    for (fd, name) in [(0, "stdin"), (1, "stdout"), (2, "stderr")] {
        let protocol = this.pipes().get_item(fd)?;
        if let Some(protocol) = protocol.filter(|protocol| !protocol.is_none()) {
            parts.push(format!("{name}={}", protocol.getattr("pipe")?.str()?));
        }
    }
    Ok(PyString::new(py, &format!("<{}>", parts.join(" "))).into_any())
}

fn add_process_methods(methods: &mut Methods<OfNative<SubprocessTransport>>) {
    methods.nullary(
        c"get_pid",
        |this| Ok(this.own().pid.into_pyobject(this.py())?.into_any()),
        c"The process's number.",
    );
    methods.nullary(
        c"get_returncode",
        |this| Ok(this.own().returncode.get().into_pyobject(this.py())?),
        c"The exit status, negative for a signal; None while the process runs.",
    );
    methods.method(
        c"get_pipe_transport",
        "fd",
        |this, args| this.pipe_transport(&*args.one("get_pipe_transport", "fd")?),
        c"The transport of a pipe by the child's descriptor: 0, 1 or 2.",
    );
    methods.procedure(
        c"send_signal",
        "signal",
        |this, args| this.send_signal(&*args.one("send_signal", "signal")?),
        c"Send a signal; nothing happens if the process has ended.",
    );
    methods.nullary_procedure(
        c"terminate",
        |this| this.send_named("SIGTERM"),
        c"Send SIGTERM.",
    );
    methods.nullary_procedure(c"kill", |this| this.send_named("SIGKILL"), c"Send SIGKILL.");
}

fn add_attributes(methods: &mut Methods<OfNative<SubprocessTransport>>) {
    methods.getter(c"_proc", |this| this.or_none(this.process()));
    methods.getter(c"_closed", |this| this.boolean(this.own().closed.get()));
    methods.getter(c"_pipes", |this| Ok(this.pipes().clone().into_any()));
}

/// Makes the type; called once, at import.
pub(crate) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<SubprocessTransport>>::new();
    add_process_methods(&mut methods);
    base::add_methods(&mut methods);
    add_attributes(&mut methods);
    pipes::add_methods(&mut methods);
    exit::add_methods(&mut methods);
    let base = imports::subprocess_transport(py)?.cast::<PyType>()?;
    create::<SubprocessTransport>(
        py,
        c"oxloop._oxloop.SubprocessTransport",
        c"A child process and its pipes, see asyncio.SubprocessTransport.",
        base,
        methods,
        Slots::with_repr::<OfNative<SubprocessTransport>, _>(repr),
    )?;
    coroutine_method::install(&CLASS.type_object(py), &["_wait"])?;
    module.add("SubprocessTransport", CLASS.type_object(py))
}
