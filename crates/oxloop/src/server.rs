//! `Server`: what `create_server` and `create_unix_server` return, and its accept loop.
//!
//! Connections are accepted with accept4(2) straight into a transport: no Python socket object, no
//! task and no future a connection. Each gets a copy of the context that the server was made in.
//!
//! Invariants:
//! - `sockets` is None from `close` on; a closed server's listeners are out of the poller.
//! - `active` counts the transports that were attached and not detached yet; they are found through
//!   the loop's registry, so the server does not keep them alive.
//!
//! Differs from asyncio: `close_clients` and `abort_clients` exist on every Python version, and a
//! protocol factory that raises is reported outside of debug mode too.

use crate::address::to_python;
use crate::error::os_error;
use crate::event_loop::source::Source;
use crate::event_loop::tls::TlsOptions;
use crate::event_loop::turn::leaves_the_loop;
use crate::event_loop::{EventLoop, exceptions};
use crate::py::attached::Attached;
use crate::py::context::Captured;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::imports;
use crate::transport::stream::{self, Connected, Descriptor, StreamTransport};
use pyo3::exceptions::PyRuntimeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use reactor::addr::SocketAddress;
use reactor::poller::Interest;
use reactor::socket;
use reactor::token::Token;
use std::cell::{Cell, OnceCell, RefCell};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Seconds that a listener rests when the process is out of descriptors, as in asyncio.
const ACCEPT_RETRY_DELAY: u32 = 1;

/// One bound socket.
struct Listener {
    socket: Py<PyAny>,
    fd: RawFd,
    token: Option<Token>,
    /// A Unix socket's path and inode, if the file is to be removed at close.
    cleanup: Option<(Py<PyAny>, u64)>,
}

/// The native part of a server; the Python class also inherits from `asyncio.AbstractServer`.
#[pyclass(
    name = "Server",
    module = "oxloop._oxloop",
    subclass,
    frozen,
    dict,
    weakref
)]
pub(crate) struct Server {
    /// Empty if a program made the object itself.
    inner: Attached<OnceCell<Inner>>,
}

struct Inner {
    event_loop: Py<EventLoop>,
    listeners: RefCell<Option<Vec<Listener>>>,
    factory: Py<PyAny>,
    tls: Option<TlsOptions>,
    backlog: i32,
    context: Captured,
    serving: Cell<bool>,
    active: Cell<usize>,
    /// None once everybody who waited was woken.
    waiters: RefCell<Option<Vec<Py<PyAny>>>>,
    serving_forever: RefCell<Option<Py<PyAny>>>,
}

/// A bound socket for `Server::make`, with the path and inode to remove at close.
pub(crate) struct BoundSocket {
    pub(crate) socket: Py<PyAny>,
    pub(crate) cleanup: Option<(Py<PyAny>, u64)>,
}

impl Server {
    /// Makes a server that does not serve yet.
    ///
    /// # Errors
    /// What a socket's fileno() raises.
    pub(crate) fn make<'py>(
        event_loop: &Bound<'py, EventLoop>,
        sockets: Vec<BoundSocket>,
        factory: &Bound<'py, PyAny>,
        backlog: i32,
        tls: Option<TlsOptions>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = event_loop.py();
        let mut listeners = Vec::with_capacity(sockets.len());
        for BoundSocket { socket, cleanup } in sockets {
            let fd = socket.bind(py).call_method0("fileno")?.extract()?;
            listeners.push(Listener {
                socket,
                fd,
                token: None,
                cleanup,
            });
        }
        let inner = Inner {
            event_loop: event_loop.clone().unbind(),
            listeners: RefCell::new(Some(listeners)),
            factory: factory.clone().unbind(),
            tls,
            backlog,
            context: Captured::current(py)?,
            serving: Cell::new(false),
            active: Cell::new(0),
            waiters: RefCell::new(Some(Vec::new())),
            serving_forever: RefCell::new(None),
        };
        let server = imports::server(py)?.call0()?.cast_into::<Self>()?;
        let empty = server.get().inner.get(py).set(inner).is_ok();
        debug_assert!(empty, "invariant: a new server is empty");
        Ok(server)
    }

    fn inner(&self, py: Python<'_>) -> PyResult<&Inner> {
        self.inner
            .get(py)
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("servers are made by loop.create_server()"))
    }
}

impl Inner {
    /// Starts accepting on every socket.
    fn start_serving(&self, this: &Bound<'_, Server>) -> PyResult<()> {
        let py = this.py();
        if self.is_closed() {
            return Err(closed_error(this));
        }
        if self.serving.replace(true) {
            return Ok(());
        }
        let state = self.event_loop.get().state(py);
        let sockets: Vec<(Py<PyAny>, RawFd)> = {
            let listeners = self.listeners.borrow();
            let listeners = listeners.iter().flatten();
            listeners
                .map(|listener| (listener.socket.clone_ref(py), listener.fd))
                .collect()
        };
        for (socket, fd) in sockets {
            socket.bind(py).call_method1("listen", (self.backlog,))?;
            let source = Source::Listener {
                server: this.clone().unbind(),
                fd,
            };
            let token = state.register(fd, source, Interest::READABLE)?;
            self.with_listener(fd, |listener| listener.token = Some(token));
        }
        Ok(())
    }

    fn with_listener<R>(&self, fd: RawFd, body: impl FnOnce(&mut Listener) -> R) -> Option<R> {
        let mut listeners = self.listeners.borrow_mut();
        listeners
            .as_mut()?
            .iter_mut()
            .find(|listener| listener.fd == fd)
            .map(body)
    }

    fn stop_listening(&self, py: Python<'_>, listener: Listener) -> PyResult<()> {
        if let Some(token) = listener.token {
            drop(
                self.event_loop
                    .get()
                    .state(py)
                    .deregister(listener.fd, token),
            );
        }
        listener.socket.bind(py).call_method0("close")?;
        listener.cleanup.map_or(Ok(()), |(path, inode)| {
            remove_socket_file(path.bind(py), inode)
        })
    }

    fn wake_waiters(&self, py: Python<'_>) -> PyResult<()> {
        let waiters = self.waiters.take();
        for waiter in waiters.into_iter().flatten() {
            let waiter = waiter.bind(py);
            if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
                waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
            }
        }
        Ok(())
    }

    fn is_closed(&self) -> bool {
        self.listeners.borrow().is_none()
    }
}

/// Removes a Unix socket's file if it is still the one that was bound.
fn remove_socket_file(path: &Bound<'_, PyAny>, inode: u64) -> PyResult<()> {
    let py = path.py();
    let os = imports::os(py)?;
    let Ok(stat) = os.call_method1("stat", (path,)) else {
        return Ok(());
    };
    if stat.getattr("st_ino")?.extract::<u64>()? != inode {
        return Ok(());
    }
    match os.call_method1("unlink", (path,)) {
        Err(error) if !error.is_instance_of::<pyo3::exceptions::PyFileNotFoundError>(py) => {
            let text = "Unable to clean up listening UNIX socket %r: %s";
            imports::logger(py)?.call_method1("error", (text, path, error.value(py)))?;
            Ok(())
        }
        _ => Ok(()),
    }
}

fn closed_error(server: &Bound<'_, Server>) -> PyErr {
    let shown = server
        .repr()
        .map_or_else(|_| String::new(), |it| it.to_string());
    PyRuntimeError::new_err(format!("server {shown} is closed"))
}

/// A transport of this server opened.
pub(crate) fn attach(server: &Bound<'_, Server>) -> PyResult<()> {
    let active = &server.get().inner(server.py())?.active;
    active.set(active.get() + 1);
    Ok(())
}

/// A transport of this server is gone.
pub(crate) fn detach(server: &Bound<'_, Server>) -> PyResult<()> {
    let inner = server.get().inner(server.py())?;
    inner.active.set(inner.active.get().saturating_sub(1));
    if inner.active.get() == 0 && inner.is_closed() {
        return inner.wake_waiters(server.py());
    }
    Ok(())
}

#[pymethods]
impl Server {
    #[new]
    const fn new() -> Self {
        Self {
            inner: Attached::new(OnceCell::new()),
        }
    }

    fn __repr__(slf: &Bound<'_, Self>) -> PyResult<String> {
        Ok(format!(
            "<{} sockets={}>",
            slf.get_type().name()?,
            slf.getattr("sockets")?.repr()?
        ))
    }

    fn get_loop(&self, py: Python<'_>) -> PyResult<Py<EventLoop>> {
        Ok(self.inner(py)?.event_loop.clone_ref(py))
    }

    /// True while connections are accepted.
    fn is_serving(&self, py: Python<'_>) -> PyResult<bool> {
        Ok(self.inner(py)?.serving.get())
    }

    /// The listening sockets, as TransportSocket; empty once closed.
    #[getter]
    fn sockets<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let sockets: Vec<Py<PyAny>> = {
            let listeners = self.inner(py)?.listeners.borrow();
            listeners
                .iter()
                .flatten()
                .map(|listener| listener.socket.clone_ref(py))
                .collect()
        };
        let class = imports::transport_socket(py)?;
        let wrapped = sockets.into_iter().map(|socket| class.call1((socket,)));
        PyTuple::new(py, wrapped.collect::<PyResult<Vec<_>>>()?)
    }

    /// Stop accepting; open connections stay.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        let Some(listeners) = inner.listeners.take() else {
            return Ok(());
        };
        for listener in listeners {
            inner.stop_listening(py, listener)?;
        }
        inner.serving.set(false);
        let forever = inner.serving_forever.take();
        if let Some(forever) = forever
            && !forever.bind(py).call_method0("done")?.is_truthy()?
        {
            forever.bind(py).call_method0("cancel")?;
        }
        if inner.active.get() == 0 {
            return inner.wake_waiters(py);
        }
        Ok(())
    }

    /// Close every open connection after what is queued was sent.
    fn close_clients(slf: &Bound<'_, Self>) -> PyResult<()> {
        for_each_client(slf, "close")
    }

    /// Close every open connection at once.
    fn abort_clients(slf: &Bound<'_, Self>) -> PyResult<()> {
        for_each_client(slf, "abort")
    }

    /// Start accepting, if that was not done yet.
    fn start_serving<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        Coroutine::object(slf.py(), "Server.start_serving", async move {
            let turn = Python::attach(|py| {
                begin_serving(this.bind(py))?;
                imports::sleep(py)?.call1((0,)).map(Bound::unbind)
            })?;
            await_python(turn).await
        })
    }

    /// Serve until the server is closed or the caller cancelled, then close it.
    fn serve_forever<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        Coroutine::object(slf.py(), "Server.serve_forever", serve_forever(this))
    }

    /// Wait until the server is closed and its connections are gone.
    fn wait_closed<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.clone().unbind();
        Coroutine::object(slf.py(), "Server.wait_closed", wait_closed(this))
    }

    /// Accept again after the process ran out of descriptors.
    fn _accept_again(slf: &Bound<'_, Self>, fd: RawFd) -> PyResult<()> {
        let py = slf.py();
        let inner = slf.get().inner(py)?;
        let token = inner.with_listener(fd, |listener| listener.token).flatten();
        if let Some(token) = token {
            let state = inner.event_loop.get().state(py);
            state.resume_registration(fd, token, Interest::READABLE)?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(inner) = self.inner.during_collection().get() else {
            return Ok(());
        };
        visit.call(&inner.event_loop)?;
        visit.call(&inner.factory)?;
        if let Ok(listeners) = inner.listeners.try_borrow() {
            for listener in listeners.iter().flatten() {
                visit.call(&listener.socket)?;
            }
        }
        if let Ok(waiters) = inner.waiters.try_borrow() {
            waiters
                .iter()
                .flatten()
                .try_for_each(|waiter| visit.call(waiter))?;
        }
        inner
            .serving_forever
            .try_borrow()
            .map_or(Ok(()), |future| visit.call(&*future))
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(inner) = self.inner.get(py).get() {
            drop(inner.waiters.take());
            drop(inner.serving_forever.take());
        }
    }
}

/// `start_serving` for the loop's own use.
pub(crate) fn begin_serving(this: &Bound<'_, Server>) -> PyResult<()> {
    this.get().inner(this.py())?.start_serving(this)
}

fn for_each_client(this: &Bound<'_, Server>, method: &str) -> PyResult<()> {
    let py = this.py();
    let inner = this.get().inner(py)?;
    for transport in inner.event_loop.get().state(py).transports_of(py, this) {
        transport.bind(py).call_method0(method)?;
    }
    Ok(())
}

async fn serve_forever(this: Py<Server>) -> PyResult<Py<PyAny>> {
    let future = Python::attach(|py| begin_serving_forever(this.bind(py)))?;
    let outcome = await_python(future).await;
    Python::attach(|py| {
        let inner = this.get().inner(py)?;
        drop(inner.serving_forever.take());
        Ok::<_, PyErr>(())
    })?;
    let Err(error) = outcome else { return outcome };
    let cancelled =
        Python::attach(|py| Ok::<_, PyErr>(error.matches(py, imports::cancelled_error(py)?)?))?;
    if !cancelled {
        return Err(error);
    }
    let closed = Python::attach(|py| close_after_cancellation(this.bind(py)));
    if let Ok(waiting) = closed {
        // Whatever happens to this wait, the cancellation is what the caller gets.
        let _waited = await_python(waiting).await;
    }
    Err(error)
}

fn begin_serving_forever(this: &Bound<'_, Server>) -> PyResult<Py<PyAny>> {
    let py = this.py();
    let inner = this.get().inner(py)?;
    if inner.serving_forever.borrow().is_some() {
        return Err(PyRuntimeError::new_err(format!(
            "server {} is already being awaited on serve_forever()",
            this.repr()?
        )));
    }
    if inner.is_closed() {
        return Err(closed_error(this));
    }
    inner.start_serving(this)?;
    let future = inner
        .event_loop
        .bind(py)
        .call_method0("create_future")?
        .unbind();
    *inner.serving_forever.borrow_mut() = Some(future.clone_ref(py));
    Ok(future)
}

fn close_after_cancellation(this: &Bound<'_, Server>) -> PyResult<Py<PyAny>> {
    this.call_method0("close")?;
    if cfg!(Py_3_14) {
        this.call_method0("close_clients")?;
    }
    this.call_method0("wait_closed").map(Bound::unbind)
}

async fn wait_closed(this: Py<Server>) -> PyResult<Py<PyAny>> {
    let waiter = Python::attach(|py| {
        let inner = this.get().inner(py)?;
        // Before 3.12 a closed server did not wait for its connections.
        if inner.waiters.borrow().is_none() || (cfg!(not(Py_3_12)) && inner.is_closed()) {
            return Ok(None);
        }
        let waiter = inner
            .event_loop
            .bind(py)
            .call_method0("create_future")?
            .unbind();
        if let Some(waiters) = &mut *inner.waiters.borrow_mut() {
            waiters.push(waiter.clone_ref(py));
        }
        Ok::<_, PyErr>(Some(waiter))
    })?;
    match waiter {
        Some(waiter) => await_python(waiter)
            .await
            .map(|_| Python::attach(|py| py.None())),
        None => Ok(Python::attach(|py| py.None())),
    }
}

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
                fd: connection.as_raw_fd(),
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

/// The TLS protocol between the transport and the program's `protocol`. Nobody waits for the
/// handshake: when it fails, the TLS protocol closes the connection.
fn secured<'py>(
    inner: &Inner,
    tls: &TlsOptions,
    protocol: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = protocol.py();
    let nobody = py.None().into_bound(py);
    tls.protocol(
        inner.event_loop.bind(py),
        protocol,
        &nobody,
        true,
        PyDict::new(py),
    )
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
        event_loop.get().state(py).suspend_registration(fd);
        let again = this.getattr("_accept_again")?;
        event_loop.call_method1("call_later", (ACCEPT_RETRY_DELAY, again, fd))?;
    }
    exceptions::report(event_loop, &context)
}

impl crate::event_loop::State {
    /// The open transports that `server` accepted.
    fn transports_of(&self, py: Python<'_>, server: &Bound<'_, Server>) -> Vec<Py<PyAny>> {
        let belongs = |transport: &StreamTransport| transport.belongs_to(py, server);
        self.stream_transports(py, belongs)
    }
}
