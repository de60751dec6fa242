//! The transport's part of `loop.sendfile`: refuses other writes meanwhile, and provides a future
//! that is done when the socket takes more.
//!
//! Invariants:
//! - at most one file is sent at a time, and only while the queue is empty.
//! - when the connection is lost, the future fails with ConnectionError.

use super::{StreamThis, StreamTransport};
use crate::py::class::OfNative;
use crate::py::future::end_unless_done;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use pyo3::exceptions::{PyConnectionError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyType;

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.nullary(
        c"_make_empty_waiter",
        |this| this.begin_sendfile(),
        c"Refuse writes; return a future that is done once the queue is sent.",
    );
    methods.nullary_procedure(
        c"_reset_empty_waiter",
        |this| {
            this.own().sendfile.set(false);
            this.own().writable.set(None);
            Ok(())
        },
        c"Take writes again.",
    );
    methods.nullary(
        c"_writable",
        |this| this.writable(),
        c"A future that is done when the socket takes more.",
    );
    methods.getter(c"_protocol_paused", |this| {
        this.boolean(this.own().flow.is_paused())
    });
}

/// Sets `_sendfile_compatible`, which tells `loop.sendfile` what to try. It is an attribute of the
/// class, so that an instance can have another.
pub(super) fn declare(class: &Bound<'_, PyType>) -> PyResult<()> {
    let mode = imports::sendfile_mode(class.py())?.getattr("TRY_NATIVE")?;
    class.setattr("_sendfile_compatible", mode)
}

impl<'py> StreamThis<'_, 'py> {
    fn begin_sendfile(&self) -> PyResult<Bound<'py, PyAny>> {
        let inner = self.own();
        if inner.sendfile.get() {
            return Err(PyRuntimeError::new_err("Empty waiter is already set"));
        }
        self.flush();
        let future = self.new_future()?;
        inner.sendfile.set(true);
        if inner.queue.borrow().is_empty() {
            end_unless_done(&future, Ok(self.py().None()))?;
        } else {
            self.wait_with(&future);
        }
        Ok(future)
    }

    fn writable(&self) -> PyResult<Bound<'py, PyAny>> {
        if self.own().flags.conn_lost.get() > 0 {
            return Err(connection_lost());
        }
        let future = self.new_future()?;
        self.wait_with(&future);
        Ok(future)
    }

    fn new_future(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        call_method(self.event_loop(), intern!(py, "create_future"), &[])
    }

    fn wait_with(&self, future: &Bound<'py, PyAny>) {
        self.own().writable.set(Some(future.clone().unbind()));
        self.want_more();
    }

    /// Serves a writable event: sets the future's result if the queue is empty.
    #[cold]
    pub(super) fn wake_sendfile(&self) -> PyResult<()> {
        let inner = self.own();
        if !inner.queue.borrow().is_empty() {
            return Ok(());
        }
        let (py, waiter) = (self.py(), inner.writable.take());
        waiter.map_or(Ok(()), |waiter| {
            end_unless_done(waiter.bind(py), Ok(py.None()))
        })
    }

    /// Fails the future: the connection is lost.
    pub(super) fn fail_sendfile(&self) -> PyResult<()> {
        let waiter = self.own().writable.take();
        waiter.map_or(Ok(()), |waiter| {
            end_unless_done(waiter.bind(self.py()), Err(connection_lost()))
        })
    }
}

fn connection_lost() -> PyErr {
    PyConnectionError::new_err("Connection is closed by peer")
}
