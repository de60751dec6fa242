//! From a connected socket to a transport and its protocol; and `connect_accepted_socket`.

use crate::error::{after_cleanup, cleaned_in_drop};
use crate::event_loop::EventLoop;
use crate::py::context::Captured;
use crate::py::coroutine::{Coroutine, await_python_keeping};
use crate::py::imports;
use crate::py::socket::SocketObject;
use crate::sock::check_not_ssl;
use crate::tls::HandshakeWaiter;
use crate::tls::options::TlsOptions;
use crate::transport::stream::{self, Connected, Descriptor, Peer};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;

#[pymethods]
impl EventLoop {
    /// Make a transport of a connection that was accepted elsewhere.
    #[pyo3(signature = (
        protocol_factory, sock, *, ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None
    ))]
    fn connect_accepted_socket<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        sock: Py<PyAny>,
        ssl: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, caller) = (slf.py(), (slf.clone().unbind(), protocol_factory));
        let no_name = PyString::new(py, "").into_any().unbind();
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        let tls = TlsOptions::new(py, ssl, Some(no_name), timeouts);
        let name = "EventLoop.connect_accepted_socket";
        Coroutine::of(py, name, caller, |caller| async move {
            let (this, factory) = &*caller;
            Python::attach(|py| {
                check_stream(sock.bind(py))?;
                tls.check_timeouts(tls.is_wanted(py)?)?;
                check_not_ssl(sock.bind(py))
            })?;
            let sock = OpenSocket::given(sock);
            let pair = open_transport(this, sock, factory, &tls, true).await?;
            Python::attach(|py| {
                log_handled(this.bind(py), &pair)?;
                pair.into_python(py)
            })
        })
    }
}

/// # Errors
/// ValueError for a socket of another type.
pub(super) fn check_stream(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let kind = sock.getattr(intern!(sock.py(), "type"))?;
    if kind.eq(libc::SOCK_STREAM)? {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "A Stream Socket was expected, got {}",
        sock.repr()?
    )))
}

fn log_handled(this: &Bound<'_, EventLoop>, pair: &Pair) -> PyResult<()> {
    let py = this.py();
    if !this.get().state(py).is_debug() {
        return Ok(());
    }
    let sock = pair.socket(py)?;
    let arguments = (
        "%r handled: (%r, %r)",
        sock,
        &pair.transport,
        &pair.protocol,
    );
    imports::logger(py)?
        .call_method1("debug", arguments)
        .map(drop)
}

/// A socket that has no transport yet; it is closed if it gets none. A socket that was made here is
/// non-blocking.
pub(super) struct OpenSocket {
    socket: Option<Py<PyAny>>,
    /// The program's own socket: older Pythons leave it open if no transport is made.
    given: bool,
}

impl OpenSocket {
    pub(super) const fn made(socket: Py<PyAny>) -> Self {
        Self {
            socket: Some(socket),
            given: false,
        }
    }

    pub(super) const fn given(socket: Py<PyAny>) -> Self {
        Self {
            socket: Some(socket),
            given: true,
        }
    }

    pub(super) const fn object(&self) -> &Py<PyAny> {
        self.socket
            .as_ref()
            .expect("invariant: only `keep` takes the socket out")
    }

    /// Gives the socket up to a new owner.
    pub(super) fn keep(mut self) -> Py<PyAny> {
        self.socket
            .take()
            .expect("invariant: only `keep` takes the socket out")
    }
}

impl Drop for OpenSocket {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else {
            return;
        };
        if self.given && cfg!(not(Py_3_14)) {
            return;
        }
        // What made the connection fail matters more than what close(2) says.
        Python::attach(|py| {
            cleaned_in_drop(py, socket.bind(py).call_method0(intern!(py, "close")));
        });
    }
}

/// The loop and the protocol factory of a call. Both may lead to what the call waits for, so the
/// collector has to see them (`Coroutine::of`).
pub(super) type Caller = (Py<EventLoop>, Py<PyAny>);

/// What a connecting method returns.
pub(super) struct Pair {
    pub(super) transport: Py<PyAny>,
    pub(super) protocol: Py<PyAny>,
}

impl Pair {
    pub(super) const fn new(transport: Py<PyAny>, protocol: Py<PyAny>) -> Self {
        Self {
            transport,
            protocol,
        }
    }

    pub(super) fn into_python(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        let pair = (self.transport, self.protocol).into_pyobject(py)?;
        Ok(pair.into_any().unbind())
    }

    /// Closes the transport after making it failed with `error`.
    pub(super) fn close_after(&self, py: Python<'_>, error: PyErr) -> PyErr {
        let transport = self.transport.bind(py);
        after_cleanup(py, error, transport.call_method0(intern!(py, "close")))
    }

    /// `transport.get_extra_info("socket")`.
    pub(super) fn socket<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let transport = self.transport.bind(py);
        transport.call_method1(intern!(py, "get_extra_info"), ("socket",))
    }
}

/// Makes the protocol and its transport, and waits until `connection_made` was called (with TLS,
/// until the handshake is over).
///
/// # Errors
/// What the factory raises, the handshake's errors, and what the task throws in; the connection is
/// closed then.
pub(super) async fn open_transport(
    this: &Py<EventLoop>,
    sock: OpenSocket,
    factory: &Py<PyAny>,
    tls: &TlsOptions,
    server_side: bool,
) -> PyResult<Pair> {
    let (pair, waiter) =
        Python::attach(|py| make_transport(this.bind(py), sock, factory, tls, server_side))?;
    // A TLS transport leads to the waiter.
    let kept = Python::attach(|py| pair.into_python(py))?;
    let (outcome, kept) = await_python_keeping(waiter, kept).await;
    Python::attach(|py| {
        let (transport, protocol) = kept.extract(py)?;
        let pair = Pair::new(transport, protocol);
        match outcome {
            Ok(_) => Ok(pair),
            Err(error) => Err(pair.close_after(py, error)),
        }
    })
}

fn make_transport(
    this: &Bound<'_, EventLoop>,
    sock: OpenSocket,
    factory: &Py<PyAny>,
    tls: &TlsOptions,
    server_side: bool,
) -> PyResult<(Pair, Py<PyAny>)> {
    let py = this.py();
    let socket = sock.object().bind(py).clone();
    if sock.given {
        socket.call_method1(intern!(py, "setblocking"), (false,))?;
    }
    let context = Captured::current(py)?;
    let protocol = factory.bind(py).call0()?;
    let object = SocketObject::new(&socket)?;
    this.call_method1(intern!(py, "_ensure_fd_no_transport"), (&socket,))?;
    let waiter = this.call_method0(intern!(py, "create_future"))?;
    let secured = if tls.is_wanted(py)? {
        Some(tls.protocol(
            this,
            &protocol,
            HandshakeWaiter::Future(waiter.clone().unbind()),
            server_side,
            true,
        )?)
    } else {
        None
    };
    let connected = Connected {
        descriptor: Descriptor::Socket(object),
        protocol: secured.as_ref().map_or_else(
            || protocol.clone().unbind(),
            |secured| secured.as_object().clone_ref(py),
        ),
        waiter: secured.is_none().then(|| waiter.clone().unbind()),
        peer: Peer::Unknown,
        acceptor: None,
        context,
    };
    drop(sock.keep());
    // Asked for now: a handshake that fails at once lets go of it.
    let app_transport = secured.and_then(|secured| secured.this(py).app_transport());
    let transport = stream::start(this, connected)?;
    let transport = match app_transport {
        None => transport.as_object().clone_ref(py),
        Some(app_transport) => app_transport.as_object().clone_ref(py),
    };
    Ok((Pair::new(transport, protocol.unbind()), waiter.unbind()))
}
