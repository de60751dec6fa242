//! Calls into Python code from which a thread may never return.
//!
//! While the interpreter shuts down, any thread but the main one is ended when it asks for the GIL:
//! a daemon thread with a loop, or a thread of the resolver. From 3.14 on CPython makes it wait for
//! ever. Before, CPython calls `pthread_exit`, which unwinds the stack, and Rust's frames on it
//! abort the process. So on those versions Python code is called from here: the unwinding reaches a
//! destructor that waits for ever before it reaches any other frame of ours.
//!
//! Invariants:
//! - the calls below are the innermost Rust frame, so nothing else has been dropped when the
//!   destructor runs.
//! - a Rust panic never gets here: the methods' entry points catch it inside CPython's frames.
//! - the calls go through pointers that the compiler cannot resolve. PyO3 declares the same
//!   functions as never unwinding; link-time optimisation would merge the declarations and drop the
//!   destructor.
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

    /// Dropped only by the unwinding of a thread that CPython ends; it holds no GIL then.
    struct WaitsForTheEnd;

    impl Drop for WaitsForTheEnd {
        fn drop(&mut self) {
            loop {
                thread::park();
            }
        }
    }

    macro_rules! guarded {
        ($(
            $name:ident = $function:ident($($argument:ident: $type:ty),* $(,)?) -> $result:ty;
        )*) => {
            /// PyO3 declares that these do not unwind; a thread that ends does.
            mod unwinding {
                use super::{PyObject, PySendResult};

                unsafe extern "C-unwind" {
                    $(pub(super) fn $function($($argument: $type),*) -> $result;)*
                }
            }

            $(
                /// # Safety
                #[doc = concat!("As `", stringify!($function), "`.")]
                #[inline(always)]
                pub(in crate::py) unsafe fn $name($($argument: $type),*) -> $result {
                    let call: unsafe extern "C-unwind" fn($($type),*) -> $result =
                        black_box(unwinding::$function);
                    let end = WaitsForTheEnd;
                    // SAFETY: as the caller promises.
                    let result = unsafe { call($($argument),*) };
                    mem::forget(end);
                    result
                }
            )*
        };
    }

    guarded! {
        iter_send = PyIter_Send(
            iterator: *mut PyObject,
            value: *mut PyObject,
            sent: *mut *mut PyObject,
        ) -> PySendResult;
        object_call = PyObject_Call(
            callable: *mut PyObject,
            arguments: *mut PyObject,
            keywords: *mut PyObject,
        ) -> *mut PyObject;
        vectorcall = PyObject_Vectorcall(
            callable: *mut PyObject,
            arguments: *const *mut PyObject,
            flagged_count: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
        vectorcall_method = PyObject_VectorcallMethod(
            name: *mut PyObject,
            arguments: *const *mut PyObject,
            flagged_count: usize,
            names: *mut PyObject,
        ) -> *mut PyObject;
    }
}
