//! `coroutine_method`: the descriptor of a method that returns a coroutine. With it,
//! `inspect.iscoroutinefunction` is true of the method.
//!
//! CPython 3.11 has no marker for that: it reads the flags of `__code__`, of a function or of an
//! object with a function's attributes. So this object has these attributes. They come from a
//! function that is compiled from the method's signature when one is first read, and that never
//! runs. `inspect.signature`, `unittest.mock` and similar tools see the same as in asyncio.
//!
//! A call goes to the wrapped descriptor, without a frame, and without a bound method where CPython
//! makes none for a function (`Py_TPFLAGS_METHOD_DESCRIPTOR`). `loop.method` is a
//! `types.MethodType`.
//!
//! Invariants:
//! - `wrapped` and `forward` are set before the object is visible to anybody and never change.
//! - the class breaks the cycle of class and descriptor, as for CPython's own descriptors; so there
//!   is no `tp_clear`, and a call never sees a half-cleared object.
//!
//! Cost: one indirect call more than the wrapped descriptor.

use super::class::{This, free, show_instance};
use super::heap_type::{make_type, offsets_slot, slot};
use super::imports;
use super::method::{Access, Methods, repr_slot};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};
use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::mem::offset_of;

unsafe extern "C" {
    // PyO3 does not declare it.
    fn PyMethod_New(
        function: *mut ffi::PyObject,
        instance: *mut ffi::PyObject,
    ) -> *mut ffi::PyObject;
}

#[repr(C)]
struct CoroutineMethod {
    head: ffi::PyObject,
    vectorcall: ffi::vectorcallfunc,
    weakrefs: *mut ffi::PyObject,
    /// The method's descriptor, owned.
    wrapped: *mut ffi::PyObject,
    /// How the descriptor is called.
    forward: ffi::vectorcallfunc,
    /// The function of the same signature, owned; null until it is asked for.
    pattern: Cell<*mut ffi::PyObject>,
}

/// Receiver access for the methods of the type.
struct OfCoroutineMethod;

impl Access for OfCoroutineMethod {
    type Target = CoroutineMethod;

    unsafe fn target<'a>(object: *mut ffi::PyObject) -> &'a CoroutineMethod {
        // SAFETY: the caller passes a live instance of the type.
        unsafe { &*object.cast::<CoroutineMethod>() }
    }
}

type MethodThis<'a, 'py> = This<'a, 'py, CoroutineMethod>;

/// Replaces the methods `names` of `class` by coroutine methods.
///
/// # Errors
/// AttributeError for a name that the class does not have, and MemoryError.
pub(crate) fn install(class: &Bound<'_, PyType>, names: &[&str]) -> PyResult<()> {
    for name in names {
        let descriptor = class.getattr(*name)?;
        class.setattr(*name, wrap(&descriptor)?)?;
    }
    Ok(())
}

fn wrap<'py>(descriptor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = descriptor.py();
    let class = method_type(py)?.as_type_ptr();
    // SAFETY: `tp_alloc` gives a zeroed, tracked instance, or null with MemoryError set. The fields
    // are written before any other object is made, so no collection sees them unset; the descriptor
    // is one of CPython's, which all have a vectorcall.
    unsafe {
        let forward = ffi::PyVectorcall_Function(descriptor.as_ptr())
            .expect("invariant: method descriptors have a vectorcall");
        let alloc = (*class)
            .tp_alloc
            .expect("invariant: heap types have tp_alloc");
        let object = Bound::from_owned_ptr_or_err(py, alloc(class, 0))?;
        let method = object.as_ptr().cast::<CoroutineMethod>();
        (&raw mut (*method).vectorcall).write(call);
        (&raw mut (*method).forward).write(forward);
        (&raw mut (*method).wrapped).write(ffi::Py_NewRef(descriptor.as_ptr()));
        Ok(object)
    }
}

/// The type, made on first use.
fn method_type(py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
    static CELL: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    let class = CELL.get_or_try_init(py, || create_type(py).map(Bound::unbind))?;
    Ok(class.bind(py))
}

fn create_type(py: Python<'_>) -> PyResult<Bound<'_, PyType>> {
    let offsets = [
        (
            c"__vectorcalloffset__",
            offset_of!(CoroutineMethod, vectorcall),
        ),
        (c"__weaklistoffset__", offset_of!(CoroutineMethod, weakrefs)),
    ];
    let [methods, attributes] = declared().into_slots();
    let slots = vec![
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse as *mut c_void),
        slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
        slot(ffi::Py_tp_descr_get, descriptor_get as *mut c_void),
        repr_slot::<OfCoroutineMethod, _>(repr),
        offsets_slot(&offsets),
        methods,
        attributes,
    ];
    let name = c"oxloop._oxloop.coroutine_method";
    let flags = ffi::Py_TPFLAGS_HAVE_VECTORCALL
        | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR
        | ffi::Py_TPFLAGS_IMMUTABLETYPE;
    let size = size_of::<CoroutineMethod>();
    // SAFETY: the slots are functions of this type, whose instances are a `CoroutineMethod`.
    unsafe { make_type(py, name, [size, 0], flags, slots, None) }
}

/// A function's attributes: those of the signature come from the compiled function, the others
/// from the wrapped descriptor.
fn declared() -> Methods<OfCoroutineMethod> {
    let mut methods = Methods::<OfCoroutineMethod>::new();
    methods.getter(c"__code__", |this| this.pattern()?.getattr("__code__"));
    methods.getter(c"__defaults__", |this| {
        this.pattern()?.getattr("__defaults__")
    });
    methods.getter(c"__kwdefaults__", |this| {
        this.pattern()?.getattr("__kwdefaults__")
    });
    methods.getter(c"__annotations__", |this| {
        this.pattern()?.getattr("__annotations__")
    });
    methods.getter(c"__name__", |this| this.inner().getattr("__name__"));
    methods.getter(c"__qualname__", |this| this.inner().getattr("__qualname__"));
    methods.getter(c"__doc__", |this| this.inner().getattr("__doc__"));
    methods.getter(c"__objclass__", |this| this.inner().getattr("__objclass__"));
    methods.getter(c"__module__", |this| {
        let class = this.inner().getattr("__objclass__")?;
        class.getattr("__module__")
    });
    methods.nullary(
        c"__reduce__",
        |this| this.inner().call_method0("__reduce__"),
        c"What pickle and copy go by: the class and the name.",
    );
    methods
}

impl<'py> MethodThis<'_, 'py> {
    /// The method's own descriptor.
    fn inner(&self) -> Bound<'py, PyAny> {
        // SAFETY: the field owns a reference since the object was made.
        unsafe { Bound::from_borrowed_ptr(self.py(), self.payload().wrapped) }
    }

    /// The function that has the method's signature.
    fn pattern(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        // SAFETY: the field owns a reference or is null.
        let known = unsafe { Bound::from_borrowed_ptr_or_opt(py, self.payload().pattern.get()) };
        if let Some(known) = known {
            return Ok(known);
        }
        let made = compile_pattern(&self.inner())?;
        let old = self.payload().pattern.replace(made.clone().into_ptr());
        // SAFETY: the field owned this reference, if another thread was faster, or is null.
        drop(unsafe { Bound::from_owned_ptr_or_opt(py, old) });
        Ok(made)
    }
}

/// Compiles an empty function of the descriptor's signature. Its defaults may use the modules
/// `socket` and `sys`.
fn compile_pattern<'py>(descriptor: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = descriptor.py();
    let name: String = descriptor.getattr("__name__")?.extract()?;
    let signature: String = descriptor.getattr("__text_signature__")?.extract()?;
    let parameters = signature.replacen("$self", "self", 1);
    let source = format!("async def {name}{parameters}: pass");
    let builtins = py.import("builtins")?;
    let code = builtins.call_method1("compile", (source, "<oxloop>", "exec"))?;
    let names = PyDict::new(py);
    names.set_item("socket", imports::socket(py)?)?;
    names.set_item("sys", imports::sys(py)?)?;
    builtins.call_method1("exec", (code, &names))?;
    names.as_any().get_item(name)
}

fn repr<'py>(this: &MethodThis<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let inner = this.inner();
    let class = inner.getattr("__objclass__")?;
    let text = format!(
        "<coroutine method '{}' of '{}.{}' objects>",
        inner.getattr("__name__")?,
        class.getattr("__module__")?,
        class.getattr("__qualname__")?,
    );
    Ok(PyString::new(this.py(), &text).into_any())
}

unsafe extern "C" fn call(
    object: *mut ffi::PyObject,
    arguments: *const *mut ffi::PyObject,
    flagged_count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    let method = object.cast::<CoroutineMethod>();
    // SAFETY: CPython calls with a live instance; the arguments are handed on as they came, and the
    // function is the descriptor's own.
    unsafe { ((*method).forward)((*method).wrapped, arguments, flagged_count, names) }
}

unsafe extern "C" fn descriptor_get(
    object: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _class: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: CPython calls attached, with live objects; no instance is null or None, as for a
    // function.
    unsafe {
        if instance.is_null() || instance == ffi::Py_None() {
            ffi::Py_NewRef(object)
        } else {
            PyMethod_New(object, instance)
        }
    }
}

unsafe extern "C" fn dealloc(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls with a dead instance, attached; the fields own references or are null.
    unsafe {
        let method = object.cast::<CoroutineMethod>();
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*method).weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        ffi::Py_XDECREF((*method).wrapped);
        ffi::Py_XDECREF((*method).pattern.get());
        free(object);
    }
}

unsafe extern "C" fn traverse(
    object: *mut ffi::PyObject,
    procedure: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the collector calls with a live instance; every pointer shown is owned by it or null.
    unsafe {
        show_instance(object, procedure, argument, |visit| {
            let method = object.cast::<CoroutineMethod>();
            visit.raw((*method).wrapped)?;
            visit.raw((*method).pattern.get())
        })
    }
}
