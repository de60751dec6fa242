//! Receiving, and accepting.

use super::{attempt_method, attempted, blocks, method_coroutine, plain_descriptor, until_ready};
use crate::event_loop::watch::Side;
use crate::event_loop::{EventLoop, State};
use crate::py::buffer::{WritableBuffer, bytes_filled_by};
use crate::py::coroutine::Coroutine;
use crate::py::object::call_method;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use reactor::socket;
use std::io;
use std::os::fd::RawFd;

/// Receives of less than this go through scratch memory and are copied.
const BULK: usize = 4096;

#[pymethods]
impl EventLoop {
    /// Receive up to n bytes.
    fn sock_recv<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        n: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop.sock_recv", move |this| async move {
            until_ready(&this, &sock, Side::Reader, |sock| {
                recv(&this, sock, n.bind(sock.py()))
            })
            .await
        })
    }

    /// Receive into a writable buffer; return how many bytes.
    fn sock_recv_into<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        buf: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop.sock_recv_into", move |this| async move {
            until_ready(&this, &sock, Side::Reader, |sock| {
                recv_into(sock, buf.bind(sock.py()))
            })
            .await
        })
    }

    /// Receive a datagram of up to bufsize bytes; return (bytes, address).
    fn sock_recvfrom<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        bufsize: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = PyTuple::new(slf.py(), [bufsize])?;
        method_coroutine(
            slf,
            "EventLoop.sock_recvfrom",
            Side::Reader,
            sock,
            intern!(slf.py(), "recvfrom"),
            &arguments,
        )
    }

    /// Receive a datagram into a writable buffer; return (number of bytes, address).
    #[pyo3(
        signature = (sock, buf, nbytes=None),
        text_signature = "($self, sock, buf, nbytes=0)"
    )]
    fn sock_recvfrom_into<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        buf: Py<PyAny>,
        nbytes: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let name = "EventLoop.sock_recvfrom_into";
        Coroutine::method(slf, name, move |this| async move {
            until_ready(&this, &sock, Side::Reader, |sock| {
                let py = sock.py();
                let nbytes = nbytes.as_ref().map(|nbytes| nbytes.bind(py));
                recvfrom_into(sock, buf.bind(py), nbytes)
            })
            .await
        })
    }

    /// Accept a connection; return (socket, address).
    fn sock_accept<'py>(slf: &Bound<'py, Self>, sock: Py<PyAny>) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop.sock_accept", move |this| async move {
            until_ready(&this, &sock, Side::Reader, accept).await
        })
    }
}

fn recv<'py>(
    this: &Py<EventLoop>,
    sock: &Bound<'py, PyAny>,
    size: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = sock.py();
    // Anything but a positive size is for the socket's own method to judge.
    let capacity = size.extract::<isize>().ok().filter(|size| *size > 0);
    if let Some(capacity) = capacity
        && let Some(fd) = plain_descriptor(sock)?
    {
        let received = recv_bytes(this.get().state(py), py, fd, capacity.unsigned_abs())?;
        let received = attempted(received)?;
        if received.is_some() || !blocks(sock)? {
            return Ok(received.map(Bound::into_any));
        }
    }
    attempt_method(sock, intern!(py, "recv"), &PyTuple::new(py, [size])?)
}

/// Receives up to `capacity` bytes. An object of that size is made only if it will probably be
/// filled: programs ask for much and get little.
fn recv_bytes<'py>(
    state: &State,
    py: Python<'py>,
    fd: RawFd,
    capacity: usize,
) -> PyResult<io::Result<Bound<'py, PyBytes>>> {
    let copied = state.with_scratch(|scratch| {
        let sparse = capacity > BULK && state.memory.last_sock_recv.get() < BULK;
        let scratch = scratch.get_mut(..capacity).filter(|_| sparse)?;
        let received = socket::recv_into_slice(fd, scratch);
        Some(received.map(|count| PyBytes::new(py, &scratch[..count])))
    });
    let received = match copied {
        Some(copied) => copied,
        None => bytes_filled_by(py, capacity, |memory| socket::recv(fd, memory))?,
    };
    if let Ok(received) = &received {
        state.memory.last_sock_recv.set(received.as_bytes().len());
    }
    Ok(received)
}

fn recv_into<'py>(
    sock: &Bound<'py, PyAny>,
    buffer: &Bound<'py, PyAny>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = sock.py();
    // What has none is for the socket's own method to judge, and so is an empty one.
    if let Ok(mut memory) = WritableBuffer::of(buffer, "recv_into() argument 1")
        && memory.len() > 0
        && let Some(fd) = plain_descriptor(sock)?
    {
        let received = memory.with_memory(|memory| {
            let received = socket::recv(fd, memory)?;
            Ok(received.len())
        });
        let received = attempted(received)?;
        match received {
            Some(count) => return Ok(Some(count.into_pyobject(py)?.into_any())),
            None if !blocks(sock)? => return Ok(None),
            None => {}
        }
    }
    attempt_method(sock, intern!(py, "recv_into"), &PyTuple::new(py, [buffer])?)
}

/// Without a size, receives at most as many bytes as the buffer has items.
fn recvfrom_into<'py>(
    sock: &Bound<'py, PyAny>,
    buffer: &Bound<'py, PyAny>,
    size: Option<&Bound<'py, PyAny>>,
) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = sock.py();
    let size = match size {
        Some(size) if size.is_truthy()? => size.clone(),
        _ => buffer.len()?.into_pyobject(py)?.into_any(),
    };
    let arguments = PyTuple::new(py, [buffer, &size])?;
    attempt_method(sock, intern!(py, "recvfrom_into"), &arguments)
}

fn accept<'py>(sock: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = sock.py();
    // asyncio asks first what it would wait for.
    call_method(sock, intern!(py, "fileno"), &[])?;
    let accepted = attempt_method(sock, intern!(py, "accept"), &PyTuple::empty(py))?;
    if let Some(pair) = &accepted {
        let connection = pair.get_item(0)?;
        connection.call_method1(intern!(py, "setblocking"), (false,))?;
    }
    Ok(accepted)
}
