//! `End`: what both kinds of pipe transports are made of.

use crate::error::os_error;
use crate::event_loop::schedule::soon_method;
use crate::event_loop::source::Source;
use crate::event_loop::turn::leaves_the_loop;
use crate::event_loop::{EventLoop, State};
use crate::py::class::{Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::object::call_method;
use crate::transport::{report_error, visit_cell, warn_unclosed};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::poller::Interest;
use reactor::socket;
use reactor::token::Token;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The file object of a pipe transport, its registration and its protocol.
pub(super) struct End {
    event_loop: Py<EventLoop>,
    /// None once it is closed.
    pipe: RefCell<Option<Py<PyAny>>>,
    pub(super) fd: RawFd,
    /// Registered in place of `fd`, whose number belongs to another registration.
    duplicate: RefCell<Option<OwnedFd>>,
    token: Cell<Option<Token>>,
    interest: Cell<Interest>,
    protocol: RefCell<Option<Py<PyAny>>>,
    pub(super) context: Captured,
    /// `connection_made` was called.
    pub(super) started: Cell<bool>,
    pub(super) closing: Cell<bool>,
    /// `connection_lost` is on its way, or was called.
    pub(super) ended: Cell<bool>,
}

impl End {
    /// # Errors
    /// MemoryError.
    pub(super) fn new(
        event_loop: &Bound<'_, EventLoop>,
        pipe: &Bound<'_, PyAny>,
        fd: RawFd,
        protocol: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        Ok(Self {
            event_loop: event_loop.clone().unbind(),
            pipe: RefCell::new(Some(pipe.clone().unbind())),
            fd,
            duplicate: RefCell::new(None),
            token: Cell::new(None),
            interest: Cell::new(Interest::NONE),
            protocol: RefCell::new(Some(protocol.clone().unbind())),
            context: Captured::current(event_loop.py())?,
            started: Cell::new(false),
            closing: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.event_loop)?;
        self.context.traverse(visit)?;
        visit_cell(visit, &self.pipe)?;
        visit_cell(visit, &self.protocol)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        drop(self.protocol.take());
        self.context.clear(py);
    }

    pub(super) fn event_loop<'a, 'py>(&'a self, py: Python<'py>) -> &'a Bound<'py, EventLoop> {
        self.event_loop.bind(py)
    }

    pub(super) fn state<'a>(&'a self, py: Python<'a>) -> &'a State {
        self.event_loop.get().state(py)
    }

    pub(super) fn protocol<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let protocol = self.protocol.borrow();
        protocol.as_ref().map(|protocol| protocol.bind(py).clone())
    }

    pub(super) fn set_protocol(&self, protocol: &Bound<'_, PyAny>) {
        let old = self.protocol.replace(Some(protocol.clone().unbind()));
        drop(old);
    }

    pub(super) fn is_closed(&self) -> bool {
        self.pipe.borrow().is_none()
    }

    fn polled(&self) -> RawFd {
        let duplicate = self.duplicate.borrow();
        duplicate.as_ref().map_or(self.fd, AsRawFd::as_raw_fd)
    }

    /// What a fork's child must register again.
    pub(super) fn registration(&self) -> Option<(RawFd, Interest)> {
        self.token.get()?;
        Some((self.polled(), self.interest.get()))
    }

    /// Makes the kernel's interest exactly `wanted`. A hang-up is reported whether it is wanted or
    /// not, so the registration ends when nothing is.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; RuntimeError on a closed loop.
    pub(super) fn apply(
        &self,
        py: Python<'_>,
        wanted: Interest,
        source: impl FnOnce() -> Source,
    ) -> PyResult<()> {
        let state = self.state(py);
        match self.token.get() {
            _ if wanted.is_empty() => self.stop(py),
            Some(token) => {
                if self.interest.get() != wanted {
                    state.set_interest(self.polled(), token, wanted);
                }
            }
            None => {
                self.take_free_number(state)?;
                let token = state.register_transport(self.polled(), source(), wanted)?;
                self.token.set(Some(token));
            }
        }
        self.interest.set(wanted);
        Ok(())
    }

    /// Ends the registration.
    pub(super) fn stop(&self, py: Python<'_>) {
        self.interest.set(Interest::NONE);
        if let Some(token) = self.token.take() {
            let source = self.state(py).deregister(self.polled(), token);
            drop(source);
        }
    }

    fn take_free_number(&self, state: &State) -> PyResult<()> {
        if self.duplicate.borrow().is_none() && state.is_registered(self.fd) {
            let duplicate = socket::duplicate(self.fd).map_err(|error| os_error(&error))?;
            *self.duplicate.borrow_mut() = Some(duplicate);
        }
        Ok(())
    }

    /// Queues a callback, in the transport's context.
    pub(super) fn soon(
        &self,
        callback: &Bound<'_, PyAny>,
        arguments: &[&Bound<'_, PyAny>],
    ) -> PyResult<()> {
        let py = callback.py();
        let context = Captured::given(&self.context.object(py)?);
        soon_method(py, self.event_loop(py), callback, arguments, context)
    }

    /// Queues `connection_made`, the beginning, and the waiter.
    pub(super) fn schedule_beginning(
        &self,
        transport: &Bound<'_, PyAny>,
        waiter: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = transport.py();
        let Some(protocol) = self.protocol(py) else {
            return Ok(());
        };
        let made = protocol.getattr(intern!(py, "connection_made"))?;
        self.soon(&made, &[transport])?;
        self.soon(&transport.getattr(intern!(py, "_begin"))?, &[])?;
        let wake = imports::set_result_unless_cancelled(py)?;
        let none = py.None().into_bound(py);
        self.soon(wake, &[waiter, &none])
    }

    /// Ends the registration and queues `connection_lost`, once.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(super) fn schedule_lost(
        &self,
        transport: &Bound<'_, PyAny>,
        error: Option<Py<PyAny>>,
    ) -> PyResult<()> {
        let py = transport.py();
        self.closing.set(true);
        self.stop(py);
        if self.ended.replace(true) {
            return Ok(());
        }
        self.state(py).check_closed()?;
        let lost = transport.getattr(intern!(py, "_call_connection_lost"))?;
        let error = error.map_or_else(|| py.None().into_bound(py), |error| error.into_bound(py));
        self.soon(&lost, &[&error])
    }

    /// Tells the protocol, then closes the file.
    pub(super) fn call_connection_lost(
        &self,
        py: Python<'_>,
        error: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.ended.set(true);
        let told = self.protocol(py).map_or(Ok(()), |protocol| {
            call_method(&protocol, intern!(py, "connection_lost"), &[error]).map(drop)
        });
        let closed = self.close_pipe(py);
        drop(self.protocol.take());
        told.and(closed)
    }

    fn close_pipe(&self, py: Python<'_>) -> PyResult<()> {
        self.stop(py);
        drop(self.duplicate.take());
        let pipe = self.pipe.take();
        pipe.map_or(Ok(()), |pipe| {
            pipe.bind(py).call_method0(intern!(py, "close")).map(drop)
        })
    }

    /// Reports an exception that the transport does not survive: one of the peer's doing
    /// (`expected`) in debug mode only.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    pub(super) fn report_fatal(
        &self,
        transport: &Bound<'_, PyAny>,
        error: PyErr,
        expected: bool,
        message: &str,
    ) -> PyResult<Py<PyAny>> {
        let py = transport.py();
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let value = error.into_value(py).into_any();
        if !expected {
            report_error(
                self.event_loop(py),
                transport,
                self.protocol(py),
                &value,
                message,
            )?;
        } else if self.state(py).is_debug() {
            let kwargs = PyDict::new(py);
            kwargs.set_item("exc_info", &value)?;
            let arguments = ("%r: %s", transport, message);
            imports::logger(py)?.call_method("debug", arguments, Some(&kwargs))?;
        }
        Ok(value)
    }

    pub(super) fn log_in_debug(
        &self,
        level: &str,
        text: &str,
        transport: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let py = transport.py();
        if !self.state(py).is_debug() {
            return Ok(());
        }
        imports::logger(py)?
            .call_method1(level, (text, transport))
            .map(drop)
    }

    /// The transport dies without having been closed.
    pub(super) fn finalize(&self, transport: &Bound<'_, PyAny>) {
        let py = transport.py();
        if self.is_closed() {
            return;
        }
        for outcome in [warn_unclosed(transport), self.close_pipe(py)] {
            if let Err(error) = outcome {
                error.write_unraisable(py, None);
            }
        }
    }

    /// asyncio's form: the class, the state, the descriptor, and whether `side` is polled.
    pub(super) fn describe(
        &self,
        transport: &Bound<'_, PyAny>,
        side: Interest,
        size: Option<usize>,
    ) -> PyResult<String> {
        let closed = self.is_closed();
        let mut parts = vec![transport.get_type().name()?.to_string()];
        if closed {
            parts.push("closed".to_owned());
        } else if self.closing.get() {
            parts.push("closing".to_owned());
        }
        parts.push(format!("fd={}", self.fd));
        let usable = self.state(transport.py()).check_closed().is_ok();
        parts.push(
            match (closed, usable) {
                (true, _) => "closed",
                (false, false) => "open",
                (false, true) if self.interest.get().contains(side) => "polling",
                (false, true) => "idle",
            }
            .to_owned(),
        );
        if !closed
            && usable
            && let Some(size) = size
        {
            parts.push(format!("bufsize={size}"));
        }
        Ok(format!("<{}>", parts.join(" ")))
    }
}
