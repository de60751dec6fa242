//! Arguments of a METH_FASTCALL | METH_KEYWORDS method, parsed without a tuple or a dict.
//!
//! Cost: no allocation; keyword names are compared as pointers first (CPython interns the names at
//! call sites), and as strings only if that fails.

use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::types::PyString;
use pyo3::{Borrowed, ffi};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A tuple of names that is known to be `("context",)`.
static KNOWN_NAMES: AtomicPtr<ffi::PyObject> = AtomicPtr::new(ptr::null_mut());

/// Required arguments, and the context if one was passed.
type BoundWithContext<'a, 'py, const N: usize> = (
    [Borrowed<'a, 'py, PyAny>; N],
    Option<Borrowed<'a, 'py, PyAny>>,
);

/// What a caller passed: positional arguments, then the values of `names`.
#[derive(Clone, Copy)]
pub(crate) struct Args<'a, 'py> {
    py: Python<'py>,
    values: &'a [*mut ffi::PyObject],
    positional: usize,
    names: *mut ffi::PyObject,
}

impl<'a, 'py> Args<'a, 'py> {
    pub(crate) const fn py(&self) -> Python<'py> {
        self.py
    }

    /// # Safety
    /// `values` and `names` are the arguments of a fastcall that is under way, of `positional`
    /// positional arguments (the offset flag already removed).
    #[inline(always)]
    pub(super) unsafe fn from_call(
        py: Python<'py>,
        values: *const *mut ffi::PyObject,
        positional: ffi::Py_ssize_t,
        names: *mut ffi::PyObject,
    ) -> Self {
        let keywords = if names.is_null() {
            0
        } else {
            // SAFETY: a non-null `kwnames` of a fastcall is a tuple (PEP 590).
            unsafe { ffi::PyTuple_GET_SIZE(names) as usize }
        };
        let positional = positional as usize;
        let values = if positional + keywords == 0 {
            &[][..]
        } else {
            // SAFETY: the caller of a fastcall passes that many references and keeps them alive
            // until the call returns, which outlives 'a.
            unsafe { slice::from_raw_parts(values, positional + keywords) }
        };
        Self {
            py,
            values,
            positional,
            names,
        }
    }

    /// Every positional argument, as raw borrowed references for `py::handle`.
    #[inline(always)]
    pub(super) fn raw_positional(&self) -> &'a [*mut ffi::PyObject] {
        &self.values[..self.positional]
    }

    #[inline(always)]
    fn borrow(&self, index: usize) -> Borrowed<'a, 'py, PyAny> {
        // SAFETY: the caller of the fastcall keeps each argument alive while 'a lasts.
        unsafe { Borrowed::from_ptr(self.py, self.values[index]) }
    }

    #[inline(always)]
    pub(crate) fn positional(&self, index: usize) -> Option<Borrowed<'a, 'py, PyAny>> {
        (index < self.positional).then(|| self.borrow(index))
    }

    /// The positional argument at `index`, which the caller knows to be there.
    #[inline(always)]
    pub(super) fn positional_unchecked(&self, index: usize) -> Borrowed<'a, 'py, PyAny> {
        debug_assert!(index < self.positional);
        self.borrow(index)
    }

    #[inline(always)]
    pub(crate) const fn positional_count(&self) -> usize {
        self.positional
    }

    #[inline(always)]
    pub(crate) const fn keyword_count(&self) -> usize {
        self.values.len() - self.positional
    }

    fn keyword_name(&self, index: usize) -> Borrowed<'a, 'py, PyString> {
        // SAFETY: `names` is a tuple of str with `keyword_count` items, alive during the call.
        unsafe {
            Borrowed::from_ptr(self.py, ffi::PyTuple_GET_ITEM(self.names, index as isize))
                .cast_unchecked()
        }
    }

    /// The (name, value) pairs passed by keyword.
    pub(crate) fn keywords(
        &self,
    ) -> impl Iterator<Item = (Borrowed<'a, 'py, PyString>, Borrowed<'a, 'py, PyAny>)> + '_ {
        (0..self.keyword_count()).map(|index| {
            (
                self.keyword_name(index),
                self.borrow(self.positional + index),
            )
        })
    }

    /// The value of `context`, the only keyword that `function` knows.
    ///
    /// # Errors
    /// TypeError for any other keyword.
    #[inline]
    pub(crate) fn context_keyword(
        &self,
        function: &str,
    ) -> PyResult<Option<Borrowed<'a, 'py, PyAny>>> {
        if self.names == KNOWN_NAMES.load(Ordering::Relaxed) && !self.names.is_null() {
            return Ok(Some(self.borrow(self.positional)));
        }
        let mut found = None;
        for (keyword, value) in self.keywords() {
            if keyword.to_str()? != "context" {
                return Err(unexpected_keyword(function, &keyword));
            }
            found = Some(value);
        }
        if found.is_some() {
            self.remember_names();
        }
        Ok(found)
    }

    /// asyncio's C tasks pass one and the same tuple of names with every step, and its string is
    /// not interned: it is remembered, so that only the first call compares strings.
    #[cold]
    fn remember_names(&self) {
        if KNOWN_NAMES.load(Ordering::Relaxed).is_null() {
            // SAFETY: `names` is a live tuple; the reference is kept for ever, so that its address
            // is never another tuple's.
            KNOWN_NAMES.store(unsafe { ffi::Py_NewRef(self.names) }, Ordering::Relaxed);
        }
    }

    /// # Errors
    /// TypeError if anything was passed by keyword.
    pub(crate) fn no_keywords(&self, function: &str) -> PyResult<()> {
        self.keywords()
            .next()
            .map_or(Ok(()), |(name, _)| Err(unexpected_keyword(function, &name)))
    }

    /// Arguments in the order of `names`; the first `required` must be there.
    ///
    /// # Errors
    /// The TypeErrors that a Python function of that signature raises.
    pub(crate) fn bind<const N: usize>(
        &self,
        function: &str,
        names: [&str; N],
        required: usize,
    ) -> PyResult<[Option<Borrowed<'a, 'py, PyAny>>; N]> {
        if self.positional > N {
            return Err(too_many_positional(function, N, self.positional));
        }
        let mut bound = [const { None }; N];
        for (index, slot) in bound.iter_mut().enumerate().take(self.positional) {
            *slot = Some(self.borrow(index));
        }
        for (keyword, value) in self.keywords() {
            let text = keyword.to_str()?;
            let Some(index) = names.iter().position(|name| *name == text) else {
                return Err(unexpected_keyword(function, &keyword));
            };
            if bound[index].replace(value).is_some() {
                return Err(multiple_values(function, text));
            }
        }
        if let Some(missing) = (0..required).find(|index| bound[*index].is_none()) {
            return Err(missing_argument(function, names[missing]));
        }
        Ok(bound)
    }

    /// Every name of `names` is required, and `context` may be passed by keyword.
    pub(super) fn bind_with_context<const N: usize>(
        &self,
        function: &str,
        names: [&str; N],
    ) -> PyResult<BoundWithContext<'a, 'py, N>> {
        let mut context = None;
        let mut bound = [const { None }; N];
        for (index, slot) in bound.iter_mut().enumerate().take(self.positional) {
            *slot = Some(self.borrow(index));
        }
        for (keyword, value) in self.keywords() {
            let text = keyword.to_str()?;
            match names.iter().position(|name| *name == text) {
                Some(index) if bound[index].is_none() => bound[index] = Some(value),
                Some(_) => return Err(multiple_values(function, text)),
                None if text == "context" => context = Some(value),
                None => return Err(unexpected_keyword(function, &keyword)),
            }
        }
        if let Some(missing) = bound.iter().position(Option::is_none) {
            return Err(missing_argument(function, names[missing]));
        }
        Ok((
            bound.map(|value| value.expect("invariant: none is missing")),
            context,
        ))
    }

    /// Like `bind` for a method that takes nothing.
    pub(crate) fn none(&self, function: &str) -> PyResult<()> {
        self.bind::<0>(function, [], 0).map(|_| ())
    }

    /// Like `bind` for a method of one required argument.
    #[inline]
    pub(crate) fn one(&self, function: &str, name: &str) -> PyResult<Borrowed<'a, 'py, PyAny>> {
        if self.positional == 1 && self.values.len() == 1 {
            return Ok(self.borrow(0));
        }
        let [value] = self.bind(function, [name], 1)?;
        Ok(value.expect("invariant: bind checked the required argument"))
    }
}

#[cold]
pub(crate) fn missing_argument(function: &str, name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "{function}() missing 1 required positional argument: '{name}'"
    ))
}

#[cold]
pub(crate) fn too_many_positional(function: &str, most: usize, given: usize) -> PyErr {
    // `self` counts, as in a Python method's own message.
    let plural = if most == 0 { "" } else { "s" };
    PyTypeError::new_err(format!(
        "{function}() takes {} positional argument{plural} but {} were given",
        most + 1,
        given + 1
    ))
}

#[cold]
pub(crate) fn multiple_values(function: &str, name: &str) -> PyErr {
    PyTypeError::new_err(format!(
        "{function}() got multiple values for argument '{name}'"
    ))
}

#[cold]
pub(crate) fn unexpected_keyword(function: &str, keyword: &Borrowed<'_, '_, PyString>) -> PyErr {
    PyTypeError::new_err(format!(
        "{function}() got an unexpected keyword argument '{}'",
        keyword.to_string_lossy()
    ))
}
