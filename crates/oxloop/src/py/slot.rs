//! `Slot`: a Python object that may be there.
//!
//! Nothing is borrowed while Python code can run: a read returns a new reference, and a replaced
//! object is dropped after the slot has its new content.

use super::class::{Visit, VisitStopped};
use pyo3::prelude::*;
use std::cell::RefCell;

/// The slot.
pub(crate) struct Slot<T = PyAny>(RefCell<Option<Py<T>>>);

impl<T> Default for Slot<T> {
    fn default() -> Self {
        Self(RefCell::new(None))
    }
}

impl<T> From<Py<T>> for Slot<T> {
    fn from(object: Py<T>) -> Self {
        Some(object).into()
    }
}

impl<T> From<Option<Py<T>>> for Slot<T> {
    fn from(object: Option<Py<T>>) -> Self {
        Self(RefCell::new(object))
    }
}

impl<T> Slot<T> {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.borrow().is_none()
    }

    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, T>> {
        let object = self.0.borrow();
        object.as_ref().map(|object| object.bind(py).clone())
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

    /// For the collector. A slot that is borrowed, because something allocates in the middle of a
    /// change, is left out: its content counts as reachable.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let object = self.0.try_borrow();
        object.map_or(Ok(()), |object| visit.option(object.as_ref()))
    }
}
