//! Makes heap types: their slots, and the type.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyTuple, PyType};
use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::ptr;

pub(super) const fn slot(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

/// The members by which CPython learns where an instance has what it looks for there, such as
/// `__weaklistoffset__`. They are leaked, as types are.
pub(super) fn offsets_slot(offsets: &[(&'static CStr, usize)]) -> ffi::PyType_Slot {
    let member = |(name, offset): &(&'static CStr, usize)| ffi::PyMemberDef {
        name: name.as_ptr(),
        type_code: ffi::Py_T_PYSSIZET,
        offset: *offset as isize,
        flags: ffi::Py_READONLY,
        doc: ptr::null(),
    };
    let mut members: Vec<_> = offsets.iter().map(member).collect();
    members.push(ffi::PyMemberDef::default());
    slot(ffi::Py_tp_members, members.leak().as_mut_ptr().cast())
}

/// Makes a type that the collector knows and that Python code cannot call. `sizes` are those of an
/// instance and of an item of it, `flags` are added to those that all our types have.
///
/// # Errors
/// MemoryError, and what CPython says of the base.
///
/// # Safety
/// The slots are right for instances of that size, and what they point to is leaked.
pub(super) unsafe fn make_type<'py>(
    py: Python<'py>,
    name: &'static CStr,
    sizes: [usize; 2],
    flags: c_ulong,
    mut slots: Vec<ffi::PyType_Slot>,
    base: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyType>> {
    slots.push(slot(0, ptr::null_mut()));
    let [basicsize, itemsize] = sizes.map(|size| size as c_int);
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize,
        itemsize,
        flags: (ffi::Py_TPFLAGS_DEFAULT
            | ffi::Py_TPFLAGS_HAVE_GC
            | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION
            | flags) as _,
        slots: slots.leak().as_mut_ptr(),
    };
    let bases = base.map(|base| PyTuple::new(py, [base])).transpose()?;
    let bases = bases.as_ref().map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: the slots end with a zero slot and are leaked, so they outlive the type; they are
    // right, as the caller promises.
    unsafe {
        let class = ffi::PyType_FromSpecWithBases(&raw mut spec, bases);
        Ok(Bound::from_owned_ptr_or_err(py, class)?.cast_into_unchecked())
    }
}
