//! `ReadPipeTransport`: what `connect_read_pipe` makes.

use super::end::End;
use super::{extra_of, kind_of, set_nonblocking};
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::source::Source;
use crate::py::attached::Attached;
use crate::py::class::{Class, Native, OfNative, Ref, Slots, This, Visit, VisitStopped, create};
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString, PyType};
use reactor::poller::{Event, Interest};
use reactor::socket;
use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

/// The payload of the reading end's transport.
pub(crate) struct ReadPipeTransport {
    inner: Attached<Inner>,
}

struct Inner {
    end: End,
    paused: Cell<bool>,
}

type ReadThis<'a, 'py> = This<'a, 'py, ReadPipeTransport>;

static CLASS: Class = Class::new();

impl Native for ReadPipeTransport {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.inner.during_collection().end.traverse(visit)
    }

    fn clear(&self, py: Python<'_>) {
        self.inner.get(py).end.clear(py);
    }

    fn finalize(this: &This<'_, '_, Self>) {
        this.end().finalize(&this.object());
    }
}

impl ReadPipeTransport {
    /// Makes the transport and queues `connection_made`, reading, and the waiter.
    ///
    /// # Errors
    /// ValueError for a file that cannot be polled.
    pub(crate) fn start(
        event_loop: &Bound<'_, EventLoop>,
        pipe: &Bound<'_, PyAny>,
        protocol: &Bound<'_, PyAny>,
        waiter: &Bound<'_, PyAny>,
    ) -> PyResult<Py<PyAny>> {
        let py = event_loop.py();
        let (fd, kind) = kind_of(pipe)?;
        if kind.is_none() {
            return Err(PyValueError::new_err(
                "Pipe transport is for pipes/sockets only.",
            ));
        }
        set_nonblocking(py, fd)?;
        let inner = Inner {
            end: End::new(event_loop, pipe, fd, protocol)?,
            paused: Cell::new(false),
        };
        let inner = Attached::new(inner);
        let transport = Ref::new(py, Self { inner })?;
        let object = transport.as_object().bind(py);
        object.setattr(intern!(py, "_extra"), extra_of(pipe)?)?;
        transport
            .this(py)
            .end()
            .schedule_beginning(object, waiter)?;
        Ok(object.clone().unbind())
    }

    /// What a fork's child must register again.
    pub(crate) fn registration(&self) -> Option<(RawFd, Interest)> {
        self.inner.during_collection().end.registration()
    }

    pub(crate) fn is_closing(&self, py: Python<'_>) -> bool {
        self.inner.get(py).end.closing.get()
    }
}

impl<'py> ReadThis<'_, 'py> {
    fn end(&self) -> &End {
        &self.payload().inner.get(self.py()).end
    }

    fn paused(&self) -> &Cell<bool> {
        &self.payload().inner.get(self.py()).paused
    }

    fn is_reading(&self) -> bool {
        !self.paused().get() && !self.end().closing.get()
    }

    fn begin(&self) -> PyResult<Bound<'py, PyAny>> {
        self.end().started.set(true);
        if self.is_reading() {
            self.listen()?;
        }
        self.none()
    }

    fn listen(&self) -> PyResult<()> {
        self.end().apply(self.py(), Interest::READABLE, || {
            Source::ReadPipe(self.to_ref())
        })
    }

    fn pause_reading(&self) -> PyResult<Bound<'py, PyAny>> {
        if self.is_reading() {
            self.paused().set(true);
            self.end().stop(self.py());
            self.end()
                .log_in_debug("debug", "%r pauses reading", &self.object())?;
        }
        self.none()
    }

    fn resume_reading(&self) -> PyResult<Bound<'py, PyAny>> {
        if self.end().closing.get() || !self.paused().get() {
            return self.none();
        }
        self.paused().set(false);
        if self.end().started.get() {
            self.listen()?;
        }
        self.end()
            .log_in_debug("debug", "%r resumes reading", &self.object())?;
        self.none()
    }

    fn close(&self) -> PyResult<Bound<'py, PyAny>> {
        if !self.end().closing.get() {
            self.end().schedule_lost(&self.object(), None)?;
        }
        self.none()
    }

    /// There is something to read, or the writer is gone.
    ///
    /// # Errors
    /// What `data_received` raises, and what the exception handler lets out.
    pub(crate) fn on_event(&self, event: Event) -> PyResult<()> {
        if !event.readable || !self.is_reading() {
            return Ok(());
        }
        let (py, end) = (self.py(), self.end());
        let received = end.state(py).with_scratch(|scratch| {
            let count = socket::read_into_slice(end.fd, scratch)?;
            Ok(PyBytes::new(py, &scratch[..count]))
        });
        match received {
            Ok(data) if data.as_bytes().is_empty() => self.on_eof(),
            Ok(data) => self.deliver(&data),
            Err(error) => self.read_failed(&error),
        }
    }

    fn deliver(&self, data: &Bound<'py, PyBytes>) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.end().protocol(py) else {
            return Ok(());
        };
        // An exception does not end the transport: it goes to the loop's exception handler.
        let receive = || call_method(&protocol, intern!(py, "data_received"), &[data.as_any()]);
        self.end().context.run(py, receive).map(drop)
    }

    fn on_eof(&self) -> PyResult<()> {
        let (py, end) = (self.py(), self.end());
        end.log_in_debug("info", "%r was closed by peer", &self.object())?;
        end.closing.set(true);
        if let Some(protocol) = end.protocol(py) {
            end.soon(&protocol.getattr(intern!(py, "eof_received"))?, &[])?;
        }
        end.schedule_lost(&self.object(), None)
    }

    #[cold]
    fn read_failed(&self, error: &io::Error) -> PyResult<()> {
        if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) {
            return Ok(());
        }
        // A terminal's other side was closed.
        let expected = error.raw_os_error() == Some(libc::EIO);
        let message = "Fatal read error on pipe transport";
        let error = self
            .end()
            .report_fatal(&self.object(), os_error(error), expected, message)?;
        self.end().schedule_lost(&self.object(), Some(error))
    }
}

fn repr<'py>(this: &ReadThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let text = this
        .end()
        .describe(&this.object(), Interest::READABLE, None)?;
    Ok(PyString::new(this.py(), &text).into_any())
}

/// Makes the type; called once, at import.
pub(super) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<ReadPipeTransport>>::new();
    methods.nullary(
        c"pause_reading",
        |this| this.pause_reading(),
        c"Do not deliver data until resume_reading().",
    );
    methods.nullary(
        c"resume_reading",
        |this| this.resume_reading(),
        c"Deliver data again.",
    );
    methods.nullary(
        c"is_reading",
        |this| this.boolean(this.is_reading()),
        c"True unless paused or closing.",
    );
    methods.nullary(
        c"close",
        |this| this.close(),
        c"Stop reading and close the pipe; connection_lost(None) follows.",
    );
    methods.nullary(
        c"is_closing",
        |this| this.boolean(this.end().closing.get()),
        c"True once closing began.",
    );
    methods.method(
        c"set_protocol",
        |this, args| {
            this.end()
                .set_protocol(&*args.one("set_protocol", "protocol")?);
            this.none()
        },
        c"Replace the protocol.",
    );
    methods.nullary(
        c"get_protocol",
        |this| this.or_none(this.end().protocol(this.py())),
        c"The current protocol.",
    );
    methods.nullary(
        c"_begin",
        |this| this.begin(),
        c"Starts reading, after connection_made.",
    );
    methods.method(
        c"_call_connection_lost",
        |this, args| {
            let error = args.one("_call_connection_lost", "exc")?;
            this.end().call_connection_lost(this.py(), &error)?;
            this.none()
        },
        c"The deferred end.",
    );
    methods.getter(c"_loop", |this| {
        Ok(this.end().event_loop(this.py()).clone().into_any())
    });
    let base = imports::read_transport(py)?.cast::<PyType>()?;
    create::<ReadPipeTransport>(
        py,
        c"oxloop._oxloop.ReadPipeTransport",
        c"The reading end of a pipe, see asyncio.ReadTransport.",
        base,
        methods,
        Slots::with_repr::<OfNative<ReadPipeTransport>, _>(repr),
    )?;
    module.add("ReadPipeTransport", CLASS.type_object(py))
}
