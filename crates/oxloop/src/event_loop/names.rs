//! `getaddrinfo` and `getnameinfo`; the work is in `dns/`.

use super::{EventLoop, State};
use crate::dns::{self, Question};
use crate::py::context::Captured;
use crate::py::coroutine::Coroutine;
use crate::py::keywords::Number;
use crate::py::schedule::handle_for;
use pyo3::prelude::*;
use reactor::resolver::Resolver;
use std::sync::Arc;

/// Most lookups that run at once; more wait.
const THREADS_MOST: usize = 64;

#[pymethods]
impl EventLoop {
    /// socket.getaddrinfo() without blocking the loop.
    #[pyo3(
        signature = (
            host, port, *, family=Number::NOT_GIVEN, r#type=Number::NOT_GIVEN,
            proto=Number::NOT_GIVEN, flags=Number::NOT_GIVEN
        ),
        text_signature = "($self, host, port, *, family=0, type=0, proto=0, flags=0)"
    )]
    fn getaddrinfo<'py>(
        slf: &Bound<'py, Self>,
        host: Py<PyAny>,
        port: Py<PyAny>,
        family: Number,
        r#type: Number,
        proto: Number,
        flags: Number,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let question = Question {
            host,
            port,
            family: family.or(py, 0)?,
            kind: r#type.or(py, 0)?,
            proto: proto.or(py, 0)?,
            flags: flags.or(py, 0)?,
        };
        let answer = dns::getaddrinfo(slf.clone().unbind(), question);
        Coroutine::object(py, "EventLoop.getaddrinfo", answer)
    }

    /// socket.getnameinfo() without blocking the loop.
    #[pyo3(
        signature = (sockaddr, flags=Number::NOT_GIVEN),
        text_signature = "($self, sockaddr, flags=0)"
    )]
    fn getnameinfo<'py>(
        slf: &Bound<'py, Self>,
        sockaddr: Py<PyAny>,
        flags: Number,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let answer = dns::getnameinfo(slf.clone().unbind(), sockaddr, flags.or(py, 0)?);
        Coroutine::object(py, "EventLoop.getnameinfo", answer)
    }
}

impl State {
    /// The loop's resolver, made when it is first needed.
    pub(crate) fn resolver(&self) -> Arc<Resolver> {
        let mut resolver = self.resolver.borrow_mut();
        Arc::clone(resolver.get_or_insert_with(|| Arc::new(Resolver::new(THREADS_MOST))))
    }
}

/// Schedules a callback of a thread of the loop's own; nothing happens if the loop is closed. Where
/// it was made is not remembered in debug mode: such a thread has no Python code.
///
/// # Errors
/// MemoryError.
pub(crate) fn soon_from_thread(
    event_loop: &Bound<'_, EventLoop>,
    callback: &Bound<'_, PyAny>,
    arguments: &[&Bound<'_, PyAny>],
) -> PyResult<()> {
    let (py, state) = (event_loop.py(), event_loop.get().state(event_loop.py()));
    if state.check_closed().is_err() {
        return Ok(());
    }
    let owner = event_loop.as_any().as_borrowed();
    let handle = handle_for(py, owner, callback, arguments, Captured::empty())?;
    state.enqueue(handle);
    state.wake();
    Ok(())
}
