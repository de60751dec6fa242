//! `sock_recv`, `sock_sendall` and the other methods on sockets that have no transport.
//!
//! | asyncio's method | file |
//! |---|---|
//! | sock_recv, sock_recv_into, sock_recvfrom, sock_recvfrom_into, sock_accept | `recv` |
//! | sock_sendall, sock_sendto | `send` |
//! | sock_connect | `connect` |
//! | sock_recvmsg, sock_sendmsg (not in asyncio) | `message` |
//!
//! Each method tries first, and waits only if the kernel would block (`until_ready`). For a plain
//! `socket.socket` the loop calls the kernel itself. For a subclass or another object it calls the
//! object's own methods, and also for a socket with a timeout if it has to wait.
//!
//! Invariants:
//! - what the kernel gave is returned in the same step of the coroutine: a cancellation loses no
//!   data, no connection and no descriptor.

mod connect;
mod message;
mod recv;
mod send;

use super::event_loop::EventLoop;
use super::event_loop::readiness::Readiness;
use super::event_loop::watch::Side;
use crate::error::{asks_to_wait, os_error};
use crate::py::coroutine::Coroutine;
use crate::py::imports;
use crate::py::object::call_method;
use crate::py::socket::is_plain;
use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

pub(super) use connect::connect_made;

#[pymethods]
impl EventLoop {
    /// Wait until a socket takes data; its transport, if it has one, must not be writing.
    fn _sock_writable<'py>(slf: &Bound<'py, Self>, sock: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop._sock_writable", |this| async move {
            ready(&this, &sock, Side::Writer).await?;
            Ok(Python::attach(|py| py.None()))
        })
    }
}

/// What every method on a socket refuses. What was written to transports leaves first: it may be
/// for the same peer.
///
/// # Errors
/// TypeError for an SSLSocket; in debug mode, ValueError for one that blocks.
fn check_sock(this: &Bound<'_, EventLoop>, sock: &Bound<'_, PyAny>) -> PyResult<()> {
    check_not_ssl(sock)?;
    let state = this.get().state(this.py());
    state.flush(this.py());
    if state.is_debug() && sock.call_method0("gettimeout")?.ne(0)? {
        return Err(PyValueError::new_err("the socket must be non-blocking"));
    }
    Ok(())
}

/// # Errors
/// TypeError for an SSLSocket, whose TLS would block.
pub(super) fn check_not_ssl(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    if sock.get_type().is(imports::socket_class(py)?) {
        return Ok(());
    }
    // Without the ssl module there is no such socket.
    let class = imports::ssl_socket(py);
    if class.is_ok_and(|class| sock.is_instance(class).unwrap_or(false)) {
        return Err(PyTypeError::new_err("Socket cannot be of type SSLSocket"));
    }
    Ok(())
}

/// The descriptor of a plain `socket.socket`, on which the loop may make system calls itself if
/// they do not wait.
fn plain_descriptor(sock: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    if !is_plain(sock)? {
        return Ok(None);
    }
    descriptor(sock).map(Some)
}

/// Whether the socket's own methods wait for the kernel. asyncio calls such a method and blocks in
/// it until it returns or the socket's timeout is over.
fn blocks(sock: &Bound<'_, PyAny>) -> PyResult<bool> {
    let timeout = call_method(sock, intern!(sock.py(), "gettimeout"), &[])?;
    Ok(!matches!(timeout.extract::<f64>(), Ok(0.0)))
}

fn descriptor(sock: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    call_method(sock, intern!(sock.py(), "fileno"), &[])?.extract()
}

/// None if the kernel would block.
fn attempted<T>(outcome: io::Result<T>) -> PyResult<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(os_error(&error)),
    }
}

/// Calls a method of the socket object; None if it would block.
fn attempt_method<'py>(
    sock: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = sock.py();
    match sock.call_method1(name, arguments.clone()) {
        Ok(value) => Ok(Some(value)),
        Err(error) if asks_to_wait(py, &error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tries, and waits for the socket until the attempt succeeds.
///
/// # Errors
/// What the attempt or the check of the socket raises, and what the task throws in.
async fn until_ready<F>(
    this: &Py<EventLoop>,
    sock: &Py<PyAny>,
    side: Side,
    mut attempt: F,
) -> PyResult<Py<PyAny>>
where
    F: for<'py> FnMut(&Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>>,
{
    Python::attach(|py| check_sock(this.bind(py), sock.bind(py)))?;
    loop {
        let outcome = Python::attach(|py| {
            let outcome = attempt(sock.bind(py))?;
            Ok::<_, PyErr>(outcome.map(Bound::unbind))
        })?;
        if let Some(value) = outcome {
            return Ok(value);
        }
        ready(this, sock, side).await?;
    }
}

async fn ready(this: &Py<EventLoop>, sock: &Py<PyAny>, side: Side) -> PyResult<()> {
    let readiness = Python::attach(|py| {
        let fd = descriptor(sock.bind(py))?;
        Readiness::of(py, this, fd, side)
    })?;
    readiness.wait().await
}

/// A coroutine that calls a method of the socket object until it need not wait.
fn method_coroutine<'py>(
    this: &Bound<'py, EventLoop>,
    name: &'static str,
    side: Side,
    sock: Py<PyAny>,
    method: &Bound<'py, PyString>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    let (method, arguments) = (method.clone().unbind(), arguments.clone().unbind());
    Coroutine::method(this, name, move |this| async move {
        until_ready(&this, &sock, side, |sock| {
            let py = sock.py();
            attempt_method(sock, method.bind(py), arguments.bind(py))
        })
        .await
    })
}
