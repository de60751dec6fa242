//! `get_extra_info`. An endpoint lives long, so what it tells is made with it.

use super::{DatagramThis, DatagramTransport};
use crate::py::args::Args;
use crate::py::class::OfNative;
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::selector::ask_names;
use pyo3::prelude::*;
use pyo3::types::PyDict;

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.method(
        c"get_extra_info",
        "name, default=None",
        get_extra_info,
        c"peername, sockname, socket.",
    );
    methods.getter(c"_sock", |this| this.or_none(this.socket()));
    methods.getter(c"_extra", |this| {
        Ok(this.own().extra.bind(this.py()).clone().into_any())
    });
    methods.getter(c"_address", |this| {
        let address = this.own().address.as_ref();
        this.or_none(address.map(|address| address.bind(this.py()).clone()))
    });
}

fn get_extra_info<'py>(
    this: &DatagramThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    let [name, default] = args.bind("get_extra_info", ["name", "default"], 1)?;
    let name = name.expect("invariant: bind checked the required argument");
    if let Some(value) = this.own().extra.bind(this.py()).get_item(name)? {
        return Ok(value);
    }
    this.or_none(default.map(|default| default.to_owned()))
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
