//! Name lookups: getaddrinfo(3) and getnameinfo(3), blocking, for a resolver thread.

#![forbid(unsafe_code)]

use std::ffi::CStr;

use crate::addr::SocketAddress;
use crate::sys::resolve;

pub use crate::sys::resolve::{AddrInfo, Hints, ResolveError};

/// Looks up the addresses of `host` and `service`, in the order that the C library prefers.
///
/// May block for as long as the name service takes. `None` for both is EAI_NONAME.
pub fn getaddrinfo(
    host: Option<&CStr>,
    service: Option<&CStr>,
    hints: Hints,
) -> Result<Vec<AddrInfo>, ResolveError> {
    resolve::getaddrinfo(host, service, hints)
}

/// Looks up the names of a host and a service, as bytes. `flags` are `NI_*`.
///
/// May block for as long as the name service takes.
pub fn getnameinfo(
    address: &SocketAddress,
    flags: i32,
) -> Result<(Vec<u8>, Vec<u8>), ResolveError> {
    resolve::getnameinfo(address, flags)
}
