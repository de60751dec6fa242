//! `sock_recvmsg` and `sock_sendmsg`: messages with ancillary data, mostly descriptors.
//!
//! asyncio has neither. Arguments and results are those of the `socket.socket` methods.

use super::method_coroutine;
use crate::event_loop::EventLoop;
use crate::event_loop::watch::Side;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyTuple;

#[pymethods]
impl EventLoop {
    /// Receive a message; return (bytes, ancillary data, flags, address), as socket.recvmsg does.
    #[pyo3(signature = (sock, bufsize, ancbufsize=0, flags=0))]
    fn sock_recvmsg<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        bufsize: Bound<'py, PyAny>,
        ancbufsize: isize,
        flags: i32,
    ) -> PyResult<Bound<'py, PyAny>> {
        let arguments = (bufsize, ancbufsize, flags).into_pyobject(slf.py())?;
        method_coroutine(
            slf,
            "EventLoop.sock_recvmsg",
            Side::Reader,
            sock,
            intern!(slf.py(), "recvmsg"),
            &arguments,
        )
    }

    /// Send a message from several buffers; return how many bytes, as socket.sendmsg does.
    #[pyo3(
        signature = (sock, buffers, ancdata=None, flags=0, address=None),
        text_signature = "($self, sock, buffers, ancdata=(), flags=0, address=None)"
    )]
    fn sock_sendmsg<'py>(
        slf: &Bound<'py, Self>,
        sock: Py<PyAny>,
        buffers: Bound<'py, PyAny>,
        ancdata: Option<Bound<'py, PyAny>>,
        flags: i32,
        address: Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        // Iterators would be spent if the first attempt had to wait.
        let buffers = PyTuple::new(py, buffers.try_iter()?.collect::<PyResult<Vec<_>>>()?)?;
        let ancdata = match ancdata {
            Some(ancdata) => PyTuple::new(py, ancdata.try_iter()?.collect::<PyResult<Vec<_>>>()?)?,
            None => PyTuple::empty(py),
        };
        let arguments = (buffers, ancdata, flags, address).into_pyobject(py)?;
        method_coroutine(
            slf,
            "EventLoop.sock_sendmsg",
            Side::Writer,
            sock,
            intern!(py, "sendmsg"),
            &arguments,
        )
    }
}
