//! Calls into Python code that a thread may never come back from.
//!
//! While the interpreter shuts down, a thread that is not the main one and asks for the GIL is
//! ended: a daemon thread with a loop, or a thread of the resolver. From 3.14 on CPython lets it
//! wait for ever. Before, it calls `pthread_exit`, which unwinds the stack, and Rust's frames on
//! it abort the process. So Python code is called from here on those versions: the unwinding meets
//! a destructor that waits for ever, before it meets anything else of ours.
//!
//! Invariants:
//! - the calls below are the innermost Rust frame, so nothing else has been dropped by then.
//! - a Rust panic never gets here: the entry points of methods catch it inside of CPython's frames.
//!
//! - the calls go through pointers that the compiler cannot see through. PyO3 declares the same
//!   functions as ones that never unwind; link-time optimisation merges the declarations, and
//!   would drop the destructor.
//!
//! Cost: an indirect call, before 3.14.

#[cfg(not(Py_3_14))]
pub(super) use guarded::{iter_send, object_call, vectorcall, vectorcall_method};
#[cfg(Py_3_14)]
pub(super) use pyo3::ffi::{
    PyIter_Send as iter_send, PyObject_Call as object_call, PyObject_Vectorcall as vectorcall,
    PyObject_VectorcallMethod as vectorcall_method,
};

#[cfg(not(Py_3_14))]
mod guarded {
    use pyo3::ffi::{PyObject, PySendResult};
    use std::hint::black_box;
    use std::mem;
    use std::thread;

    /// PyO3 declares that these do not unwind; a thread that ends does.
    mod unwinding {
        use super::{PyObject, PySendResult};

        unsafe extern "C-unwind" {
            pub(super) fn PyIter_Send(
                iterator: *mut PyObject,
                value: *mut PyObject,
                result: *mut *mut PyObject,
            ) -> PySendResult;
            pub(super) fn PyObject_Call(
                callable: *mut PyObject,
                arguments: *mut PyObject,
                keywords: *mut PyObject,
            ) -> *mut PyObject;
            pub(super) fn PyObject_Vectorcall(
                callable: *mut PyObject,
                arguments: *const *mut PyObject,
                flagged_count: usize,
                names: *mut PyObject,
            ) -> *mut PyObject;
            pub(super) fn PyObject_VectorcallMethod(
                name: *mut PyObject,
                arguments: *const *mut PyObject,
                flagged_count: usize,
                names: *mut PyObject,
            ) -> *mut PyObject;
        }
    }

    type IterSend = unsafe extern "C-unwind" fn(
        *mut PyObject,
        *mut PyObject,
        *mut *mut PyObject,
    ) -> PySendResult;
    type ObjectCall =
        unsafe extern "C-unwind" fn(*mut PyObject, *mut PyObject, *mut PyObject) -> *mut PyObject;
    type Vectorcall = unsafe extern "C-unwind" fn(
        *mut PyObject,
        *const *mut PyObject,
        usize,
        *mut PyObject,
    ) -> *mut PyObject;

    /// Dropped only by the unwinding of a thread that CPython ends; it holds no GIL then.
    struct WaitsForTheEnd;

    impl Drop for WaitsForTheEnd {
        fn drop(&mut self) {
            loop {
                thread::park();
            }
        }
    }

    /// # Safety
    /// As `PyIter_Send`.
    #[inline(always)]
    pub(in crate::py) unsafe fn iter_send(
        iterator: *mut PyObject,
        value: *mut PyObject,
        result: *mut *mut PyObject,
    ) -> PySendResult {
        let call: IterSend = black_box(unwinding::PyIter_Send);
        let end = WaitsForTheEnd;
        // SAFETY: as the caller promises.
        let sent = unsafe { call(iterator, value, result) };
        mem::forget(end);
        sent
    }

    /// # Safety
    /// As `PyObject_Call`.
    #[inline(always)]
    pub(in crate::py) unsafe fn object_call(
        callable: *mut PyObject,
        arguments: *mut PyObject,
        keywords: *mut PyObject,
    ) -> *mut PyObject {
        let call: ObjectCall = black_box(unwinding::PyObject_Call);
        let end = WaitsForTheEnd;
        // SAFETY: as the caller promises.
        let result = unsafe { call(callable, arguments, keywords) };
        mem::forget(end);
        result
    }

    /// # Safety
    /// As `PyObject_Vectorcall`.
    #[inline(always)]
    pub(in crate::py) unsafe fn vectorcall(
        callable: *mut PyObject,
        arguments: *const *mut PyObject,
        flagged_count: usize,
        names: *mut PyObject,
    ) -> *mut PyObject {
        let call: Vectorcall = black_box(unwinding::PyObject_Vectorcall);
        let end = WaitsForTheEnd;
        // SAFETY: as the caller promises.
        let result = unsafe { call(callable, arguments, flagged_count, names) };
        mem::forget(end);
        result
    }

    /// # Safety
    /// As `PyObject_VectorcallMethod`.
    #[inline(always)]
    pub(in crate::py) unsafe fn vectorcall_method(
        name: *mut PyObject,
        arguments: *const *mut PyObject,
        flagged_count: usize,
        names: *mut PyObject,
    ) -> *mut PyObject {
        let call: Vectorcall = black_box(unwinding::PyObject_VectorcallMethod);
        let end = WaitsForTheEnd;
        // SAFETY: as the caller promises.
        let result = unsafe { call(name, arguments, flagged_count, names) };
        mem::forget(end);
        result
    }
}
