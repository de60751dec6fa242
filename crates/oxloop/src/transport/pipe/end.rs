//! `End`: what both kinds of pipe transports are made of.

use super::{Kind, extra_of, kind_of, set_nonblocking};
use crate::error::os_error;
use crate::event_loop::source::Source;
use crate::event_loop::{EventLoop, State};
use crate::py::class::{OfNative, Ref, This, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::base::{self, BaseTransport, Parties};
use crate::transport::visit_cell;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use reactor::poller::Interest;
use reactor::socket;
use reactor::token::Token;
use std::cell::{Cell, RefCell};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// The file object of a pipe transport, its registration and its protocol.
pub(crate) struct End {
    pub(super) parties: Parties,
    /// None once it is closed.
    pipe: RefCell<Option<Py<PyAny>>>,
    pub(super) fd: RawFd,
    /// Registered in place of `fd`, whose number belongs to another registration.
    duplicate: RefCell<Option<OwnedFd>>,
    token: Cell<Option<Token>>,
    interest: Cell<Interest>,
    /// `connection_made` was called.
    pub(super) started: Cell<bool>,
    pub(super) closing: Cell<bool>,
    /// `connection_lost` is on its way, or was called.
    pub(super) ended: Cell<bool>,
}

impl End {
    /// Takes a file over, and tells its kind.
    ///
    /// # Errors
    /// ValueError with the text `refusal` for a file that cannot be polled.
    pub(super) fn open(
        event_loop: &Bound<'_, EventLoop>,
        pipe: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        refusal: &'static str,
    ) -> PyResult<(Self, Kind)> {
        let py = event_loop.py();
        let (fd, kind) = kind_of(pipe)?;
        let kind = kind.ok_or_else(|| PyValueError::new_err(refusal))?;
        set_nonblocking(py, fd)?;
        let protocol = protocol.clone().unbind();
        let end = Self {
            parties: Parties::new(event_loop, protocol, Captured::current(py)?),
            pipe: RefCell::new(Some(pipe.clone().unbind())),
            fd,
            duplicate: RefCell::new(None),
            token: Cell::new(None),
            interest: Cell::new(Interest::NONE),
            started: Cell::new(false),
            closing: Cell::new(false),
            ended: Cell::new(false),
        };
        Ok((end, kind))
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.parties.traverse(visit)?;
        visit_cell(visit, &self.pipe)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        self.parties.clear(py);
    }

    fn is_closed(&self) -> bool {
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

    fn take_free_number(&self, state: &State) -> PyResult<()> {
        if self.duplicate.borrow().is_none() && state.is_registered(self.fd) {
            let duplicate = socket::duplicate(self.fd).map_err(|error| os_error(&error))?;
            *self.duplicate.borrow_mut() = Some(duplicate);
        }
        Ok(())
    }
}

/// What the two kinds differ in.
pub(crate) trait PipeTransport: BaseTransport {
    /// What the loop polls to move data.
    const SIDE: Interest;

    fn end(&self, py: Python<'_>) -> &End;

    fn source(transport: Ref<Self>) -> Source;

    /// `connection_made` was called.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    fn begin(this: &This<'_, '_, Self>) -> PyResult<()>;

    /// What the kind's `repr` ends with.
    fn bufsize(_this: &This<'_, '_, Self>) -> Option<usize> {
        None
    }
}

/// Makes the transport and queues `connection_made`, the beginning, and the waiter.
///
/// # Errors
/// MemoryError; RuntimeError on a closed loop.
pub(super) fn start<T: PipeTransport>(
    payload: T,
    pipe: &Bound<'_, PyAny>,
    waiter: &Bound<'_, PyAny>,
) -> PyResult<Py<PyAny>> {
    let py = pipe.py();
    let transport = Ref::new(py, payload)?;
    let object = transport.as_object().clone_ref(py);
    object
        .bind(py)
        .setattr(intern!(py, "_extra"), extra_of(pipe)?)?;
    let this = transport.this(py);
    this.schedule_beginning()?;
    let wake = imports::set_result_unless_cancelled(py)?;
    this.soon(wake, &[waiter, &py.None().into_bound(py)])?;
    Ok(object)
}

impl<'py, T: PipeTransport> This<'_, 'py, T> {
    pub(super) fn end(&self) -> &End {
        self.payload().end(self.py())
    }

    /// Makes the kernel's interest exactly `wanted`. A hang-up is reported whether it is wanted or
    /// not, so the registration ends when nothing is.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; RuntimeError on a closed loop.
    pub(super) fn listen_for(&self, wanted: Interest) -> PyResult<()> {
        let (end, state) = (self.end(), self.loop_state());
        match end.token.get() {
            _ if wanted.is_empty() => self.stop_listening(),
            Some(token) => {
                if end.interest.get() != wanted {
                    state.set_interest(end.polled(), token, wanted);
                }
            }
            None => {
                end.take_free_number(state)?;
                let source = T::source(self.to_ref());
                let token = state.register_transport(end.polled(), source, wanted)?;
                end.token.set(Some(token));
            }
        }
        end.interest.set(wanted);
        Ok(())
    }

    /// Ends the registration.
    pub(super) fn stop_listening(&self) {
        let end = self.end();
        end.interest.set(Interest::NONE);
        if let Some(token) = end.token.take() {
            let source = self.loop_state().deregister(end.polled(), token);
            drop(source);
        }
    }

    /// Ends the registration and queues `connection_lost`, once.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(super) fn schedule_end(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        self.end().closing.set(true);
        self.stop_listening();
        if self.end().ended.replace(true) {
            return Ok(());
        }
        self.schedule_connection_lost(error)
    }

    /// Tells the protocol, then closes the file.
    pub(super) fn end_now(&self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        self.end().ended.set(true);
        let told = self.tell_connection_lost(error);
        let closed = self.close_pipe();
        self.forget_protocol();
        told.and(closed)
    }

    fn close_pipe(&self) -> PyResult<()> {
        self.stop_listening();
        drop(self.end().duplicate.take());
        let pipe = self.end().pipe.take();
        pipe.map_or(Ok(()), |pipe| {
            let pipe = pipe.bind(self.py());
            pipe.call_method0(intern!(self.py(), "close")).map(drop)
        })
    }

    /// The transport dies: it may not have been closed.
    pub(super) fn finalize_end(&self) {
        if !self.end().is_closed() {
            self.finalize_open(|| self.close_pipe());
        }
    }
}

/// asyncio's form: the class, the state, the descriptor, and whether its side is polled.
pub(super) fn repr<'py, T: PipeTransport>(this: &This<'_, 'py, T>) -> PyResult<Bound<'py, PyAny>> {
    let end = this.end();
    let closed = end.is_closed();
    let mut parts = vec![this.object().get_type().name()?.to_string()];
    if closed {
        parts.push("closed".to_owned());
    } else if end.closing.get() {
        parts.push("closing".to_owned());
    }
    parts.push(format!("fd={}", end.fd));
    let usable = this.loop_state().check_closed().is_ok();
    let polled = match (closed, usable) {
        (true, _) => "closed",
        (false, false) => "open",
        (false, true) if end.interest.get().contains(T::SIDE) => "polling",
        (false, true) => "idle",
    };
    parts.push(polled.to_owned());
    if !closed
        && usable
        && let Some(size) = T::bufsize(this)
    {
        parts.push(format!("bufsize={size}"));
    }
    let text = format!("<{}>", parts.join(" "));
    Ok(PyString::new(this.py(), &text).into_any())
}

/// The methods that both kinds have.
pub(super) fn add_methods<T: PipeTransport>(methods: &mut Methods<OfNative<T>>) {
    base::add_methods(methods);
    methods.nullary(
        c"_begin",
        |this| T::begin(this).and_then(|()| this.none()),
        c"What follows connection_made.",
    );
    methods.method(
        c"_call_connection_lost",
        |this, args| {
            this.end_now(&*args.one("_call_connection_lost", "exc")?)?;
            this.none()
        },
        c"The deferred end.",
    );
}
