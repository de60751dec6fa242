//! `create_connection` and `create_unix_connection`.

use super::attempts::{Attempts, NextAddress};
use super::transport::{Caller, OpenSocket, Pair, check_stream, open_transport};
use crate::dns::{Wanted, ensure_resolved};
use crate::event_loop::EventLoop;
use crate::py::coroutine::Coroutine;
use crate::py::imports;
use crate::py::keywords::{Number, Truth};
use crate::sock::{check_not_ssl, connect_made};
use crate::tls::options::{TlsOptions, only_with_ssl};
use pyo3::exceptions::{PyAssertionError, PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use std::rc::Rc;

#[pymethods]
impl EventLoop {
    /// Connect to host and port (or take a connected sock over); return (transport, protocol).
    #[pyo3(
        signature = (
            protocol_factory, host=None, port=None, *, ssl=None, family=Number::NOT_GIVEN,
            proto=Number::NOT_GIVEN, flags=Number::NOT_GIVEN, sock=None, local_addr=None,
            server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None,
            happy_eyeballs_delay=None, interleave=None, all_errors=Truth(false)
        ),
        text_signature = "($self, protocol_factory, host=None, port=None, *, ssl=None, family=0, \
            proto=0, flags=0, sock=None, local_addr=None, server_hostname=None, \
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None, happy_eyeballs_delay=None, \
            interleave=None, all_errors=False)"
    )]
    fn create_connection<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        host: Option<Py<PyAny>>,
        port: Option<Py<PyAny>>,
        ssl: Option<Py<PyAny>>,
        family: Number,
        proto: Number,
        flags: Number,
        sock: Option<Py<PyAny>>,
        local_addr: Option<Py<PyAny>>,
        server_hostname: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        happy_eyeballs_delay: Option<Py<PyAny>>,
        interleave: Option<Py<PyAny>>,
        all_errors: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        let tls = TlsOptions::new(py, ssl, server_hostname, timeouts);
        let wanted = Wanted {
            family: family.or(py, 0)?,
            kind: imports::socket(py)?.getattr("SOCK_STREAM")?.unbind(),
            proto: proto.or(py, 0)?,
            flags: flags.or(py, 0)?,
        };
        let next = NextAddress {
            happy_eyeballs_delay,
            interleave,
            all_errors: all_errors.0,
        };
        let connection = Connection {
            host,
            port,
            sock,
            local_addr,
            wanted,
            next,
        };
        let caller = (slf.clone().unbind(), protocol_factory);
        Coroutine::of(py, "EventLoop.create_connection", caller, |caller| {
            create_connection(caller, connection, tls)
        })
    }

    /// Connect to a Unix socket's path (or take a sock over); return (transport, protocol).
    #[pyo3(signature = (
        protocol_factory, path=None, *, ssl=None, sock=None, server_hostname=None,
        ssl_handshake_timeout=None, ssl_shutdown_timeout=None
    ))]
    fn create_unix_connection<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        path: Option<Py<PyAny>>,
        ssl: Option<Py<PyAny>>,
        sock: Option<Py<PyAny>>,
        server_hostname: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, caller) = (slf.py(), (slf.clone().unbind(), protocol_factory));
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        let tls = TlsOptions::new(py, ssl, server_hostname, timeouts);
        let name = "EventLoop.create_unix_connection";
        Coroutine::of(py, name, caller, |caller| async move {
            let (this, factory) = &*caller;
            Python::attach(|py| check_unix_tls(py, &tls))?;
            let sock = match (path, sock) {
                (Some(_), Some(_)) => {
                    return Err(PyValueError::new_err(
                        "path and sock can not be specified at the same time",
                    ));
                }
                (Some(path), None) => connect_path(this, path).await?,
                (None, Some(sock)) => {
                    Python::attach(|py| check_unix_stream(sock.bind(py)))?;
                    OpenSocket::given(sock)
                }
                (None, None) => {
                    return Err(PyValueError::new_err("no path and sock were specified"));
                }
            };
            let pair = open_transport(this, sock, factory, &tls, false).await?;
            Python::attach(|py| pair.into_python(py))
        })
    }
}

/// The arguments of `create_connection`, but for the factory.
struct Connection {
    host: Option<Py<PyAny>>,
    port: Option<Py<PyAny>>,
    sock: Option<Py<PyAny>>,
    local_addr: Option<Py<PyAny>>,
    wanted: Wanted,
    next: NextAddress,
}

async fn create_connection(
    caller: Rc<Caller>,
    connection: Connection,
    mut tls: TlsOptions,
) -> PyResult<Py<PyAny>> {
    let (this, factory) = &*caller;
    Python::attach(|py| check_tls(py, &mut tls, connection.host.as_ref()))?;
    if let Some(sock) = &connection.sock {
        Python::attach(|py| check_not_ssl(sock.bind(py)))?;
    }
    let named = connection.host.is_some() || connection.port.is_some();
    let sock = match &connection.sock {
        Some(_) if named => {
            return Err(PyValueError::new_err(
                "host/port and sock can not be specified at the same time",
            ));
        }
        Some(sock) => Python::attach(|py| {
            check_stream(sock.bind(py))?;
            Ok::<_, PyErr>(OpenSocket::given(sock.clone_ref(py)))
        })?,
        None if named => connect_host(this, &connection).await?,
        None => {
            return Err(PyValueError::new_err(
                "host and port was not specified and no sock specified",
            ));
        }
    };
    let pair = open_transport(this, sock, factory, &tls, false).await?;
    Python::attach(|py| {
        log_connected(this.bind(py), &connection, &pair)?;
        pair.into_python(py)
    })
}

/// Resolves both addresses and connects to the first that answers.
async fn connect_host(this: &Py<EventLoop>, connection: &Connection) -> PyResult<OpenSocket> {
    let address = Python::attach(|py| {
        let address = (&connection.host, &connection.port).into_pyobject(py)?;
        Ok::<_, PyErr>(address.into_any().unbind())
    })?;
    let remote = resolved(this, address, &connection.wanted).await?;
    let local = match &connection.local_addr {
        None => None,
        Some(local) => {
            let local = Python::attach(|py| local.clone_ref(py));
            Some(resolved(this, local, &connection.wanted).await?)
        }
    };
    let attempts =
        Python::attach(|py| Attempts::new(py, &connection.next, &remote, local.as_ref()))?;
    attempts.connect(this, &connection.next).await
}

async fn resolved(
    this: &Py<EventLoop>,
    address: Py<PyAny>,
    wanted: &Wanted,
) -> PyResult<Py<PyAny>> {
    let infos = ensure_resolved(this, address, wanted).await?;
    if Python::attach(|py| infos.bind(py).is_truthy())? {
        return Ok(infos);
    }
    Err(PyOSError::new_err("getaddrinfo() returned empty list"))
}

fn check_tls(py: Python<'_>, tls: &mut TlsOptions, host: Option<&Py<PyAny>>) -> PyResult<()> {
    let wanted = tls.is_wanted(py)?;
    match (&tls.server_hostname, wanted) {
        (Some(_), false) => return Err(only_with_ssl("server_hostname")),
        (None, true) => {
            let host = host.filter(|host| host.bind(py).is_truthy().unwrap_or(true));
            let Some(host) = host else {
                return Err(PyValueError::new_err(
                    "You must set server_hostname when using ssl without a host",
                ));
            };
            tls.server_hostname = Some(host.clone_ref(py));
        }
        _ => {}
    }
    tls.check_timeouts(wanted)
}

fn check_unix_tls(py: Python<'_>, tls: &TlsOptions) -> PyResult<()> {
    let wanted = tls.is_wanted(py)?;
    match &tls.server_hostname {
        Some(name) if !name.bind(py).is_instance_of::<PyString>() => {
            return Err(PyAssertionError::new_err(()));
        }
        Some(_) if !wanted => return Err(only_with_ssl("server_hostname")),
        None if wanted => {
            return Err(PyValueError::new_err(
                "you have to pass server_hostname when using ssl",
            ));
        }
        _ => {}
    }
    tls.check_timeouts(wanted)
}

/// # Errors
/// ValueError for a socket of another family or type.
pub(super) fn check_unix_stream(sock: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = sock.py();
    let family = sock.getattr(intern!(py, "family"))?;
    let kind = sock.getattr(intern!(py, "type"))?;
    if family.eq(libc::AF_UNIX)? && kind.eq(libc::SOCK_STREAM)? {
        return Ok(());
    }
    Err(PyValueError::new_err(format!(
        "A UNIX Domain Stream Socket was expected, got {}",
        sock.repr()?
    )))
}

async fn connect_path(this: &Py<EventLoop>, path: Py<PyAny>) -> PyResult<OpenSocket> {
    let (sock, path) = Python::attach(|py| {
        let path = imports::os(py)?.call_method1("fspath", (path,))?.unbind();
        let sock =
            imports::socket(py)?.call_method1("socket", (libc::AF_UNIX, libc::SOCK_STREAM, 0))?;
        let sock = OpenSocket::made(sock.unbind());
        sock.object()
            .bind(py)
            .call_method1(intern!(py, "setblocking"), (false,))?;
        Ok::<_, PyErr>((sock, path))
    })?;
    connect_made(this, sock.object(), path, true).await?;
    Ok(sock)
}

fn log_connected(
    this: &Bound<'_, EventLoop>,
    connection: &Connection,
    pair: &Pair,
) -> PyResult<()> {
    let py = this.py();
    if !this.get().state(py).is_debug() {
        return Ok(());
    }
    let arguments = (
        "%r connected to %s:%r: (%r, %r)",
        pair.socket(py)?,
        &connection.host,
        &connection.port,
        &pair.transport,
        &pair.protocol,
    );
    imports::logger(py)?
        .call_method1("debug", arguments)
        .map(drop)
}
