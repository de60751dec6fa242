//! `FlowControl`: the water marks of a write queue, and whether its protocol is paused.

use crate::py::args::Args;
use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::cell::Cell;

/// asyncio's default high-water mark; the low one is a quarter of the high one.
const HIGH_WATER: usize = 64 * 1024;

/// Water marks in bytes.
pub(super) struct FlowControl {
    high: Cell<usize>,
    low: Cell<usize>,
    paused: Cell<bool>,
}

impl FlowControl {
    pub(super) const fn new() -> Self {
        Self {
            high: Cell::new(HIGH_WATER),
            low: Cell::new(HIGH_WATER / 4),
            paused: Cell::new(false),
        }
    }

    pub(super) const fn high_water(&self) -> usize {
        self.high.get()
    }

    /// `(low, high)`, as `get_write_buffer_limits` returns them.
    pub(super) fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let limits = (self.low.get(), self.high.get());
        Ok(limits.into_pyobject(py)?.into_any())
    }

    /// `set_write_buffer_limits(high=None, low=None)`.
    ///
    /// # Errors
    /// ValueError if the low mark is above the high one.
    pub(super) fn set_limits<'py>(&self, args: &Args<'_, 'py>) -> PyResult<()> {
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
        self.high.set(high as usize);
        self.low.set(low as usize);
        Ok(())
    }

    /// True if the protocol is to be told to pause now that `queued` bytes wait.
    pub(super) fn pauses_at(&self, queued: usize) -> bool {
        !self.paused.get() && queued > self.high.get() && !self.paused.replace(true)
    }

    /// True if the protocol is to be told to resume now that `queued` bytes wait.
    pub(super) fn resumes_at(&self, queued: usize) -> bool {
        self.paused.get() && queued <= self.low.get() && self.paused.replace(false)
    }
}
