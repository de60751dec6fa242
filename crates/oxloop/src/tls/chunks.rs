//! `Chunks`: decrypted plaintext. Usually all of it is one chunk, and then there is neither a list
//! nor a copy.

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::iter;

/// Plaintext in the order of its arrival.
#[derive(Default)]
pub(super) struct Chunks<'py> {
    first: Option<Bound<'py, PyBytes>>,
    rest: Vec<Bound<'py, PyBytes>>,
}

impl<'py> Chunks<'py> {
    #[inline]
    pub(super) fn push(&mut self, chunk: Bound<'py, PyBytes>) {
        match self.first {
            None => self.first = Some(chunk),
            Some(_) => self.rest.push(chunk),
        }
    }

    /// All in one, if there is anything.
    ///
    /// # Errors
    /// MemoryError.
    #[inline]
    pub(super) fn joined(self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyBytes>>> {
        match self.first {
            Some(first) if !self.rest.is_empty() => join(py, first, self.rest).map(Some),
            first => Ok(first),
        }
    }
}

fn join<'py>(
    py: Python<'py>,
    first: Bound<'py, PyBytes>,
    rest: Vec<Bound<'py, PyBytes>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let chunks: Vec<_> = iter::once(first).chain(rest).collect();
    let joined = PyBytes::new(py, b"").call_method1(intern!(py, "join"), (chunks,))?;
    Ok(joined.cast_into()?)
}
