//! The accept loop: from a listener's event to a transport.

use super::{Inner, Server};
use crate::address::to_python;
use crate::error::os_error;
use crate::event_loop::exceptions;
use crate::event_loop::tls::TlsOptions;
use crate::event_loop::turn::leaves_the_loop;
use crate::py::imports;
use crate::tls::Waiter;
use crate::transport::stream::{self, Connected, Descriptor};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::addr::SocketAddress;
use reactor::socket;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Seconds that a listener rests when the process is out of descriptors, as in asyncio.
const ACCEPT_RETRY_DELAY: u32 = 1;

/// The kernel has connections for the listener `fd`.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
pub(crate) fn on_readable(this: &Bound<'_, Server>, fd: RawFd) -> PyResult<()> {
    let py = this.py();
    let inner = this.get().inner(py)?;
    let most = if cfg!(Py_3_14) {
        inner.backlog.max(0) + 1
    } else {
        inner.backlog.max(1)
    };
    for _ in 0..most {
        if inner.with_listener(fd, |_| ()).is_none() {
            return Ok(());
        }
        match socket::accept(fd) {
            Ok((connection, peer)) => accept(this, inner, connection, peer)?,
            Err(error) => match error.raw_os_error() {
                Some(libc::ECONNABORTED) => {}
                Some(libc::EAGAIN | libc::EINTR) => return Ok(()),
                _ => return accept_failed(this, inner, fd, &error),
            },
        }
    }
    Ok(())
}

fn accept(
    this: &Bound<'_, Server>,
    inner: &Inner,
    connection: OwnedFd,
    peer: SocketAddress,
) -> PyResult<()> {
    let py = this.py();
    log_connection(this, inner, &peer)?;
    let context = inner.context.copy(py)?;
    let mut protocol = None;
    let made = context
        .run(py, || inner.factory.bind(py).call0())
        .inspect(|made| protocol = Some(made.clone()))
        .and_then(|made| match &inner.tls {
            None => Ok(made),
            Some(tls) => secured(inner, tls, &made),
        })
        .and_then(|made| {
            let connected = Connected {
                descriptor: Descriptor::Own(connection),
                protocol: made.unbind(),
                waiter: None,
                peer: Some(peer),
                server: Some(this.clone().unbind()),
                context,
            };
            stream::start(inner.event_loop.bind(py), connected)
        });
    let Err(error) = made else { return Ok(()) };
    if leaves_the_loop(py, &error) {
        return Err(error);
    }
    let context = PyDict::new(py);
    context.set_item(
        "message",
        "Error on transport creation for incoming connection",
    )?;
    context.set_item("exception", error.into_value(py))?;
    if let Some(protocol) = protocol {
        context.set_item("protocol", protocol)?;
    }
    exceptions::report(inner.event_loop.bind(py), &context)
}

/// The TLS protocol between the transport and the program's `protocol`. When the
/// handshake fails, the TLS protocol closes the connection.
fn secured<'py>(
    inner: &Inner,
    tls: &TlsOptions,
    protocol: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = protocol.py();
    let event_loop = inner.event_loop.bind(py);
    let secured = tls.protocol(event_loop, protocol, Waiter::Server, true, true)?;
    Ok(secured.as_object().bind(py).clone())
}

fn log_connection(this: &Bound<'_, Server>, inner: &Inner, peer: &SocketAddress) -> PyResult<()> {
    let py = this.py();
    if !inner.event_loop.get().state(py).is_debug() {
        return Ok(());
    }
    let text = "%r got a new connection from %r";
    imports::logger(py)?.call_method1("debug", (text, this, to_python(py, peer)?))?;
    Ok(())
}

/// accept(2) failed. Without descriptors the listener rests, or the loop would spin on it.
fn accept_failed(
    this: &Bound<'_, Server>,
    inner: &Inner,
    fd: RawFd,
    error: &io::Error,
) -> PyResult<()> {
    let py = this.py();
    let exhausted = matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    );
    let context = PyDict::new(py);
    let message = if exhausted {
        "socket.accept() out of system resource"
    } else {
        "socket.accept() failed"
    };
    context.set_item("message", message)?;
    context.set_item("exception", os_error(error).into_value(py))?;
    if let Some(socket) = inner.with_listener(fd, |listener| listener.socket.clone_ref(py)) {
        context.set_item("socket", imports::transport_socket(py)?.call1((socket,))?)?;
    }
    let event_loop = inner.event_loop.bind(py);
    if exhausted {
        let token = inner.with_listener(fd, |listener| listener.token).flatten();
        if let Some(token) = token {
            event_loop.get().state(py).suspend_registration(fd, token);
        }
        let again = this.getattr("_accept_again")?;
        event_loop.call_method1("call_later", (ACCEPT_RETRY_DELAY, again, fd))?;
    }
    exceptions::report(event_loop, &context)
}
