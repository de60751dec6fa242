//! Write flow control: when the protocol is told to pause and to resume.

use super::{StreamThis, StreamTransport};
use crate::py::args::Args;
use crate::py::class::OfNative;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::stream::connection::report_failure;
use pyo3::intern;
use pyo3::prelude::*;

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.nullary(
        c"get_write_buffer_size",
        |this| {
            // What the callback wrote so far would be on its way already in asyncio.
            this.flush();
            Ok(this.queued().into_pyobject(this.py())?.into_any())
        },
        c"Bytes that are queued and not yet sent.",
    );
    methods.nullary(
        c"get_write_buffer_limits",
        |this| this.own().flow.limits(this.py()),
        c"(low, high) water marks in bytes.",
    );
    methods.method(
        c"set_write_buffer_limits",
        set_write_buffer_limits,
        c"Set the water marks in bytes; low defaults to a quarter of high.",
    );
}

fn set_write_buffer_limits<'py>(
    this: &StreamThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    this.own().flow.set_limits(&args)?;
    this.maybe_pause_protocol()?;
    this.none()
}

impl StreamThis<'_, '_> {
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
            .or_else(|error| report_failure(self, error, "protocol.pause_writing() failed"))
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
            .or_else(|error| report_failure(self, error, "protocol.resume_writing() failed"))
    }
}
