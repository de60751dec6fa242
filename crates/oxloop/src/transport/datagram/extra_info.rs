//! The values of `get_extra_info`. They are made with the transport, as an endpoint usually lives
//! long.

use super::{DatagramThis, DatagramTransport};
use crate::py::args::Args;
use crate::py::class::OfNative;
use crate::py::imports;
use crate::py::method::Methods;
use crate::py::socket::SocketObject;
use crate::transport::selector::{ask_inherited, ask_names};
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.method(
        c"get_extra_info",
        "name, default=None",
        get_extra_info,
        c"socket, sockname, peername.",
    );
    methods.getter(c"_sock", |this| {
        this.send_now()?;
        this.or_none(this.socket())
    });
    methods.getter(c"_address", |this| {
        let address = this.own().address.as_ref();
        this.or_none(address.map(|address| address.bind(this.py()).clone()))
    });
}

/// asyncio's method, for which what was written leaves first: who has the socket sees and changes
/// what the kernel does with it.
fn get_extra_info<'py>(
    this: &DatagramThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [name, default] = args.bind("get_extra_info", ["name", "default"], 1)?;
    let name = name.expect("invariant: bind checked the required argument");
    this.send_now()?;
    ask_inherited(this, &name, default.as_deref())
}

/// The socket, its address and its peer's.
///
/// # Errors
/// What the socket's methods raise, except for an OSError of `getsockname` or `getpeername`.
pub(super) fn of_socket<'py>(
    py: Python<'py>,
    socket: &SocketObject,
) -> PyResult<Bound<'py, PyDict>> {
    let extra = PyDict::new(py);
    let object = socket.object().bind(py);
    let shown = imports::transport_socket(py)?.call1((object,))?;
    extra.set_item("socket", &shown)?;
    ask_names(object, &extra)?;
    socket.show(&shown);
    Ok(extra)
}
