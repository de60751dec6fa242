//! Write flow control: when the protocol is told to pause and to resume.

use super::send::Flusher;
use super::{DatagramThis, DatagramTransport};
use crate::py::class::OfNative;
use crate::py::method::Methods;
use crate::py::object::call_method;
use pyo3::intern;
use pyo3::prelude::*;

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.nullary(
        c"get_write_buffer_size",
        |this| {
            // What the callback sent so far would be on its way already in asyncio.
            this.try_flush(Flusher::Program)?;
            Ok(this.queued().into_pyobject(this.py())?.into_any())
        },
        c"Bytes that are queued and not yet sent, with some for each datagram.",
    );
    methods.nullary(
        c"get_write_buffer_limits",
        |this| this.own().flow.limits(this.py()),
        c"(low, high) water marks in bytes.",
    );
    methods.method(
        c"set_write_buffer_limits",
        |this, args| {
            this.own().flow.set_limits(&args)?;
            this.try_flush(Flusher::Program)?;
            this.maybe_pause_protocol()?;
            this.none()
        },
        c"Set the water marks in bytes; low defaults to a quarter of high.",
    );
}

impl DatagramThis<'_, '_> {
    pub(super) fn queued(&self) -> usize {
        self.own().queue.borrow().size()
    }

    /// Tells the protocol to pause if more than the high-water mark is queued.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    pub(super) fn maybe_pause_protocol(&self) -> PyResult<()> {
        if !self.own().flow.pauses_at(self.queued()) {
            return Ok(());
        }
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        call_method(&protocol, intern!(self.py(), "pause_writing"), &[])
            .map(drop)
            .or_else(|error| self.report(error, "protocol.pause_writing() failed"))
    }

    /// Tells the protocol to resume if no more than the low-water mark is queued.
    ///
    /// # Errors
    /// As `maybe_pause_protocol`.
    pub(super) fn maybe_resume_protocol(&self) -> PyResult<()> {
        if !self.own().flow.resumes_at(self.queued()) {
            return Ok(());
        }
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        call_method(&protocol, intern!(self.py(), "resume_writing"), &[])
            .map(drop)
            .or_else(|error| self.report(error, "protocol.resume_writing() failed"))
    }
}
