//! Waiting for a descriptor in Rust code: one event, one future.
//!
//! The wait is an ordinary watcher, as if the program had called `add_reader` or `add_writer`:
//! these and a wait replace each other, as they do in asyncio.
//!
//! Invariants:
//! - the watcher ends with the value, however the coroutine that waits ends, unless somebody put
//!   another one in its place.

use super::EventLoop;
use super::watchers::Side;
use crate::py::context::Captured;
use crate::py::coroutine::await_python;
use crate::py::handle::HandleRef;
use crate::py::imports;
use crate::py::schedule::handle_for;
use pyo3::intern;
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// A descriptor that is being watched until it is ready.
pub(super) struct Readiness {
    event_loop: Py<EventLoop>,
    file: Py<PyAny>,
    fd: RawFd,
    side: Side,
    future: Py<PyAny>,
    handle: Option<HandleRef>,
}

impl Readiness {
    /// Begins to watch `fd`, which is `file`'s.
    ///
    /// # Errors
    /// RuntimeError for a transport's descriptor; what epoll_ctl(2) says.
    pub(super) fn of(
        event_loop: &Bound<'_, EventLoop>,
        file: &Bound<'_, PyAny>,
        fd: RawFd,
        side: Side,
    ) -> PyResult<Self> {
        let py = event_loop.py();
        event_loop.call_method1(intern!(py, "_ensure_fd_no_transport"), (file,))?;
        let future = event_loop.call_method0(intern!(py, "create_future"))?;
        let none = py.None().into_bound(py);
        let handle = handle_for(
            py,
            event_loop.as_any().as_borrowed(),
            imports::set_result_unless_cancelled(py)?,
            &[&future, &none],
            Captured::empty(),
        )?;
        handle.set_repeating();
        let own = handle.clone_ref(py);
        let replaced = event_loop.get().state(py).watch(fd, file, side, handle)?;
        if let Some(replaced) = replaced {
            replaced.cancel(py);
            replaced.release_ref(py);
        }
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            file: file.clone().unbind(),
            fd,
            side,
            future: future.unbind(),
            handle: Some(own),
        })
    }

    /// Returns when the descriptor is ready, which includes that it has failed.
    ///
    /// # Errors
    /// What the task throws in.
    pub(super) async fn wait(self) -> PyResult<()> {
        let future = Python::attach(|py| self.future.clone_ref(py));
        await_python(future).await.map(drop)
    }
}

impl Drop for Readiness {
    fn drop(&mut self) {
        let Some(handle) = self.handle.take() else {
            return;
        };
        Python::attach(|py| {
            if !handle.is_cancelled() {
                let state = self.event_loop.get().state(py);
                let removed = state.unwatch(self.fd, self.file.bind(py), self.side);
                if let Some(removed) = removed {
                    removed.cancel(py);
                    removed.release_ref(py);
                }
            }
            handle.release_ref(py);
        });
    }
}
