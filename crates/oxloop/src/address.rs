//! Converts the kernel's socket addresses to Python objects.

use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};
use reactor::addr::{SocketAddress, UnixName};
use std::net::{Ipv4Addr, SocketAddrV6};

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

/// The text of inet_ntop(3). glibc shows the IPv4-compatible addresses (`::1.2.3.4`) in dotted form
/// too; musl and Rust do not.
fn v6_host(address: &SocketAddrV6) -> String {
    let ip = address.ip();
    let [zeros @ .., last_but_one, _] = ip.segments();
    let compatible = zeros == [0; 6] && last_but_one != 0;
    if compatible && cfg!(not(target_env = "musl")) {
        let [.., a, b, c, d] = ip.octets();
        return format!("::{}", Ipv4Addr::new(a, b, c, d));
    }
    ip.to_string()
}
