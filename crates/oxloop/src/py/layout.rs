//! `Layout`: whether CPython's own objects have their fields where this crate reads them.
//!
//! `_socket.socket` and `_io.FileIO` have no C API for their descriptor, so their memory is read
//! (`socket`, `file`). The layout is verified on real objects when the extension is imported. So is
//! that of asyncio's classes, to whose instances `class` appends a payload.
//!
//! Cost: a load and a comparison for each use.

use pyo3::exceptions::PyException;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyType;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is known of one class.
pub(super) struct Layout {
    known: AtomicBool,
}

impl Layout {
    /// Nothing, until somebody looks.
    pub(super) const fn unknown() -> Self {
        Self {
            known: AtomicBool::new(false),
        }
    }

    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Remembers what the comparison with real objects said.
    ///
    /// # Errors
    /// What the comparison raised, if it is no `Exception`.
    pub(super) fn look(&self, py: Python<'_>, compared: PyResult<bool>) -> PyResult<()> {
        let known = match compared {
            Ok(known) => known,
            // No descriptors left, or an audit hook that refuses such objects.
            Err(error) if error.is_instance_of::<PyException>(py) => false,
            Err(error) => return Err(error),
        };
        self.known.store(known, Ordering::Relaxed);
        Ok(())
    }
}

/// True if the instances of `class` are at least as large as `Fields`.
///
/// # Errors
/// TypeError for what is no class.
pub(super) fn has_room<Fields>(class: &Bound<'_, PyAny>) -> PyResult<bool> {
    // SAFETY: the type is alive, and its size is a plain integer.
    let size = unsafe { (*class.cast::<PyType>()?.as_type_ptr()).tp_basicsize };
    Ok(usize::try_from(size).is_ok_and(|size| size >= size_of::<Fields>()))
}

/// True if each word of an instance of `class`, behind its head, is an object pointer or null that
/// `__slots__` made, as a Python class has it.
///
/// # Errors
/// MemoryError.
pub(super) fn has_only_slots(class: &Bound<'_, PyType>) -> PyResult<bool> {
    let (head, word) = (size_of::<ffi::PyObject>(), size_of::<*mut ffi::PyObject>());
    let size: usize = class.getattr("__basicsize__")?.extract()?;
    let mut slots = Vec::new();
    for class in class.mro() {
        let class = class.cast_into::<PyType>()?;
        // SAFETY: the type is alive; its members are null or a table that ends with a null name.
        unsafe {
            let mut member = (*class.as_type_ptr()).tp_members;
            while !member.is_null() && !(*member).name.is_null() {
                if (*member).type_code == ffi::Py_T_OBJECT_EX {
                    slots.push((*member).offset);
                }
                member = member.add(1);
            }
        }
    }
    Ok((head..size)
        .step_by(word)
        .all(|offset| slots.contains(&(offset as ffi::Py_ssize_t))))
}
