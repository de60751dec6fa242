//! `create_server`.

use super::attempts::bind_error;
use super::transport::{Caller, check_stream};
use crate::dns::{Wanted, ensure_resolved};
use crate::error::{after_cleanup, cleaned_in_drop, errno_of};
use crate::event_loop::EventLoop;
use crate::event_loop::exceptions::log_exception;
use crate::py::coroutine::{Coroutine, await_python, next_turn};
use crate::py::imports;
use crate::py::keywords::{Number, Truth};
use crate::server::{BoundSocket, Server, begin_serving};
use crate::sock::check_not_ssl;
use crate::tls::options::TlsOptions;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyString, PyTuple};
use std::rc::Rc;

/// asyncio's default.
pub(super) const BACKLOG: i32 = 100;

#[pymethods]
impl EventLoop {
    /// Listen on every address of host (or on sock); return a Server.
    #[pyo3(
        signature = (
            protocol_factory, host=None, port=None, *, family=Number::NOT_GIVEN,
            flags=Number::NOT_GIVEN, sock=None, backlog=Number::NOT_GIVEN, ssl=None,
            reuse_address=None, reuse_port=None, keep_alive=None, ssl_handshake_timeout=None,
            ssl_shutdown_timeout=None, start_serving=Truth(true)
        ),
        text_signature = "($self, protocol_factory, host=None, port=None, *, \
            family=socket.AF_UNSPEC, flags=socket.AI_PASSIVE, sock=None, backlog=100, ssl=None, \
            reuse_address=None, reuse_port=None, keep_alive=None, \
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True)"
    )]
    fn create_server<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        host: Option<Py<PyAny>>,
        port: Option<Py<PyAny>>,
        family: Number,
        flags: Number,
        sock: Option<Py<PyAny>>,
        backlog: Number,
        ssl: Option<Py<PyAny>>,
        reuse_address: Option<Truth>,
        reuse_port: Option<Truth>,
        keep_alive: Option<Truth>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        start_serving: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let socket = imports::socket(py)?;
        let flags = flags
            .0
            .map_or_else(|| socket.getattr("AI_PASSIVE").map(Bound::unbind), Ok)?;
        let wanted = Wanted {
            family: family.or(py, 0)?,
            kind: socket.getattr("SOCK_STREAM")?.unbind(),
            proto: Number::NOT_GIVEN.or(py, 0)?,
            flags,
        };
        let options = SocketOptions {
            reuse_address: reuse_address.is_none_or(|it| it.0),
            reuse_port: reuse_port.is_some_and(|it| it.0),
            keep_alive: keep_alive.is_some_and(|it| it.0),
        };
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        let tls = TlsOptions::new(py, ssl, None, timeouts);
        let place = ListenAddress {
            host,
            port,
            sock,
            wanted,
            options,
        };
        let serving = Serving {
            backlog: backlog.or(py, BACKLOG)?,
            tls,
            start_serving: start_serving.0,
        };
        let caller = (slf.clone().unbind(), protocol_factory);
        Coroutine::of(py, "EventLoop.create_server", caller, |caller| {
            create_server(caller, place, serving)
        })
    }
}

/// Where to listen.
struct ListenAddress {
    host: Option<Py<PyAny>>,
    port: Option<Py<PyAny>>,
    sock: Option<Py<PyAny>>,
    wanted: Wanted,
    options: SocketOptions,
}

#[derive(Clone, Copy)]
struct SocketOptions {
    reuse_address: bool,
    reuse_port: bool,
    keep_alive: bool,
}

/// What is done with the bound sockets.
pub(super) struct Serving {
    pub(super) backlog: Py<PyAny>,
    pub(super) tls: TlsOptions,
    pub(super) start_serving: bool,
}

async fn create_server(
    caller: Rc<Caller>,
    place: ListenAddress,
    serving: Serving,
) -> PyResult<Py<PyAny>> {
    let (this, _factory) = &*caller;
    Python::attach(|py| {
        let secure = !serving.tls.ssl.is_none(py);
        serving.tls.check_server(py, secure)?;
        place
            .sock
            .as_ref()
            .map_or(Ok(()), |sock| check_not_ssl(sock.bind(py)))
    })?;
    let named = place.host.is_some() || place.port.is_some();
    let sockets = match place.sock {
        Some(_) if named => {
            return Err(PyValueError::new_err(
                "host/port and sock can not be specified at the same time",
            ));
        }
        Some(sock) => {
            Python::attach(|py| check_stream(sock.bind(py)))?;
            OpenSockets::given(sock)
        }
        None if named => {
            let infos = resolve_hosts(this, &place).await?;
            Python::attach(|py| bind_all(this.bind(py), infos.bind(py), place.options))?
        }
        None => {
            return Err(PyValueError::new_err(
                "Neither host/port nor sock were specified",
            ));
        }
    };
    let server = serve(&caller, sockets, None, serving).await?;
    Python::attach(|py| {
        if this.get().state(py).is_debug() {
            imports::logger(py)?.call_method1("info", ("%r is serving", &server))?;
        }
        Ok(server)
    })
}

/// Makes the server and, if wanted, starts it. `cleanup` is a Unix socket's path and inode.
///
/// # Errors
/// What listen(2) says; the sockets that were made here are closed then.
pub(super) async fn serve(
    caller: &Caller,
    sockets: OpenSockets,
    cleanup: Option<(Py<PyAny>, u64)>,
    serving: Serving,
) -> PyResult<Py<PyAny>> {
    let start_serving = serving.start_serving;
    let server = Python::attach(|py| make_server(py, caller, sockets, cleanup, serving))?;
    if start_serving {
        // One iteration, as asyncio takes it.
        next_turn().await?;
    }
    Ok(server)
}

fn make_server(
    py: Python<'_>,
    (this, factory): &Caller,
    mut sockets: OpenSockets,
    mut cleanup: Option<(Py<PyAny>, u64)>,
    serving: Serving,
) -> PyResult<Py<PyAny>> {
    let mut bound = Vec::with_capacity(sockets.sockets.len());
    for socket in &sockets.sockets {
        socket
            .bind(py)
            .call_method1(intern!(py, "setblocking"), (false,))?;
        bound.push(BoundSocket {
            socket: socket.clone_ref(py),
            cleanup: cleanup.take(),
        });
    }
    let tls = (!serving.tls.ssl.is_none(py)).then_some(serving.tls);
    let (this, factory) = (this.bind(py), factory.bind(py));
    let server = Server::make(this, bound, factory, serving.backlog, tls)?;
    if serving.start_serving {
        begin_serving(&server).map_err(|error| {
            if sockets.given {
                return error;
            }
            after_cleanup(py, error, server.call_method0(intern!(py, "close")))
        })?;
    }
    sockets.sockets.clear();
    Ok(server.into_any().unbind())
}

/// Sockets that have no server yet. They are closed if they get none, unless the program gave them.
pub(super) struct OpenSockets {
    sockets: Vec<Py<PyAny>>,
    given: bool,
}

impl OpenSockets {
    pub(super) fn given(socket: Py<PyAny>) -> Self {
        Self {
            sockets: vec![socket],
            given: true,
        }
    }

    pub(super) fn made(sockets: Vec<Py<PyAny>>) -> Self {
        Self {
            sockets,
            given: false,
        }
    }
}

impl Drop for OpenSockets {
    fn drop(&mut self) {
        if self.given || self.sockets.is_empty() {
            return;
        }
        Python::attach(|py| {
            for socket in self.sockets.drain(..) {
                cleaned_in_drop(py, socket.bind(py).call_method0(intern!(py, "close")));
            }
        });
    }
}

/// The address infos of all hosts, each once.
async fn resolve_hosts(this: &Py<EventLoop>, place: &ListenAddress) -> PyResult<Py<PyAny>> {
    let hosts = Python::attach(|py| hosts(py, place.host.as_ref()))?;
    let found = if let [host] = &*hosts {
        vec![resolve_host(this, host, place.port.as_ref(), &place.wanted).await?]
    } else {
        let gathered = Python::attach(|py| {
            let lookups = hosts.into_iter().map(|host| {
                let port = place.port.as_ref().map(|port| port.clone_ref(py));
                let (this, wanted) = (this.clone_ref(py), place.wanted.clone_ref(py));
                let name = "EventLoop._create_server_getaddrinfo";
                Coroutine::of(py, name, this, move |this| async move {
                    resolve_host(&this, &host, port.as_ref(), &wanted).await
                })
            });
            let lookups = PyTuple::new(py, lookups.collect::<PyResult<Vec<_>>>()?)?;
            imports::gather(py)?.call1(lookups).map(Bound::unbind)
        })?;
        let found = await_python(gathered).await?;
        Python::attach(|py| found.extract::<Vec<Py<PyAny>>>(py))?
    };
    Python::attach(|py| {
        let unique = PyDict::new(py);
        for infos in found {
            for info in infos.bind(py).try_iter()? {
                unique.set_item(info?, py.None())?;
            }
        }
        Ok(unique.keys().into_any().unbind())
    })
}

/// The hosts that `host` stands for: None is every interface, and a list is all of its hosts.
fn hosts(py: Python<'_>, host: Option<&Py<PyAny>>) -> PyResult<Vec<Py<PyAny>>> {
    let Some(host) = host.map(|host| host.bind(py)) else {
        return Ok(vec![py.None()]);
    };
    if host.eq("")? {
        return Ok(vec![py.None()]);
    }
    if host.is_instance_of::<PyString>() || !host.hasattr("__iter__")? {
        return Ok(vec![host.clone().unbind()]);
    }
    host.try_iter()?
        .map(|host| host.map(Bound::unbind))
        .collect()
}

async fn resolve_host(
    this: &Py<EventLoop>,
    host: &Py<PyAny>,
    port: Option<&Py<PyAny>>,
    wanted: &Wanted,
) -> PyResult<Py<PyAny>> {
    let address = Python::attach(|py| {
        let address = (host, port).into_pyobject(py)?;
        Ok::<_, PyErr>(address.into_any().unbind())
    })?;
    let infos = ensure_resolved(this, address, wanted).await?;
    Python::attach(|py| {
        if infos.bind(py).is_truthy()? {
            return Ok(infos);
        }
        let host = host.bind(py).repr()?;
        let text = format!("getaddrinfo({host}) returned empty list");
        Err(PyOSError::new_err(text))
    })
}

/// Binds a socket to each address.
fn bind_all(
    this: &Bound<'_, EventLoop>,
    infos: &Bound<'_, PyAny>,
    options: SocketOptions,
) -> PyResult<OpenSockets> {
    let py = this.py();
    let debug = this.get().state(py).is_debug();
    let mut open = OpenSockets::made(Vec::new());
    let addresses = PyList::empty(py);
    let mut refusal = None;
    for info in infos.try_iter()? {
        let info = info?;
        let address = info.get_item(4)?;
        addresses.append(&address)?;
        let Some(socket) = make_socket(&info, debug)? else {
            continue;
        };
        open.sockets.push(socket.clone().unbind());
        set_options(&socket, &info, options)?;
        let Err(error) = socket.call_method1(intern!(py, "bind"), (&address,)) else {
            continue;
        };
        if !error.is_instance_of::<PyOSError>(py) {
            return Err(error);
        }
        let worded = bind_error(py, &error, &address)?;
        if errno_of(py, &error)? != Some(libc::EADDRNOTAVAIL) {
            return Err(worded);
        }
        // The family may not be enabled on this machine: the other addresses count.
        open.sockets.pop();
        socket.call_method0(intern!(py, "close"))?;
        if debug {
            let text = worded.value(py).getattr("strerror")?;
            imports::logger(py)?.call_method1("warning", (text,))?;
        }
        refusal.get_or_insert(worded);
    }
    if !open.sockets.is_empty() {
        return Ok(open);
    }
    match refusal {
        // A program sees the first failure, and gets a server without sockets if there was none.
        Some(error) if !skips_addresses(py) => Err(error),
        None if !skips_addresses(py) => Ok(open),
        _ => Err(PyOSError::new_err(format!(
            "could not bind on any address out of {}",
            addresses.repr()?
        ))),
    }
}

/// Whether asyncio tries the next address: from 3.11.8 and 3.12.2 on.
fn skips_addresses(py: Python<'_>) -> bool {
    let version = py.version_info();
    version >= (3, 12, 2) || (version >= (3, 11, 8) && version < (3, 12))
}

/// None for a combination of family and type that this machine does not have.
fn make_socket<'py>(info: &Bound<'py, PyAny>, debug: bool) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = info.py();
    let (family, kind, proto) = (info.get_item(0)?, info.get_item(1)?, info.get_item(2)?);
    match imports::socket(py)?.call_method1(intern!(py, "socket"), (&family, &kind, &proto)) {
        Ok(socket) => Ok(Some(socket)),
        Err(error) if error.is_instance_of::<PyOSError>(py) => {
            if debug {
                let text = "create_server() failed to create socket.socket(%r, %r, %r)";
                let error = error.into_value(py).into_bound(py);
                log_exception(&error, "warning", (text, family, kind, proto))?;
            }
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

fn set_options(
    socket: &Bound<'_, PyAny>,
    info: &Bound<'_, PyAny>,
    options: SocketOptions,
) -> PyResult<()> {
    let py = socket.py();
    let family = info.get_item(0)?.extract::<i32>()?;
    let internet = matches!(family, libc::AF_INET | libc::AF_INET6);
    let set = |level: i32, name: i32| {
        socket
            .call_method1(intern!(py, "setsockopt"), (level, name, true))
            .map(drop)
    };
    if options.reuse_address {
        set(libc::SOL_SOCKET, libc::SO_REUSEADDR)?;
    }
    // Since Linux 6.12.9 other families refuse it.
    if options.reuse_port && internet {
        set(libc::SOL_SOCKET, libc::SO_REUSEPORT)?;
    }
    if options.keep_alive {
        set(libc::SOL_SOCKET, libc::SO_KEEPALIVE)?;
    }
    if family == libc::AF_INET6 {
        // Its own socket listens for IPv4.
        set(libc::IPPROTO_IPV6, libc::IPV6_V6ONLY)?;
    }
    Ok(())
}
