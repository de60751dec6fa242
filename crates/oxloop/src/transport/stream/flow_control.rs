//! Write flow control: when the protocol is told to pause and to resume.

use super::{StreamThis, StreamTransport};
use crate::py::args::Args;
use crate::py::class::OfNative;
use crate::py::method::Methods;
use crate::py::object::call_method;
use crate::transport::stream::connection::report_failure;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};

/// asyncio's default high-water mark; the low one is a quarter of the high one.
pub(super) const HIGH_WATER: usize = 64 * 1024;

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
        |this| {
            let inner = this.own();
            let limits = (inner.low_water.get(), inner.high_water.get());
            Ok(limits.into_pyobject(this.py())?.into_any())
        },
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
    let [high, low] = args.bind("set_write_buffer_limits", ["high", "low"], 0)?;
    let number = |value: Option<Borrowed<'_, 'py, PyAny>>| {
        value
            .filter(|value| !value.is_none())
            .map(|value| value.extract::<i64>())
            .transpose()
    };
    let (high, low) = (number(high)?, number(low)?);
    let high = high.unwrap_or_else(|| low.map_or(HIGH_WATER as i64, |low| 4 * low));
    let low = low.unwrap_or(high / 4);
    if !(high >= low && low >= 0) {
        return Err(PyValueError::new_err(format!(
            "high ({high}) must be >= low ({low}) must be >= 0"
        )));
    }
    let inner = this.own();
    inner.high_water.set(high as usize);
    inner.low_water.set(low as usize);
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
        let inner = self.own();
        if inner.flags.protocol_paused.get() || self.queued() <= inner.high_water.get() {
            return Ok(());
        }
        inner.flags.protocol_paused.set(true);
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
        let inner = self.own();
        if !inner.flags.protocol_paused.get() || self.queued() > inner.low_water.get() {
            return Ok(());
        }
        inner.flags.protocol_paused.set(false);
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        call_method(&protocol, intern!(self.py(), "resume_writing"), &[])
            .map(drop)
            .or_else(|error| report_failure(self, error, "protocol.resume_writing() failed"))
    }
}
