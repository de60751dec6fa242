//! sockaddr_storage to and from [`SocketAddress`].
//!
//! The structures are built and read as bytes at their `offset_of!`, so that no pointer is cast.

use std::io;
use std::mem::offset_of;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddrV4, SocketAddrV6};

use libc::{
    sa_family_t, sockaddr, sockaddr_in, sockaddr_in6, sockaddr_storage, sockaddr_un, socklen_t,
};

use crate::addr::{SocketAddress, UnixName};

const STORAGE_LEN: usize = size_of::<sockaddr_storage>();
const FAMILY_LEN: usize = size_of::<sa_family_t>();
const UNIX_PATH: usize = offset_of!(sockaddr_un, sun_path);
const UNIX_PATH_LEN: usize = size_of::<sockaddr_un>() - UNIX_PATH;

/// An address in the kernel's form, with the bytes of it that count.
#[repr(C, align(8))]
pub(crate) struct RawAddress {
    bytes: [u8; STORAGE_LEN],
    len: socklen_t,
}

const _: () = assert!(align_of::<RawAddress>() >= align_of::<sockaddr_storage>());
const _: () = assert!(offset_of!(sockaddr, sa_family) == 0);

impl RawAddress {
    /// Room for any address, for a call that fills it in.
    #[inline]
    pub(crate) const fn empty() -> Self {
        Self {
            bytes: [0; STORAGE_LEN],
            len: STORAGE_LEN as socklen_t,
        }
    }

    /// The kernel's form of `address`.
    ///
    /// # Errors
    ///
    /// ENAMETOOLONG for what does not fit, EINVAL for a family that is no `sa_family_t`.
    #[inline]
    pub(crate) fn new(address: &SocketAddress) -> io::Result<Self> {
        let mut raw = Self::empty();
        let family = sa_family_t::try_from(address.family())
            .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        raw.put(0, &family.to_ne_bytes());
        match address {
            SocketAddress::V4(address) => raw.fill_v4(*address),
            SocketAddress::V6(address) => raw.fill_v6(address),
            SocketAddress::Unix(name) => raw.fill_unix(name)?,
            SocketAddress::Other { bytes, .. } => raw.fill_other(bytes)?,
        }
        Ok(raw)
    }

    fn fill_v4(&mut self, address: SocketAddrV4) {
        self.put(
            offset_of!(sockaddr_in, sin_port),
            &address.port().to_be_bytes(),
        );
        self.put(offset_of!(sockaddr_in, sin_addr), &address.ip().octets());
        self.len = size_of::<sockaddr_in>() as socklen_t;
    }

    fn fill_v6(&mut self, address: &SocketAddrV6) {
        self.put(
            offset_of!(sockaddr_in6, sin6_port),
            &address.port().to_be_bytes(),
        );
        self.put(
            offset_of!(sockaddr_in6, sin6_flowinfo),
            &address.flowinfo().to_be_bytes(),
        );
        self.put(offset_of!(sockaddr_in6, sin6_addr), &address.ip().octets());
        self.put(
            offset_of!(sockaddr_in6, sin6_scope_id),
            &address.scope_id().to_ne_bytes(),
        );
        self.len = size_of::<sockaddr_in6>() as socklen_t;
    }

    /// A path counts with its final NUL; an abstract name with its leading one, and to its last
    /// byte.
    fn fill_unix(&mut self, name: &UnixName) -> io::Result<()> {
        let (start, bytes, len) = match name {
            UnixName::Unnamed => (0, [].as_slice(), 0),
            UnixName::Path(path) => (0, path.as_slice(), path.len() + 1),
            UnixName::Abstract(name) => (1, name.as_slice(), name.len() + 1),
        };
        if len > UNIX_PATH_LEN {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        self.put(UNIX_PATH + start, bytes);
        self.len = (UNIX_PATH + len) as socklen_t;
        Ok(())
    }

    fn fill_other(&mut self, bytes: &[u8]) -> io::Result<()> {
        if FAMILY_LEN + bytes.len() > STORAGE_LEN {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        self.put(FAMILY_LEN, bytes);
        self.len = (FAMILY_LEN + bytes.len()) as socklen_t;
        Ok(())
    }

    /// Reads what the kernel has filled in.
    #[inline]
    pub(crate) fn to_address(&self) -> SocketAddress {
        // The kernel reports the full length of an address that it had to cut.
        let len = (self.len as usize).min(STORAGE_LEN);
        if len < FAMILY_LEN {
            return SocketAddress::Other {
                family: libc::AF_UNSPEC,
                bytes: Vec::new(),
            };
        }
        let family = i32::from(sa_family_t::from_ne_bytes(self.get(0)));
        match family {
            libc::AF_INET if len >= size_of::<sockaddr_in>() => SocketAddress::V4(self.v4()),
            libc::AF_INET6 if len >= size_of::<sockaddr_in6>() => SocketAddress::V6(self.v6()),
            libc::AF_UNIX => SocketAddress::Unix(self.unix(len)),
            _ => SocketAddress::Other {
                family,
                bytes: self.bytes[FAMILY_LEN..len].to_vec(),
            },
        }
    }

    fn v4(&self) -> SocketAddrV4 {
        SocketAddrV4::new(
            Ipv4Addr::from(self.get::<4>(offset_of!(sockaddr_in, sin_addr))),
            u16::from_be_bytes(self.get(offset_of!(sockaddr_in, sin_port))),
        )
    }

    fn v6(&self) -> SocketAddrV6 {
        SocketAddrV6::new(
            Ipv6Addr::from(self.get::<16>(offset_of!(sockaddr_in6, sin6_addr))),
            u16::from_be_bytes(self.get(offset_of!(sockaddr_in6, sin6_port))),
            u32::from_be_bytes(self.get(offset_of!(sockaddr_in6, sin6_flowinfo))),
            u32::from_ne_bytes(self.get(offset_of!(sockaddr_in6, sin6_scope_id))),
        )
    }

    fn unix(&self, len: usize) -> UnixName {
        match self.bytes.get(UNIX_PATH..len) {
            None | Some([]) => UnixName::Unnamed,
            Some([0, name @ ..]) => UnixName::Abstract(name.to_vec()),
            Some(path) => {
                let end = path
                    .iter()
                    .position(|byte| *byte == 0)
                    .unwrap_or(path.len());
                UnixName::Path(path[..end].to_vec())
            }
        }
    }

    #[inline]
    fn put(&mut self, offset: usize, bytes: &[u8]) {
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    #[inline]
    fn get<const N: usize>(&self, offset: usize) -> [u8; N] {
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.bytes[offset..offset + N]);
        bytes
    }

    /// Copies an address that the C library owns.
    ///
    /// # Safety
    ///
    /// `address` points to `len` readable bytes.
    pub(super) unsafe fn copy_from(address: *const sockaddr, len: socklen_t) -> Self {
        let mut raw = Self::empty();
        raw.len = len.min(STORAGE_LEN as socklen_t);
        // SAFETY: the caller vouches for the source; the target has room for STORAGE_LEN bytes,
        // which the length was cut to, and is a fresh array, so that the two do not overlap.
        unsafe {
            raw.bytes
                .as_mut_ptr()
                .copy_from_nonoverlapping(address.cast(), raw.len as usize);
        }
        raw
    }

    #[inline]
    pub(super) const fn as_ptr(&self) -> *const sockaddr {
        (&raw const *self).cast()
    }

    #[inline]
    pub(super) const fn len(&self) -> socklen_t {
        self.len
    }

    /// Pointers for a call that fills in an address and its length.
    #[inline]
    pub(super) const fn as_out(&mut self) -> (*mut sockaddr, *mut socklen_t) {
        let this = &raw mut *self;
        // SAFETY: `this` comes from a live reference; projecting to a field reads nothing.
        let len = unsafe { &raw mut (*this).len };
        (this.cast(), len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip(address: &SocketAddress) -> SocketAddress {
        RawAddress::new(address)
            .expect("a valid address")
            .to_address()
    }

    #[test]
    fn ip_addresses_keep_every_field() {
        let v4 = SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::new(127, 1, 2, 3), 8080));
        assert_eq!(round_trip(&v4), v4);
        let ip = "fe80::1234".parse().expect("an address");
        let v6 = SocketAddress::V6(SocketAddrV6::new(ip, 443, 0x000a_bcde, 7));
        assert_eq!(round_trip(&v6), v6);
    }

    #[test]
    fn network_order_is_what_the_kernel_sees() {
        let ip = "::1".parse().expect("an address");
        let raw = RawAddress::new(&SocketAddress::V6(SocketAddrV6::new(
            ip,
            0x1234,
            0x0001_0203,
            1,
        )));
        let raw = raw.expect("a valid address");
        assert_eq!(raw.get::<2>(2), [0x12, 0x34]);
        assert_eq!(raw.get::<4>(4), [0, 1, 2, 3]);
        assert_eq!(raw.get::<4>(24), 1_u32.to_ne_bytes());
        assert_eq!(raw.len(), 28);
    }

    #[test]
    fn unix_names_keep_their_kind() {
        for name in [
            UnixName::Unnamed,
            UnixName::Path(b"/run/server.sock".to_vec()),
            UnixName::Path(vec![b'p'; 107]),
            UnixName::Abstract(b"name".to_vec()),
            UnixName::Abstract(b"with\0nul\0".to_vec()),
            UnixName::Abstract(Vec::new()),
            UnixName::Abstract(vec![b'a'; 107]),
        ] {
            let address = SocketAddress::Unix(name);
            assert_eq!(round_trip(&address), address);
        }
    }

    #[test]
    fn unix_names_that_do_not_fit_are_refused() {
        for name in [
            UnixName::Path(vec![b'p'; 108]),
            UnixName::Abstract(vec![b'a'; 108]),
        ] {
            let error = RawAddress::new(&SocketAddress::Unix(name))
                .err()
                .expect("too long");
            assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
        }
    }

    #[test]
    fn other_families_pass_through() {
        let netlink = SocketAddress::Other {
            family: libc::AF_NETLINK,
            bytes: vec![1; 10],
        };
        assert_eq!(round_trip(&netlink), netlink);
        let long = SocketAddress::Other {
            family: libc::AF_NETLINK,
            bytes: vec![1; 127],
        };
        assert!(RawAddress::new(&long).is_err());
        let family = SocketAddress::Other {
            family: -1,
            bytes: Vec::new(),
        };
        assert_eq!(
            RawAddress::new(&family)
                .err()
                .and_then(|e| e.raw_os_error()),
            Some(libc::EINVAL)
        );
    }

    #[test]
    fn short_addresses_are_not_read_past_their_end() {
        let mut raw = RawAddress::empty();
        raw.put(0, &(libc::AF_INET as sa_family_t).to_ne_bytes());
        raw.len = 4;
        let cut = SocketAddress::Other {
            family: libc::AF_INET,
            bytes: vec![0, 0],
        };
        assert_eq!(raw.to_address(), cut);
        raw.len = 0;
        assert_eq!(raw.to_address().family(), libc::AF_UNSPEC);
    }
}
