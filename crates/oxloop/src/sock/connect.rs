//! `sock_connect`.

use super::{blocks, check_sock};
use crate::dns::{Wanted, ensure_resolved};
use crate::error::{asks_to_wait, errno_error, errno_error_with};
use crate::event_loop::EventLoop;
use crate::event_loop::readiness::Readiness;
use crate::event_loop::watch::Side;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::socket::is_plain;
use pyo3::intern;
use pyo3::prelude::*;

#[pymethods]
impl EventLoop {
    /// Connect a non-blocking socket; a host name is looked up.
    fn sock_connect<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        address: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop.sock_connect", move |this| async move {
            Python::attach(|py| check_sock(this.bind(py), sock.bind(py)))?;
            sock_connect(&this, &sock, address).await?;
            Ok(Python::attach(|py| py.None()))
        })
    }
}

/// Connects `sock`, which the caller checked.
///
/// # Errors
/// What the lookup and connect(2) say; what the task throws in.
async fn sock_connect(
    this: &Py<EventLoop>,
    sock: &Py<PyAny>,
    mut address: Py<PyAny>,
) -> PyResult<()> {
    let wanted = Python::attach(|py| internet_socket(sock.bind(py)))?;
    if let Some(wanted) = wanted {
        let infos = ensure_resolved(this, address, &wanted).await?;
        address = Python::attach(|py| {
            let first = infos.bind(py).get_item(0)?;
            first.get_item(4).map(Bound::unbind)
        })?;
    }
    connect_resolved(this, sock, address).await
}

/// Connects `sock` for a method that makes sockets itself: through the loop's `sock_connect` if the
/// program has replaced it, else without another coroutine.
///
/// # Errors
/// As `sock_connect`, or what the program's own raises.
pub(crate) async fn connect_made(
    this: &Py<EventLoop>,
    sock: &Py<PyAny>,
    address: Py<PyAny>,
    resolved: bool,
) -> PyResult<()> {
    let replaced = Python::attach(|py| {
        let this = this.bind(py);
        this.get().state(py).flush(py);
        if !this.get().state(py).settings.custom_sock_connect.get() {
            return Ok(None);
        }
        let connecting = this.call_method1(intern!(py, "sock_connect"), (sock, &address))?;
        Ok::<_, PyErr>(Some(connecting.unbind()))
    })?;
    match replaced {
        Some(connecting) => await_python(connecting).await.map(drop),
        None if resolved => connect_resolved(this, sock, address).await,
        None => sock_connect(this, sock, address).await,
    }
}

/// Connects `sock` to an address that needs no lookup.
///
/// # Errors
/// What connect(2) says; what the task throws in.
async fn connect_resolved(
    this: &Py<EventLoop>,
    sock: &Py<PyAny>,
    address: Py<PyAny>,
) -> PyResult<()> {
    let begun = Python::attach(|py| connect(this, sock.bind(py), address.bind(py)))?;
    let Some(writable) = begun else {
        return Ok(());
    };
    writable.wait().await?;
    Python::attach(|py| connected(sock.bind(py), address.bind(py)))
}

/// What to look an address up for, if the socket's family has names.
fn internet_socket(sock: &Bound<'_, PyAny>) -> PyResult<Option<Wanted>> {
    let py = sock.py();
    let family = sock.getattr(intern!(py, "family"))?;
    if !matches!(family.extract(), Ok(libc::AF_INET | libc::AF_INET6)) {
        return Ok(None);
    }
    Ok(Some(Wanted {
        family: family.unbind(),
        kind: sock.getattr(intern!(py, "type"))?.unbind(),
        proto: sock.getattr(intern!(py, "proto"))?.unbind(),
        flags: 0_i32.into_pyobject(py)?.into_any().unbind(),
    }))
}

/// Starts to connect; None if it is done already.
fn connect<'a>(
    this: &'a Py<EventLoop>,
    sock: &Bound<'_, PyAny>,
    address: &Bound<'_, PyAny>,
) -> PyResult<Option<Readiness<'a>>> {
    let py = sock.py();
    this.get().state(py).check_closed()?;
    if !connecting(sock, address)? {
        return Ok(None);
    }
    let fd = sock.call_method0(intern!(py, "fileno"))?.extract()?;
    Readiness::of(py, this, fd, Side::Writer).map(Some)
}

/// Calls connect(2); true if the connection is still being made.
fn connecting(sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = sock.py();
    if is_plain(sock)?
        && !blocks(sock)?
        && let Ok(errno) = sock.call_method1(intern!(py, "connect_ex"), (address,))
    {
        return match errno.extract()? {
            0 => Ok(false),
            libc::EINPROGRESS | libc::EALREADY | libc::EAGAIN | libc::EINTR => Ok(true),
            errno => Err(errno_error(errno)),
        };
    }
    // A subclass may have a `connect` of its own, through a proxy for example. An address that
    // cannot be converted is to be refused in the name of `connect`, and a socket with a timeout
    // raises it there.
    match sock.call_method1(intern!(py, "connect"), (address,)) {
        Ok(_) => Ok(false),
        Err(error) if asks_to_wait(py, &error) => Ok(true),
        Err(error) => Err(error),
    }
}

/// The error of a connection that was being made.
fn connect_error(errno: i32, address: &Bound<'_, PyAny>) -> PyErr {
    match address.str() {
        Ok(shown) => errno_error_with(errno, &format!("Connect call failed {shown}")),
        Err(error) => error,
    }
}

/// The outcome of a connection that is not being made any more. The socket object is asked for its
/// descriptor: it may have been closed meanwhile, and its number given to another file.
fn connected(sock: &Bound<'_, PyAny>, address: &Bound<'_, PyAny>) -> PyResult<()> {
    let option = (libc::SOL_SOCKET, libc::SO_ERROR);
    let pending = sock.call_method1(intern!(sock.py(), "getsockopt"), option)?;
    match pending.extract()? {
        0 => Ok(()),
        errno => Err(connect_error(errno, address)),
    }
}
