//! `PipeTransport`: what both ends of a pipe have in common. A `PipeSide` reads or writes the
//! bytes.

use super::{FileKind, extra_of, kind_of, set_nonblocking};
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::metrics::ConnectionKind;
use crate::event_loop::registration::Registration;
use crate::event_loop::snapshot::Backlog;
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Ref, This, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::file::{FileObject, Known, descriptor_of};
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::socket::no_descriptor;
use crate::transport::base::{self, Parties};
use crate::transport::polled::{self, Polled, PolledState};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyString;
use reactor::poller::Interest;
use std::cell::{Cell, RefCell};
use std::os::fd::RawFd;

/// What both ends have.
pub(crate) struct PipeEnd {
    polled: PolledState,
    /// None once it is closed.
    pipe: RefCell<Option<FileObject>>,
    /// `connection_lost` is queued, or was called.
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
        let parties = Parties::new(event_loop, protocol.clone().unbind(), context);
        Ok(Self {
            polled: PolledState::new(parties, Registration::new(fd)),
            pipe: RefCell::new(Some(FileObject::new(pipe, fd)?)),
            ended: Cell::new(false),
        })
    }
}

/// What each of the two ends adds.
pub(crate) trait PipeSide: Sized + 'static {
    /// The event at which bytes can be read or written; `repr` tells whether it is polled.
    const POLLED: Interest;
    /// asyncio's text for a file that cannot be polled.
    const REFUSAL: &'static str;

    fn new(kind: FileKind) -> Self;

    fn class() -> &'static Class;

    /// As `Polled::on_event`.
    fn on_event(this: &PipeThis<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// Called after `connection_made`.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    fn begin(this: &PipeThis<'_, '_, Self>) -> PyResult<()>;

    /// As `Polled::close`.
    fn close(this: &PipeThis<'_, '_, Self>) -> PyResult<()>;

    /// As `Polled::fail`.
    fn fail(this: &PipeThis<'_, '_, Self>, error: Py<PyAny>) -> PyResult<()>;

    /// The size of the write queue, for the `repr`.
    fn bufsize(_this: &PipeThis<'_, '_, Self>) -> Option<usize> {
        None
    }

    /// As `Polled::backlog`.
    fn backlog(_this: &PipeThis<'_, '_, Self>) -> Backlog {
        Backlog::default()
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
        end.polled.traverse(visit)?;
        if let Ok(pipe) = end.pipe.try_borrow()
            && let Some(file) = &*pipe
        {
            visit.object(file.object())?;
            visit.option(file.seen_in())?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        self.inner.get(py).end.polled.clear(py);
    }

    fn finalize(this: &This<'_, '_, Self>) {
        this.finalize();
    }
}

impl<S: PipeSide> Polled for PipeTransport<S> {
    fn polled(&self, py: Python<'_>) -> &PolledState {
        &self.inner.get(py).end.polled
    }

    fn connection_kind(_this: &PipeThis<'_, '_, S>) -> ConnectionKind {
        ConnectionKind::Pipe
    }

    fn backlog(this: &PipeThis<'_, '_, S>) -> Backlog {
        S::backlog(this)
    }

    #[inline]
    fn on_event(this: &PipeThis<'_, '_, S>, readable: bool, writable: bool) -> PyResult<()> {
        S::on_event(this, readable, writable)
    }

    fn close(this: &PipeThis<'_, '_, S>) -> PyResult<()> {
        S::close(this)
    }

    fn fail(this: &PipeThis<'_, '_, S>, error: Py<PyAny>) -> PyResult<()> {
        S::fail(this, error)
    }

    fn known(this: &PipeThis<'_, '_, S>) -> Known {
        let pipe = this.end().pipe.borrow();
        let pipe = pipe.as_ref();
        pipe.map_or(Known::Lost, |file| file.known(this.py()))
    }

    fn is_closed(this: &PipeThis<'_, '_, S>) -> bool {
        this.end().pipe.borrow().is_none()
    }

    fn close_file(this: &PipeThis<'_, '_, S>) -> PyResult<()> {
        let pipe = this.end().pipe.take();
        pipe.map_or(Ok(()), |file| {
            let pipe = file.object().bind(this.py());
            pipe.call_method0(intern!(this.py(), "close")).map(drop)
        })
    }
}

impl<S: PipeSide> PipeTransport<S> {
    /// Takes a file over; queues `connection_made`, `_begin`, and the waiter's result.
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
        let metrics = this.loop_state().metrics();
        metrics.connection_made(ConnectionKind::Pipe, false);
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

    /// The descriptor.
    ///
    /// # Errors
    /// EBADF if the program closed the file; what its own `fileno()` raises.
    #[inline]
    pub(super) fn fd(&self) -> PyResult<RawFd> {
        if self.has_descriptor()? {
            return Ok(self.registration().fd());
        }
        Err(os_error(&no_descriptor()))
    }

    /// Makes the kernel's interest exactly `wanted`. The registration ends when nothing is wanted,
    /// so that the program may poll the descriptor itself, as in asyncio.
    ///
    /// # Errors
    /// What epoll_ctl(2) says, EBADF too if the program closed the file; RuntimeError on a closed
    /// loop.
    pub(super) fn listen_for(&self, wanted: Interest) -> PyResult<()> {
        let (registration, state) = (self.registration(), self.loop_state());
        if wanted.is_empty() {
            registration.end(state);
            return Ok(());
        }
        if registration.is_begun() {
            return registration.set(state, wanted);
        }
        if !self.has_descriptor()? {
            return self.lacks_descriptor();
        }
        registration.begin_beside(self.py(), state, self.held(), wanted)
    }

    /// Ends the registration and queues `connection_lost`, once.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(super) fn schedule_end(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        self.flags().closing.set(true);
        self.registration().end(self.loop_state());
        if self.end().ended.replace(true) {
            return Ok(());
        }
        self.schedule_connection_lost(error)
    }
}

/// asyncio's form: the class, the state, the descriptor, and whether its side is polled.
pub(super) fn repr<'py, S: PipeSide>(this: &PipeThis<'_, 'py, S>) -> PyResult<Bound<'py, PyAny>> {
    let closed = PipeTransport::is_closed(this);
    let mut parts = vec![this.object().get_type().name()?.to_string()];
    if closed {
        parts.push("closed".to_owned());
    } else if this.flags().closing.get() {
        parts.push("closing".to_owned());
    }
    parts.push(format!("fd={}", this.registration().fd()));
    let usable = this.loop_state().check_closed().is_ok();
    let polled = match (closed, usable) {
        (true, _) => "closed",
        (false, false) => "open",
        (false, true) if this.registration().interest().contains(S::POLLED) => "polling",
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
        |this, args| this.call_connection_lost(&*args.one("_call_connection_lost", "exc")?),
        c"The deferred end.",
    );
}
