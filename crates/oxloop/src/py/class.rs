//! Native types that inherit from asyncio's own Python classes.
//!
//! `asyncio.Transport` and similar classes have `__slots__`, so their instances are C structs of
//! known size: a type made here appends a Rust payload to that struct, then a weak reference list
//! and a `__dict__`. `isinstance(transport, asyncio.Transport)` is then true without further work.
//!
//! Layout: `[PyObject | the base's slots][payload T][weakrefs][dict]`.
//!
//! Invariants:
//! - the base's slots are object pointers or null: `__slots__` of Python classes, see `layout`.
//! - the payload is initialised before the object is seen by anybody, and dropped in `tp_dealloc`.
//! - every type takes part in garbage collection: the payload visits what it holds.

use super::heap_type::{make_type, offsets_slot, slot};
use super::layout::has_only_slots;
use super::method::{Access, Methods, Nullary, guarded, repr_slot};
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, PyTraverseError, PyVisit, ffi};
use std::ffi::{CStr, c_int, c_void};
use std::marker::PhantomData;
use std::ops::Deref;
use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};

/// The Rust part of a native type.
pub(crate) trait Native: Sized + Send + Sync + 'static {
    /// Where the type object is kept once it is made.
    fn class() -> &'static Class;

    /// Shows the collector every Python object that the payload owns.
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped>;

    /// Drops what can be part of a cycle. The object is unreachable, but its methods may still run.
    fn clear(&self, py: Python<'_>);

    /// What `__del__` would do; runs once, while the object is still whole.
    fn finalize(_this: &This<'_, '_, Self>) {}
}

/// The static cell of a native type.
#[derive(Debug)]
pub(crate) struct Class {
    type_object: AtomicPtr<ffi::PyTypeObject>,
    payload_offset: AtomicUsize,
}

impl Class {
    pub(crate) const fn new() -> Self {
        Self {
            type_object: AtomicPtr::new(ptr::null_mut()),
            payload_offset: AtomicUsize::new(0),
        }
    }

    pub(super) fn as_ptr(&self) -> *mut ffi::PyTypeObject {
        self.type_object.load(Ordering::Relaxed)
    }

    /// True if `object` is of this very type.
    #[inline]
    pub(crate) fn is_class_of(&self, object: &Bound<'_, PyAny>) -> bool {
        // SAFETY: the object is alive, and so is its type.
        unsafe { ffi::Py_TYPE(object.as_ptr()) == self.as_ptr() }
    }

    /// The type, once `create` ran at import.
    pub(crate) fn type_object<'py>(&self, py: Python<'py>) -> Bound<'py, PyType> {
        // SAFETY: `create` stored an owned type at import, which is never released.
        unsafe {
            Borrowed::from_ptr(py, self.as_ptr().cast())
                .to_owned()
                .cast_into_unchecked()
        }
    }
}

/// The collector's visitor, of a native type's or a PyO3 class's traverse function.
pub(crate) struct Visit<'a>(Collector<'a>);

enum Collector<'a> {
    Native {
        procedure: ffi::visitproc,
        argument: *mut c_void,
    },
    PyClass(PyVisit<'a>),
}

/// The collector asked to stop; pass it on.
pub(crate) enum VisitStopped {
    Native(c_int),
    PyClass(PyTraverseError),
}

impl VisitStopped {
    /// For a PyO3 class's `__traverse__`.
    pub(crate) fn into_pyclass(self) -> PyTraverseError {
        match self {
            Self::PyClass(error) => error,
            Self::Native(_) => unreachable!("invariant: a PyO3 visitor stops with its own error"),
        }
    }

    pub(super) fn into_code(self) -> c_int {
        match self {
            Self::Native(code) => code,
            Self::PyClass(_) => -1,
        }
    }
}

impl<'a> Visit<'a> {
    /// For a PyO3 class's `__traverse__`.
    pub(crate) const fn of_pyclass(visit: PyVisit<'a>) -> Self {
        Self(Collector::PyClass(visit))
    }

    /// Shows one owned reference.
    #[inline]
    pub(crate) fn object<T>(&self, object: &Py<T>) -> Result<(), VisitStopped> {
        // SAFETY: `object` is alive, and the procedure comes from the collector that is running.
        unsafe { self.raw(object.as_ptr()) }
    }

    /// Shows an owned reference, if there is one.
    #[inline]
    pub(crate) fn option<T>(&self, object: Option<&Py<T>>) -> Result<(), VisitStopped> {
        object.map_or(Ok(()), |object| self.object(object))
    }

    /// # Safety
    /// `object` is null or alive, and the collector that made this visitor is running.
    pub(super) unsafe fn raw(&self, object: *mut ffi::PyObject) -> Result<(), VisitStopped> {
        if object.is_null() {
            return Ok(());
        }
        match &self.0 {
            Collector::Native {
                procedure,
                argument,
            } => {
                // SAFETY: `object` is alive, and the procedure is the running collector's.
                let code = unsafe { procedure(object, *argument) };
                if code == 0 {
                    Ok(())
                } else {
                    Err(VisitStopped::Native(code))
                }
            }
            Collector::PyClass(visit) => {
                // SAFETY: `Py` is a transparent non-null pointer, and `object` is alive for the
                // call.
                let object = unsafe { &*(&raw const object).cast::<Py<PyAny>>() };
                visit.call(object).map_err(VisitStopped::PyClass)
            }
        }
    }
}

/// A borrowed native object while one of its methods runs: the Python object and its payload.
pub(crate) struct This<'a, 'py, T> {
    object: Borrowed<'a, 'py, PyAny>,
    payload: &'a T,
}

impl<'a, 'py, T> This<'a, 'py, T> {
    /// # Safety
    /// `object` is alive during 'a and `payload` is its payload.
    #[inline(always)]
    pub(super) unsafe fn from_raw(
        py: Python<'py>,
        object: *mut ffi::PyObject,
        payload: &'a T,
    ) -> Self {
        // SAFETY: as the caller promises.
        let object = unsafe { Borrowed::from_ptr(py, object) };
        Self { object, payload }
    }

    #[inline(always)]
    pub(crate) fn py(&self) -> Python<'py> {
        self.object.py()
    }

    #[inline(always)]
    pub(crate) const fn object(&self) -> Borrowed<'a, 'py, PyAny> {
        self.object
    }

    #[inline(always)]
    pub(crate) const fn payload(&self) -> &'a T {
        self.payload
    }
}

impl<'py, T> This<'_, 'py, T> {
    /// What a method without a result returns.
    pub(crate) fn none(&self) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.py().None().into_bound(self.py()))
    }

    /// The object, or None.
    pub(crate) fn or_none(&self, object: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        object.map_or_else(|| self.none(), Ok)
    }

    pub(crate) fn boolean(&self, value: bool) -> PyResult<Bound<'py, PyAny>> {
        Ok(value.into_pyobject(self.py())?.to_owned().into_any())
    }
}

impl<'a, 'py, T: Native> This<'a, 'py, T> {
    /// `object` as a receiver, if it is one of T's. The types have no subclasses.
    #[inline]
    pub(crate) fn of(object: &'a Bound<'py, PyAny>) -> Option<Self> {
        // SAFETY: the object is alive during 'a, and it is of T's type.
        T::class().is_class_of(object).then(|| unsafe {
            let payload = payload_ptr::<T>(object.as_ptr());
            Self::from_raw(object.py(), object.as_ptr(), &*payload)
        })
    }
}

impl<T: Native> This<'_, '_, T> {
    /// A reference of one's own.
    pub(crate) fn to_ref(&self) -> Ref<T> {
        Ref {
            object: self.object.to_owned().unbind(),
            payload: PhantomData,
        }
    }
}

impl<T> Deref for This<'_, '_, T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        self.payload
    }
}

/// An owned reference to a native object.
#[derive(Debug)]
pub(crate) struct Ref<T> {
    object: Py<PyAny>,
    payload: PhantomData<fn() -> T>,
}

impl<T: Native> Ref<T> {
    /// Makes an object around `payload`.
    pub(crate) fn new(py: Python<'_>, payload: T) -> PyResult<Self> {
        let class = T::class();
        let type_object = class.as_ptr();
        // SAFETY: the type was made at import. `tp_alloc` returns a zeroed instance with room for
        // the payload at its offset, and nothing sees the object before the payload is written:
        // a collection can only start inside `tp_alloc`, before the object is tracked.
        unsafe {
            let alloc = (*type_object)
                .tp_alloc
                .expect("invariant: heap types have tp_alloc");
            let object = alloc(type_object, 0);
            let object = Bound::from_owned_ptr_or_err(py, object)?;
            payload_ptr::<T>(object.as_ptr()).write(payload);
            Ok(Self {
                object: object.unbind(),
                payload: PhantomData,
            })
        }
    }

    /// Another reference to `object`, if it is one of T's. The types have no subclasses.
    #[inline]
    pub(crate) fn from_exact(object: &Bound<'_, PyAny>) -> Option<Self> {
        This::<T>::of(object).map(|this| this.to_ref())
    }

    /// Another reference to the same object.
    #[inline]
    pub(crate) fn clone_ref(&self, py: Python<'_>) -> Self {
        Self {
            object: self.object.clone_ref(py),
            payload: PhantomData,
        }
    }

    /// The object as a receiver of methods.
    #[inline]
    pub(crate) fn this<'a, 'py>(&'a self, py: Python<'py>) -> This<'a, 'py, T> {
        // SAFETY: `self` owns a reference, so object and payload live during 'a.
        unsafe {
            This::from_raw(
                py,
                self.object.as_ptr(),
                &*payload_ptr::<T>(self.object.as_ptr()),
            )
        }
    }

    #[inline]
    pub(crate) const fn as_object(&self) -> &Py<PyAny> {
        &self.object
    }
}

impl<T: Native> Deref for Ref<T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: the object is an instance of T's type and `self` keeps it alive; payloads are
        // only ever shared, never borrowed mutably, after `new`.
        unsafe { &*payload_ptr::<T>(self.object.as_ptr()) }
    }
}

/// Receiver access for the methods of a native type.
pub(crate) struct OfNative<T>(PhantomData<T>);

impl<T: Native> Access for OfNative<T> {
    type Target = T;

    #[inline(always)]
    unsafe fn target<'a>(object: *mut ffi::PyObject) -> &'a T {
        // SAFETY: the caller passes a live instance of the type, whose payload is initialised.
        unsafe { &*payload_ptr::<T>(object) }
    }
}

/// # Safety
/// `object` is an instance of T's type.
#[inline(always)]
unsafe fn payload_ptr<T: Native>(object: *mut ffi::PyObject) -> *mut T {
    let offset = T::class().payload_offset.load(Ordering::Relaxed);
    // SAFETY: the instance is larger than `offset + size_of::<T>()`, see `create`.
    unsafe { object.byte_add(offset).cast() }
}

/// # Safety
/// As `payload_ptr`; `index` is 0 (weak references) or 1 (the dict).
unsafe fn tail_ptr<T: Native>(object: *mut ffi::PyObject, index: usize) -> *mut *mut ffi::PyObject {
    // SAFETY: `create` made room for two pointers behind the payload, which is pointer-aligned.
    unsafe {
        payload_ptr::<T>(object)
            .add(1)
            .cast::<*mut ffi::PyObject>()
            .add(index)
    }
}

/// The slots that the base class's `__slots__` made.
///
/// # Safety
/// As `payload_ptr`.
unsafe fn base_slots<'a, T: Native>(object: *mut ffi::PyObject) -> &'a mut [*mut ffi::PyObject] {
    let offset = T::class().payload_offset.load(Ordering::Relaxed);
    let count = (offset - size_of::<ffi::PyObject>()) / size_of::<*mut ffi::PyObject>();
    // SAFETY: between the object's head and the payload there are only the base's slots, as
    // `create` saw, which are null or own a reference.
    unsafe {
        let first = object.add(1).cast();
        std::slice::from_raw_parts_mut(first, count)
    }
}

/// Extra slots that only few types have.
#[derive(Default)]
pub(crate) struct Slots(pub(super) Vec<ffi::PyType_Slot>);

impl Slots {
    /// A `repr` written in Rust. `function` must be a function item.
    pub(crate) fn with_repr<A: Access, F: Nullary<A::Target>>(function: F) -> Self {
        Self(vec![repr_slot::<A, F>(function)])
    }
}

/// Makes the type `name` (`module.Type`) below `base` and keeps it in T's cell.
pub(crate) fn create<T: Native>(
    py: Python<'_>,
    name: &'static CStr,
    doc: &'static CStr,
    base: &Bound<'_, PyType>,
    methods: Methods<OfNative<T>>,
    extra: Slots,
) -> PyResult<()> {
    const { assert!(align_of::<T>() <= align_of::<*mut ffi::PyObject>()) };
    if !has_only_slots(base)? {
        let text = format!("instances of {base} are not made of __slots__ alone");
        return Err(PyImportError::new_err(text));
    }
    let base_size: usize = base.getattr("__basicsize__")?.extract()?;
    let offset = base_size.next_multiple_of(align_of::<*mut ffi::PyObject>());
    let weakrefs = offset + size_of::<T>().next_multiple_of(size_of::<usize>());
    T::class().payload_offset.store(offset, Ordering::Relaxed);
    let size = weakrefs + 2 * size_of::<usize>();
    let slots = type_slots::<T>(doc, methods, weakrefs, extra);
    // SAFETY: the slots are functions of T's, and an instance has room for all that they use.
    let type_object = unsafe { make_type(py, name, [size, 0], 0, slots, Some(base))? };
    T::class()
        .type_object
        .store(type_object.into_ptr().cast(), Ordering::Relaxed);
    Ok(())
}

fn type_slots<T: Native>(
    doc: &'static CStr,
    mut methods: Methods<OfNative<T>>,
    weakrefs: usize,
    extra: Slots,
) -> Vec<ffi::PyType_Slot> {
    let offsets = [
        (c"__weaklistoffset__", weakrefs),
        (c"__dictoffset__", weakrefs + size_of::<usize>()),
    ];
    methods.attributes.push(ffi::PyGetSetDef {
        name: c"__dict__".as_ptr(),
        get: Some(ffi::PyObject_GenericGetDict),
        set: Some(ffi::PyObject_GenericSetDict),
        doc: ptr::null(),
        closure: ptr::null_mut(),
    });
    let mut slots = vec![
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_dealloc, dealloc::<T> as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse::<T> as *mut c_void),
        slot(ffi::Py_tp_clear, clear::<T> as *mut c_void),
        slot(ffi::Py_tp_finalize, finalize::<T> as *mut c_void),
        offsets_slot(&offsets),
    ];
    slots.extend(methods.into_slots());
    slots.extend(extra.0);
    slots
}

unsafe extern "C" fn dealloc<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls with a dead instance, attached. The finalizer may bring it back to
    // life, then nothing is torn down. Weak references are cleared before the payload is dropped;
    // the base's slots and the dict own references, or are null.
    unsafe {
        if ffi::PyObject_CallFinalizerFromDealloc(object) < 0 {
            return;
        }
        ffi::PyObject_GC_UnTrack(object.cast());
        if !(*tail_ptr::<T>(object, 0)).is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        guarded(|_py| {
            ptr::drop_in_place(payload_ptr::<T>(object));
            Ok(())
        });
        for slot in base_slots::<T>(object) {
            ffi::Py_CLEAR(slot);
        }
        ffi::Py_CLEAR(tail_ptr::<T>(object, 1));
        free(object);
    }
}

/// Frees an instance of a heap type, with its reference to the type.
///
/// # Safety
/// Attached; nobody has the instance, the collector does not track it, and its fields are released.
pub(super) unsafe fn free(object: *mut ffi::PyObject) {
    // SAFETY: the caller's promise; a heap type's instance owns one reference to its type.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let free = (*class)
            .tp_free
            .expect("invariant: heap types have tp_free");
        free(object.cast());
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse<T: Native>(
    object: *mut ffi::PyObject,
    procedure: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the collector calls with a live instance; every pointer shown is owned by it.
    unsafe {
        show_instance(object, procedure, argument, |visit| {
            for slot in base_slots::<T>(object) {
                visit.raw(*slot)?;
            }
            visit.raw(*tail_ptr::<T>(object, 1))?;
            (*payload_ptr::<T>(object)).traverse(visit)
        })
    }
}

/// Shows the collector the type of an instance and what `fields` shows.
///
/// # Safety
/// The collector called with these arguments; `fields` shows what the instance owns.
pub(super) unsafe fn show_instance(
    object: *mut ffi::PyObject,
    procedure: ffi::visitproc,
    argument: *mut c_void,
    fields: impl FnOnce(&Visit<'_>) -> Result<(), VisitStopped>,
) -> c_int {
    let visit = Visit(Collector::Native {
        procedure,
        argument,
    });
    // SAFETY: the caller's promise; a heap type's instance owns its type.
    unsafe { visit.raw(ffi::Py_TYPE(object).cast()) }
        .and_then(|()| fields(&visit))
        .map_or_else(VisitStopped::into_code, |()| 0)
}

unsafe extern "C" fn clear<T: Native>(object: *mut ffi::PyObject) -> c_int {
    // SAFETY: the collector calls with a live instance, attached.
    unsafe {
        guarded(|py| {
            (*payload_ptr::<T>(object)).clear(py);
            Ok(())
        });
        for slot in base_slots::<T>(object) {
            ffi::Py_CLEAR(slot);
        }
        ffi::Py_CLEAR(tail_ptr::<T>(object, 1));
    }
    0
}

unsafe extern "C" fn finalize<T: Native>(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls with an instance that is still whole; an exception that was being
    // raised must survive the finalizer.
    unsafe {
        let raised = guarded(|py| Ok(PyErr::take(py))).flatten();
        guarded(|py| {
            let this = This::from_raw(py, object, &*payload_ptr::<T>(object));
            T::finalize(&this);
            Ok(())
        });
        guarded(|py| {
            if let Some(error) = PyErr::take(py) {
                error.write_unraisable(py, None);
            }
            if let Some(error) = raised {
                error.restore(py);
            }
            Ok(())
        });
    }
}
