//! `Polled`: a transport whose descriptor the loop polls.
//!
//! The loop calls `on_event` within the poll, or by a handle behind what is queued: `_on_event` is
//! the same for Python.

use crate::py::class::{Native, OfNative, This};
use crate::py::method::Methods;
use pyo3::Borrowed;
use pyo3::prelude::*;

pub(crate) trait Polled: Native {
    /// The kernel has something to say about the descriptor. What has changed since the poll is
    /// looked at anew.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, what `connection_lost` raises, and what
    /// the exception handler lets out.
    fn on_event(this: &This<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// How often reading was paused or resumed. What became readable before that, and waits for its
    /// turn, is not read when it comes, but found by the next poll.
    fn reading_changes(&self, py: Python<'_>) -> u32;
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
            T::on_event(this, readable, is_set(writable)?)?;
            Ok(this.py().None().into_bound(this.py()))
        },
        c"The kernel has an event; what was queued before it has run.",
    );
}
