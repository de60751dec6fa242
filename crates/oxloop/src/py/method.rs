//! Methods and attributes of native types: from a safe Rust function to a CPython slot.
//!
//! A method is a plain function `fn(&This<T>, Args) -> PyResult<Bound<PyAny>>`. Its C entry point
//! is a generic instantiated for the type of that function, so there is no table look-up and no
//! boxed closure: CPython's call lands in the function itself.
//!
//! Invariants:
//! - a panic becomes a `PanicException`; it never crosses the C frame.
//! - PyO3 knows that the thread is attached while a method runs, so dropped references are released
//!   at once. The methods named *hot* skip that book-keeping: a reference they drop outside a
//!   running loop waits for the next attach.

use super::args::Args;
use super::class::This;
use super::heap_type::slot;
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::pyclass::boolean_struct::True;
use pyo3::{Borrowed, PyClass, ffi};
use std::any::Any;
use std::ffi::{CStr, c_char, c_void};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;

/// How a method reaches the Rust value behind `self`.
pub(crate) trait Access: 'static {
    type Target: 'static;

    /// # Safety
    /// `object` is an instance of the type that the method belongs to, alive during 'a.
    unsafe fn target<'a>(object: *mut ffi::PyObject) -> &'a Self::Target;
}

/// The payload of a frozen PyO3 class.
pub(crate) struct OfPyClass<T>(PhantomData<T>);

impl<T: PyClass<Frozen = True> + Sync> Access for OfPyClass<T> {
    type Target = T;

    #[inline(always)]
    unsafe fn target<'a>(object: *mut ffi::PyObject) -> &'a T {
        // SAFETY: the method descriptor checked that `object` is an instance of T's type; attached,
        // because CPython calls. A frozen class hands out `&T` for as long as the object lives.
        unsafe {
            let py = Python::assume_attached();
            let bound = Borrowed::from_ptr(py, object);
            let value: *const T = bound.cast_unchecked::<T>().get();
            &*value
        }
    }
}

/// What a method answers to Python.
type Answer<'py> = PyResult<Bound<'py, PyAny>>;

/// A function behind a method: it takes the object and the arguments.
pub(crate) trait Function<T>:
    for<'a, 'py> Fn(&This<'a, 'py, T>, Args<'a, 'py>) -> Answer<'py> + Copy + 'static
{
}

impl<T, F> Function<T> for F where
    F: for<'a, 'py> Fn(&This<'a, 'py, T>, Args<'a, 'py>) -> Answer<'py> + Copy + 'static
{
}

/// A function behind an attribute, or a method without arguments: it takes the object.
pub(crate) trait Nullary<T>:
    for<'a, 'py> Fn(&This<'a, 'py, T>) -> Answer<'py> + Copy + 'static
{
}

impl<T, F> Nullary<T> for F where
    F: for<'a, 'py> Fn(&This<'a, 'py, T>) -> Answer<'py> + Copy + 'static
{
}

/// The table of methods and attributes of one type, while it is being made.
pub(crate) struct Methods<A: Access> {
    methods: Vec<ffi::PyMethodDef>,
    pub(super) attributes: Vec<ffi::PyGetSetDef>,
    receiver: PhantomData<A>,
}

impl<A: Access> Methods<A> {
    pub(crate) const fn new() -> Self {
        Self {
            methods: Vec::new(),
            attributes: Vec::new(),
            receiver: PhantomData,
        }
    }

    /// Adds a method. `parameters` are those of a Python function, without self; `function` must
    /// be a function item (it has no size).
    pub(crate) fn method<F: Function<A::Target>>(
        &mut self,
        name: &'static CStr,
        parameters: &str,
        function: F,
        doc: &'static CStr,
    ) {
        let _ = function;
        self.push(name, parameters, fastcall::<A, F>, doc);
    }

    /// Adds a method without arguments. `function` must be a function item.
    pub(crate) fn nullary<F>(&mut self, name: &'static CStr, function: F, doc: &'static CStr)
    where
        F: Nullary<A::Target>,
    {
        let _ = function;
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunction: noargs::<A, F>,
            },
            ml_flags: ffi::METH_NOARGS,
            ml_doc: documentation(name, "", doc),
        });
    }

    /// Adds a method that answers None.
    pub(crate) fn procedure<F>(
        &mut self,
        name: &'static CStr,
        parameters: &str,
        function: F,
        doc: &'static CStr,
    ) where
        F: for<'a, 'py> Fn(&This<'a, 'py, A::Target>, Args<'a, 'py>) -> PyResult<()>
            + Copy
            + 'static,
    {
        self.method(
            name,
            parameters,
            move |this, args| function(this, args).and_then(|()| this.none()),
            doc,
        );
    }

    /// Adds a method without arguments that answers None.
    pub(crate) fn nullary_procedure<F>(
        &mut self,
        name: &'static CStr,
        function: F,
        doc: &'static CStr,
    ) where
        F: for<'a, 'py> Fn(&This<'a, 'py, A::Target>) -> PyResult<()> + Copy + 'static,
    {
        self.nullary(
            name,
            move |this| function(this).and_then(|()| this.none()),
            doc,
        );
    }

    /// Adds a method that is called per callback, without PyO3's attach book-keeping.
    pub(crate) fn hot_method<F: Function<A::Target>>(
        &mut self,
        name: &'static CStr,
        parameters: &str,
        function: F,
        doc: &'static CStr,
    ) {
        let _ = function;
        self.push(name, parameters, hot_fastcall::<A, F>, doc);
    }

    /// The two slots of a type that has these. They are leaked, as types are.
    pub(super) fn into_slots(mut self) -> [ffi::PyType_Slot; 2] {
        self.methods.push(ffi::PyMethodDef::zeroed());
        self.attributes.push(ffi::PyGetSetDef::default());
        let (methods, attributes) = (self.methods.leak(), self.attributes.leak());
        [
            slot(ffi::Py_tp_methods, methods.as_mut_ptr().cast()),
            slot(ffi::Py_tp_getset, attributes.as_mut_ptr().cast()),
        ]
    }

    fn push(
        &mut self,
        name: &'static CStr,
        parameters: &str,
        entry: ffi::PyCFunctionFastWithKeywords,
        doc: &'static CStr,
    ) {
        self.methods.push(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: ffi::PyMethodDefPointer {
                PyCFunctionFastWithKeywords: entry,
            },
            ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            ml_doc: documentation(name, parameters, doc),
        });
    }

    /// Adds a read-only attribute.
    pub(crate) fn getter<F: Nullary<A::Target>>(&mut self, name: &'static CStr, function: F) {
        let _ = function;
        self.attributes.push(ffi::PyGetSetDef {
            name: name.as_ptr(),
            get: Some(getter::<A, F>),
            set: None,
            doc: ptr::null(),
            closure: ptr::null_mut(),
        });
    }
}

/// The docstring: the signature, which CPython finds there for `inspect.signature`, then the text.
/// Leaked, as the definition that it belongs to is.
fn documentation(name: &CStr, parameters: &str, text: &CStr) -> *const c_char {
    let separator: &[u8] = if parameters.is_empty() { b"" } else { b", " };
    let parts = [
        name.to_bytes(),
        b"($self",
        separator,
        parameters.as_bytes(),
        b")\n--\n\n",
        text.to_bytes_with_nul(),
    ];
    Vec::leak(parts.concat()).as_ptr().cast()
}

/// Adds the methods to a PyO3 class, whose own method macro always builds an argument tuple for
/// `*args`.
pub(crate) fn extend_class<T>(py: Python<'_>, methods: Methods<OfPyClass<T>>) -> PyResult<()>
where
    T: PyClass<Frozen = True> + Sync,
{
    let class = py.get_type::<T>();
    for definition in Vec::leak(methods.methods) {
        // SAFETY: the definition is leaked, so it outlives the descriptor; `class` is a type.
        let descriptor = unsafe {
            let raw = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
            Bound::from_owned_ptr_or_err(py, raw)?
        };
        // SAFETY: `ml_name` came from a `&'static CStr`.
        let name = unsafe { CStr::from_ptr(definition.ml_name) };
        class.setattr(name.to_string_lossy().as_ref(), descriptor)?;
    }
    Ok(())
}

/// Makes the value of a zero-sized function type.
fn summon<F: Copy + 'static>() -> F {
    const { assert!(size_of::<F>() == 0, "a method must be a function item") };
    // SAFETY: F has no bytes, and a value of it was passed when the method was added, so the type
    // is inhabited; any well-aligned non-null pointer is good to read zero bytes from.
    unsafe { ptr::NonNull::<F>::dangling().as_ptr().read() }
}

unsafe extern "C" fn fastcall<A: Access, F: Function<A::Target>>(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls with an instance of the type and the arguments of this fastcall.
    guarded(|py| unsafe { call::<A, F>(py, object, values, count, names) })
        .unwrap_or(ptr::null_mut())
}

unsafe extern "C" fn hot_fastcall<A: Access, F: Function<A::Target>>(
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls methods attached.
    let py = unsafe { Python::assume_attached() };
    // SAFETY: CPython calls with an instance of the type and the arguments of this fastcall.
    catching(py, || unsafe {
        call::<A, F>(py, object, values, count, names)
    })
    .unwrap_or(ptr::null_mut())
}

/// # Safety
/// As CPython calls a method of the type.
#[inline(always)]
unsafe fn call<A: Access, F: Function<A::Target>>(
    py: Python<'_>,
    object: *mut ffi::PyObject,
    values: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> PyResult<*mut ffi::PyObject> {
    // SAFETY: the caller's promise: `object` is an instance, the rest is of the fastcall that runs.
    let (this, args) = unsafe {
        (
            This::from_raw(py, object, A::target(object)),
            Args::from_call(py, values, count, names),
        )
    };
    summon::<F>()(&this, args).map(Bound::into_ptr)
}

unsafe extern "C" fn noargs<A: Access, F: Nullary<A::Target>>(
    object: *mut ffi::PyObject,
    _arguments: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the method's descriptor checked that `object` is an instance of the type.
    unsafe { getter::<A, F>(object, ptr::null_mut()) }
}

/// A `tp_repr` written in Rust. `function` must be a function item.
pub(super) fn repr_slot<A: Access, F: Nullary<A::Target>>(function: F) -> ffi::PyType_Slot {
    let _ = function;
    slot(ffi::Py_tp_repr, repr::<A, F> as *mut c_void)
}

unsafe extern "C" fn repr<A: Access, F: Nullary<A::Target>>(
    object: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls a slot with an instance of the type that has it.
    unsafe { getter::<A, F>(object, ptr::null_mut()) }
}

unsafe extern "C" fn getter<A: Access, F: Nullary<A::Target>>(
    object: *mut ffi::PyObject,
    _closure: *mut c_void,
) -> *mut ffi::PyObject {
    guarded(|py| {
        // SAFETY: the attribute's descriptor checked that `object` is an instance of the type.
        let this = unsafe { This::from_raw(py, object, A::target(object)) };
        summon::<F>()(&this).map(Bound::into_ptr)
    })
    .unwrap_or(ptr::null_mut())
}

/// Runs `body` for CPython: errors and panics become the raised exception, and None comes back.
pub(super) fn guarded<R>(body: impl FnOnce(Python<'_>) -> PyResult<R>) -> Option<R> {
    // SAFETY: CPython calls slots and methods attached, and the interpreter is alive while it does.
    unsafe { Python::attach_unchecked(|py| catching(py, || body(py))) }
}

/// As `guarded`, without PyO3's book-keeping.
#[inline(always)]
fn catching<R>(py: Python<'_>, body: impl FnOnce() -> PyResult<R>) -> Option<R> {
    let error = match catch_unwind(AssertUnwindSafe(body)) {
        Ok(Ok(value)) => return Some(value),
        Ok(Err(error)) => error,
        Err(payload) => panic_error(&*payload),
    };
    error.restore(py);
    None
}

#[cold]
fn panic_error(payload: &(dyn Any + Send)) -> PyErr {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied())
        .unwrap_or("panic from Rust code");
    PanicException::new_err(text.to_owned())
}
