//! Keyword arguments, as loosely as asyncio's Python functions take them.

use pyo3::prelude::*;

/// An argument of which only the truth counts.
#[derive(Clone, Copy)]
pub(super) struct Truth(pub(super) bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Self)
    }
}

/// asyncio's default of a number that was not given.
pub(super) fn or_zero(py: Python<'_>, given: Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    given.map_or_else(|| Ok(0_i32.into_pyobject(py)?.into_any().unbind()), Ok)
}
