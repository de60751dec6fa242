//! `create_unix_server`: paths, abstract names, stale files.

use super::connection::check_unix_stream;
use super::server::{BACKLOG, OpenSockets, Serving, serve};
use crate::error::{errno_error_with, errno_of};
use crate::event_loop::EventLoop;
use crate::file;
use crate::py::coroutine::Coroutine;
use crate::py::imports;
use crate::py::keywords::{Number, Truth};
use crate::tls::options::TlsOptions;
use pyo3::exceptions::{PyFileNotFoundError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;

#[pymethods]
impl EventLoop {
    /// Listen on a Unix socket's path (or on sock); return a Server.
    #[pyo3(
        signature = (
            protocol_factory, path=None, *, sock=None, backlog=Number::NOT_GIVEN, ssl=None,
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=Truth(true),
            cleanup_socket=Truth(cfg!(Py_3_13))
        ),
        text_signature = "($self, protocol_factory, path=None, *, sock=None, backlog=100, \
            ssl=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None, start_serving=True, \
            cleanup_socket=sys.version_info >= (3, 13))"
    )]
    fn create_unix_server<'py>(
        slf: &Bound<'py, Self>,
        protocol_factory: Py<PyAny>,
        path: Option<Py<PyAny>>,
        sock: Option<Py<PyAny>>,
        backlog: Number,
        ssl: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
        start_serving: Truth,
        cleanup_socket: Truth,
    ) -> PyResult<Bound<'py, PyAny>> {
        let (py, caller) = (slf.py(), (slf.clone().unbind(), protocol_factory));
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        let tls = TlsOptions::new(py, ssl, None, timeouts);
        let backlog = backlog.or(py, BACKLOG)?;
        let name = "EventLoop.create_unix_server";
        Coroutine::of(py, name, caller, move |caller| async move {
            let (sockets, cleanup) = Python::attach(|py| {
                tls.check_server(py, tls.is_wanted(py)?)?;
                let (socket, sockets) = open(py, path.as_ref(), sock.as_ref())?;
                let cleanup = if cleanup_socket.0 {
                    path_and_inode(&socket)?
                } else {
                    None
                };
                Ok::<_, PyErr>((sockets, cleanup))
            })?;
            let serving = Serving {
                backlog,
                tls,
                start_serving: start_serving.0,
            };
            serve(&caller, sockets, cleanup, serving).await
        })
    }
}

fn open<'py>(
    py: Python<'py>,
    path: Option<&Py<PyAny>>,
    sock: Option<&Py<PyAny>>,
) -> PyResult<(Bound<'py, PyAny>, OpenSockets)> {
    match (path, sock) {
        (Some(_), Some(_)) => Err(PyValueError::new_err(
            "path and sock can not be specified at the same time",
        )),
        (Some(path), None) => {
            let path = imports::os(py)?.call_method1("fspath", (path,))?;
            let arguments = (libc::AF_UNIX, libc::SOCK_STREAM);
            let socket = imports::socket(py)?.call_method1(intern!(py, "socket"), arguments)?;
            let open = OpenSockets::made(vec![socket.clone().unbind()]);
            bind(&socket, &path)?;
            Ok((socket, open))
        }
        (None, Some(sock)) => {
            check_unix_stream(sock.bind(py))?;
            Ok((
                sock.bind(py).clone(),
                OpenSockets::given(sock.clone_ref(py)),
            ))
        }
        (None, None) => Err(PyValueError::new_err(
            "path was not specified, and no sock specified",
        )),
    }
}

fn bind(socket: &Bound<'_, PyAny>, path: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = socket.py();
    if !is_abstract(path)? {
        remove_stale(path)?;
    }
    let Err(error) = socket.call_method1(intern!(py, "bind"), (path,)) else {
        return Ok(());
    };
    if errno_of(py, &error)? != Some(libc::EADDRINUSE) {
        return Err(error);
    }
    let text = format!("Address {} is already in use", path.repr()?);
    Err(errno_error_with(libc::EADDRINUSE, &text))
}

/// Names that start with NUL, as `str` or `bytes`, are in no file system.
fn is_abstract(path: &Bound<'_, PyAny>) -> PyResult<bool> {
    let first = path.get_item(0)?;
    Ok(first.eq(0)? || first.eq("\0")?)
}

/// Removes a socket file that an earlier process left at `path`. A file of another kind stays, and
/// bind(2) then fails.
///
/// # Errors
/// What is no OSError: ValueError for a NUL in the path.
pub(super) fn remove_stale(path: &Bound<'_, PyAny>) -> PyResult<()> {
    // The directory may only allow to make files.
    let text = "Unable to check or remove stale UNIX socket %r: %r";
    file::unlink_if(path, text, |status| status.kind() == libc::S_IFSOCK)
}

/// The file to remove when the server is closed, if it is still the same file then.
fn path_and_inode(socket: &Bound<'_, PyAny>) -> PyResult<Option<(Py<PyAny>, u64)>> {
    let py = socket.py();
    let path = socket.call_method0("getsockname")?;
    if is_abstract(&path)? {
        return Ok(None);
    }
    match file::stat(&path) {
        Ok(status) => Ok(Some((path.unbind(), status.inode))),
        Err(error) if error.is_instance_of::<PyFileNotFoundError>(py) => Ok(None),
        Err(error) => Err(error),
    }
}
