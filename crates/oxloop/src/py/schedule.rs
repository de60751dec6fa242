//! Makes handles directly from the arguments of a fastcall.

use super::args::Args;
use super::context::Captured;
use super::handle::HandleRef;
use pyo3::prelude::*;
use pyo3::{Borrowed, ffi};

/// The arguments of `method(leading..., callback, *arguments, context=None)`.
pub(crate) struct Scheduled<'a, 'py, const N: usize> {
    /// What comes before and up to the callback; the callback is the last.
    pub(crate) leading: [Borrowed<'a, 'py, PyAny>; N],
    arguments: &'a [*mut ffi::PyObject],
    pub(crate) context: Option<Borrowed<'a, 'py, PyAny>>,
}

impl<'a, 'py, const N: usize> Scheduled<'a, 'py, N> {
    /// # Errors
    /// The TypeErrors of a Python function with that signature.
    #[inline(always)]
    pub(crate) fn parse(function: &str, names: [&str; N], args: &Args<'a, 'py>) -> PyResult<Self> {
        if args.positional_count() < N {
            return Self::parse_keywords(function, names, args);
        }
        let leading = std::array::from_fn(|index| args.positional_unchecked(index));
        let arguments = &args.raw_positional()[N..];
        let context = if args.keyword_count() == 0 {
            None
        } else {
            args.context_keyword(function)?
        };
        Ok(Self {
            leading,
            arguments,
            context,
        })
    }

    /// Somebody passed the callback by keyword; then there are no arguments for it.
    #[cold]
    fn parse_keywords(function: &str, names: [&str; N], args: &Args<'a, 'py>) -> PyResult<Self> {
        let (leading, context) = args.bind_with_context(function, names)?;
        Ok(Self {
            leading,
            arguments: &[],
            context,
        })
    }

    pub(crate) fn callback(&self) -> Borrowed<'a, 'py, PyAny> {
        self.leading[N - 1]
    }

    /// The context that the callback shall run in.
    ///
    /// # Errors
    /// MemoryError.
    #[inline(always)]
    pub(crate) fn captured(&self, py: Python<'_>) -> PyResult<Captured> {
        match self.context {
            Some(context) if !context.is_none() => Ok(Captured::given(&context)),
            _ => Captured::current(py),
        }
    }

    /// A plain handle for the callback.
    ///
    /// # Errors
    /// MemoryError.
    #[inline(always)]
    pub(crate) fn handle(&self, owner: Borrowed<'_, 'py, PyAny>) -> PyResult<HandleRef> {
        let py = owner.py();
        let context = self.captured(py)?;
        HandleRef::soon(py, owner, self.callback().as_ptr(), self.arguments, context)
    }

    /// A timer handle for the callback.
    ///
    /// # Errors
    /// MemoryError.
    #[inline(always)]
    pub(crate) fn timer(&self, owner: Borrowed<'_, 'py, PyAny>, when: f64) -> PyResult<HandleRef> {
        let py = owner.py();
        let context = self.captured(py)?;
        HandleRef::timer(
            py,
            owner,
            when,
            self.callback().as_ptr(),
            self.arguments,
            context,
        )
    }
}

/// A handle for a callback of the loop's own.
///
/// # Errors
/// MemoryError.
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
