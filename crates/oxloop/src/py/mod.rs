//! The boundary to CPython: the one place that names `pyo3::ffi`.
//!
//! Everything below offers a safe interface to the rest of the crate: a builder for native types
//! that inherit from asyncio's Python classes, methods without an argument tuple, an argument
//! parser, contexts, handles, coroutines, buffers. Each unsafe block names its obligation and the
//! fact that meets it.
//!
//! Facts that many of those comments refer to:
//! - *attached*: CPython calls slots and methods with the GIL held, so that no two threads are
//!   attached at once. A build without a GIL is refused below.
//! - *owned*: a pointer stored in a field owns one reference until the field is cleared.

#[cfg(Py_GIL_DISABLED)]
compile_error!(
    "oxloop does not support free-threaded builds of CPython yet: its state is guarded by the GIL"
);

pub(crate) mod args;
pub(crate) mod attached;
pub(crate) mod buffer;
pub(crate) mod call;
pub(crate) mod class;
pub(crate) mod context;
pub(crate) mod coroutine;
pub(crate) mod coroutine_method;
pub(crate) mod file;
mod freeing;
pub(crate) mod future;
pub(crate) mod handle;
pub(crate) mod handled;
mod heap_type;
pub(crate) mod imports;
pub(crate) mod interpreter;
mod interpreter_exit;
pub(crate) mod keywords;
mod layout;
pub(crate) mod method;
pub(crate) mod object;
pub(crate) mod schedule;
pub(crate) mod signals;
pub(crate) mod slot;
pub(crate) mod socket;
pub(crate) mod ssl;
