//! Buffers that Python objects lend: a protocol's `get_buffer()`, a program's bytearray.
//!
//! Invariants:
//! - the memory is lent until the value is dropped: the exporter cannot resize or free it.
//! - a writable buffer is contiguous.
//! - of new memory, as much is kept as whoever fills it returns as bytes: who has a `&mut [u8]` of
//!   it has initialised it.

use pyo3::exceptions::{PyBufferError, PyException, PyTypeError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes};
use std::ffi::c_int;
use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::slice;

/// What an object lends until this is dropped.
struct Lent<'py> {
    view: Box<ffi::Py_buffer>,
    attached: PhantomData<Python<'py>>,
}

impl<'py> Lent<'py> {
    fn of(object: &Bound<'py, PyAny>, flags: c_int) -> PyResult<Self> {
        let mut view = Box::<ffi::Py_buffer>::new(ffi::Py_buffer::new());
        // SAFETY: `object` is alive and `view` is writable; on success it must be released once,
        // which `Drop` does.
        if unsafe { ffi::PyObject_GetBuffer(object.as_ptr(), &raw mut *view, flags) } < 0 {
            return Err(PyErr::fetch(object.py()));
        }
        Ok(Self {
            view,
            attached: PhantomData,
        })
    }

    const fn len(&self) -> usize {
        self.view.len as usize
    }
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // SAFETY: the view came from PyObject_GetBuffer and is released once; attached, as the
        // token that the value holds proves.
        unsafe { ffi::PyBuffer_Release(&raw mut *self.view) };
    }
}

/// Memory of a Python object, lent for writing.
pub(crate) struct WritableBuffer<'py>(Lent<'py>);

impl<'py> WritableBuffer<'py> {
    /// `argument` is what the object is to Python's own function: "recv_into() argument 1".
    ///
    /// # Errors
    /// That function's TypeError, whatever the exporter says; KeyboardInterrupt and its like.
    pub(crate) fn of(object: &Bound<'py, PyAny>, argument: &str) -> PyResult<Self> {
        let lent = Lent::of(object, ffi::PyBUF_WRITABLE).map_err(|error| {
            if error.is_instance_of::<PyException>(object.py()) {
                not_writable(object, argument)
            } else {
                error
            }
        });
        lent.map(Self)
    }

    pub(crate) const fn len(&self) -> usize {
        self.0.len()
    }

    /// Lends the memory to `fill`, which must not run Python code.
    pub(crate) fn with_memory<R>(&mut self, fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> R) -> R {
        if self.len() == 0 {
            return fill(&mut []);
        }
        // SAFETY: the exporter lent `len` contiguous writable bytes until the view is released, and
        // nothing else touches them while this thread stays attached and runs no Python code.
        fill(unsafe { slice::from_raw_parts_mut(self.0.view.buf.cast(), self.len()) })
    }
}

#[cold]
fn not_writable(object: &Bound<'_, PyAny>, argument: &str) -> PyErr {
    let kind = object.get_type();
    kind.name().map_or_else(
        |error| error,
        |kind| {
            PyTypeError::new_err(format!(
                "{argument} must be read-write bytes-like object, not {kind}"
            ))
        },
    )
}

/// Memory of a Python object, lent for reading.
pub(crate) struct ReadableBuffer<'py>(Lent<'py>);

impl<'py> ReadableBuffer<'py> {
    /// # Errors
    /// The exporter's own: TypeError without a buffer, BufferError for one that is not contiguous.
    pub(crate) fn of(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        Lent::of(object, ffi::PyBUF_SIMPLE).map(Self)
    }

    /// The memory, for use without running Python code in between.
    pub(crate) const fn as_slice(&self) -> &[u8] {
        let view = &self.0.view;
        if view.buf.is_null() || view.len == 0 {
            return &[];
        }
        // SAFETY: the exporter lent `len` contiguous bytes until the view is released, and nobody
        // writes to them while this thread stays attached and runs no Python code.
        unsafe { slice::from_raw_parts(view.buf.cast(), self.0.len()) }
    }
}

/// The bytes of any object with a contiguous or strided buffer, copied.
///
/// # Errors
/// TypeError if there is no buffer.
pub(crate) fn copy_to_bytes<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    // SAFETY: `object` is alive; a new reference or an error.
    unsafe {
        let view = Bound::from_owned_ptr_or_err(
            object.py(),
            ffi::PyMemoryView_FromObject(object.as_ptr()),
        )?;
        let bytes = ffi::PyBytes_FromObject(view.as_ptr());
        Ok(Bound::from_owned_ptr_or_err(object.py(), bytes)?.cast_into_unchecked())
    }
}

/// Appends to a bytearray, as `bytearray.extend` does.
///
/// # Errors
/// BufferError while the bytearray lends its memory, MemoryError.
pub(crate) fn append_to_bytearray(
    bytearray: &Bound<'_, PyByteArray>,
    data: &[u8],
) -> PyResult<usize> {
    bytearray_extended_by(bytearray, data.len(), |memory| {
        // SAFETY: `memory` has room for all of `data`; it is new, so `data` is no part of it. What
        // is copied to is initialised.
        unsafe {
            let start = memory.as_mut_ptr().cast::<u8>();
            start.copy_from_nonoverlapping(data.as_ptr(), data.len());
            slice::from_raw_parts_mut(start, data.len())
        }
    })
}

/// Makes room for `more` bytes at the end of a bytearray, has `fill` write the first of them, and
/// cuts it to those, which `fill` returns. The new size.
///
/// # Errors
/// BufferError while the bytearray lends its memory, MemoryError.
pub(crate) fn bytearray_extended_by(
    bytearray: &Bound<'_, PyByteArray>,
    more: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> &mut [u8],
) -> PyResult<usize> {
    let py = bytearray.py();
    let resize = |size: usize| {
        let Ok(size) = ffi::Py_ssize_t::try_from(size) else {
            return Err(PyBufferError::new_err("the buffer is too large"));
        };
        // SAFETY: `bytearray` is one; what is new in it is written below before anybody looks.
        if unsafe { ffi::PyByteArray_Resize(bytearray.as_ptr(), size) } < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(())
    };
    let before = bytearray.len();
    resize(before + more)?;
    // SAFETY: the bytearray has `more` bytes behind the first `before`, and nothing else touches
    // them while this thread stays attached and `fill` leaves the object alone.
    let filled = unsafe {
        let start = ffi::PyByteArray_AsString(bytearray.as_ptr()).cast::<MaybeUninit<u8>>();
        let start = start.add(before);
        prefix(start, more, fill(slice::from_raw_parts_mut(start, more)))
    };
    let size = before + filled;
    if filled < more {
        resize(size)?;
    }
    Ok(size)
}

/// How much of the `size` bytes at `start` is initialised: `filled`, if it is the start of them. A
/// slice of other memory proves nothing.
fn prefix(start: *const MaybeUninit<u8>, size: usize, filled: &[u8]) -> usize {
    if filled.as_ptr() == start.cast() {
        filled.len().min(size)
    } else {
        0
    }
}

/// A new `bytes` of at most `capacity`, filled in place and cut to what `fill` returns.
///
/// # Errors
/// MemoryError.
pub(crate) fn bytes_filled_by<'py, E>(
    py: Python<'py>,
    capacity: usize,
    fill: impl FnOnce(&mut [MaybeUninit<u8>]) -> Result<&mut [u8], E>,
) -> PyResult<Result<Bound<'py, PyBytes>, E>> {
    // SAFETY: a fresh bytes object of `capacity` uninitialised bytes, seen by nobody else; `fill`
    // initialises a prefix and returns it, and the object is cut to that prefix.
    unsafe {
        let fresh = ffi::PyBytes_FromStringAndSize(std::ptr::null(), capacity as ffi::Py_ssize_t);
        let fresh = Bound::from_owned_ptr_or_err(py, fresh)?;
        let memory: *mut MaybeUninit<u8> = ffi::PyBytes_AsString(fresh.as_ptr()).cast();
        let filled = match fill(slice::from_raw_parts_mut(memory, capacity)) {
            Ok(filled) => prefix(memory, capacity, filled),
            Err(error) => return Ok(Err(error)),
        };
        let mut object = fresh.into_ptr();
        if filled < capacity && resize_bytes(&raw mut object, filled as ffi::Py_ssize_t) < 0 {
            return Err(PyErr::fetch(py));
        }
        Ok(Ok(Bound::from_owned_ptr(py, object).cast_into_unchecked()))
    }
}

unsafe extern "C" {
    /// Cuts a bytes object that nobody else has; on failure the object is gone and `*bytes` null.
    #[link_name = "_PyBytes_Resize"]
    fn resize_bytes(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> c_int;
}
