//! Name lookups: getaddrinfo(3) and getnameinfo(3), blocking, for a resolver thread.

#![forbid(unsafe_code)]

use std::error::Error;
use std::ffi::CStr;
use std::fmt;

use crate::addr::SocketAddress;
use crate::sys::resolve;

/// What [`getaddrinfo`] is to look for; zero means anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hints {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub socktype: i32,
    /// `IPPROTO_*`.
    pub protocol: i32,
    /// `AI_*`.
    pub flags: i32,
}

/// One answer of [`getaddrinfo`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddrInfo {
    /// `AF_*`.
    pub family: i32,
    /// `SOCK_*`.
    pub socktype: i32,
    /// `IPPROTO_*`.
    pub protocol: i32,
    /// The official name of the host, in the first answer when AI_CANONNAME asked for it.
    pub canonname: Option<Vec<u8>>,
    /// Where to connect or bind to.
    pub address: SocketAddress,
}

/// Why a lookup failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResolveError {
    /// `EAI_*`, the number of Python's `socket.gaierror`.
    pub code: i32,
    /// The errno, when `code` is EAI_SYSTEM. Python raises `OSError` then.
    pub errno: Option<i32>,
}

impl ResolveError {
    /// The C library's text for `code`, see gai_strerror(3).
    pub fn message(&self) -> String {
        resolve::message(self.code)
    }
}

impl fmt::Display for ResolveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.errno {
            Some(errno) => std::io::Error::from_raw_os_error(errno).fmt(f),
            None => write!(f, "[Errno {}] {}", self.code, self.message()),
        }
    }
}

impl Error for ResolveError {}

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
