//! Finds which descriptor one of the program's files has now.
//!
//! As with sockets (see `socket`), a program may close its own file while a transport uses it, and
//! its number may then belong to another file. `_io.FileIO` has its number in the same place as
//! `_socket.socket`, and the buffered and text files of `io` have a `FileIO` below them:
//!
//! ```text
//! _io.FileIO: PyObject_HEAD, int fd, ...
//! ```
//!
//! Invariants:
//! - this layout is verified on real files when the extension is imported; if one differs,
//!   `fileno()` is called instead.
//! - a number is read from memory only if the file's own `fileno()` said the same before; for any
//!   other file `fileno()` is called.
//!
//! Cost: a load and a comparison for files that `open` makes and for sockets, otherwise a call.

use super::layout::{Layout, has_room};
use super::object::call_method;
use super::{imports, socket};
use pyo3::exceptions::{PyOSError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::{ffi, intern};
use std::ffi::c_int;
use std::os::fd::{AsRawFd, RawFd};

/// Whether `FileFields` was verified on real files.
static LAYOUT: Layout = Layout::unknown();

/// The fields of `_io.FileIO` and of `_socket.socket` that are looked at.
#[repr(C)]
struct FileFields {
    head: ffi::PyObject,
    fd: c_int,
}

/// What is known without a call into Python of the descriptor that a file or socket had before.
pub(crate) enum Known {
    /// It has it.
    Kept,
    /// It has another one, or none.
    Lost,
    /// Only the `fileno()` of this object can tell.
    Nothing(Py<PyAny>),
}

impl Known {
    #[inline]
    pub(super) const fn of(kept: bool) -> Self {
        if kept { Self::Kept } else { Self::Lost }
    }
}

/// A file of the program's, or any object that it uses as one, and the number of the descriptor
/// that it had when it was given.
pub(crate) struct FileObject {
    object: Py<PyAny>,
    fd: RawFd,
    /// The `FileIO` or socket that has the number in its memory.
    seen_in: Option<Py<PyAny>>,
}

impl FileObject {
    /// `fd` is what the file's `fileno()` said just now.
    ///
    /// # Errors
    /// What looking at the file raises.
    pub(crate) fn new(object: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<Self> {
        let seen_in = match lowest(object)? {
            Some((lowest, number)) if number == fd => Some(lowest.unbind()),
            _ => None,
        };
        Ok(Self {
            object: object.clone().unbind(),
            fd,
            seen_in,
        })
    }

    pub(crate) const fn object(&self) -> &Py<PyAny> {
        &self.object
    }

    /// What the number is seen in, for the collector.
    pub(crate) const fn seen_in(&self) -> Option<&Py<PyAny>> {
        self.seen_in.as_ref()
    }

    /// What is known of its descriptor. Runs no Python code.
    #[inline]
    pub(crate) fn known(&self, py: Python<'_>) -> Known {
        let Some(seen_in) = &self.seen_in else {
            return Known::Nothing(self.object.clone_ref(py));
        };
        // SAFETY: `lowest` says that the object is an instance of a class whose layout was checked
        // at import; it is alive, and the token says that nobody writes to it now.
        Known::of(unsafe { (*seen_in.as_ptr().cast::<FileFields>()).fd } == self.fd)
    }
}

/// What a file's `fileno()` says.
///
/// # Errors
/// What it raises; TypeError or OverflowError for no descriptor's number.
pub(crate) fn descriptor_of(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = file.py();
    let number = call_method(file, intern!(py, "fileno"), &[])?;
    number.extract().map_err(|error: PyErr| {
        if error.is_instance_of::<PyOverflowError>(py) {
            too_large_for_int()
        } else {
            error
        }
    })
}

/// CPython's error for a number that does not fit a C int.
pub(crate) fn too_large_for_int() -> PyErr {
    PyOverflowError::new_err("Python int too large to convert to C int")
}

/// True if a file's `fileno()` is `fd`; a closed one raises ValueError or says -1.
///
/// # Errors
/// What `fileno()` raises that is no sign of a closed file.
pub(crate) fn has_descriptor(file: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<bool> {
    let py = file.py();
    match call_method(file, intern!(py, "fileno"), &[]) {
        Ok(number) => Ok(number.extract::<RawFd>().is_ok_and(|number| number == fd)),
        Err(error)
            if error.is_instance_of::<PyValueError>(py)
                || error.is_instance_of::<PyOSError>(py) =>
        {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

/// The object below a file whose memory has the number, and that number.
fn lowest<'py>(file: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyAny>, RawFd)>> {
    let py = file.py();
    let mut file = file.clone();
    if file.get_type().is(imports::text_io_wrapper(py)?) {
        file = file.getattr(intern!(py, "buffer"))?;
    }
    if is_buffered(&file)? {
        file = file.getattr(intern!(py, "raw"))?;
    }
    let number = if file.get_type().is(imports::file_io(py)?) {
        LAYOUT.is_known().then(|| number_in_memory(&file))
    } else {
        socket::descriptor_in_memory(&file)?
    };
    Ok(number.map(|number| (file, number)))
}

fn is_buffered(file: &Bound<'_, PyAny>) -> PyResult<bool> {
    let (py, class) = (file.py(), file.get_type());
    Ok(class.is(imports::buffered_reader(py)?)
        || class.is(imports::buffered_writer(py)?)
        || class.is(imports::buffered_random(py)?))
}

/// The number of a `FileIO`, which the caller knows it is.
fn number_in_memory(file: &Bound<'_, PyAny>) -> RawFd {
    // SAFETY: the object is alive, and an instance of `FileIO`, which is at least as large as the
    // struct: `look_at_layout` has compared the sizes before anybody asks.
    unsafe { (*file.as_ptr().cast::<FileFields>()).fd }
}

/// Finds out whether the number of a file can be read from memory; called once, at import.
///
/// # Errors
/// What is no `Exception`.
pub(crate) fn look_at_layout(py: Python<'_>) -> PyResult<()> {
    LAYOUT.look(py, layout_is_as_expected(py))
}

/// Makes files with several numbers, and compares what they say with what their memory has, while
/// they are open and once they are closed.
fn layout_is_as_expected(py: Python<'_>) -> PyResult<bool> {
    let class = imports::file_io(py)?;
    if !has_room::<FileFields>(class)? {
        return Ok(false);
    }
    let (reading, writing) = reactor::socket::pipe()?;
    let numbers = [reading.as_raw_fd(), writing.as_raw_fd()];
    // The files do not own the descriptors.
    let files = [
        class.call1((numbers[0], "rb", false))?,
        class.call1((numbers[1], "wb", false))?,
    ];
    let seen = || files.each_ref().map(number_in_memory);
    let while_open = seen();
    for file in &files {
        file.call_method0(intern!(py, "close"))?;
    }
    Ok(while_open == numbers && seen() == [-1, -1])
}
