//! `PipeTransport`: what both ends of a pipe are, whatever a `PipeSide` does with the bytes.

use super::{FileKind, extra_of, kind_of, set_nonblocking};
use crate::error::{os_error, then_cleaned};
use crate::event_loop::registrations::Registration;
use crate::event_loop::source::Source;
use crate::event_loop::{EventLoop, State};
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Ref, This, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::file::{FileObject, descriptor_of, has_descriptor};
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::socket::no_descriptor;
use crate::transport::base::{self, BaseTransport, Parties};
use crate::transport::polled::{self, Polled};
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
pub(crate) struct PipeEnd {
    parties: Parties,
    /// None once it is closed.
    pipe: RefCell<Option<FileObject>>,
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

impl PipeEnd {
    fn new(
        event_loop: &Bound<'_, EventLoop>,
        pipe: &Bound<'_, PyAny>,
        fd: RawFd,
        protocol: &Bound<'_, PyAny>,
    ) -> PyResult<Self> {
        let context = Captured::current(event_loop.py())?;
        Ok(Self {
            parties: Parties::new(event_loop, protocol.clone().unbind(), context),
            pipe: RefCell::new(Some(FileObject::new(pipe, fd)?)),
            fd,
            duplicate: RefCell::new(None),
            token: Cell::new(None),
            interest: Cell::new(Interest::NONE),
            started: Cell::new(false),
            closing: Cell::new(false),
            ended: Cell::new(false),
        })
    }

    fn is_closed(&self) -> bool {
        self.pipe.borrow().is_none()
    }

    fn polled(&self) -> RawFd {
        let duplicate = self.duplicate.borrow();
        duplicate.as_ref().map_or(self.fd, AsRawFd::as_raw_fd)
    }

    fn take_free_number(&self, py: Python<'_>, state: &State) -> PyResult<()> {
        // Another transport may have had the number, and have lost it.
        state.end_if_lost(py, self.fd)?;
        if self.duplicate.borrow().is_none() && state.is_registered(self.fd) {
            let duplicate = socket::duplicate(self.fd).map_err(|error| os_error(&error))?;
            *self.duplicate.borrow_mut() = Some(duplicate);
        }
        Ok(())
    }
}

/// What the two ends differ in, and what only one of them has.
pub(crate) trait PipeSide: Sized + 'static {
    /// What the loop polls to move data.
    const POLLED: Interest;
    /// asyncio's words for a file that cannot be polled.
    const REFUSAL: &'static str;

    fn new(kind: FileKind) -> Self;

    fn class() -> &'static Class;

    /// As `Polled::on_event`.
    fn on_event(this: &PipeThis<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// As `Polled::reading_changes`.
    fn reading_changes(&self) -> u32;

    /// `connection_made` was called.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    fn begin(this: &PipeThis<'_, '_, Self>) -> PyResult<()>;

    /// # Errors
    /// RuntimeError on a closed loop.
    fn close(this: &PipeThis<'_, '_, Self>) -> PyResult<()>;

    /// Ends the transport because of an error; what is queued is lost.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    fn fail(this: &PipeThis<'_, '_, Self>, error: Py<PyAny>) -> PyResult<()>;

    /// What the `repr` ends with.
    fn bufsize(_this: &PipeThis<'_, '_, Self>) -> Option<usize> {
        None
    }
}

/// The payload of a pipe's transport.
pub(crate) struct PipeTransport<S: PipeSide> {
    inner: Attached<Pipe<S>>,
}

struct Pipe<S> {
    end: PipeEnd,
    side: S,
}

/// A borrowed transport while one of its methods runs.
pub(crate) type PipeThis<'a, 'py, S> = This<'a, 'py, PipeTransport<S>>;

impl<S: PipeSide> Native for PipeTransport<S> {
    fn class() -> &'static Class {
        S::class()
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let end = &self.inner.during_collection(visit).end;
        end.parties.traverse(visit)?;
        if let Ok(pipe) = end.pipe.try_borrow()
            && let Some(file) = &*pipe
        {
            visit.object(file.object())?;
            visit.option(file.seen_in())?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        self.inner.get(py).end.parties.clear(py);
    }

    fn finalize(this: &This<'_, '_, Self>) {
        if !this.end().is_closed() {
            this.finalize_open(|| this.close_pipe());
        }
    }
}

impl<S: PipeSide> BaseTransport for PipeTransport<S> {
    fn parties(&self, py: Python<'_>) -> &Parties {
        &self.inner.get(py).end.parties
    }

    fn is_closing(&self, py: Python<'_>) -> bool {
        self.inner.get(py).end.closing.get()
    }

    fn close(this: &This<'_, '_, Self>) -> PyResult<()> {
        S::close(this)
    }
}

impl<S: PipeSide> Polled for PipeTransport<S> {
    #[inline]
    fn on_event(this: &PipeThis<'_, '_, S>, readable: bool, writable: bool) -> PyResult<()> {
        S::on_event(this, readable, writable)
    }

    fn reading_changes(&self, py: Python<'_>) -> u32 {
        self.side(py).reading_changes()
    }

    fn registration(this: &PipeThis<'_, '_, S>, token: Token) -> Option<Registration> {
        let end = this.end();
        end.token.get()?;
        let duplicated = end.duplicate.borrow().is_some();
        if !duplicated && this.known_lost() {
            return None;
        }
        Some(Registration {
            fd: end.polled(),
            token,
            interest: end.interest.get(),
            to_ask: if duplicated { None } else { this.to_ask() },
        })
    }

    #[inline]
    fn has_descriptor(this: &PipeThis<'_, '_, S>) -> PyResult<bool> {
        if this.known_lost() {
            return Ok(false);
        }
        match this.to_ask() {
            None => Ok(true),
            Some(file) => has_descriptor(file.bind(this.py()), this.end().fd),
        }
    }

    fn descriptor_lost(this: &PipeThis<'_, '_, S>) -> PyResult<()> {
        let error = os_error(&no_descriptor()).into_value(this.py());
        S::fail(this, error.into_any())
    }
}

impl<S: PipeSide> PipeTransport<S> {
    /// Takes a file over; queues `connection_made`, the beginning, and the waiter.
    ///
    /// # Errors
    /// ValueError for a file that cannot be polled, which stays open; what fstat(2) says, and
    /// RuntimeError on a closed loop: then the file is closed, with asyncio's warning.
    pub(crate) fn start(
        event_loop: &Bound<'_, EventLoop>,
        pipe: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let py = pipe.py();
        let fd = descriptor_of(pipe)?;
        let (kind, unusable) = match kind_of(py, fd) {
            Ok(Some(kind)) => (kind, None),
            Ok(None) => return Err(PyValueError::new_err(S::REFUSAL)),
            Err(error) => (FileKind::Fifo, Some(error)),
        };
        let end = PipeEnd::new(event_loop, pipe, fd, protocol)?;
        let side = S::new(kind);
        let inner = Attached::new(Pipe { end, side });
        let transport = Ref::new(py, Self { inner })?;
        // From here on a failure leaves an unclosed transport to the finalizer, as in asyncio.
        if let Some(error) = unusable {
            return Err(error);
        }
        set_nonblocking(fd)?;
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

    pub(super) fn side(&self, py: Python<'_>) -> &S {
        &self.inner.get(py).side
    }
}

impl<'py, S: PipeSide> PipeThis<'_, 'py, S> {
    pub(super) fn end(&self) -> &PipeEnd {
        &self.payload().inner.get(self.py()).end
    }

    /// True if the file object is known to have another descriptor than it had, or none, or if it
    /// was closed here. Runs no Python code.
    #[inline]
    fn known_lost(&self) -> bool {
        let pipe = self.end().pipe.borrow();
        pipe.as_ref().is_none_or(|file| file.has_lost(self.py()))
    }

    fn to_ask(&self) -> Option<Py<PyAny>> {
        let pipe = self.end().pipe.borrow();
        pipe.as_ref().and_then(|file| file.to_ask(self.py()))
    }

    /// The descriptor.
    ///
    /// # Errors
    /// EBADF if the program closed the file; what its own `fileno()` raises.
    #[inline]
    pub(super) fn fd(&self) -> PyResult<RawFd> {
        if PipeTransport::has_descriptor(self)? {
            return Ok(self.end().fd);
        }
        Err(os_error(&no_descriptor()))
    }

    /// Makes the kernel's interest exactly `wanted`. A hang-up is reported whether it is wanted or
    /// not, so the registration ends when nothing is.
    ///
    /// # Errors
    /// What epoll_ctl(2) says, EBADF too if the program closed the file; RuntimeError on a closed
    /// loop.
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
                if !PipeTransport::has_descriptor(self)? {
                    return self.lacks_descriptor();
                }
                end.take_free_number(self.py(), state)?;
                let source = Source::Held(self.held());
                let token = state.register(end.polled(), source, wanted)?;
                end.token.set(Some(token));
            }
        }
        end.interest.set(wanted);
        Ok(())
    }

    /// The number is not this file's. What epoll_ctl(2) would say of it is raised; if it is another
    /// file's, the transport ends, as it would at that file's first event.
    #[cold]
    fn lacks_descriptor(&self) -> PyResult<()> {
        if socket::is_open(self.end().fd) {
            return PipeTransport::descriptor_lost(self);
        }
        Err(os_error(&no_descriptor()))
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
        then_cleaned(self.py(), told, closed)
    }

    fn close_pipe(&self) -> PyResult<()> {
        self.stop_listening();
        drop(self.end().duplicate.take());
        let pipe = self.end().pipe.take();
        pipe.map_or(Ok(()), |file| {
            let pipe = file.object().bind(self.py());
            pipe.call_method0(intern!(self.py(), "close")).map(drop)
        })
    }
}

/// asyncio's form: the class, the state, the descriptor, and whether its side is polled.
pub(super) fn repr<'py, S: PipeSide>(this: &PipeThis<'_, 'py, S>) -> PyResult<Bound<'py, PyAny>> {
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
        (false, true) if end.interest.get().contains(S::POLLED) => "polling",
        (false, true) => "idle",
    };
    parts.push(polled.to_owned());
    if !closed
        && usable
        && let Some(size) = S::bufsize(this)
    {
        parts.push(format!("bufsize={size}"));
    }
    let text = format!("<{}>", parts.join(" "));
    Ok(PyString::new(this.py(), &text).into_any())
}

/// The methods that both ends have.
pub(super) fn add_methods<S: PipeSide>(methods: &mut Methods<OfNative<PipeTransport<S>>>) {
    base::add_methods(methods);
    polled::add_methods(methods);
    methods.nullary_procedure(
        c"_begin",
        |this| S::begin(this),
        c"What follows connection_made.",
    );
    methods.procedure(
        c"_call_connection_lost",
        "exc",
        |this, args| this.end_now(&*args.one("_call_connection_lost", "exc")?),
        c"The deferred end.",
    );
}
