//! Ending a future, and asking whether it ended. It may be any object with a future's methods.
//!
//! asyncio asks `done()` before it ends some futures and `cancelled()` before it ends others. The
//! two differ for a future that the program ended itself: the second raises InvalidStateError.

use super::object::call_method;
use pyo3::intern;
use pyo3::prelude::*;

/// # Errors
/// What the method raises.
#[inline(always)]
pub(crate) fn is_done(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    call_method(future, intern!(future.py(), "done"), &[])?.is_truthy()
}

/// # Errors
/// What the method raises.
#[inline(always)]
pub(crate) fn is_cancelled(future: &Bound<'_, PyAny>) -> PyResult<bool> {
    call_method(future, intern!(future.py(), "cancelled"), &[])?.is_truthy()
}

/// # Errors
/// What the future's methods raise.
#[inline(always)]
pub(crate) fn end_unless_done(
    future: &Bound<'_, PyAny>,
    outcome: PyResult<Py<PyAny>>,
) -> PyResult<()> {
    if is_done(future)? {
        return Ok(());
    }
    end(future, outcome)
}

/// # Errors
/// What the future's methods raise.
#[inline(always)]
pub(crate) fn end_unless_cancelled(
    future: &Bound<'_, PyAny>,
    outcome: PyResult<Py<PyAny>>,
) -> PyResult<()> {
    if is_cancelled(future)? {
        return Ok(());
    }
    end(future, outcome)
}

#[inline(always)]
fn end(future: &Bound<'_, PyAny>, outcome: PyResult<Py<PyAny>>) -> PyResult<()> {
    let py = future.py();
    let (method, value) = match outcome {
        Ok(value) => (intern!(py, "set_result"), value.into_bound(py)),
        Err(error) => {
            let value = error.into_value(py).into_bound(py);
            (intern!(py, "set_exception"), value.into_any())
        }
    };
    call_method(future, method, &[&value]).map(drop)
}
