//! Finds which descriptor one of the program's sockets has now, and whether the socket is plain.
//!
//! A program may close or detach its own socket while a transport uses it. Its number may then
//! belong to any other file of the process, so code that keeps a number checks with the socket
//! object first; asyncio does the same by calling the object's methods. `_socket` has no C API for
//! this, so the number is read from the object's memory:
//!
//! ```text
//! _socket.socket: PyObject_HEAD, int fd, int family, int type, int proto, ...
//! ```
//!
//! Invariants:
//! - this layout is verified on real sockets when the extension is imported; if one differs,
//!   `fileno()` is called instead.
//! - a socket is plain if its class is exactly `socket.socket` and no method of that class was
//!   replaced; for any other socket its own methods are called.
//!
//! Cost: a load and a comparison.

use super::attached::Attached;
use super::class::{Visit, VisitStopped};
use super::file::{Known, descriptor_of};
use super::imports;
use super::layout::{Layout, has_room};
use super::object::reference_count;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{ffi, intern};
use std::cell::{Cell, OnceCell};
use std::ffi::c_int;
use std::io;
use std::os::fd::RawFd;

/// The methods that are not called on a plain socket, because the kernel is.
const METHODS: [&str; 14] = [
    "accept",
    "close",
    "connect",
    "fileno",
    "getpeername",
    "getsockname",
    "recv",
    "recv_into",
    "recvfrom",
    "send",
    "sendmsg",
    "sendto",
    "setsockopt",
    "shutdown",
];

/// Whether `SocketFields` was verified on real sockets.
static LAYOUT: Layout = Layout::unknown();

/// The fields of `_socket.socket` that are looked at.
#[repr(C)]
struct SocketFields {
    head: ffi::PyObject,
    fd: c_int,
    family: c_int,
    kind: c_int,
    proto: c_int,
}

/// Family, type and protocol that a socket object reports, as the numbers of socket(2).
#[derive(Clone, Copy)]
pub(crate) struct SocketKind {
    pub(crate) family: c_int,
    pub(crate) kind: c_int,
    pub(crate) proto: c_int,
}

/// A socket of the program's, or any object that it uses as one, and the number of the descriptor
/// that it had when it was given.
pub(crate) struct SocketObject {
    object: Py<PyAny>,
    /// The `TransportSocket` that the program gets, once it was made.
    shown: OnceCell<Py<PyAny>>,
    fd: RawFd,
    /// The number is read from memory.
    seen: bool,
    plain: bool,
}

impl SocketObject {
    /// # Errors
    /// What the object's `fileno()` raises.
    pub(crate) fn new(object: &Bound<'_, PyAny>) -> PyResult<Self> {
        let fd = descriptor_of(object)?;
        Ok(Self {
            object: object.clone().unbind(),
            shown: OnceCell::new(),
            fd,
            seen: descriptor_in_memory(object)? == Some(fd),
            plain: is_plain(object)?,
        })
    }

    pub(crate) const fn object(&self) -> &Py<PyAny> {
        &self.object
    }

    /// Remembers the `TransportSocket` that `get_extra_info("socket")` gives, of which the caller
    /// keeps one more reference. A second one makes the socket object a shared one.
    pub(crate) fn show(&self, shown: &Bound<'_, PyAny>) {
        let _second = self.shown.set(shown.clone().unbind());
    }

    /// True if somebody else holds the socket object or what `show` remembers: they may send by it,
    /// set its options or shut it down at any time.
    #[inline]
    pub(crate) fn is_shared(&self, py: Python<'_>) -> bool {
        match self.shown.get() {
            None => reference_count(&self.object, py) > 1,
            // Ours and that of `_extra`; and the socket object is held by us and by `shown`.
            Some(shown) => reference_count(shown, py) > 2 || reference_count(&self.object, py) > 2,
        }
    }

    /// For the collector.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.object)?;
        visit.option(self.shown.get())
    }

    /// The number that it had when it was given.
    pub(crate) const fn number(&self) -> RawFd {
        self.fd
    }

    /// True if the kernel may be called in place of its methods.
    #[inline]
    pub(crate) const fn is_plain(&self) -> bool {
        self.plain
    }

    /// The descriptor of a plain socket.
    ///
    /// # Errors
    /// EBADF once the socket was closed or detached.
    #[inline]
    pub(crate) fn fd(&self, py: Python<'_>) -> io::Result<RawFd> {
        if self.seen {
            return if self.has_lost(py) {
                Err(no_descriptor())
            } else {
                Ok(self.fd)
            };
        }
        match self.ask(py) {
            Ok(true) => Ok(self.fd),
            _ => Err(no_descriptor()),
        }
    }

    /// True if the object, whose number is `seen`, has another descriptor than before, or none.
    #[inline]
    fn has_lost(&self, _py: Python<'_>) -> bool {
        // SAFETY: `seen` says that the object is an instance of `_socket.socket`, whose layout was
        // checked at import; it is alive, and the token says that nobody writes to it now.
        self.seen && unsafe { (*self.object.as_ptr().cast::<SocketFields>()).fd } != self.fd
    }

    /// What the object says that it is; None if only its attributes can tell.
    #[inline]
    pub(crate) fn kind(&self, _py: Python<'_>) -> Option<SocketKind> {
        // SAFETY: as in `has_lost`.
        let fields = self
            .seen
            .then(|| unsafe { &*self.object.as_ptr().cast::<SocketFields>() })?;
        Some(SocketKind {
            family: fields.family,
            kind: fields.kind,
            proto: fields.proto,
        })
    }

    /// What is known of its descriptor. Runs no Python code.
    #[inline]
    pub(crate) fn known(&self, py: Python<'_>) -> Known {
        if self.seen {
            Known::of(!self.has_lost(py))
        } else {
            Known::Nothing(self.object.clone_ref(py))
        }
    }

    /// Asks the C method of a plain socket, which runs no Python code: the caller may have
    /// something borrowed.
    #[cold]
    fn ask(&self, py: Python<'_>) -> PyResult<bool> {
        let fileno = imports::native_socket_class(py)?.getattr(intern!(py, "fileno"))?;
        let number: RawFd = fileno.call1((&self.object,))?.extract()?;
        Ok(number == self.fd)
    }
}

/// EBADF, the kernel's error for a descriptor that is not open.
pub(crate) fn no_descriptor() -> io::Error {
    io::Error::from_raw_os_error(libc::EBADF)
}

/// True for an object that is exactly a `socket.socket`, with none of the methods replaced whose
/// work is done here.
///
/// # Errors
/// What looking at the class raises.
#[inline]
pub(crate) fn is_plain(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    let py = object.py();
    Ok(object.get_type().is(imports::socket_class(py)?) && methods(py)?.are_original(py))
}

/// True if `socket.socket` is the class that it was at import, with its methods: then accept(2) is
/// all that the `accept()` of a plain socket does.
///
/// # Errors
/// What looking at the module raises.
pub(crate) fn makes_plain_sockets(py: Python<'_>) -> PyResult<bool> {
    let class = imports::socket(py)?.getattr(intern!(py, "socket"))?;
    Ok(class.is(imports::socket_class(py)?) && methods(py)?.are_original(py))
}

/// The methods of `socket.socket` as they were at import.
struct Originals {
    /// None if the program had replaced the class by something that is not a socket class.
    class: Option<Py<PyType>>,
    methods: Vec<Py<PyAny>>,
    /// The version of the class that was looked at last.
    seen: Cell<u32>,
}

fn methods(py: Python<'_>) -> PyResult<&Originals> {
    static CELL: PyOnceLock<Attached<Originals>> = PyOnceLock::new();
    let cell = CELL.get_or_try_init(py, || {
        let class = imports::socket_class(py)?.cast::<PyType>().ok();
        let native = imports::native_socket_class(py)?;
        let mut originals = Originals {
            class: None,
            methods: Vec::with_capacity(METHODS.len()),
            seen: Cell::new(0),
        };
        if let Some(class) = class
            && class.is_subclass(native)?
        {
            originals.class = Some(class.clone().unbind());
            for name in METHODS {
                originals.methods.push(class.getattr(name)?.unbind());
            }
        }
        Ok::<_, PyErr>(Attached::new(originals))
    })?;
    Ok(cell.get(py))
}

impl Originals {
    /// One load and one comparison if nothing changed.
    #[inline]
    fn are_original(&self, py: Python<'_>) -> bool {
        let Some(class) = &self.class else {
            return false;
        };
        let version = version_of(class.bind(py));
        (version != 0 && version == self.seen.get()) || self.look(class.bind(py))
    }

    #[cold]
    fn look(&self, class: &Bound<'_, PyType>) -> bool {
        let same = METHODS.iter().zip(&self.methods).all(|(name, original)| {
            let current = class.getattr(*name);
            current.is_ok_and(|current| current.is(original))
        });
        if same {
            self.seen.set(version_of(class));
        }
        same
    }
}

fn version_of(class: &Bound<'_, PyType>) -> u32 {
    // SAFETY: the type is alive, and its version tag is a plain integer.
    unsafe { (*class.as_type_ptr()).tp_version_tag }
}

/// The number in the memory of an instance of `_socket.socket`, if that can be read.
///
/// # Errors
/// What asking for the object's class raises.
pub(super) fn descriptor_in_memory(object: &Bound<'_, PyAny>) -> PyResult<Option<RawFd>> {
    let class = imports::native_socket_class(object.py())?;
    if !LAYOUT.is_known() || !object.is_instance(class)? {
        return Ok(None);
    }
    // SAFETY: the object is alive and an instance of the class whose layout was checked.
    Ok(Some(unsafe {
        (*object.as_ptr().cast::<SocketFields>()).fd
    }))
}

/// Finds out whether the number of a socket can be read from memory, and remembers the methods of
/// `socket.socket`; called once, at import.
///
/// # Errors
/// What is no `Exception`, and what looking at `socket.socket` raises.
pub(crate) fn look_at_layout(py: Python<'_>) -> PyResult<()> {
    methods(py)?;
    LAYOUT.look(py, layout_is_as_expected(py))
}

/// Makes sockets with several numbers, and compares what they say with what their memory has:
/// while they are open, detached, and made anew.
fn layout_is_as_expected(py: Python<'_>) -> PyResult<bool> {
    let class = imports::native_socket_class(py)?;
    if !has_room::<SocketFields>(class)? {
        return Ok(false);
    }
    let make = |number: Option<RawFd>| class.call1((libc::AF_UNIX, libc::SOCK_STREAM, 0, number));
    let (first, second) = (make(None)?, make(None)?);
    let mut same = is_as_expected(&first)? && is_as_expected(&second)?;
    let number = first.call_method0("detach")?.extract()?;
    same &= is_as_expected(&first)?;
    let again = make(Some(number))?;
    same &= is_as_expected(&again)?;
    for socket in [&again, &second] {
        socket.call_method0("close")?;
        same &= is_as_expected(socket)?;
    }
    Ok(same)
}

fn is_as_expected(socket: &Bound<'_, PyAny>) -> PyResult<bool> {
    let number: c_int = socket.call_method0("fileno")?.extract()?;
    // SAFETY: the object is alive, and its type is at least as large as the struct, whose fields
    // behind the head are integers.
    let fields = unsafe { &*socket.as_ptr().cast::<SocketFields>() };
    let open = [number, libc::AF_UNIX, libc::SOCK_STREAM, 0];
    Ok([fields.fd, fields.family, fields.kind, fields.proto] == open)
}
