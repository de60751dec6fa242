//! `Polled`: a transport whose descriptor the loop polls.
//!
//! The loop calls `on_event` within the poll, or by a handle behind what is queued: `_on_event` is
//! the same for Python.

use crate::py::args::Args;
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
}

pub(super) fn add_methods<T: Polled>(methods: &mut Methods<OfNative<T>>) {
    methods.method(
        c"_on_event",
        "readable, writable",
        |this, args| {
            let (readable, writable) = directions(&args)?;
            T::on_event(this, readable, writable)?;
            Ok(this.py().None().into_bound(this.py()))
        },
        c"The kernel has an event; what was queued before it has run.",
    );
}

fn directions(args: &Args<'_, '_>) -> PyResult<(bool, bool)> {
    let [readable, writable] = args.bind("_on_event", ["readable", "writable"], 2)?;
    let is_set =
        |given: Option<Borrowed<'_, '_, PyAny>>| given.map_or(Ok(false), |it| it.is_truthy());
    Ok((is_set(readable)?, is_set(writable)?))
}
