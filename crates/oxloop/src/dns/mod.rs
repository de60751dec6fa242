//! Name resolution: what is behind `loop.getaddrinfo` and `loop.getnameinfo`.
//!
//! A question goes one of four ways:
//! - a plain numeric host and port are answered at once (`numeric`);
//! - other numeric hosts are answered by the C library at once, on the loop's thread: with
//!   AI_NUMERICHOST it contacts no name service (`native`);
//! - other ordinary arguments are looked up on a resolver thread, which needs the GIL only to
//!   deliver the answer (`native`, `background`);
//! - for everything else, the `socket` module's function is called on such a thread: for arguments
//!   that it will refuse, and if the program replaced the function (`background`).
//!
//! So results and errors are those of `socket.getaddrinfo` in all four cases.
//!
//! Differs from asyncio: lookups run in threads of the resolver's own, so they do not wait behind
//! blocking work in the default executor, and no default executor is made for them.

mod answer;
mod background;
mod literal;
mod methods;
mod native;
mod numeric;
mod question;

use crate::event_loop::EventLoop;
use crate::py::coroutine::await_python;
use crate::py::imports;
use crate::py::object::is_defined_in;
use background::{Pending, call_in_thread};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyTuple;
use reactor::clock;

pub(crate) use literal::{Wanted, ensure_resolved, is_resolved};
pub(crate) use question::Question;

static GETADDRINFO: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// An answer, or the wait for one.
enum Found {
    Now(Py<PyAny>),
    Later(Pending),
}

/// Remembers the socket module's own `getaddrinfo`; called once, at import. A function that was
/// replaced before the import counts as the program's, as one that is replaced later.
pub(crate) fn remember_original(py: Python<'_>) -> PyResult<()> {
    let socket = py.import("socket")?;
    let function = socket.getattr("getaddrinfo")?;
    if is_defined_in(&function, &socket) {
        let _first = GETADDRINFO.set(py, function.unbind());
    }
    Ok(())
}

/// `loop.getaddrinfo`.
///
/// # Errors
/// What `socket.getaddrinfo` raises; CancelledError.
pub(crate) async fn getaddrinfo(this: Py<EventLoop>, question: Question) -> PyResult<Py<PyAny>> {
    let debug = Python::attach(|py| this.get().state(py).is_debug());
    if !debug {
        return answer(&this, &question).await;
    }
    let (shown, begun) = Python::attach(|py| {
        let shown = question.show(py)?;
        imports::logger(py)?.call_method1("debug", ("Get address info %s", &shown))?;
        Ok::<_, PyErr>((shown, clock::now()))
    })?;
    let found = answer(&this, &question).await?;
    Python::attach(|py| log_answer(this.bind(py), &shown, clock::now() - begun, found.bind(py)))?;
    Ok(found)
}

async fn answer(this: &Py<EventLoop>, question: &Question) -> PyResult<Py<PyAny>> {
    match Python::attach(|py| ask(this.bind(py), question))? {
        Found::Now(found) => Ok(found),
        Found::Later(pending) => pending.wait().await,
    }
}

fn ask(this: &Bound<'_, EventLoop>, question: &Question) -> PyResult<Found> {
    let py = this.py();
    this.get().state(py).check_closed()?;
    let function = imports::socket(py)?.getattr(intern!(py, "getaddrinfo"))?;
    let own = GETADDRINFO
        .get(py)
        .is_some_and(|original| function.is(original));
    if own && let Some(found) = numeric::answer(py, question) {
        question.audit(py)?;
        return found.map(Found::Now);
    }
    let native = if own { question.to_native(py) } else { None };
    let Some(native) = native else {
        let pending = call_in_thread(this, &function, question.arguments(py)?)?;
        return Ok(Found::Later(pending));
    };
    question.audit(py)?;
    match native.answer_now(py) {
        Some(found) => found.map(Found::Now),
        None => background::look_up(this, native).map(Found::Later),
    }
}

fn log_answer(
    this: &Bound<'_, EventLoop>,
    shown: &str,
    seconds: f64,
    found: &Bound<'_, PyAny>,
) -> PyResult<()> {
    let py = this.py();
    let text = format!(
        "Getting address info {shown} took {:.3}ms: {}",
        seconds * 1e3,
        found.repr()?
    );
    let slow = this.getattr("slow_callback_duration")?.le(seconds)?;
    let level = if slow { "info" } else { "debug" };
    imports::logger(py)?.call_method1(level, (text,)).map(drop)
}

/// `loop.getnameinfo`. It is called rarely, so it always uses the socket module's own function.
///
/// # Errors
/// What `socket.getnameinfo` raises; CancelledError.
pub(crate) async fn getnameinfo(
    this: Py<EventLoop>,
    address: Py<PyAny>,
    flags: Py<PyAny>,
) -> PyResult<Py<PyAny>> {
    let pending = Python::attach(|py| {
        let this = this.bind(py);
        this.get().state(py).check_closed()?;
        let function = imports::socket(py)?.getattr("getnameinfo")?;
        let arguments = PyTuple::new(py, [address, flags])?;
        call_in_thread(this, &function, arguments)
    })?;
    pending.wait().await
}
