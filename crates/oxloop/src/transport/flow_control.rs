//! `FlowControl`: the water marks of a write queue, and whether the protocol was told to pause.
//! `FlowControlled`: a transport with such a queue.

use super::base::BaseTransport;
use crate::event_loop::snapshot::Backlog;
use crate::py::args::Args;
use crate::py::class::{OfNative, This};
use crate::py::method::Methods;
use crate::py::object::call_method;
use pyo3::Borrowed;
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyFloat, PyInt, PyString};
use std::cell::{Cell, RefCell};

/// asyncio's default high-water mark; the low one is a quarter of the high one.
const HIGH_WATER: usize = 64 * 1024;

/// Water marks in bytes.
pub(crate) struct FlowControl {
    /// The value of `high` if the program sets none.
    default: usize,
    high: Cell<usize>,
    low: Cell<usize>,
    /// The low and the high mark as the program gave them, if a `usize` cannot show them: floats
    /// and greater ints. The collector need not know these.
    shown: RefCell<Option<(Py<PyAny>, Py<PyAny>)>>,
    paused: Cell<bool>,
}

impl FlowControl {
    pub(super) const fn new() -> Self {
        Self::with_high_water(HIGH_WATER)
    }

    /// With another default than that of asyncio's selector transports.
    pub(crate) const fn with_high_water(high: usize) -> Self {
        Self {
            default: high,
            high: Cell::new(high),
            low: Cell::new(high / 4),
            shown: RefCell::new(None),
            paused: Cell::new(false),
        }
    }

    pub(super) const fn high_water(&self) -> usize {
        self.high.get()
    }

    /// `(low, high)`, as `get_write_buffer_limits` returns them.
    pub(crate) fn limits<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let shown = {
            let shown = self.shown.borrow();
            shown
                .as_ref()
                .map(|(low, high)| (low.clone_ref(py), high.clone_ref(py)))
        };
        if let Some(shown) = shown {
            return Ok(shown.into_pyobject(py)?.into_any());
        }
        let limits = (self.low.get(), self.high.get());
        Ok(limits.into_pyobject(py)?.into_any())
    }

    /// `set_write_buffer_limits(high=None, low=None)`.
    ///
    /// # Errors
    /// ValueError if the low mark is above the high one.
    pub(crate) fn set_limits(&self, args: &Args<'_, '_>) -> PyResult<()> {
        self.set_limits_by("set_write_buffer_limits", args)
    }

    /// As `set_limits`, for a method of another name.
    ///
    /// # Errors
    /// As `set_limits`.
    pub(crate) fn set_limits_by<'py>(&self, function: &str, args: &Args<'_, 'py>) -> PyResult<()> {
        let [high, low] = args.bind(function, ["high", "low"], 0)?;
        let given = |value: Option<Borrowed<'_, 'py, PyAny>>| {
            value
                .filter(|value| !value.is_none())
                .map(|value| value.to_owned())
        };
        self.set_marks(args.py(), given(high), given(low))
    }

    /// Computes with Python's operators, so that a mark may be any number that compares and
    /// divides, as in asyncio.
    fn set_marks<'py>(
        &self,
        py: Python<'py>,
        high: Option<Bound<'py, PyAny>>,
        low: Option<Bound<'py, PyAny>>,
    ) -> PyResult<()> {
        let high = match (high, &low) {
            (Some(high), _) => high,
            (None, Some(low)) => 4_i32.into_pyobject(py)?.mul(low)?,
            (None, None) => self.default.into_pyobject(py)?.into_any(),
        };
        let low = match low {
            Some(low) => low,
            None => high.floor_div(4_i32)?,
        };
        if !(high.ge(&low)? && low.ge(0_i32)?) {
            return Err(PyValueError::new_err(format!(
                "high ({}) must be >= low ({}) must be >= 0",
                high.repr()?,
                low.repr()?
            )));
        }
        let (high_mark, low_mark) = (mark(&high)?, mark(&low)?);
        self.high.set(high_mark);
        self.low.set(low_mark);
        let shown = is_shown(&high) || is_shown(&low);
        let shown = shown.then(|| (low.unbind(), high.unbind()));
        drop(self.shown.replace(shown));
        Ok(())
    }

    /// Takes the marks of the transport above, but none higher than the default. The transport
    /// above counts this queue only once it was paused from here. So this pauses no later than the
    /// transport above pauses its own protocol.
    pub(crate) fn stay_within(&self, above: &Self) {
        self.high.set(above.high.get().min(self.default));
        self.low.set(above.low.get().min(self.default / 4));
        drop(self.shown.take());
    }

    /// True while the protocol is told to write no more.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.get()
    }

    /// True if the protocol is to be told to pause now that `queued` bytes wait.
    pub(crate) fn pauses_at(&self, queued: usize) -> bool {
        !self.paused.get() && queued > self.high.get() && !self.paused.replace(true)
    }

    /// As `pauses_at`, but pauses at the mark already, as asyncio's TLS does; never if nothing is
    /// queued.
    pub(crate) fn pauses_from(&self, queued: usize) -> bool {
        let high = self.high.get().max(1);
        !self.paused.get() && queued >= high && !self.paused.replace(true)
    }

    /// Notes that somebody else has told the protocol to write no more.
    pub(crate) fn set_paused(&self) {
        self.paused.set(true);
    }

    /// True if the protocol is to be told to resume now that `queued` bytes wait.
    pub(crate) fn resumes_at(&self, queued: usize) -> bool {
        self.paused.get() && queued <= self.low.get() && self.paused.replace(false)
    }
}

/// The greatest number of bytes that is not above the mark.
fn mark(value: &Bound<'_, PyAny>) -> PyResult<usize> {
    if value.is_instance_of::<PyInt>() {
        // It is not negative. If it does not fit, no queue is that long.
        return Ok(value.extract().unwrap_or(usize::MAX));
    }
    // The conversion saturates.
    Ok(value.extract::<f64>()?.floor() as usize)
}

/// True for a float or int that a `usize` cannot show.
fn is_shown(value: &Bound<'_, PyAny>) -> bool {
    value.is_exact_instance_of::<PyFloat>()
        || (value.is_exact_instance_of::<PyInt>() && value.extract::<usize>().is_err())
}

/// A transport that tells its protocol when to write no more.
pub(crate) trait FlowControlled: BaseTransport {
    fn flow(&self, py: Python<'_>) -> &FlowControl;

    /// Bytes that wait for the kernel.
    fn queued(this: &This<'_, '_, Self>) -> usize;

    /// Sends what was written and waits: asyncio would have sent it already.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    fn send_written(_this: &This<'_, '_, Self>) -> PyResult<()> {
        Ok(())
    }
}

impl<'py, T: FlowControlled> This<'_, 'py, T> {
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        T::queued(self)
    }

    pub(super) fn backlog_of_queue(&self) -> Backlog {
        Backlog {
            bytes: self.queued(),
            paused: self.payload().flow(self.py()).is_paused(),
        }
    }

    /// Tells the protocol to pause if more than the high-water mark is queued.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    #[inline]
    pub(crate) fn maybe_pause_protocol(&self) -> PyResult<()> {
        if !self.payload().flow(self.py()).pauses_at(self.queued()) {
            return Ok(());
        }
        let method = intern!(self.py(), "pause_writing");
        self.tell_protocol(method, "protocol.pause_writing() failed")
    }

    /// Tells the protocol to resume if no more than the low-water mark is queued.
    ///
    /// # Errors
    /// As `maybe_pause_protocol`.
    #[inline]
    pub(super) fn maybe_resume_protocol(&self) -> PyResult<()> {
        if !self.payload().flow(self.py()).resumes_at(self.queued()) {
            return Ok(());
        }
        let method = intern!(self.py(), "resume_writing");
        self.tell_protocol(method, "protocol.resume_writing() failed")
    }

    fn tell_protocol(&self, method: &Bound<'py, PyString>, failed: &str) -> PyResult<()> {
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        call_method(&protocol, method, &[])
            .map(drop)
            .or_else(|error| self.report(error, failed))
    }
}

pub(super) fn add_methods<T: FlowControlled>(methods: &mut Methods<OfNative<T>>) {
    methods.nullary(
        c"get_write_buffer_size",
        |this| {
            T::send_written(this)?;
            Ok(this.queued().into_pyobject(this.py())?.into_any())
        },
        c"Bytes that are queued and not yet sent.",
    );
    methods.nullary(
        c"get_write_buffer_limits",
        |this| this.payload().flow(this.py()).limits(this.py()),
        c"(low, high) water marks in bytes.",
    );
    methods.procedure(
        c"set_write_buffer_limits",
        "high=None, low=None",
        |this, args| {
            // By the marks that held when it was written.
            T::send_written(this)?;
            this.payload().flow(this.py()).set_limits(&args)?;
            this.maybe_pause_protocol()
        },
        c"Set the water marks in bytes; low defaults to a quarter of high.",
    );
}
