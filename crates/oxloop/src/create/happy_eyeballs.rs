//! Staggered attempts: the part of happy eyeballs that starts, awaits and cancels tasks.

use super::attempts::Attempts;
use super::transport::OpenSocket;
use crate::event_loop::EventLoop;
use crate::py::coroutine::{Coroutine, await_python_keeping};
use crate::py::future::is_done;
use crate::py::imports;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList};

/// Connects to whichever address answers first; None if none does.
///
/// # Errors
/// What the task throws in, once every attempt has ended.
pub(super) async fn staggered(
    this: &Py<EventLoop>,
    attempts: &Attempts,
    delay: &Py<PyAny>,
) -> PyResult<Option<OpenSocket>> {
    let mut race = Race {
        running: Vec::new(),
        winner: None,
    };
    let run = race.run(this, attempts, delay).await;
    // Whatever ended the race, no attempt goes on after it.
    let ended = race.end().await;
    run.and(ended)?;
    Ok(race.winner)
}

struct Race {
    /// The tasks of attempts that have not ended.
    running: Vec<Py<PyAny>>,
    winner: Option<OpenSocket>,
}

impl Race {
    async fn run(
        &mut self,
        this: &Py<EventLoop>,
        attempts: &Attempts,
        delay: &Py<PyAny>,
    ) -> PyResult<()> {
        for index in 0..attempts.remote.len() {
            let task = Python::attach(|py| start(this.bind(py), attempts, index))?;
            self.running.push(task);
            let last = index + 1 == attempts.remote.len();
            self.wait((!last).then_some(delay)).await?;
            if self.winner.is_some() {
                return Ok(());
            }
        }
        while self.winner.is_none() && !self.running.is_empty() {
            self.wait(None).await?;
        }
        Ok(())
    }

    /// Waits until an attempt ends or `timeout` passes, and takes out what has ended.
    async fn wait(&mut self, timeout: Option<&Py<PyAny>>) -> PyResult<()> {
        self.wait_until("FIRST_COMPLETED", timeout).await?;
        Python::attach(|py| self.collect(py))
    }

    /// Cancels the tasks that still run and waits for them. If the caller is cancelled meanwhile,
    /// that is raised afterwards.
    async fn end(&mut self) -> PyResult<()> {
        let mut outcome = Ok(());
        while !self.running.is_empty() {
            Python::attach(|py| {
                let cancel = intern!(py, "cancel");
                let mut running = self.running.iter();
                running.try_for_each(|task| task.bind(py).call_method0(cancel).map(drop))
            })?;
            if let Err(error) = self.wait_until("ALL_COMPLETED", None).await {
                outcome = Err(error);
            }
            Python::attach(|py| self.collect(py))?;
        }
        outcome
    }

    /// Awaits `asyncio.wait`. The coroutine owns the tasks meanwhile, because they lead to what it
    /// awaits (see `Coroutine`).
    async fn wait_until(&mut self, until: &str, timeout: Option<&Py<PyAny>>) -> PyResult<()> {
        let running = std::mem::take(&mut self.running);
        let (waiting, tasks) = Python::attach(|py| {
            let tasks = PyList::new(py, running)?;
            let waiting = wait(&tasks, timeout, until)?;
            Ok::<_, PyErr>((waiting, tasks.into_any().unbind()))
        })?;
        let (outcome, tasks) = await_python_keeping(waiting, tasks).await;
        self.running = Python::attach(|py| tasks.extract(py))?;
        outcome.map(drop)
    }

    fn collect(&mut self, py: Python<'_>) -> PyResult<()> {
        let mut running = Vec::with_capacity(self.running.len());
        for task in std::mem::take(&mut self.running) {
            if !is_done(task.bind(py))? {
                running.push(task);
                continue;
            }
            // An attempt's error is in the list of errors already, and others do not end the race.
            if let Ok(sock) = task.bind(py).call_method0(intern!(py, "result")) {
                let sock = OpenSocket::made(sock.unbind());
                // One that connected as well, but later, is closed right here.
                if self.winner.is_none() {
                    self.winner = Some(sock);
                }
            }
        }
        self.running = running;
        Ok(())
    }
}

/// Starts an attempt as a task, whose result is the connected socket.
fn start(this: &Bound<'_, EventLoop>, attempts: &Attempts, index: usize) -> PyResult<Py<PyAny>> {
    let py = this.py();
    let attempt = attempts.attempt(index);
    let coroutine = Coroutine::method(this, "EventLoop.create_connection", |this| async move {
        attempt.connect(&this).await.map(OpenSocket::keep)
    })?;
    let task = this.call_method1(intern!(py, "create_task"), (coroutine,))?;
    Ok(task.unbind())
}

/// `asyncio.wait(tasks, timeout=..., return_when=...)`.
fn wait(
    tasks: &Bound<'_, PyList>,
    timeout: Option<&Py<PyAny>>,
    until: &str,
) -> PyResult<Py<PyAny>> {
    let py = tasks.py();
    let kwargs = PyDict::new(py);
    kwargs.set_item("timeout", timeout)?;
    kwargs.set_item("return_when", until)?;
    imports::wait(py)?
        .call((tasks,), Some(&kwargs))
        .map(Bound::unbind)
}
