//! Addresses as the kernel gives them back.

#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::AsRawFd;

use proptest::prelude::*;
use reactor::addr::{SocketAddress, UNIX_NAME_LEN_MAX, UnixName};
use reactor::resolver::getnameinfo;
use reactor::socket::{self, AF_INET, AF_INET6, AF_UNIX, SOCK_DGRAM, SOCK_STREAM};

/// What a socket that is bound to `address` says its address is.
fn bound(address: &SocketAddress) -> SocketAddress {
    let socket = socket::socket(address.family(), SOCK_DGRAM, 0).expect("a socket");
    socket::bind(socket.as_raw_fd(), address).expect("bind");
    socket::local_address(socket.as_raw_fd()).expect("its address")
}

#[test]
fn ipv4_comes_back() {
    let local = SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 9), 0));
    let bound = bound(&local);
    assert_eq!(bound.ip(), local.ip());
    assert_ne!(bound.port(), Some(0));
    assert_eq!(bound.family(), AF_INET);
}

#[test]
fn ipv6_comes_back() {
    let local = SocketAddress::V6(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 0, 0, 0));
    // A machine without IPv6 has no address to bind to.
    if std::net::UdpSocket::bind("[::1]:0").is_ok() {
        let bound = bound(&local);
        assert_eq!(bound.ip(), local.ip());
        assert_eq!(bound.family(), AF_INET6);
    }
}

#[test]
fn scope_ids_reach_the_c_library() {
    let ip = "fe80::1".parse().expect("an address");
    let local = SocketAddress::V6(SocketAddrV6::new(ip, 80, 0, 1));
    let flags = libc::NI_NUMERICHOST | libc::NI_NUMERICSERV;
    let (host, service) = getnameinfo(&local, flags).expect("numbers");
    assert_eq!(
        (host.as_slice(), service.as_slice()),
        (b"fe80::1%lo".as_slice(), b"80".as_slice())
    );
}

#[test]
fn unix_paths_come_back() {
    let path = std::env::temp_dir().join(format!("reactor-addr-{}.sock", std::process::id()));
    let name = UnixName::Path(path.as_os_str().as_encoded_bytes().to_vec());
    let address = SocketAddress::Unix(name);
    let back = bound(&address);
    std::fs::remove_file(&path).expect("the socket's file");
    assert_eq!(back, address);
}

#[test]
fn abstract_names_come_back() {
    let name = format!("reactor-addr-{}\0\0x", std::process::id()).into_bytes();
    let address = SocketAddress::Unix(UnixName::Abstract(name));
    assert_eq!(bound(&address), address);
}

#[test]
fn binding_to_no_name_chooses_an_abstract_one() {
    let unnamed = SocketAddress::Unix(UnixName::Unnamed);
    assert!(matches!(
        bound(&unnamed),
        SocketAddress::Unix(UnixName::Abstract(_))
    ));
    let (near, _far) = socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a pair");
    assert_eq!(
        socket::local_address(near.as_raw_fd()).expect("its address"),
        unnamed
    );
    assert_eq!(
        socket::peer_address(near.as_raw_fd()).expect("its peer"),
        unnamed
    );
}

#[test]
fn other_families_come_back() {
    let netlink = SocketAddress::Other {
        family: libc::AF_NETLINK,
        bytes: vec![0; 10],
    };
    let back = bound(&netlink);
    let SocketAddress::Other {
        family: libc::AF_NETLINK,
        bytes,
    } = back
    else {
        panic!("{back:?} is no netlink address");
    };
    assert_eq!(bytes.len(), 10);
    assert_ne!(bytes[2..6], [0; 4], "the kernel chose a port id");
}

#[test]
fn python_s_unix_names_are_checked() {
    let too_long = vec![b'p'; UNIX_NAME_LEN_MAX + 1];
    let errno = |bytes: &[u8]| UnixName::from_python_bytes(bytes).err()?.raw_os_error();
    assert_eq!(errno(&too_long), Some(libc::ENAMETOOLONG));
    assert_eq!(errno(&too_long[1..]), None);
    assert_eq!(errno(b"/run/a\0b"), Some(libc::EINVAL));
    assert_eq!(errno(&[0; UNIX_NAME_LEN_MAX + 1]), None);
    assert_eq!(errno(&[0; UNIX_NAME_LEN_MAX + 2]), Some(libc::ENAMETOOLONG));
}

#[test]
fn standard_addresses_convert() {
    let address: SocketAddr = "10.1.2.3:99".parse().expect("an address");
    assert_eq!(SocketAddress::from(address).port(), Some(99));
    let address: SocketAddr = "[::2]:99".parse().expect("an address");
    assert_eq!(SocketAddress::from(address).ip(), Some(address.ip()));
    assert_eq!(format!("{:?}", SocketAddress::from(address)), "[::2]:99");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn python_s_unix_names_round_trip(bytes in prop::collection::vec(1_u8.., 0..107)) {
        for prefix in [b"".as_slice(), b"\0"] {
            let given = [prefix, &bytes].concat();
            let name = UnixName::from_python_bytes(&given).expect("a valid name");
            prop_assert_eq!(name.to_python_bytes(), given);
        }
    }
}
