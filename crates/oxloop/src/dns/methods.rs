//! `getaddrinfo` and `getnameinfo`, as the loop has them.

use super::Question;
use crate::dns;
use crate::event_loop::EventLoop;
use crate::py::coroutine::Coroutine;
use crate::py::keywords::Number;
use pyo3::prelude::*;

#[pymethods]
impl EventLoop {
    /// socket.getaddrinfo() without blocking the loop.
    #[pyo3(
        signature = (
            host, port, *, family=Number::NOT_GIVEN, r#type=Number::NOT_GIVEN,
            proto=Number::NOT_GIVEN, flags=Number::NOT_GIVEN
        ),
        text_signature = "($self, host, port, *, family=0, type=0, proto=0, flags=0)"
    )]
    fn getaddrinfo<'py>(
        slf: &Bound<'py, Self>,
        host: Py<PyAny>,
        port: Py<PyAny>,
        family: Number,
        r#type: Number,
        proto: Number,
        flags: Number,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let question = Question {
            host,
            port,
            family: family.or(py, 0)?,
            kind: r#type.or(py, 0)?,
            proto: proto.or(py, 0)?,
            flags: flags.or(py, 0)?,
        };
        let answer = dns::getaddrinfo(slf.clone().unbind(), question);
        Coroutine::object(py, "EventLoop.getaddrinfo", answer)
    }

    /// socket.getnameinfo() without blocking the loop.
    #[pyo3(
        signature = (sockaddr, flags=Number::NOT_GIVEN),
        text_signature = "($self, sockaddr, flags=0)"
    )]
    fn getnameinfo<'py>(
        slf: &Bound<'py, Self>,
        sockaddr: Py<PyAny>,
        flags: Number,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let answer = dns::getnameinfo(slf.clone().unbind(), sockaddr, flags.or(py, 0)?);
        Coroutine::object(py, "EventLoop.getnameinfo", answer)
    }
}
