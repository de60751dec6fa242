//! `create_datagram_endpoint`.

use super::transport::{Caller, OpenSocket, Pair};
use super::unix_server::remove_stale;
use crate::dns::{Wanted, ensure_resolved};
use crate::event_loop::EventLoop;
use crate::py::context::Captured;
use crate::py::coroutine::{Coroutine, await_python};
use crate::py::imports;
use crate::py::keywords::Number;
use crate::sock::connect_made;
use crate::transport::datagram::{self, Opened};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use std::rc::Rc;

#[pymethods]
impl EventLoop {
    /// Make a datagram socket (or take sock over); return (transport, protocol).
    #[pyo3(
        signature = (
            protocol_factory, local_addr=None, remote_addr=None, *, family=Number::NOT_GIVEN,
            proto=Number::NOT_GIVEN, flags=Number::NOT_GIVEN, reuse_port=None,
            allow_broadcast=None, sock=None
        ),
        text_signature = "($self, protocol_factory, local_addr=None, remote_addr=None, *, \
            family=0, proto=0, flags=0, reuse_port=None, allow_broadcast=None, sock=None)"
    )]
    fn create_datagram_endpoint<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        local_addr: Option<Py<PyAny>>,
        remote_addr: Option<Py<PyAny>>,
        family: Number,
        proto: Number,
        flags: Number,
        reuse_port: Option<Py<PyAny>>,
        allow_broadcast: Option<Py<PyAny>>,
        sock: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let endpoint = Endpoint {
            local: local_addr,
            remote: remote_addr,
            wanted: Wanted {
                family: family.or(py, 0)?,
                kind: imports::socket(py)?.getattr("SOCK_DGRAM")?.unbind(),
                proto: proto.or(py, 0)?,
                flags: flags.or(py, 0)?,
            },
            reuse_port,
            allow_broadcast,
        };
        let caller = (slf.clone().unbind(), protocol_factory);
        Coroutine::of(py, "EventLoop.create_datagram_endpoint", caller, |caller| {
            create_datagram_endpoint(caller, endpoint, sock)
        })
    }
}

/// The arguments of `create_datagram_endpoint`, but for the factory.
struct Endpoint {
    local: Option<Py<PyAny>>,
    remote: Option<Py<PyAny>>,
    wanted: Wanted,
    reuse_port: Option<Py<PyAny>>,
    allow_broadcast: Option<Py<PyAny>>,
}

/// Where one socket is bound and connected.
struct Candidate {
    family: Py<PyAny>,
    proto: Py<PyAny>,
    local: Option<Py<PyAny>>,
    remote: Option<Py<PyAny>>,
}

async fn create_datagram_endpoint(
    caller: Rc<Caller>,
    endpoint: Endpoint,
    sock: Option<Py<PyAny>>,
) -> PyResult<Py<PyAny>> {
    // A given socket stays the program's own until a transport has it.
    let (socket, made, remote) = match sock {
        Some(sock) => {
            Python::attach(|py| check_given(sock.bind(py), &endpoint))?;
            (sock, None, None)
        }
        None => {
            let (made, remote) = open_socket(&caller.0, &endpoint).await?;
            let socket = Python::attach(|py| made.object().clone_ref(py));
            (socket, Some(made), remote)
        }
    };
    let (pair, waiter) =
        Python::attach(|py| make_transport(py, &caller, &endpoint, socket, remote))?;
    drop(made.map(OpenSocket::keep));
    match await_python(waiter).await {
        Ok(_) => Python::attach(|py| pair.into_python(py)),
        Err(error) => Err(Python::attach(|py| pair.close_after(py, error))),
    }
}

fn is_set(py: Python<'_>, value: Option<&Py<PyAny>>) -> PyResult<bool> {
    value.map_or(Ok(false), |value| value.bind(py).is_truthy())
}

/// # Errors
/// ValueError for a stream socket, and for keywords that only matter when a socket is made.
fn check_given(sock: &Bound<'_, PyAny>, endpoint: &Endpoint) -> PyResult<()> {
    let py = sock.py();
    let kind = sock.getattr(intern!(py, "type"))?;
    let (expected, wrong) = if cfg!(Py_3_13) {
        ("datagram", kind.eq(libc::SOCK_STREAM)?)
    } else {
        ("UDP", kind.ne(libc::SOCK_DGRAM)?)
    };
    if wrong {
        let article = if cfg!(Py_3_13) { "socket" } else { "Socket" };
        return Err(PyValueError::new_err(format!(
            "A {expected} {article} was expected, got {}",
            sock.repr()?
        )));
    }
    let options = [
        ("local_addr", endpoint.local.as_ref()),
        ("remote_addr", endpoint.remote.as_ref()),
        ("family", Some(&endpoint.wanted.family)),
        ("proto", Some(&endpoint.wanted.proto)),
        ("flags", Some(&endpoint.wanted.flags)),
        ("reuse_port", endpoint.reuse_port.as_ref()),
        ("allow_broadcast", endpoint.allow_broadcast.as_ref()),
    ];
    let mut problems = Vec::new();
    for (name, value) in options {
        if let Some(value) = value
            && value.bind(py).is_truthy()?
        {
            problems.push(format!("{name}={}", value.bind(py).str()?));
        }
    }
    if !problems.is_empty() {
        return Err(PyValueError::new_err(format!(
            "socket modifier keyword arguments can not be used when sock is specified. ({})",
            problems.join(", ")
        )));
    }
    sock.call_method1(intern!(py, "setblocking"), (false,))
        .map(drop)
}

/// A socket for the first pair of addresses that can be bound and connected, and the address that
/// it sends to.
async fn open_socket(
    this: &Py<EventLoop>,
    endpoint: &Endpoint,
) -> PyResult<(OpenSocket, Option<Py<PyAny>>)> {
    let mut first_error = None;
    for place in places(this, endpoint).await? {
        match open_at(this, endpoint, &place).await {
            Ok(socket) => {
                let remote = Python::attach(|py| {
                    let set = is_set(py, endpoint.remote.as_ref())?;
                    Ok::<_, PyErr>(place.remote.filter(|_| set))
                })?;
                return Ok((socket, remote));
            }
            Err(error) if Python::attach(|py| error.is_instance_of::<PyOSError>(py)) => {
                first_error.get_or_insert(error);
            }
            Err(error) => return Err(error),
        }
    }
    Err(first_error.expect("invariant: there is at least one place"))
}

async fn places(this: &Py<EventLoop>, endpoint: &Endpoint) -> PyResult<Vec<Candidate>> {
    let (local, remote, unspecified, unix) = Python::attach(|py| {
        let family = endpoint.wanted.family.bind(py);
        Ok::<_, PyErr>((
            is_set(py, endpoint.local.as_ref())?,
            is_set(py, endpoint.remote.as_ref())?,
            family.eq(libc::AF_UNSPEC)?,
            family.eq(libc::AF_UNIX)?,
        ))
    })?;
    if !(local || remote) && unspecified {
        return Err(PyValueError::new_err("unexpected address family"));
    }
    if (local || remote) && !unix {
        return resolved_places(this, endpoint, local, remote).await;
    }
    Python::attach(|py| {
        let own = |address: &Option<Py<PyAny>>| address.as_ref().map(|it| it.clone_ref(py));
        if unix && (local || remote) {
            check_unix(py, endpoint)?;
        }
        Ok(vec![Candidate {
            family: endpoint.wanted.family.clone_ref(py),
            proto: endpoint.wanted.proto.clone_ref(py),
            local: own(&endpoint.local).filter(|_| local),
            remote: own(&endpoint.remote).filter(|_| remote),
        }])
    })
}

/// Refuses an address that is not a name, and removes the socket file that an earlier process left
/// at the local one.
fn check_unix(py: Python<'_>, endpoint: &Endpoint) -> PyResult<()> {
    for address in [&endpoint.local, &endpoint.remote].into_iter().flatten() {
        if !address.bind(py).is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err("string is expected"));
        }
    }
    let Some(path) = endpoint.local.as_ref().map(|path| path.bind(py)) else {
        return Ok(());
    };
    if !path.is_truthy()? || path.get_item(0)?.eq("\0")? {
        return Ok(());
    }
    remove_stale(path)
}

/// Looks both addresses up and joins the answers by family and protocol.
async fn resolved_places(
    this: &Py<EventLoop>,
    endpoint: &Endpoint,
    local: bool,
    remote: bool,
) -> PyResult<Vec<Candidate>> {
    let mut places = Vec::new();
    let ends = [
        (Role::Local, &endpoint.local),
        (Role::Remote, &endpoint.remote),
    ];
    for (end, address) in ends {
        let Some(address) = address else {
            continue;
        };
        let address = Python::attach(|py| two_tuple(address.bind(py)))?;
        let infos = ensure_resolved(this, address, &endpoint.wanted).await?;
        Python::attach(|py| {
            if !infos.bind(py).is_truthy()? {
                return Err(PyOSError::new_err("getaddrinfo() returned empty list"));
            }
            join(&mut places, end, infos.bind(py))
        })?;
    }
    places.retain(|place| !(local && place.local.is_none() || remote && place.remote.is_none()));
    if places.is_empty() {
        return Err(PyValueError::new_err("can not get address information"));
    }
    for place in &mut places {
        // An empty address was looked up as well, but is not used.
        if !local {
            place.local = None;
        }
        if !remote {
            place.remote = None;
        }
    }
    Ok(places)
}

#[derive(Clone, Copy)]
enum Role {
    Local,
    Remote,
}

fn two_tuple(address: &Bound<'_, PyAny>) -> PyResult<Py<PyAny>> {
    match address.cast::<PyTuple>() {
        Ok(tuple) if tuple.len() == 2 => Ok(address.clone().unbind()),
        _ => Err(PyTypeError::new_err("2-tuple is expected")),
    }
}

fn join(places: &mut Vec<Candidate>, end: Role, infos: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = infos.py();
    for info in infos.try_iter()? {
        let (family, _kind, proto, _name, address) = info?.extract::<(
            Bound<'_, PyAny>,
            Bound<'_, PyAny>,
            Bound<'_, PyAny>,
            Bound<'_, PyAny>,
            Bound<'_, PyAny>,
        )>()?;
        let mut found = None;
        for (index, place) in places.iter().enumerate() {
            if place.family.bind(py).eq(&family)? && place.proto.bind(py).eq(&proto)? {
                found = Some(index);
            }
        }
        let index = found.unwrap_or_else(|| {
            places.push(Candidate {
                family: family.unbind(),
                proto: proto.unbind(),
                local: None,
                remote: None,
            });
            places.len() - 1
        });
        let address = Some(address.unbind());
        match end {
            Role::Local => places[index].local = address,
            Role::Remote => places[index].remote = address,
        }
    }
    Ok(())
}

async fn open_at(
    this: &Py<EventLoop>,
    endpoint: &Endpoint,
    place: &Candidate,
) -> PyResult<OpenSocket> {
    let (socket, broadcast) = Python::attach(|py| {
        let kind = &endpoint.wanted.kind;
        let socket =
            imports::socket(py)?.call_method1("socket", (&place.family, kind, &place.proto))?;
        let open = OpenSocket::made(socket.clone().unbind());
        if is_set(py, endpoint.reuse_port.as_ref())? {
            reuse_port(&socket)?;
        }
        let broadcast = is_set(py, endpoint.allow_broadcast.as_ref())?;
        if broadcast {
            let option = (libc::SOL_SOCKET, libc::SO_BROADCAST, 1);
            socket.call_method1(intern!(py, "setsockopt"), option)?;
        }
        socket.call_method1(intern!(py, "setblocking"), (false,))?;
        if let Some(local) = &place.local {
            socket.call_method1(intern!(py, "bind"), (local,))?;
        }
        Ok::<_, PyErr>((open, broadcast))
    })?;
    // A broadcasting endpoint hears from everybody.
    if let Some(remote) = &place.remote
        && !broadcast
    {
        let remote = Python::attach(|py| remote.clone_ref(py));
        connect_made(this, socket.object(), remote, false).await?;
    }
    Ok(socket)
}

/// # Errors
/// ValueError where the socket module or the kernel does not know the option.
fn reuse_port(socket: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = socket.py();
    if !imports::socket(py)?.hasattr("SO_REUSEPORT")? {
        return Err(PyValueError::new_err(
            "reuse_port not supported by socket module",
        ));
    }
    let option = (libc::SOL_SOCKET, libc::SO_REUSEPORT, 1);
    match socket.call_method1(intern!(py, "setsockopt"), option) {
        Err(error) if error.is_instance_of::<PyOSError>(py) => Err(PyValueError::new_err(
            "reuse_port not supported by socket module, SO_REUSEPORT defined but not implemented.",
        )),
        set => set.map(drop),
    }
}

fn make_transport(
    py: Python<'_>,
    (this, factory): &Caller,
    endpoint: &Endpoint,
    socket: Py<PyAny>,
    remote: Option<Py<PyAny>>,
) -> PyResult<(Pair, Py<PyAny>)> {
    let this = this.bind(py);
    let context = Captured::current(py)?;
    let protocol = factory.bind(py).call0()?.unbind();
    let waiter = this.call_method0(intern!(py, "create_future"))?.unbind();
    let opened = Opened {
        socket,
        protocol: protocol.clone_ref(py),
        address: remote,
        waiter: waiter.clone_ref(py),
        context,
    };
    let transport = datagram::start(this, opened)?;
    let pair = Pair::new(transport, protocol);
    log_created(this, endpoint, &pair)?;
    Ok((pair, waiter))
}

fn log_created(this: &Bound<'_, EventLoop>, endpoint: &Endpoint, pair: &Pair) -> PyResult<()> {
    let py = this.py();
    if !this.get().state(py).is_debug() {
        return Ok(());
    }
    let logger = imports::logger(py)?;
    let (local, remote) = (&endpoint.local, &endpoint.remote);
    let (transport, protocol) = (&pair.transport, &pair.protocol);
    if is_set(py, local.as_ref())? {
        let text = "Datagram endpoint local_addr=%r remote_addr=%r created: (%r, %r)";
        logger.call_method1("info", (text, local, remote, transport, protocol))?;
    } else {
        let text = "Datagram endpoint remote_addr=%r created: (%r, %r)";
        logger.call_method1("debug", (text, remote, transport, protocol))?;
    }
    Ok(())
}
