//! `ReadPipeTransport`: what `connect_read_pipe` makes.

use super::{FileKind, transport};
use crate::error::{errno_of, os_error};
use crate::py::class::{Class, OfNative, Slots, create};
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::base::BaseTransport;
use crate::transport::pipe::transport::{PipeSide, PipeThis, PipeTransport};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use reactor::poller::Interest;
use reactor::socket;
use std::io::{self, ErrorKind};

/// The reading end.
pub(crate) struct Reading;

pub(crate) type ReadPipeTransport = PipeTransport<Reading>;

type ReadThis<'a, 'py> = PipeThis<'a, 'py, Reading>;

static CLASS: Class = Class::new();

impl PipeSide for Reading {
    const POLLED: Interest = Interest::READABLE;
    const REFUSAL: &'static str = "Pipe transport is for pipes/sockets only.";

    fn new(_kind: FileKind) -> Self {
        Self
    }

    fn class() -> &'static Class {
        &CLASS
    }

    /// Reads: there is data, or the writer is gone.
    fn on_event(this: &ReadThis<'_, '_>, readable: bool, _writable: bool) -> PyResult<()> {
        if readable && this.is_reading() {
            this.read_ready()
        } else {
            Ok(())
        }
    }

    fn begin(this: &ReadThis<'_, '_>) -> PyResult<()> {
        this.flags().started.set(true);
        if this.is_reading() {
            this.listen_for(Interest::READABLE)?;
        }
        Ok(())
    }

    fn close(this: &ReadThis<'_, '_>) -> PyResult<()> {
        if this.flags().closing.get() {
            return Ok(());
        }
        this.schedule_end(None)
    }

    fn fail(this: &ReadThis<'_, '_>, error: Py<PyAny>) -> PyResult<()> {
        this.schedule_end(Some(error))
    }
}

impl<'py> ReadThis<'_, 'py> {
    fn is_reading(&self) -> bool {
        !self.flags().reading.is_paused() && !self.flags().closing.get()
    }

    fn pause_reading(&self) -> PyResult<()> {
        if self.is_reading() {
            self.flags().reading.turn();
            self.registration().end(self.loop_state());
            self.log_in_debug("debug", "%r pauses reading")?;
        }
        Ok(())
    }

    fn resume_reading(&self) -> PyResult<()> {
        if self.flags().closing.get() || !self.flags().reading.is_paused() {
            return Ok(());
        }
        self.flags().reading.turn();
        if self.flags().started.get() {
            self.listen_for(Interest::READABLE)?;
        }
        self.log_in_debug("debug", "%r resumes reading")
    }

    fn read_ready(&self) -> PyResult<()> {
        let py = self.py();
        let fd = match self.fd() {
            Ok(fd) => fd,
            Err(error) => return self.read_failed(error),
        };
        let received = self.loop_state().with_scratch(|scratch| {
            let count = socket::read_into_slice(fd, scratch)?;
            Ok::<_, io::Error>(PyBytes::new(py, &scratch[..count]))
        });
        match received {
            Ok(data) if data.as_bytes().is_empty() => self.on_eof(),
            Ok(data) => {
                let traffic = &self.loop_state().metrics().traffic;
                traffic.bytes_received.add(data.as_bytes().len() as u64);
                self.deliver(&data)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(())
            }
            Err(error) => self.read_failed(os_error(&error)),
        }
    }

    fn deliver(&self, data: &Bound<'py, PyBytes>) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        self.parties(py).context.run(py, || {
            call_method(&protocol, intern!(py, "data_received"), &[data.as_any()])
                .map(drop)
                // An exception does not end the transport.
                .or_else(|error| self.report_callback(error, "data_received"))
        })
    }

    fn on_eof(&self) -> PyResult<()> {
        self.log_in_debug("info", "%r was closed by peer")?;
        self.flags().closing.set(true);
        self.registration().end(self.loop_state());
        if let Some(protocol) = self.protocol() {
            let received = protocol.getattr(intern!(self.py(), "eof_received"))?;
            self.soon(&received, &[])?;
        }
        self.schedule_end(None)
    }

    #[cold]
    fn read_failed(&self, error: PyErr) -> PyResult<()> {
        let py = self.py();
        self.parties(py).context.run(py, || {
            // EIO: a terminal's other side was closed.
            let expected = errno_of(py, &error)? == Some(libc::EIO);
            let message = "Fatal read error on pipe transport";
            let error = self.report_fatal(error, expected, message)?;
            self.schedule_end(Some(error))
        })
    }
}

/// Makes the type; called once, at import.
pub(super) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<ReadPipeTransport>>::new();
    transport::add_methods(&mut methods);
    methods.nullary_procedure(
        c"pause_reading",
        |this| this.pause_reading(),
        c"Do not deliver data until resume_reading().",
    );
    methods.nullary_procedure(
        c"resume_reading",
        |this| this.resume_reading(),
        c"Deliver data again.",
    );
    methods.nullary(
        c"is_reading",
        |this| this.boolean(this.is_reading()),
        c"True unless paused or closing.",
    );
    let base = imports::read_transport(py)?.cast::<PyType>()?;
    create::<ReadPipeTransport>(
        py,
        c"oxloop._oxloop.ReadPipeTransport",
        c"The reading end of a pipe, see asyncio.ReadTransport.",
        base,
        methods,
        Slots::with_repr::<OfNative<ReadPipeTransport>, _>(transport::repr),
    )?;
    module.add("ReadPipeTransport", CLASS.type_object(py))
}
