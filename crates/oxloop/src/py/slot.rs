//! `Slot`: a Python object that may be there.
//!
//! A read returns a new reference, and a replaced object is dropped after the slot has its new
//! content: Python code that runs meanwhile finds the slot whole. It is as large as a pointer.

use super::class::{Visit, VisitStopped};
use pyo3::prelude::*;
use std::cell::Cell;

/// The slot.
pub(crate) struct Slot<T = PyAny>(Cell<Option<Py<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(Cell::new(None))
    }
}

impl<T> From<Py<T>> for Slot<T> {
    fn from(object: Py<T>) -> Self {
        Some(object).into()
    }
}

impl<T> From<Option<Py<T>>> for Slot<T> {
    fn from(object: Option<Py<T>>) -> Self {
        Self(Cell::new(object))
    }
}

impl<T> Slot<T> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.look(Option::is_none)
    }

    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        self.look(|object| object.as_ref().map(|object| object.bind(py).clone()))
    }

    /// `body` must neither run Python code nor panic: the slot is empty meanwhile.
    #[inline]
    fn look<R>(&self, body: impl FnOnce(&Option<Py<T>>) -> R) -> R {
        let object = self.0.take();
        let seen = body(&object);
        self.0.set(object);
        seen
    }

    pub(crate) fn set(&self, object: Option<Py<T>>) {
        drop(self.0.replace(object));
    }

    pub(crate) fn replace(&self, object: Py<T>) -> Option<Py<T>> {
        self.0.replace(Some(object))
    }

    #[inline]
    pub(crate) fn take(&self) -> Option<Py<T>> {
        self.0.take()
    }

    /// For the collector.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.look(|object| visit.option(object.as_ref()))
    }
}
