//! Sending: everything, or one datagram.

use super::{
    attempt_method, attempted, blocks, check_sock, method_coroutine, plain_descriptor, ready,
};
use crate::event_loop::EventLoop;
use crate::event_loop::watch::Side;
use crate::py::buffer::ReadableBuffer;
use crate::py::coroutine::Coroutine;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyMemoryView, PySlice, PyTuple};
use reactor::socket;

#[pymethods]
impl EventLoop {
    /// Send all of data.
    fn sock_sendall<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        data: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        Coroutine::method(slf, "EventLoop.sock_sendall", move |this| async move {
            Python::attach(|py| check_sock(this.bind(py), sock.bind(py)))?;
            sendall(&this, &sock, data).await?;
            Ok(Python::attach(|py| py.None()))
        })
    }

    /// Send a datagram to an address; return how many bytes.
    fn sock_sendto<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        data: Py<PyAny>,
        address: Py<PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        method_coroutine(
            slf,
            "EventLoop.sock_sendto",
            Side::Writer,
            sock,
            intern!(slf.py(), "sendto"),
            &PyTuple::new(slf.py(), [data, address])?,
        )
    }
}

async fn sendall(this: &Py<EventLoop>, sock: &Py<PyAny>, data: Py<PyAny>) -> PyResult<()> {
    let mut progress = Progress {
        data,
        sent: 0,
        lent: None,
    };
    while !Python::attach(|py| progress.send(sock.bind(py)))? {
        ready(this, sock, Side::Writer).await?;
    }
    Ok(())
}

struct Progress {
    data: Py<PyAny>,
    sent: usize,
    /// Keeps a bytearray from being resized while it is sent.
    lent: Option<Py<PyAny>>,
}

impl Progress {
    /// Sends as much as the kernel takes at once; true if that was the rest.
    fn send(&mut self, sock: &Bound<'_, PyAny>) -> PyResult<bool> {
        let data = self.data.bind(sock.py()).clone();
        let sent = match plain_descriptor(sock)? {
            Some(fd) => {
                let buffer = ReadableBuffer::of(&data)?;
                let rest = buffer.as_slice().get(self.sent..).unwrap_or_default();
                let sent = attempted(socket::send(fd, rest))?;
                (sent.is_some() || !blocks(sock)?).then_some((sent, rest.len()))
            }
            None => None,
        };
        let (sent, left) = match sent {
            Some(sent) => sent,
            None => self.send_by_method(sock, &data)?,
        };
        self.sent += sent.unwrap_or(0);
        if sent == Some(left) {
            return Ok(true);
        }
        if self.lent.is_none() {
            self.lent = Some(PyMemoryView::from(&data)?.into_any().unbind());
        }
        Ok(false)
    }

    fn send_by_method(
        &self,
        sock: &Bound<'_, PyAny>,
        data: &Bound<'_, PyAny>,
    ) -> PyResult<(Option<usize>, usize)> {
        let py = sock.py();
        let mut rest = data.clone();
        if let Some(lent) = &self.lent {
            let bytes = lent.bind(py).call_method1(intern!(py, "cast"), ("B",))?;
            rest = bytes.get_item(PySlice::new(py, self.sent as isize, isize::MAX, 1))?;
        }
        let arguments = PyTuple::new(py, [&rest])?;
        let sent = match attempt_method(sock, intern!(py, "send"), &arguments)? {
            Some(sent) => Some(sent.extract()?),
            None => None,
        };
        let left = match rest.cast::<PyMemoryView>() {
            Ok(view) => view.getattr(intern!(py, "nbytes"))?.extract()?,
            Err(_) => rest.len()?,
        };
        Ok((sent, left))
    }
}
