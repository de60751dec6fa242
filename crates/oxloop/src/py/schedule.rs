//! Makes handles straight from the arguments of a fastcall.

use super::args::Args;
use super::context::Captured;
use super::handle::HandleRef;
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

/// `call_soon(callback, *args)`: the caller checked that there is a callback.
#[inline(always)]
pub(crate) fn handle_soon(
    py: Python<'_>,
    owner: Borrowed<'_, '_, PyAny>,
    args: &Args<'_, '_>,
    context: Captured,
) -> PyResult<HandleRef> {
    let positional = args.raw_positional();
    HandleRef::soon(py, owner, positional[0], &positional[1..], context)
}

/// `call_later(delay, callback, *args)`, as above.
#[inline(always)]
pub(crate) fn handle_timer(
    py: Python<'_>,
    owner: Borrowed<'_, '_, PyAny>,
    when: f64,
    args: &Args<'_, '_>,
    context: Captured,
) -> PyResult<HandleRef> {
    let positional = args.raw_positional();
    HandleRef::timer(py, owner, when, positional[1], &positional[2..], context)
}

/// A handle for a callback of the loop's own.
pub(crate) fn handle_for(
    py: Python<'_>,
    owner: Borrowed<'_, '_, PyAny>,
    callback: &Bound<'_, PyAny>,
    arguments: &[&Bound<'_, PyAny>],
    context: Captured,
) -> PyResult<HandleRef> {
    let raw: Vec<*mut ffi::PyObject> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    HandleRef::soon(py, owner, callback.as_ptr(), &raw, context)
}

/// `add_reader(fd, callback, *args)` and the like: what follows the first argument.
pub(crate) fn handle_after_first(
    py: Python<'_>,
    owner: Borrowed<'_, '_, PyAny>,
    args: &Args<'_, '_>,
    context: Captured,
) -> PyResult<HandleRef> {
    let positional = args.raw_positional();
    HandleRef::soon(py, owner, positional[1], &positional[2..], context)
}
