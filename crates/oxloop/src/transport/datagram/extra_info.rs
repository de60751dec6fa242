//! What `get_extra_info` tells, which is asyncio's own method: an endpoint lives long, so that is
//! made with it.

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

/// What there is to tell about a socket.
///
/// # Errors
/// What the socket raises beside OSError.
pub(super) fn of_socket<'py>(socket: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let py = socket.py();
    let extra = PyDict::new(py);
    extra.set_item("socket", imports::transport_socket(py)?.call1((socket,))?)?;
    ask_names(socket, &extra)?;
    Ok(extra)
}
