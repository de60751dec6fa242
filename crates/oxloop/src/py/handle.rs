//! Handles: the objects that `call_soon` and `call_later` return.
//!
//! `Handle` is made for every callback, so it is small: an object of 64 bytes and 8 per argument,
//! behind the collector's header of 16, from a free list. The collector does not track it. While
//! only the loop's queue owns a handle, the loop's traverse function visits what the handle holds,
//! and once it ran or was cancelled it holds nothing. Only a handle that somebody else owns while
//! the loop does not run is tracked. It does not inherit from `asyncio.Handle`, whose `__slots__`
//! and managed weak references would nearly double it; its `__class__` is `asyncio.Handle`, so
//! `isinstance` is true.
//!
//! `TimerHandle` is a real subtype of `asyncio.TimerHandle`, with the call behind the base's slots,
//! and follows the same rule for the collector.
//!
//! Layout: `[collector's header | PyObject | weakrefs | Call | arguments]` and
//! `[asyncio.TimerHandle | when | Call | arguments]`.
//!
//! Cost: one allocation for a handle, none if the free list has one.

use super::call::Call;
use super::class::{This, Visit, VisitStopped, show_instance};
use super::context::Captured;
use super::freeing::{Free, free_or_defer};
use super::heap_type::{make_type, offsets_slot, slot};
use super::method::{Access, Methods, guarded};
use super::object::release_anywhere;
use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};
use std::ffi::{CStr, c_int, c_void};
use std::mem::offset_of;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicIsize, AtomicPtr, AtomicUsize, Ordering};

#[repr(C)]
struct HandleObject {
    head: ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    call: Call,
}

/// What follows the slots of `asyncio.TimerHandle`.
#[repr(C)]
struct TimerPart {
    when: f64,
    call: Call,
}

/// The collector's header lies in front of an object (`PyGC_Head`, two words, since CPython 3.8).
/// Both are null while the object is not tracked.
type CollectorHeader = [usize; 2];

const HANDLE_CALL: usize = offset_of!(HandleObject, call);

static HANDLE_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
static TIMER_TYPE: AtomicPtr<ffi::PyTypeObject> = AtomicPtr::new(ptr::null_mut());
/// Where `TimerPart` begins in a timer handle; `asyncio.TimerHandle` differs between versions.
static TIMER_PART: AtomicUsize = AtomicUsize::new(0);
/// What lies in front of a timer handle: the collector's header, and from 3.12 on two words for the
/// managed weak references that `asyncio.Handle` has there.
static TIMER_PREFIX: AtomicUsize = AtomicUsize::new(0);
/// Where a timer handle keeps its weak references, counted from the object.
static TIMER_WEAKREFS: AtomicIsize = AtomicIsize::new(0);
/// `Py_TPFLAGS_MANAGED_WEAKREF | Py_TPFLAGS_MANAGED_DICT`.
const MANAGED_PREFIX: std::ffi::c_ulong = 1 << 3 | 1 << 4;

static HANDLE_FREE: FreeList = FreeList::new();
static TIMER_FREE: FreeList = FreeList::new();

#[inline(always)]
fn timer_call_offset() -> usize {
    TIMER_PART.load(Ordering::Relaxed) + offset_of!(TimerPart, call)
}

/// Freed handles by their number of arguments, linked through their first word. GIL held.
struct FreeList {
    first: [AtomicPtr<c_void>; Self::SIZES],
    count: [AtomicUsize; Self::SIZES],
}

impl FreeList {
    /// Handles with more arguments than this are not kept.
    const SIZES: usize = 4;
    const MOST: usize = 512;

    const fn new() -> Self {
        Self {
            first: [const { AtomicPtr::new(ptr::null_mut()) }; Self::SIZES],
            count: [const { AtomicUsize::new(0) }; Self::SIZES],
        }
    }

    #[inline(always)]
    fn pop(&self, arguments: usize) -> Option<NonNull<c_void>> {
        let first = NonNull::new(self.first.get(arguments)?.load(Ordering::Relaxed))?;
        // SAFETY: a block on the list is free memory whose first word links to the next one.
        let next = unsafe { first.cast::<*mut c_void>().read() };
        self.first[arguments].store(next, Ordering::Relaxed);
        let count = self.count[arguments].load(Ordering::Relaxed);
        self.count[arguments].store(count - 1, Ordering::Relaxed);
        Some(first)
    }

    /// Keeps the block; false if the list is full.
    ///
    /// # Safety
    /// `block` is memory of a handle with that many arguments, which nobody uses any more.
    #[inline(always)]
    unsafe fn push(&self, block: *mut c_void, arguments: usize) -> bool {
        let Some(first) = self.first.get(arguments) else {
            return false;
        };
        let count = self.count[arguments].load(Ordering::Relaxed);
        if count >= Self::MOST {
            return false;
        }
        // SAFETY: the block is ours and larger than a word.
        unsafe {
            block
                .cast::<*mut c_void>()
                .write(first.load(Ordering::Relaxed));
        };
        first.store(block, Ordering::Relaxed);
        self.count[arguments].store(count + 1, Ordering::Relaxed);
        true
    }
}

/// An owned reference to a handle of either kind.
#[derive(Debug)]
pub(crate) struct HandleRef(NonNull<Call>);

impl HandleRef {
    /// A handle for `call_soon`. `arguments` are borrowed from the call that schedules.
    ///
    /// # Errors
    /// MemoryError.
    #[inline(always)]
    pub(super) fn soon(
        py: Python<'_>,
        owner: Borrowed<'_, '_, PyAny>,
        callback: *mut ffi::PyObject,
        arguments: &[*mut ffi::PyObject],
        context: Captured,
    ) -> PyResult<Self> {
        let class = HANDLE_TYPE.load(Ordering::Relaxed);
        // SAFETY: the block has room for header, struct and arguments (it was freed with as many),
        // `PyObject_Init` makes it an object with one reference, and every field is written before
        // anybody sees it. A null header says that the object is not tracked.
        unsafe {
            let block = match HANDLE_FREE.pop(arguments.len()) {
                Some(block) => block.as_ptr(),
                None => ffi::PyObject_Malloc(
                    size_of::<CollectorHeader>()
                        + size_of::<HandleObject>()
                        + size_of_val(arguments),
                ),
            };
            if block.is_null() {
                return Err(no_memory(py));
            }
            block.cast::<CollectorHeader>().write([0; 2]);
            let object = ffi::PyObject_Init(block.cast::<CollectorHeader>().add(1).cast(), class);
            let handle = object.cast::<HandleObject>();
            (&raw mut (*handle).weakrefs).write(ptr::null_mut());
            let call = &raw mut (*handle).call;
            Call::fill(call, owner.as_ptr(), callback, arguments, context, false);
            Ok(Self(NonNull::new_unchecked(call)))
        }
    }

    /// A handle for `call_later` and `call_at`, due at `when` (seconds of `loop.time()`).
    ///
    /// # Errors
    /// MemoryError.
    #[inline(always)]
    pub(super) fn timer(
        py: Python<'_>,
        owner: Borrowed<'_, '_, PyAny>,
        when: f64,
        callback: *mut ffi::PyObject,
        arguments: &[*mut ffi::PyObject],
        context: Captured,
    ) -> PyResult<Self> {
        let class = TIMER_TYPE.load(Ordering::Relaxed);
        let (prefix, part) = (
            TIMER_PREFIX.load(Ordering::Relaxed),
            TIMER_PART.load(Ordering::Relaxed),
        );
        // SAFETY: the block has room for prefix, base, part and arguments (it was freed with as
        // many); with the prefix and the base's slots null it is a new, untracked object without
        // weak references, and every field is written before anybody sees it.
        unsafe {
            let block = match TIMER_FREE.pop(arguments.len()) {
                Some(block) => block.as_ptr(),
                None => ffi::PyObject_Malloc(
                    prefix + part + size_of::<TimerPart>() + size_of_val(arguments),
                ),
            };
            if block.is_null() {
                return Err(no_memory(py));
            }
            ptr::write_bytes(block.cast::<u8>(), 0, prefix + part);
            let object = ffi::PyObject_Init(block.byte_add(prefix).cast(), class);
            let part = object.byte_add(part).cast::<TimerPart>();
            (&raw mut (*part).when).write(when);
            let call = &raw mut (*part).call;
            Call::fill(call, owner.as_ptr(), callback, arguments, context, true);
            Ok(Self(NonNull::new_unchecked(call)))
        }
    }

    #[inline(always)]
    fn object_ptr(&self) -> *mut ffi::PyObject {
        let offset = if self.is_timer() {
            timer_call_offset()
        } else {
            HANDLE_CALL
        };
        // SAFETY: the call lies at that offset of its object.
        unsafe { self.0.as_ptr().byte_sub(offset).cast() }
    }

    /// The handle as a Python object, with a reference of its own.
    #[inline(always)]
    pub(crate) fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        // SAFETY: `self` owns a reference to a live object.
        unsafe { Bound::from_borrowed_ptr(py, self.object_ptr()) }
    }

    /// True if nobody but the holder of this reference has the handle.
    fn is_sole(&self) -> bool {
        // SAFETY: `self` owns a reference to a live object.
        unsafe { ffi::Py_REFCNT(self.object_ptr()) == 1 }
    }

    /// Lets the collector know a handle that somebody else has too. For a loop that does not run:
    /// while it does, its handles are reachable and soon run.
    #[inline]
    pub(crate) fn track_if_shared(&self) {
        if !self.is_sole() {
            self.track();
        }
    }

    /// For a handle that is about to be given to a caller outside of a run.
    #[cold]
    pub(crate) fn track(&self) {
        if !self.is_tracked() {
            self.set_tracked();
            // SAFETY: the object has a collector's header and is whole.
            unsafe { ffi::PyObject_GC_Track(self.object_ptr().cast()) };
        }
    }

    fn is_tracked(&self) -> bool {
        // SAFETY: `self` owns a reference to a live object.
        self.was_tracked() && unsafe { ffi::PyObject_GC_IsTracked(self.object_ptr()) != 0 }
    }

    /// Shows the collector a queued handle: a tracked one itself, and for one that only the queue
    /// owns, what it holds. An untracked one that somebody else has too is left alone: its contents
    /// then count as reachable, which is never wrong.
    pub(crate) fn traverse_queued(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        if self.is_tracked() {
            // SAFETY: `self` owns the object.
            return unsafe { visit.raw(self.object_ptr()) };
        }
        if self.is_sole() {
            self.traverse(visit)
        } else {
            Ok(())
        }
    }

    /// Releases the reference now, without PyO3's check of the thread.
    #[inline(always)]
    pub(crate) fn release_ref(self, _py: Python<'_>) {
        let object = self.object_ptr();
        std::mem::forget(self);
        // SAFETY: `self` owned this reference, and the thread is attached.
        unsafe { ffi::Py_DECREF(object) };
    }

    /// Another reference to the same handle.
    pub(crate) fn clone_ref(&self, _py: Python<'_>) -> Self {
        // SAFETY: the object is alive and the thread attached.
        unsafe { ffi::Py_INCREF(self.object_ptr()) };
        Self(self.0)
    }
}

impl Deref for HandleRef {
    type Target = Call;

    #[inline(always)]
    fn deref(&self) -> &Call {
        // SAFETY: `self` owns a reference to the object that the call is part of.
        unsafe { self.0.as_ref() }
    }
}

impl Drop for HandleRef {
    fn drop(&mut self) {
        // SAFETY: `self` owned this reference, and an object's address is not null. What tells
        // where the object begins never changes: a thread that is not attached may read it too.
        unsafe { release_anywhere(NonNull::new_unchecked(self.object_ptr())) };
    }
}

/// # Safety
/// `call` is the call of a timer handle.
#[inline(always)]
unsafe fn timer_part(call: *const Call) -> *const TimerPart {
    // SAFETY: as the caller promises, `call` is a field of a `TimerPart`.
    unsafe { call.byte_sub(offset_of!(TimerPart, call)).cast() }
}

#[cold]
fn no_memory(py: Python<'_>) -> PyErr {
    // SAFETY: attached; sets MemoryError and returns null.
    unsafe { ffi::PyErr_NoMemory() };
    PyErr::fetch(py)
}

/// Receiver access for the methods of `Handle`.
pub(crate) struct OfHandle;

impl Access for OfHandle {
    type Target = Call;

    unsafe fn target<'a>(object: *mut ffi::PyObject) -> &'a Call {
        // SAFETY: the caller passes a live handle.
        unsafe { &(*object.cast::<HandleObject>()).call }
    }
}

/// Receiver access for the methods of `TimerHandle`.
pub(crate) struct OfTimer;

impl Access for OfTimer {
    type Target = Call;

    unsafe fn target<'a>(object: *mut ffi::PyObject) -> &'a Call {
        // SAFETY: the caller passes a live timer handle, whose call lies at that offset.
        unsafe { &*object.byte_add(timer_call_offset()).cast::<Call>() }
    }
}

impl This<'_, '_, Call> {
    /// The deadline; `self` is a timer handle.
    pub(crate) fn timer_when(&self) -> f64 {
        // SAFETY: only methods of the timer type call this, so the call is a `TimerPart`'s field.
        unsafe { (*timer_part(self.payload())).when }
    }
}

/// Makes the `Handle` type.
pub(crate) fn create_handle_type<'py>(
    py: Python<'py>,
    name: &'static CStr,
    doc: &'static CStr,
    methods: Methods<OfHandle>,
) -> PyResult<Bound<'py, PyType>> {
    let offsets = [(c"__weaklistoffset__", offset_of!(HandleObject, weakrefs))];
    let mut slots = slots(doc, methods, dealloc_handle);
    slots.push(offsets_slot(&offsets));
    let size = size_of::<HandleObject>();
    // SAFETY: the slots are a handle's, and so is the size.
    let class = unsafe { make_type(py, name, [size, 0], 0, slots, None)? };
    HANDLE_TYPE.store(class.as_type_ptr(), Ordering::Relaxed);
    Ok(class)
}

/// Makes the `TimerHandle` type below `asyncio.TimerHandle`.
pub(crate) fn create_timer_type<'py>(
    py: Python<'py>,
    name: &'static CStr,
    doc: &'static CStr,
    base: &Bound<'py, PyType>,
    methods: Methods<OfTimer>,
) -> PyResult<Bound<'py, PyType>> {
    let base_size: usize = base.getattr("__basicsize__")?.extract()?;
    TIMER_PART.store(
        base_size.next_multiple_of(align_of::<TimerPart>()),
        Ordering::Relaxed,
    );
    let size = TIMER_PART.load(Ordering::Relaxed) + size_of::<TimerPart>();
    let sizes = [size, size_of::<*mut ffi::PyObject>()];
    let slots = slots(doc, methods, dealloc_timer);
    // SAFETY: the slots are a timer handle's, and so are the sizes.
    let class = unsafe { make_type(py, name, sizes, 0, slots, Some(base))? };
    // SAFETY: the type was just made; the fields of a type object are plain data.
    let (flags, weakrefs) = unsafe {
        let class = &*class.as_type_ptr();
        (class.tp_flags, class.tp_weaklistoffset)
    };
    let managed = if flags & MANAGED_PREFIX == 0 {
        0
    } else {
        size_of::<[usize; 2]>()
    };
    TIMER_PREFIX.store(size_of::<CollectorHeader>() + managed, Ordering::Relaxed);
    TIMER_WEAKREFS.store(weakrefs, Ordering::Relaxed);
    TIMER_TYPE.store(class.as_type_ptr(), Ordering::Relaxed);
    Ok(class)
}

fn slots<A: Access<Target = Call>>(
    doc: &'static CStr,
    methods: Methods<A>,
    dealloc: unsafe extern "C" fn(*mut ffi::PyObject),
) -> Vec<ffi::PyType_Slot> {
    let [methods, attributes] = methods.into_slots();
    vec![
        slot(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast()),
        slot(ffi::Py_tp_dealloc, dealloc as *mut c_void),
        slot(ffi::Py_tp_traverse, traverse::<A> as *mut c_void),
        slot(ffi::Py_tp_clear, clear::<A> as *mut c_void),
        methods,
        attributes,
    ]
}

unsafe extern "C" fn dealloc_handle(object: *mut ffi::PyObject) {
    // SAFETY: CPython calls attached, with a dead handle, once.
    unsafe {
        let weakrefs = (*object.cast::<HandleObject>()).weakrefs;
        let prefix = size_of::<CollectorHeader>();
        dealloc::<OfHandle>(object, weakrefs, prefix, &HANDLE_FREE, free_handle);
    }
}

unsafe extern "C" fn dealloc_timer(object: *mut ffi::PyObject) {
    // SAFETY: as above; the type says where the weak references are.
    unsafe {
        let weakrefs = object.byte_offset(TIMER_WEAKREFS.load(Ordering::Relaxed));
        let weakrefs = weakrefs.cast::<*mut ffi::PyObject>().read();
        let prefix = TIMER_PREFIX.load(Ordering::Relaxed);
        dealloc::<OfTimer>(object, weakrefs, prefix, &TIMER_FREE, free_timer);
    }
}

/// # Safety
/// As `free`.
unsafe fn free_handle(object: *mut ffi::PyObject) {
    // SAFETY: as the caller promises; the header lies in front of a handle.
    unsafe { free::<OfHandle>(object, size_of::<CollectorHeader>(), &HANDLE_FREE) };
}

/// # Safety
/// As `free`.
unsafe fn free_timer(object: *mut ffi::PyObject) {
    // SAFETY: as the caller promises.
    unsafe { free::<OfTimer>(object, TIMER_PREFIX.load(Ordering::Relaxed), &TIMER_FREE) };
}

/// # Safety
/// `object` is a dead handle of A's type; `prefix` and `list` are those of `free`, and `free_later`
/// frees such handles.
#[inline(always)]
unsafe fn dealloc<A: Access<Target = Call>>(
    object: *mut ffi::PyObject,
    weakrefs: *mut ffi::PyObject,
    prefix: usize,
    list: &FreeList,
    free_later: Free,
) {
    // SAFETY: as the caller promises. From here on nobody can reach the object.
    unsafe {
        if A::target(object).was_tracked() {
            ffi::PyObject_GC_UnTrack(object.cast());
        }
        if !weakrefs.is_null() {
            ffi::PyObject_ClearWeakRefs(object);
        }
        if A::target(object).is_released() {
            free::<A>(object, prefix, list);
        } else {
            free_or_defer(object, free_later);
        }
    }
}

/// # Safety
/// Attached; `object` is a dead handle of A's type, which nobody can reach; its block begins
/// `prefix` bytes before it and came from `list` or `PyObject_Malloc`.
#[inline(always)]
unsafe fn free<A: Access<Target = Call>>(
    object: *mut ffi::PyObject,
    prefix: usize,
    list: &FreeList,
) {
    // SAFETY: as the caller promises; the instance's reference to its type is released last.
    unsafe {
        let class = ffi::Py_TYPE(object);
        let call = A::target(object);
        let count = call.count();
        call.finish(Python::assume_attached());
        let block = object.byte_sub(prefix).cast::<c_void>();
        if !list.push(block, count) {
            ffi::PyObject_Free(block);
        }
        ffi::Py_DECREF(class.cast());
    }
}

unsafe extern "C" fn traverse<A: Access<Target = Call>>(
    object: *mut ffi::PyObject,
    procedure: ffi::visitproc,
    argument: *mut c_void,
) -> c_int {
    // SAFETY: the collector calls with a live handle.
    unsafe {
        show_instance(object, procedure, argument, |visit| {
            A::target(object).traverse(visit)
        })
    }
}

unsafe extern "C" fn clear<A: Access<Target = Call>>(object: *mut ffi::PyObject) -> c_int {
    guarded(|py| {
        // SAFETY: the collector calls with a live handle.
        unsafe { A::target(object) }.release(py);
        Ok(())
    });
    0
}
