//! `get_extra_info`: each value is made when the program asks for it.

use super::{Descriptor, Past, StreamThis, StreamTransport};
use crate::address::to_python;
use crate::py::args::Args;
use crate::py::attached::Attached;
use crate::py::class::OfNative;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::object::TypeWatch;
use crate::py::socket::{SocketKind, SocketObject};
use crate::transport::selector::ask_inherited;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyType};
use std::os::fd::{AsRawFd, IntoRawFd, OwnedFd};

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.method(
        c"get_extra_info",
        "name, default=None",
        get_extra_info,
        c"peername, sockname, socket, and what the connection's maker added.",
    );
    methods.getter(c"_sock", |this| {
        this.send_now()?;
        let socket = this.socket_object()?;
        Ok(socket.unwrap_or_else(|| this.py().None().into_bound(this.py())))
    });
    methods.getter(c"_extra", |this| {
        this.send_now()?;
        Ok(this.extra()?.into_any())
    });
    methods.getter(c"_start_tls_compatible", |this| this.boolean(true));
}

/// asyncio's method, which its own transports inherit, to notice that a test has replaced it.
pub(super) fn inherited(py: Python<'_>) -> PyResult<&TypeWatch> {
    static CELL: PyOnceLock<Attached<TypeWatch>> = PyOnceLock::new();
    let cell = CELL.get_or_try_init(py, || {
        let class = imports::transport(py)?.cast::<PyType>()?;
        TypeWatch::new(class, "get_extra_info").map(Attached::new)
    })?;
    Ok(cell.get(py))
}

fn get_extra_info<'py>(
    this: &StreamThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [name, default] = args.bind("get_extra_info", ["name", "default"], 1)?;
    let name = name.expect("invariant: bind checked the required argument");
    // Who has the socket sees and changes what the kernel does with what was written.
    this.send_now()?;
    if !inherited(this.py())?.is_original(this.py()) {
        // A test has put something in its place.
        return ask_inherited(this, &name, default.as_deref());
    }
    let extra = this.extra()?;
    if let Some(value) = extra.get_item(name)? {
        return Ok(value);
    }
    if let Ok(text) = name.extract::<&str>()
        && let Some(value) = this.made_on_demand(text)?
    {
        extra.set_item(name, &value)?;
        return Ok(value);
    }
    Ok(default.map_or_else(
        || this.py().None().into_bound(this.py()),
        |it| it.to_owned(),
    ))
}

impl<'py> StreamThis<'_, 'py> {
    /// The values that are known so far.
    fn extra(&self) -> PyResult<Bound<'py, PyDict>> {
        let py = self.py();
        if let Some(extra) = self.own().extra.get(py) {
            return Ok(extra);
        }
        let extra = PyDict::new(py);
        self.own().extra.set(Some(extra.clone().unbind()));
        Ok(extra)
    }

    fn made_on_demand(&self, name: &str) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py();
        let address = match name {
            "socket" => {
                return self.shown_socket().map(Some);
            }
            "sockname" => {
                self.remember_local();
                self.own().local.borrow().clone()
            }
            "peername" => self.own().peer.borrow().clone(),
            _ => return Ok(None),
        };
        address.map(|address| to_python(py, &address)).transpose()
    }

    /// What the program gets as the socket.
    fn shown_socket(&self) -> PyResult<Bound<'py, PyAny>> {
        let class = imports::transport_socket(self.py())?;
        let Some(socket) = self.socket_object()? else {
            return class.call1((self.closed_socket()?,));
        };
        let shown = class.call1((socket,))?;
        if let Descriptor::Socket(socket) = &*self.own().descriptor.borrow() {
            socket.show(&shown);
        }
        Ok(shown)
    }

    /// The Python socket object that owns the descriptor, made if there is none yet.
    fn socket_object(&self) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = self.py();
        if let Descriptor::Socket(socket) = &*self.own().descriptor.borrow() {
            return Ok(Some(socket.object().bind(py).clone()));
        }
        let Descriptor::Own(fd, kind) = self.take_descriptor() else {
            return Ok(None);
        };
        let socket = python_socket(py, Some(fd), kind)?;
        let object = SocketObject::new(&socket)?;
        *self.own().descriptor.borrow_mut() = Descriptor::Socket(object);
        Ok(Some(socket))
    }

    /// The socket object of a closed transport. If it never had one, a closed socket of the same
    /// kind.
    fn closed_socket(&self) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let kind = match self.own().descriptor.borrow().past(py) {
            Past::Socket(socket) => return Ok(socket.into_bound(py)),
            Past::Own(kind) => kind,
        };
        let socket = python_socket(py, None, kind)?;
        socket.call_method0(intern!(py, "close"))?;
        Ok(socket)
    }
}

/// Hands a descriptor to a new `socket.socket`, or lets it make one of its own.
///
/// # Errors
/// What the class raises; the descriptor is closed then.
fn python_socket<'py>(
    py: Python<'py>,
    fd: Option<OwnedFd>,
    kind: SocketKind,
) -> PyResult<Bound<'py, PyAny>> {
    let number = fd.as_ref().map(AsRawFd::as_raw_fd);
    let arguments = (kind.family, kind.kind, kind.proto, number);
    let socket = imports::socket_class(py)?.call1(arguments)?;
    // From here on the object closes it.
    let _number = fd.map(IntoRawFd::into_raw_fd);
    socket.call_method1(intern!(py, "setblocking"), (false,))?;
    Ok(socket)
}
