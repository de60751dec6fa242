//! Staggered attempts: the part of happy eyeballs that starts, awaits and cancels tasks.

use super::EventLoop;
use super::attempts::Attempts;
use super::connected::OpenSocket;
use crate::py::coroutine::{Coroutine, await_python};
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
        let waiting = Python::attach(|py| wait(py, &self.running, timeout, "FIRST_COMPLETED"))?;
        await_python(waiting).await?;
        Python::attach(|py| self.collect(py))
    }

    /// Cancels what still runs and waits for all of it. A cancellation of the caller meanwhile is
    /// kept until then.
    async fn end(&mut self) -> PyResult<()> {
        let mut outcome = Ok(());
        while !self.running.is_empty() {
            let waiting = Python::attach(|py| {
                for task in &self.running {
                    task.bind(py).call_method0(intern!(py, "cancel"))?;
                }
                wait(py, &self.running, None, "ALL_COMPLETED")
            })?;
            if let Err(error) = await_python(waiting).await {
                outcome = Err(error);
            }
            Python::attach(|py| self.collect(py))?;
        }
        outcome
    }

    fn collect(&mut self, py: Python<'_>) -> PyResult<()> {
        let mut running = Vec::with_capacity(self.running.len());
        for task in std::mem::take(&mut self.running) {
            if !task
                .bind(py)
                .call_method0(intern!(py, "done"))?
                .is_truthy()?
            {
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
    let attempt = attempts.attempt(this.clone().unbind(), index);
    let coroutine = Coroutine::object(py, "EventLoop.create_connection", async move {
        attempt.await.map(OpenSocket::keep)
    })?;
    let task = this.call_method1(intern!(py, "create_task"), (coroutine,))?;
    Ok(task.unbind())
}

/// `asyncio.wait(tasks, timeout=..., return_when=...)`.
fn wait(
    py: Python<'_>,
    tasks: &[Py<PyAny>],
    timeout: Option<&Py<PyAny>>,
    until: &str,
) -> PyResult<Py<PyAny>> {
    let kwargs = PyDict::new(py);
    kwargs.set_item("timeout", timeout)?;
    kwargs.set_item("return_when", until)?;
    let tasks = PyList::new(py, tasks)?;
    imports::wait(py)?
        .call((tasks,), Some(&kwargs))
        .map(Bound::unbind)
}
