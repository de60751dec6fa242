//! Notices that the process has ended; and `_wait`.
//!
//! A pidfd in the loop's poller becomes readable. Where the kernel refuses one, a thread waits for
//! the process instead, without reaping it.

use super::{SubprocessThis, SubprocessTransport};
use crate::event_loop::held::{Held, Kind};
use crate::event_loop::registration::Registration;
use crate::event_loop::schedule::soon_from_thread;
use crate::py::class::{OfNative, Ref};
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::file::Known;
use crate::py::future::end_unless_done;
use crate::py::imports;
use crate::py::method::Methods;
use pyo3::exceptions::{PyAttributeError, PyChildProcessError, PyOSError, PyProcessLookupError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::poller::Interest;
use std::rc::Rc;

/// asyncio's exit status of a process that somebody else reaped.
const STATUS_UNKNOWN: i32 = 255;
/// What `Popen` returns for such a process: a number that is no exit status.
const REAPED: i32 = i32::MIN;

/// A child process that the loop watches. Only its own parent watches it, not a child of a fork.
static CHILD: Kind = Kind {
    on_event: |object, _, behind_queued| {
        SubprocessThis::of(object).map_or(Ok(()), |this| this.on_exit_event(behind_queued))
    },
    renewal: |object, _| {
        let this = SubprocessThis::of(object)?;
        this.own().pidfd.borrow().as_ref()?.renewal(|| Known::Kept)
    },
    is_inherited: false,
    ..Kind::NONE
};

pub(super) fn add_methods(methods: &mut Methods<OfNative<SubprocessTransport>>) {
    methods.nullary(c"_wait", wait, c"Wait for the exit status.");
    methods.nullary_procedure(
        c"_process_ended",
        |this| this.on_exit_event(false),
        c"The process has ended.",
    );
    methods.nullary_procedure(
        c"_wait_in_thread",
        wait_in_thread,
        c"Waits until the process has ended, and tells the loop.",
    );
}

impl SubprocessThis<'_, '_> {
    /// Registers a pidfd, or else starts a thread, so that the loop notices the exit.
    ///
    /// # Errors
    /// What starting a thread raises where pidfd_open(2) is refused.
    pub(super) fn watch_exit(&self) -> PyResult<()> {
        let (py, pid) = (self.py(), self.own().pid);
        self.loop_state().metrics().jobs.children_begun.add(1);
        let opened = imports::os(py)?.call_method1(intern!(py, "pidfd_open"), (pid,));
        let pidfd = match opened {
            Ok(pidfd) => pidfd.extract()?,
            // Reaped already: SIGCHLD is ignored, or the program was quicker.
            Err(error) if error.is_instance_of::<PyProcessLookupError>(py) => {
                return self.tell_later();
            }
            Err(error)
                if error.is_instance_of::<PyOSError>(py)
                    || error.is_instance_of::<PyAttributeError>(py) =>
            {
                return self.start_thread();
            }
            Err(error) => return Err(error),
        };
        let owner = Held {
            object: self.object().to_owned().unbind(),
            kind: &CHILD,
        };
        let registration = Registration::new(pidfd);
        let begun = registration.begin(self.loop_state(), owner, Interest::READABLE);
        // Also if that failed: the finalizer closes the descriptor.
        self.own().pidfd.replace(Some(registration));
        begun
    }

    fn start_thread(&self) -> PyResult<()> {
        let py = self.py();
        let kwargs = PyDict::new(py);
        kwargs.set_item("target", self.object().getattr("_wait_in_thread")?)?;
        kwargs.set_item("name", format!("oxloop-waitpid-{}", self.own().pid))?;
        kwargs.set_item("daemon", true)?;
        imports::threading(py)?
            .call_method("Thread", (), Some(&kwargs))?
            .call_method0("start")
            .map(drop)
    }

    /// Ends the registration of the pidfd and closes it.
    pub(super) fn stop_watching(&self) -> PyResult<()> {
        let py = self.py();
        let Some(pidfd) = self.own().pidfd.take() else {
            return Ok(());
        };
        pidfd.end(self.loop_state());
        imports::os(py)?
            .call_method1(intern!(py, "close"), (pidfd.fd(),))
            .map(drop)
    }

    /// Reaps the process that has ended, and tells everybody at once or, if `behind_queued`, behind
    /// what is queued. It is reaped at once in any case: a SIGCHLD handler of the program's may be
    /// queued, and would take the status.
    ///
    /// # Errors
    /// What `Popen` raises.
    fn on_exit_event(&self, behind_queued: bool) -> PyResult<()> {
        if self.own().returncode.get().is_some() {
            return self.stop_watching();
        }
        match self.exit_status()? {
            Some(status) => {
                self.stop_watching()?;
                if behind_queued {
                    return self.tell_later();
                }
                self.process_exited(status)
            }
            // Another thread is in the middle of Popen.wait(): the pidfd stays readable, the event
            // comes back.
            None if self.own().pidfd.borrow().is_some() => Ok(()),
            None => self.tell_later(),
        }
    }

    fn tell_later(&self) -> PyResult<()> {
        let py = self.py();
        let ended = self.object().getattr(intern!(py, "_process_ended"))?;
        let event_loop = self.event_loop();
        event_loop
            .call_method1(intern!(py, "call_soon"), (ended,))
            .map(drop)
    }

    /// The exit status from `Popen`, which reaps the process under its own lock; None while another
    /// thread holds that.
    fn exit_status(&self) -> PyResult<Option<i32>> {
        let py = self.py();
        let Some(process) = self.process() else {
            return Ok(Some(STATUS_UNKNOWN));
        };
        let known = process.getattr(intern!(py, "returncode"))?;
        if !known.is_none() {
            return known.extract().map(Some);
        }
        let status = process
            .call_method1(intern!(py, "_internal_poll"), (REAPED,))?
            .extract()?;
        if status != Some(REAPED) {
            return Ok(status);
        }
        process.setattr(intern!(py, "returncode"), STATUS_UNKNOWN)?;
        let text = "child process pid %d exit status already read:  will report returncode 255";
        imports::logger(py)?.call_method1("warning", (text, self.own().pid))?;
        Ok(Some(STATUS_UNKNOWN))
    }

    /// Waits until the process has ended, without reaping it, or was reaped by somebody else.
    fn wait_for_zombie(&self) -> PyResult<()> {
        let py = self.py();
        let options = libc::WEXITED | libc::WNOWAIT;
        let values = (libc::P_PID as i32, self.own().pid, options);
        match imports::os(py)?.call_method1("waitid", values) {
            Err(error) if !error.is_instance_of::<PyChildProcessError>(py) => Err(error),
            _ => Ok(()),
        }
    }

    fn process_exited(&self, status: i32) -> PyResult<()> {
        let (py, own) = (self.py(), self.own());
        if self.loop_state().is_debug() {
            let arguments = ("%r exited with return code %r", self.object(), status);
            imports::logger(py)?.call_method1("info", arguments)?;
        }
        own.returncode.set(Some(status));
        self.loop_state().metrics().jobs.children_ended.add(1);
        self.call("process_exited", &[])?;
        self.try_finish()?;
        for waiter in own.exit_waiters.take() {
            let status = status.into_pyobject(py)?.into_any().unbind();
            end_unless_done(waiter.bind(py), Ok(status))?;
        }
        Ok(())
    }
}

/// Runs in a thread of its own.
fn wait_in_thread(this: &SubprocessThis<'_, '_>) -> PyResult<()> {
    this.wait_for_zombie()?;
    let ended = this.object().getattr("_process_ended")?;
    soon_from_thread(this.event_loop(), &ended, &[])
}

fn wait<'py>(this: &SubprocessThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    Coroutine::of(
        this.py(),
        "SubprocessTransport._wait",
        this.to_ref(),
        wait_for_exit,
    )
}

impl SubprocessThis<'_, '_> {
    fn take_exit_waiter(&self, address: usize) -> Option<Py<PyAny>> {
        let mut waiters = self.own().exit_waiters.borrow_mut();
        let own = |waiter: &Py<PyAny>| waiter.as_ptr().addr() == address;
        let index = waiters.iter().position(own)?;
        Some(waiters.remove(index))
    }
}

async fn wait_for_exit(transport: Rc<Ref<SubprocessTransport>>) -> PyResult<Py<PyAny>> {
    let waiter = Python::attach(|py| {
        let this = transport.this(py);
        if this.own().returncode.get().is_some() {
            return Ok(None);
        }
        let waiter = this.event_loop().call_method0("create_future")?.unbind();
        let mut waiters = this.own().exit_waiters.borrow_mut();
        waiters.push(waiter.clone_ref(py));
        Ok::<_, PyErr>(Some(waiter))
    })?;
    if let Some(waiter) = waiter {
        // Only its address is kept here, so that the collector sees every reference to it. No other
        // waiter can have this address: until the exit `exit_waiters` keeps the future alive, and
        // after the exit there are no waiters.
        let address = waiter.as_ptr().addr();
        let outcome = await_python(waiter).await;
        Python::attach(|py| drop(transport.this(py).take_exit_waiter(address)));
        outcome?;
    }
    Python::attach(|py| {
        let status = transport.this(py).own().returncode.get();
        Ok(status.into_pyobject(py)?.unbind())
    })
}
