//! `Polled`: a transport whose descriptor the loop polls.
//!
//! The loop calls `on_event` within the poll, or by a handle behind what is queued: `_on_event` is
//! the same for Python. What an event's callback raises and nobody else takes, such as an exception
//! of `connection_lost` behind the last bytes, is reported as that of a handle in either case.

use super::base::BaseTransport;
use crate::event_loop::exceptions;
use crate::py::class::{OfNative, This};
use crate::py::context::Captured;
use crate::py::handle::HandleRef;
use crate::py::method::Methods;
use crate::py::schedule::handle_for;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};
use pyo3::{Borrowed, intern};

pub(crate) trait Polled: BaseTransport {
    /// The kernel has something to say about the descriptor. What has changed since the poll is
    /// looked at anew.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, what `connection_lost` and closing the
    /// file raise, and what the exception handler lets out.
    fn on_event(this: &This<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// How often reading was paused or resumed. What became readable before that, and waits for its
    /// turn, is not read when it comes, but found by the next poll.
    fn reading_changes(&self, py: Python<'_>) -> u32;
}

/// Serves an event now.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
#[inline]
pub(crate) fn serve<T: Polled>(
    this: &This<'_, '_, T>,
    readable: bool,
    writable: bool,
) -> PyResult<()> {
    let py = this.py();
    T::on_event(this, readable, writable)
        .and_then(|()| this.event_loop().get().state(py).look_for_signals(py))
        .or_else(|error| report(this, readable, writable, error))
}

/// The handle that serves an event.
///
/// # Errors
/// MemoryError, and in debug mode what extracting a traceback raises.
pub(crate) fn handle_of_event<T: Polled>(
    this: &This<'_, '_, T>,
    readable: bool,
    writable: bool,
    context: Captured,
) -> PyResult<HandleRef> {
    let py = this.py();
    let serve = this.object().getattr(intern!(py, "_on_event"))?;
    let readable = PyBool::new(py, readable);
    let writable = PyBool::new(py, writable);
    let changes = PyInt::new(py, this.payload().reading_changes(py));
    let arguments = [readable.as_any(), writable.as_any(), changes.as_any()];
    let event_loop = this.event_loop();
    let owner = event_loop.as_any().as_borrowed();
    let handle = handle_for(py, owner, &serve, &arguments, context)?;
    event_loop.get().state(py).trace_source(py, &handle)?;
    Ok(handle)
}

/// Reports as for a handle that ran in the context of the connection, which is left by now.
#[cold]
fn report<T: Polled>(
    this: &This<'_, '_, T>,
    readable: bool,
    writable: bool,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    let context = &this.payload().parties(py).context;
    let context = Captured::given(&context.object(py)?);
    let handle = handle_of_event(this, readable, writable, context)?;
    exceptions::report_handle(this.event_loop(), &handle, error)
}

pub(super) fn add_methods<T: Polled>(methods: &mut Methods<OfNative<T>>) {
    methods.method(
        c"_on_event",
        "readable, writable, reading_changes",
        |this, args| {
            let names = ["readable", "writable", "reading_changes"];
            let [readable, writable, changes] = args.bind("_on_event", names, 3)?;
            let is_set = |given: Option<Borrowed<'_, '_, PyAny>>| {
                given.map_or(Ok(false), |given| given.is_truthy())
            };
            let changes: Option<u32> = changes.map(|changes| changes.extract()).transpose()?;
            let readable =
                is_set(readable)? && changes == Some(this.payload().reading_changes(this.py()));
            serve(this, readable, is_set(writable)?)?;
            Ok(this.py().None().into_bound(this.py()))
        },
        c"The kernel has an event; what was queued before it has run.",
    );
}
