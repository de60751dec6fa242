//! Parses keyword arguments as loosely as asyncio's Python functions do.

use pyo3::prelude::*;

/// An argument of which only the truth counts.
#[derive(Clone, Copy)]
pub(crate) struct Truth(pub(crate) bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Self)
    }
}

/// A number, if one was given. None is given too, and what takes the number refuses it.
pub(crate) struct Number(pub(crate) Option<Py<PyAny>>);

impl Number {
    pub(crate) const NOT_GIVEN: Self = Self(None);

    pub(crate) fn or(self, py: Python<'_>, default: i32) -> PyResult<Py<PyAny>> {
        self.0
            .map_or_else(|| Ok(default.into_pyobject(py)?.into_any().unbind()), Ok)
    }
}

impl<'py> FromPyObject<'_, 'py> for Number {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self(Some(object.to_owned().unbind())))
    }
}
