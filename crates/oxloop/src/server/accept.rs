//! The accept loop: from a listener's event to a connection.
//!
//! As in asyncio, accepting waits its turn behind the callbacks that were queued before the event:
//! if one of them closes the server, nothing more is accepted.

use super::{Listener, Server, ServerState};
use crate::address::to_python;
use crate::error::{asks_to_wait, errno_of, os_error};
use crate::event_loop::exceptions;
use crate::event_loop::held::Kind;
use crate::event_loop::schedule::soon_method;
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::object::has_audit_hooks;
use crate::py::socket::{SocketKind, makes_plain_sockets};
use pyo3::exceptions::{PyConnectionAbortedError, PyOSError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::addr::SocketAddress;
use reactor::poller::Interest;
use reactor::socket;
use std::io;
use std::os::fd::{OwnedFd, RawFd};

/// Seconds that a listener is not polled when the process is out of descriptors, as in asyncio.
const ACCEPT_RETRY_DELAY: u32 = 1;

/// A listener of a server. All listeners of a server are registered with the same object, the
/// server; the token tells which one it is.
pub(super) static LISTENER: Kind = Kind {
    on_event: |object, event, _| {
        let server = object.cast::<Server>()?;
        let inner = server.get().inner(object.py())?;
        let fd = inner.with_token(event.token, Listener::fd);
        fd.map_or(Ok(()), |fd| accept_soon(server, inner, fd))
    },
    renewal: |object, token| {
        let (py, server) = (object.py(), object.cast::<Server>().ok()?);
        let inner = server.get().inner(py).ok()?;
        let renewal = |own: &Listener| own.registration.renewal(|| own.socket.known(py));
        inner.with_token(token, renewal).flatten()
    },
    // What was accepted and has no transport yet is closed.
    loop_closed: |object| {
        let server = object.cast::<Server>()?;
        server.get().inner(object.py())?.drop_incoming(object.py())
    },
    queues_handles: true,
    ..Kind::NONE
};

/// Queues a handle that accepts the connections of the listener `fd`.
///
/// # Errors
/// MemoryError.
fn accept_soon(this: &Bound<'_, Server>, inner: &ServerState, fd: RawFd) -> PyResult<()> {
    let py = this.py();
    let accept = this.getattr(intern!(py, "_accept"))?;
    let fd = fd.into_pyobject(py)?;
    let event_loop = inner.event_loop.bind(py);
    soon_method(py, event_loop, &accept, &[fd.as_any()], Captured::empty())
}

/// Accepts what has come to the listener `fd`, if the server has it still.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, what a socket object's own `accept()` raises beside OSError,
/// and what the exception handler lets out.
pub(super) fn accept_all(this: &Bound<'_, Server>, fd: RawFd) -> PyResult<()> {
    let py = this.py();
    let inner = this.get().inner(py)?;
    let backlog: i32 = inner.backlog.bind(py).extract()?;
    let most = if cfg!(Py_3_14) {
        backlog.max(0).saturating_add(1)
    } else {
        backlog.max(1)
    };
    // Audit hooks hear of each socket object that is made, and may refuse it.
    let plain = makes_plain_sockets(py)? && !has_audit_hooks(py);
    for _ in 0..most {
        let Some(accepting) = inner.with_listener(fd, |own| Accepting::of(py, own, plain)) else {
            return Ok(());
        };
        match accepting.accept(this, inner) {
            Ok(Outcome::Accepted(accepted)) => inner.begin_later(this, accepted)?,
            Ok(Outcome::Aborted) => {}
            Ok(Outcome::Nothing) => return Ok(()),
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                return accept_failed(this, inner, fd, error);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What accepts: accept4(2) for a plain socket, or the socket object's own method.
enum Accepting {
    Kernel(io::Result<RawFd>, SocketKind),
    Object(Py<PyAny>),
}

/// The outcome of one call.
enum Outcome {
    Accepted(Accepted),
    /// A connection that its peer has given up.
    Aborted,
    Nothing,
}

pub(super) enum Accepted {
    /// The new socket has the listener's family, type and protocol, as `accept()` sets them.
    Kernel(OwnedFd, SocketAddress, SocketKind),
    /// A socket object and its peer's name.
    Object(Py<PyAny>, Py<PyAny>),
}

impl Accepting {
    #[inline]
    fn of(py: Python<'_>, listener: &Listener, plain: bool) -> Self {
        if plain
            && listener.socket.is_plain()
            && let Some(kind) = listener.socket.kind(py)
        {
            Self::Kernel(listener.socket.fd(py), kind)
        } else {
            Self::Object(listener.object(py))
        }
    }

    fn accept(self, this: &Bound<'_, Server>, inner: &ServerState) -> PyResult<Outcome> {
        match self {
            Self::Kernel(listener, kind) => match listener.and_then(socket::accept) {
                Ok((connection, peer)) => {
                    log_connection(this, inner, &peer)?;
                    Ok(Outcome::Accepted(Accepted::Kernel(connection, peer, kind)))
                }
                Err(error) => match error.raw_os_error() {
                    Some(libc::ECONNABORTED) => Ok(Outcome::Aborted),
                    Some(libc::EAGAIN | libc::EINTR) => Ok(Outcome::Nothing),
                    _ => Err(os_error(&error)),
                },
            },
            Self::Object(listener) => {
                let py = this.py();
                match accept_by_object(this, inner, listener.bind(py)) {
                    Ok(accepted) => Ok(Outcome::Accepted(accepted)),
                    Err(error) if error.is_instance_of::<PyConnectionAbortedError>(py) => {
                        Ok(Outcome::Aborted)
                    }
                    Err(error) if asks_to_wait(py, &error) => Ok(Outcome::Nothing),
                    Err(error) => Err(error),
                }
            }
        }
    }
}

#[cold]
fn accept_by_object(
    this: &Bound<'_, Server>,
    inner: &ServerState,
    listener: &Bound<'_, PyAny>,
) -> PyResult<Accepted> {
    let py = listener.py();
    let accepted = listener.call_method0(intern!(py, "accept"))?;
    let (connection, peer) = (accepted.get_item(0)?, accepted.get_item(1)?);
    if inner.event_loop.get().state(py).is_debug() {
        let text = "%r got a new connection from %r: %r";
        imports::logger(py)?.call_method1("debug", (text, this, &peer, &connection))?;
    }
    connection.call_method1(intern!(py, "setblocking"), (false,))?;
    Ok(Accepted::Object(connection.unbind(), peer.unbind()))
}

fn log_connection(
    this: &Bound<'_, Server>,
    inner: &ServerState,
    peer: &SocketAddress,
) -> PyResult<()> {
    let py = this.py();
    if !inner.event_loop.get().state(py).is_debug() {
        return Ok(());
    }
    let text = "%r got a new connection from %r";
    imports::logger(py)?.call_method1("debug", (text, this, to_python(py, peer)?))?;
    Ok(())
}

/// Reports a failed accept(2). If the process is out of descriptors, the listener is not polled for
/// a while, or the loop would spin.
fn accept_failed(
    this: &Bound<'_, Server>,
    inner: &ServerState,
    fd: RawFd,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    let errno = errno_of(py, &error)?;
    let exhausted = matches!(
        errno,
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    );
    let context = PyDict::new(py);
    let message = if exhausted {
        "socket.accept() out of system resource"
    } else {
        "socket.accept() failed"
    };
    context.set_item("message", message)?;
    context.set_item("exception", error.into_value(py))?;
    if let Some(socket) = inner.with_listener(fd, |listener| listener.object(py)) {
        context.set_item("socket", imports::transport_socket(py)?.call1((socket,))?)?;
    }
    let event_loop = inner.event_loop.bind(py);
    let (state, registration) = (event_loop.get().state(py), inner.registration(fd));
    if exhausted {
        if let Some(registration) = &registration {
            registration.set(state, Interest::NONE)?;
        }
        let again = this.getattr("_accept_again")?;
        event_loop.call_method1("call_later", (ACCEPT_RETRY_DELAY, again, fd))?;
    }
    if errno == Some(libc::EBADF) {
        // The program closed the socket. Where a duplicate of its descriptor lives on, the kernel
        // would report it without end.
        registration.inspect(|registration| registration.end(state));
    }
    exceptions::report(event_loop, &context)
}
