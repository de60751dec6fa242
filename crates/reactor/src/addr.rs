//! SocketAddress: where a socket is bound or connected, of any family.
//!
//! IPv4, IPv6 with flow information and scope id, and Unix names are taken apart; the bytes of
//! every other family are passed through untouched, so that a netlink or vsock socket works too.
//!
//! Cost: no allocation for IPv4 and IPv6; one for a Unix name.
//! Differs from asyncio: none; `SocketAddrV6::flowinfo` is in host order, as Python shows it.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The longest Unix name: `sun_path` has 108 bytes, of which one is the final or the leading NUL.
pub const UNIX_NAME_LEN_MAX: usize = 107;

/// A socket address, as in sockaddr(3type).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    /// AF_INET.
    V4(SocketAddrV4),
    /// AF_INET6, with flow information and scope id.
    V6(SocketAddrV6),
    /// AF_UNIX.
    Unix(UnixName),
    /// Any other family, AF_UNSPEC included.
    Other {
        /// `sa_family`.
        family: i32,
        /// What follows `sa_family`, in the kernel's own form.
        bytes: Vec<u8>,
    },
}

impl SocketAddress {
    /// The `AF_*` constant.
    #[inline]
    pub const fn family(&self) -> i32 {
        match self {
            Self::V4(_) => libc::AF_INET,
            Self::V6(_) => libc::AF_INET6,
            Self::Unix(_) => libc::AF_UNIX,
            Self::Other { family, .. } => *family,
        }
    }

    /// The IP address, when the family has one.
    #[inline]
    pub const fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::V4(address) => Some(IpAddr::V4(*address.ip())),
            Self::V6(address) => Some(IpAddr::V6(*address.ip())),
            Self::Unix(_) | Self::Other { .. } => None,
        }
    }

    /// The port, when the family has one.
    #[inline]
    pub const fn port(&self) -> Option<u16> {
        match self {
            Self::V4(address) => Some(address.port()),
            Self::V6(address) => Some(address.port()),
            Self::Unix(_) | Self::Other { .. } => None,
        }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        match address {
            SocketAddr::V4(address) => Self::V4(address),
            SocketAddr::V6(address) => Self::V6(address),
        }
    }
}

impl fmt::Debug for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
            Self::Unix(name) => name.fmt(f),
            Self::Other { family, bytes } => {
                write!(f, "family {family}: {}", bytes.escape_ascii())
            }
        }
    }
}

/// The three kinds of Unix socket names, see unix(7).
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum UnixName {
    /// No name. Binding to it lets the kernel choose an abstract one.
    Unnamed,
    /// A path in the file system, without the final NUL.
    Path(Vec<u8>),
    /// A name in the abstract namespace, without the leading NUL. May contain NULs.
    Abstract(Vec<u8>),
}

impl UnixName {
    /// Reads the form that Python's socket module uses: empty is unnamed, a leading NUL is
    /// abstract.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG past [`UNIX_NAME_LEN_MAX`]; EINVAL for a NUL inside a path.
    pub fn from_python_bytes(bytes: &[u8]) -> io::Result<Self> {
        let (name, rest) = match bytes {
            [] => return Ok(Self::Unnamed),
            [0, rest @ ..] => (Self::Abstract(rest.to_vec()), rest),
            path => (Self::Path(path.to_vec()), path),
        };
        if rest.len() > UNIX_NAME_LEN_MAX {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        if matches!(name, Self::Path(_)) && rest.contains(&0) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(name)
    }

    /// The form that Python's socket module uses; see [`UnixName::from_python_bytes`].
    pub fn to_python_bytes(&self) -> Vec<u8> {
        match self {
            Self::Unnamed => Vec::new(),
            Self::Path(path) => path.clone(),
            Self::Abstract(name) => {
                let mut bytes = Vec::with_capacity(name.len() + 1);
                bytes.push(0);
                bytes.extend_from_slice(name);
                bytes
            }
        }
    }
}

impl fmt::Debug for UnixName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed => f.write_str("unix:(unnamed)"),
            Self::Path(path) => write!(f, "unix:{}", path.escape_ascii()),
            Self::Abstract(name) => write!(f, "unix:@{}", name.escape_ascii()),
        }
    }
}
