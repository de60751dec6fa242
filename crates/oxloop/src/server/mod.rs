//! `Server`: what `create_server` and `create_unix_server` return, and its accept loop.
//!
//! Connections are accepted with accept4(2) and get a transport in the next turn, without a Python
//! socket object, a task or a future each (see `accepting` for `asyncio.all_tasks()`). If a
//! listener is not a plain `socket.socket`, or an audit hook is installed, its own `accept()` is
//! called instead. Each connection gets a copy of the context in which the server was made.
//!
//! Invariants:
//! - a listener's descriptor number is used only while its socket object has it: the program may
//!   have closed the socket, and the number may belong to another file.
//! - `sockets` is None from `close` on; a closed server's listeners are out of the poller.
//! - `clients` counts the server's transports. They are found through the loop's registry, so the
//!   server does not keep them alive.
//!
//! Differs from asyncio: `close_clients` and `abort_clients` exist on every Python version, and a
//! protocol factory that raises is reported outside of debug mode too.

mod accept;
mod accepting;
mod incoming;
mod private;
mod serving;

use crate::error::{os_error, then_cleaned};
use crate::event_loop::EventLoop;
use crate::event_loop::held::Held;
use crate::event_loop::registration::Registration;
use crate::file;
use crate::py::attached::Attached;
use crate::py::class::{Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::coroutine::{Coroutine, next_turn};
use crate::py::file::has_descriptor;
use crate::py::future::is_done;
use crate::py::slot::Slot;
use crate::py::socket::{SocketObject, no_descriptor};
use crate::py::{coroutine_method, imports};
use crate::tls::options::TlsOptions;
use crate::transport::stream::{Clients, StreamThis};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use pyo3::{PyTraverseError, PyVisit};
use reactor::poller::Interest;
use reactor::token::Token;
use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::rc::Rc;

use incoming::Incoming;

/// One bound socket.
struct Listener {
    socket: SocketObject,
    registration: Rc<Registration>,
    /// A Unix socket's path and inode, if the file is to be removed at close.
    cleanup: Option<(Py<PyAny>, u64)>,
}

/// The native part of a server; the Python class also inherits from `asyncio.Server`.
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
    inner: Attached<OnceCell<ServerState>>,
}

struct ServerState {
    event_loop: Py<EventLoop>,
    listeners: RefCell<Option<Vec<Listener>>>,
    factory: Py<PyAny>,
    tls: Option<TlsOptions>,
    /// As the program gave it: `listen()` checks it.
    backlog: Py<PyAny>,
    context: Captured,
    serving: Cell<bool>,
    /// How many transports it has, and the futures of `wait_closed`.
    clients: Rc<Clients>,
    /// Connections that were accepted and have no transport yet.
    incoming: RefCell<VecDeque<Incoming>>,
    /// The object that stands for these in `asyncio.all_tasks()`, see `accepting`.
    shown: Slot,
    serving_forever: Slot,
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
        backlog: Py<PyAny>,
        tls: Option<TlsOptions>,
    ) -> PyResult<Bound<'py, Self>> {
        let py = event_loop.py();
        let mut listeners = Vec::with_capacity(sockets.len());
        for BoundSocket { socket, cleanup } in sockets {
            let socket = SocketObject::new(socket.bind(py))?;
            listeners.push(Listener {
                registration: Rc::new(Registration::new(socket.number())),
                socket,
                cleanup,
            });
        }
        let inner = ServerState {
            event_loop: event_loop.clone().unbind(),
            listeners: RefCell::new(Some(listeners)),
            factory: factory.clone().unbind(),
            tls,
            backlog,
            context: Captured::current(py)?,
            serving: Cell::new(false),
            clients: Clients::new(),
            incoming: RefCell::new(VecDeque::new()),
            shown: Slot::default(),
            serving_forever: Slot::default(),
        };
        let server = imports::server(py)?.call0()?.cast_into::<Self>()?;
        let empty = server.get().inner.get(py).set(inner).is_ok();
        debug_assert!(empty, "invariant: a new server is empty");
        Ok(server)
    }

    fn inner(&self, py: Python<'_>) -> PyResult<&ServerState> {
        self.inner
            .get(py)
            .get()
            .ok_or_else(|| PyRuntimeError::new_err("servers are made by loop.create_server()"))
    }
}

impl Listener {
    const fn fd(&self) -> RawFd {
        self.socket.number()
    }

    fn object(&self, py: Python<'_>) -> Py<PyAny> {
        self.socket.object().clone_ref(py)
    }
}

impl ServerState {
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
        let listeners: Vec<(Py<PyAny>, Rc<Registration>)> = {
            let listeners = self.listeners.borrow();
            let listeners = listeners.iter().flatten();
            listeners
                .map(|listener| (listener.object(py), Rc::clone(&listener.registration)))
                .collect()
        };
        for (socket, registration) in listeners {
            socket.bind(py).call_method1("listen", (&self.backlog,))?;
            if !has_descriptor(socket.bind(py), registration.fd())? {
                return Err(os_error(&no_descriptor()));
            }
            let owner = Held {
                object: this.clone().into_any().unbind(),
                kind: &accept::LISTENER,
            };
            registration.begin(state, owner, Interest::READABLE)?;
        }
        Ok(())
    }

    fn with_listener<R>(&self, fd: RawFd, body: impl FnOnce(&Listener) -> R) -> Option<R> {
        let listeners = self.listeners.borrow();
        let mut listeners = listeners.iter().flatten();
        listeners.find(|listener| listener.fd() == fd).map(body)
    }

    fn with_token<R>(&self, token: Token, body: impl FnOnce(&Listener) -> R) -> Option<R> {
        let listeners = self.listeners.borrow();
        let mut listeners = listeners.iter().flatten();
        listeners
            .find(|listener| listener.registration.has_token(token))
            .map(body)
    }

    /// The registration of the listener `fd`.
    fn registration(&self, fd: RawFd) -> Option<Rc<Registration>> {
        self.with_listener(fd, |listener| Rc::clone(&listener.registration))
    }

    fn stop_listening(&self, py: Python<'_>, listener: Listener) -> PyResult<()> {
        listener.registration.end(self.event_loop.get().state(py));
        listener.object(py).bind(py).call_method0("close")?;
        listener.cleanup.map_or(Ok(()), |(path, inode)| {
            remove_socket_file(path.bind(py), inode)
        })
    }

    /// Ends `serve_forever`, and `wait_closed` unless a connection is open.
    fn tell_closed(&self, py: Python<'_>) -> PyResult<()> {
        self.serving.set(false);
        let forever = self.serving_forever.take();
        if let Some(forever) = forever
            && !is_done(forever.bind(py))?
        {
            forever.bind(py).call_method0("cancel")?;
        }
        self.clients.wake_if_over(py)
    }

    /// The open transports that it accepted.
    fn transports<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let mut transports = self.event_loop.get().state(py).transports(py);
        transports.retain(|transport| {
            let stream = StreamThis::of(transport);
            stream.is_some_and(|stream| stream.belongs_to(py, &self.clients))
        });
        transports
    }

    fn is_closed(&self) -> bool {
        self.listeners.borrow().is_none()
    }

    /// For the collector. What is borrowed just now is not visited, and so counts as reachable.
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.event_loop)?;
        visit.object(&self.factory)?;
        visit.object(&self.backlog)?;
        self.context.traverse(visit)?;
        if let Some(tls) = &self.tls {
            tls.traverse(visit)?;
        }
        if let Ok(listeners) = self.listeners.try_borrow() {
            for listener in listeners.iter().flatten() {
                listener.socket.traverse(visit)?;
            }
        }
        if let Ok(incoming) = self.incoming.try_borrow() {
            for incoming in &*incoming {
                incoming.traverse(visit)?;
            }
        }
        self.clients.traverse(visit)?;
        self.shown.traverse(visit)?;
        self.serving_forever.traverse(visit)
    }
}

/// Removes a Unix socket's file if it is still the one that was bound.
fn remove_socket_file(path: &Bound<'_, PyAny>, inode: u64) -> PyResult<()> {
    let text = "Unable to clean up listening UNIX socket %r: %r";
    file::unlink_if(path, text, |status| status.inode == inode)
}

fn closed_error(server: &Bound<'_, Server>) -> PyErr {
    let shown = server
        .repr()
        .map_or_else(|_| String::new(), |it| it.to_string());
    PyRuntimeError::new_err(format!("server {shown} is closed"))
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

    /// The loop that the server belongs to.
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
                .map(|listener| listener.object(py))
                .collect()
        };
        let class = imports::transport_socket(py)?;
        let wrapped = sockets.into_iter().map(|socket| class.call1((socket,)));
        PyTuple::new(py, wrapped.collect::<PyResult<Vec<_>>>()?)
    }

    /// asyncio's own attribute: the bare sockets, None once closed.
    #[getter]
    fn _sockets(&self, py: Python<'_>) -> PyResult<Option<Vec<Py<PyAny>>>> {
        let listeners = self.inner(py)?.listeners.borrow();
        let sockets = |listeners: &Vec<Listener>| {
            let sockets = listeners.iter().map(|listener| listener.object(py));
            sockets.collect()
        };
        Ok(listeners.as_ref().map(sockets))
    }

    /// Stop accepting; open connections stay.
    fn close(&self, py: Python<'_>) -> PyResult<()> {
        let inner = self.inner(py)?;
        let Some(listeners) = inner.listeners.take() else {
            return Ok(());
        };
        inner.clients.server_closed();
        let mut stopped = inner.drop_incoming(py);
        for listener in listeners {
            let outcome = inner.stop_listening(py, listener);
            stopped = then_cleaned(py, stopped, outcome);
        }
        then_cleaned(py, stopped, inner.tell_closed(py))
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
            Python::attach(|py| begin_serving(this.bind(py)))?;
            next_turn().await?;
            Ok(Python::attach(|py| py.None()))
        })
    }

    /// Serve until the server is closed or the caller cancelled, then close it.
    fn serve_forever<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "Server.serve_forever", serving::serve_forever)
    }

    /// Wait until the server is closed and its connections are gone.
    fn wait_closed<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "Server.wait_closed", serving::wait_closed)
    }

    /// Accept what has come to a listener.
    fn _accept(slf: &Bound<'_, Self>, fd: RawFd) -> PyResult<()> {
        accept::accept_all(slf, fd)
    }

    /// Make a transport of the connection whose turn it is.
    fn _begin(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.get().inner(slf.py())?.begin(slf)
    }

    /// Accept again after the process ran out of descriptors.
    fn _accept_again(slf: &Bound<'_, Self>, fd: RawFd) -> PyResult<()> {
        let py = slf.py();
        let inner = slf.get().inner(py)?;
        let listener = inner.with_listener(fd, |listener| {
            let registration = Rc::clone(&listener.registration);
            registration
                .is_begun()
                .then(|| (listener.object(py), registration))
        });
        if let Some((socket, registration)) = listener.flatten() {
            if !has_descriptor(socket.bind(py), fd)? {
                // asyncio's text: it asks the closed socket for its number, which is -1.
                return Err(PyValueError::new_err("Invalid file descriptor: -1"));
            }
            registration.set(inner.event_loop.get().state(py), Interest::READABLE)?;
        }
        Ok(())
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visit = Visit::of_pyclass(visit);
        let Some(inner) = self.inner.during_collection(&visit).get() else {
            return Ok(());
        };
        inner.traverse(&visit).map_err(VisitStopped::into_pyclass)
    }

    fn __clear__(&self, py: Python<'_>) {
        if let Some(inner) = self.inner.get(py).get() {
            drop(inner.incoming.take());
            inner.clients.forget_waiters();
            inner.serving_forever.set(None);
            inner.shown.set(None);
        }
    }
}

/// Makes the coroutine methods look like coroutine functions; called once, at import.
pub(crate) fn declare(py: Python<'_>) -> PyResult<()> {
    let names = ["serve_forever", "start_serving", "wait_closed"];
    coroutine_method::install(&py.get_type::<Server>(), &names)
}

/// `start_serving` for the loop's own use.
pub(crate) fn begin_serving(this: &Bound<'_, Server>) -> PyResult<()> {
    this.get().inner(this.py())?.start_serving(this)
}

fn for_each_client(this: &Bound<'_, Server>, method: &str) -> PyResult<()> {
    let py = this.py();
    for transport in this.get().inner(py)?.transports(py) {
        transport.call_method0(method)?;
    }
    Ok(())
}
