//! Socket addresses between Python's tuples and the kernel's structs.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use reactor::addr::{SocketAddress, UnixName};

/// An address as the `socket` module shows it.
///
/// # Errors
/// MemoryError, or a path that cannot be decoded.
pub(crate) fn to_python<'py>(
    py: Python<'py>,
    address: &SocketAddress,
) -> PyResult<Bound<'py, PyAny>> {
    match address {
        SocketAddress::V4(v4) => Ok((v4.ip().to_string(), v4.port())
            .into_pyobject(py)?
            .into_any()),
        SocketAddress::V6(v6) => {
            let host = v6_host(v6);
            Ok((host, v6.port(), v6.flowinfo(), v6.scope_id())
                .into_pyobject(py)?
                .into_any())
        }
        SocketAddress::Unix(UnixName::Unnamed) => Ok(PyString::new(py, "").into_any()),
        SocketAddress::Unix(UnixName::Path(path)) => {
            let fsdecode = py.import("os")?.getattr("fsdecode")?;
            fsdecode.call1((PyBytes::new(py, path),))
        }
        SocketAddress::Unix(name @ UnixName::Abstract(_)) => {
            Ok(PyBytes::new(py, &name.to_python_bytes()).into_any())
        }
        SocketAddress::Other { family, bytes } => Ok((*family, PyBytes::new(py, bytes))
            .into_pyobject(py)?
            .into_any()),
    }
}

fn v6_host(address: &std::net::SocketAddrV6) -> String {
    address.ip().to_string()
}
