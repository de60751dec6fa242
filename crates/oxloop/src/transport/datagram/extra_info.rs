//! The values of `get_extra_info`. The method is asyncio's own. The values are made with the
//! transport, as an endpoint usually lives long.

use super::DatagramTransport;
use crate::py::class::OfNative;
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::selector::ask_names;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.getter(c"_sock", |this| this.or_none(this.socket()));
    methods.getter(c"_address", |this| {
        let address = this.own().address.as_ref();
        this.or_none(address.map(|address| address.bind(this.py()).clone()))
    });
}

/// The socket, its address and its peer's.
///
/// # Errors
/// What the socket's methods raise, except for an OSError of `getsockname` or `getpeername`.
pub(super) fn of_socket<'py>(socket: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = socket.py();
    let extra = PyDict::new(py);
    extra.set_item("socket", imports::transport_socket(py)?.call1((socket,))?)?;
    ask_names(socket, &extra)?;
    Ok(extra)
}
