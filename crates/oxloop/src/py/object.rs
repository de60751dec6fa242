//! Small functions that PyO3's safe API lacks: generic attribute setting, type versions, calls
//! without a tuple, audit events, warnings with keywords.

use super::{imports, interpreter_exit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyString, PyTuple, PyType};
use pyo3::{Borrowed, PyTypeInfo, ffi, intern};
use std::cell::Cell;
use std::ffi::{CStr, c_char, c_int};
use std::mem;
use std::ptr::{self, NonNull};

/// `warnings.warn(text, category, **keywords)`.
pub(crate) fn warn<Category: PyTypeInfo>(text: &str, keywords: &Bound<'_, PyDict>) -> PyResult<()> {
    let py = keywords.py();
    imports::warnings(py)?
        .call_method("warn", (text, py.get_type::<Category>()), Some(keywords))
        .map(drop)
}

/// How many references there are to an object.
#[inline]
pub(crate) fn reference_count<T>(object: &Py<T>, _py: Python<'_>) -> isize {
    // SAFETY: the object is alive, and the token says that nobody changes the count meanwhile.
    unsafe { ffi::Py_REFCNT(object.as_ptr()) }
}

/// `object.__setattr__` (or `__delattr__` without a value), past any override.
pub(crate) fn generic_set(
    object: &Bound<'_, PyAny>,
    name: &Bound<'_, PyAny>,
    value: Option<&Bound<'_, PyAny>>,
) -> PyResult<()> {
    let value = value.map_or(ptr::null_mut(), Bound::as_ptr);
    // SAFETY: all are live objects; a null value deletes.
    if unsafe { ffi::PyObject_GenericSetAttr(object.as_ptr(), name.as_ptr(), value) } < 0 {
        return Err(PyErr::fetch(object.py()));
    }
    Ok(())
}

unsafe extern "C" {
    // PyO3 does not declare it.
    fn PySys_Audit(event: *const c_char, format: *const c_char, ...) -> c_int;
}

/// `sys.audit` with five arguments. Costs almost nothing without an audit hook.
pub(crate) fn audit(event: &CStr, arguments: [Borrowed<'_, '_, PyAny>; 5]) -> PyResult<()> {
    let py = arguments[0].py();
    let [first, second, third, fourth, fifth] = arguments.map(|argument| argument.as_ptr());
    // SAFETY: the format has a letter for each of the arguments, which are live objects.
    let told = unsafe {
        PySys_Audit(
            event.as_ptr(),
            c"OOOOO".as_ptr(),
            first,
            second,
            third,
            fourth,
            fifth,
        )
    };
    if told < 0 {
        return Err(PyErr::fetch(py));
    }
    Ok(())
}

/// True if there may be an audit hook. Costs almost nothing if there is none.
pub(crate) fn has_audit_hooks(_py: Python<'_>) -> bool {
    let nothing: *mut ffi::PyObject = ptr::null_mut();
    // SAFETY: the arguments of an event are built only if somebody listens. A null object is one
    // that could not be made, which `Py_BuildValue` allows and answers with SystemError, so that
    // no hook hears of this. The error is the only one, as nothing is raised around this call.
    unsafe {
        let unheard = PySys_Audit(c"oxloop.listening".as_ptr(), c"O".as_ptr(), nothing) == 0;
        if !unheard {
            ffi::PyErr_Clear();
        }
        !unheard
    }
}

/// Checks cheaply whether an attribute of a type was replaced: compares the type's version, which
/// CPython changes whenever the type or a base changes.
#[derive(Debug)]
pub(crate) struct TypeWatch {
    class: Py<PyType>,
    /// A base whose attribute is checked too: the class may override it.
    base: Option<Py<PyType>>,
    name: &'static str,
    /// None if it was replaced before the watch was made.
    original: Option<Py<PyAny>>,
    seen: Cell<u32>,
}

impl TypeWatch {
    /// Watches method `name` of `class`. It counts as the original if it is defined in the module
    /// of the class, in the class itself or in a base.
    ///
    /// # Errors
    /// What looking at the class raises.
    pub(crate) fn new(class: &Bound<'_, PyType>, name: &'static str) -> PyResult<Self> {
        let py = class.py();
        let modules = imports::sys(py)?.getattr(intern!(py, "modules"))?;
        let module = class.getattr(intern!(py, "__module__"))?;
        let module = modules.call_method1(intern!(py, "get"), (module,))?;
        let method = class.getattr(name)?;
        let module = module.cast::<PyModule>();
        let is_own = module.is_ok_and(|module| is_defined_in(&method, module));
        let original = is_own.then(|| method.unbind());
        Ok(Self {
            class: class.clone().unbind(),
            base: None,
            name,
            original,
            seen: Cell::new(0),
        })
    }

    /// Watches the attribute of a base as well.
    pub(crate) fn with_base(mut self, base: &Bound<'_, PyType>) -> Self {
        self.base = Some(base.clone().unbind());
        self
    }

    /// True while the attribute is the original. One load and one comparison if nothing changed.
    #[inline(always)]
    pub(crate) fn is_original(&self, py: Python<'_>) -> bool {
        // SAFETY: the type is alive, and its version tag is a plain integer.
        let version = unsafe { (*self.class.as_ptr().cast::<ffi::PyTypeObject>()).tp_version_tag };
        (version != 0 && version == self.seen.get()) || self.look(py)
    }

    #[cold]
    fn look(&self, py: Python<'_>) -> bool {
        let is_original = |class: &Py<PyType>| {
            let current = class.bind(py).getattr(self.name);
            current.is_ok_and(|current| self.original.as_ref().is_some_and(|it| current.is(it)))
        };
        let same = is_original(&self.class) && self.base.as_ref().is_none_or(is_original);
        if same {
            // SAFETY: as above; the look-up gave the type a version if it had none.
            let version =
                unsafe { (*self.class.as_ptr().cast::<ffi::PyTypeObject>()).tp_version_tag };
            self.seen.set(version);
        }
        same
    }
}

/// True for a plain function that `module` defines. The function's globals decide: a replacement
/// may copy `__name__` and `__module__`, as wrappers do.
pub(crate) fn is_defined_in(object: &Bound<'_, PyAny>, module: &Bound<'_, PyModule>) -> bool {
    let Ok(function) = object.cast_exact::<PyFunction>() else {
        return false;
    };
    // SAFETY: a live function always has its globals; the reference is borrowed and compared.
    let globals = unsafe { ffi::PyFunction_GetGlobals(function.as_ptr()) };
    globals == module.dict().as_ptr()
}

/// `callable(argument, name=value)` without a dict.
pub(crate) fn call_with_keyword<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let names = PyTuple::new(callable.py(), [name])?;
    vectorcall(
        callable,
        [ptr::null_mut(), argument.as_ptr(), value.as_ptr()],
        1,
        Some(&names),
    )
}

/// `callable(argument)`.
#[inline]
pub(crate) fn call_one<'py>(
    callable: &Bound<'py, PyAny>,
    argument: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    vectorcall(callable, [ptr::null_mut(), argument.as_ptr()], 1, None)
}

/// `callable(name=value)` without a dict.
pub(crate) fn call_only_keyword<'py>(
    callable: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    value: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let names = PyTuple::new(callable.py(), [name])?;
    vectorcall(callable, [ptr::null_mut(), value.as_ptr()], 0, Some(&names))
}

/// `callable(*arguments)`, for a thread that may be inside the call when the interpreter exits.
pub(crate) fn call_with_tuple<'py>(
    callable: &Bound<'py, PyAny>,
    arguments: &Bound<'py, PyTuple>,
) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: both objects are alive, and a null means no keywords.
    unsafe {
        let result =
            interpreter_exit::object_call(callable.as_ptr(), arguments.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(callable.py(), result)
    }
}

/// Calls with `positional` arguments and the keywords that `names` lists. The callee may overwrite
/// the first element of `arguments` (PY_VECTORCALL_ARGUMENTS_OFFSET).
fn vectorcall<'py, const N: usize>(
    callable: &Bound<'py, PyAny>,
    mut arguments: [*mut ffi::PyObject; N],
    positional: usize,
    names: Option<&Bound<'py, PyTuple>>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = callable.py();
    // SAFETY: the arguments are live objects behind one spare place, as the offset flag promises,
    // and `names` has one name for each value after the positional arguments.
    unsafe {
        let result = interpreter_exit::vectorcall(
            callable.as_ptr(),
            arguments.as_mut_ptr().add(1),
            positional | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            names.map_or(ptr::null_mut(), Bound::as_ptr),
        );
        Bound::from_owned_ptr_or_err(py, result)
    }
}

/// `object.name(*arguments)` without a bound method or a tuple; `arguments` are at most three.
#[inline]
pub(crate) fn call_method<'py, const N: usize>(
    object: &Bound<'py, PyAny>,
    name: &Bound<'py, PyString>,
    arguments: &[&Bound<'py, PyAny>; N],
) -> PyResult<Bound<'py, PyAny>> {
    const MOST: usize = 3;
    const { assert!(N <= MOST, "the array below has no room for that many") };
    let mut values = [ptr::null_mut(); 2 + MOST];
    values[1] = object.as_ptr();
    for (slot, argument) in values[2..].iter_mut().zip(arguments) {
        *slot = argument.as_ptr();
    }
    // SAFETY: behind one spare place, as the offset flag promises, stand the object and N
    // arguments, for which there is room as was asserted; all of them are alive.
    unsafe {
        let result = interpreter_exit::vectorcall_method(
            name.as_ptr(),
            values.as_mut_ptr().add(1),
            (1 + N) | ffi::PY_VECTORCALL_ARGUMENTS_OFFSET,
            ptr::null_mut(),
        );
        Bound::from_owned_ptr_or_err(object.py(), result)
    }
}

/// Releases an owned reference, now or, if this thread is not attached, when one is next.
///
/// # Safety
/// `object` is a live object, and the caller gives up a reference to it.
#[inline]
pub(super) unsafe fn release_anywhere(object: NonNull<ffi::PyObject>) {
    // SAFETY: `Py` is a transparent non-null pointer that owns a reference, here the caller's, and
    // may be dropped on any thread. PyO3 has no way to make one without a token.
    drop(unsafe { mem::transmute::<NonNull<ffi::PyObject>, Py<PyAny>>(object) });
}
