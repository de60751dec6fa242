//! Datagrams and runs of them on real sockets.

#![forbid(unsafe_code)]

use std::io::IoSlice;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

use reactor::addr::SocketAddress;
use reactor::datagram::{self, Message};
use reactor::socket::{self, AF_INET, AF_UNIX, SOCK_DGRAM};

fn bound() -> (OwnedFd, SocketAddress) {
    let socket = socket::socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
    let any_port = SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    socket::bind(socket.as_raw_fd(), &any_port).expect("bind");
    let address = socket::local_address(socket.as_raw_fd()).expect("its address");
    (socket, address)
}

/// The sizes of the datagrams that wait, in the order of their arrival.
fn sizes(socket: &OwnedFd) -> Vec<usize> {
    let mut buffer = vec![0; 1 << 16];
    let mut sizes = Vec::new();
    while let Ok(received) = datagram::receive(socket.as_raw_fd(), &mut buffer) {
        let bytes = &buffer[..received.len];
        match received.segment {
            None => sizes.push(bytes.len()),
            Some(size) => sizes.extend(bytes.chunks(size).map(<[u8]>::len)),
        }
    }
    sizes
}

#[test]
fn one_datagram_has_its_sender() {
    let ((one, one_address), (other, other_address)) = (bound(), bound());
    datagram::send_to(one.as_raw_fd(), b"hello", &other_address).expect("sent");
    let mut buffer = [0; 16];
    let received = datagram::receive(other.as_raw_fd(), &mut buffer).expect("received");
    assert_eq!(&buffer[..received.len], b"hello");
    assert_eq!(received.from, Some(one_address));
    assert_eq!(received.segment, None);
    let nothing = datagram::receive(other.as_raw_fd(), &mut buffer).expect_err("nothing more");
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn runs_and_single_datagrams_keep_their_order() {
    for receives_runs in [false, true] {
        let ((one, _), (other, to)) = (bound(), bound());
        assert!(datagram::sends_runs(one.as_raw_fd()));
        datagram::receive_runs(other.as_raw_fd(), receives_runs).expect("the option");
        let (long, short) = ([1; 1000], [2; 10]);
        let run = [&long[..], &long, &long, &short].map(IoSlice::new);
        let (single, empty) = ([IoSlice::new(&short)], [IoSlice::new(&[])]);
        let message = |datagrams| Message {
            to: Some(&to),
            datagrams,
        };
        let messages = [message(&run[..]), message(&single), message(&empty)];
        assert_eq!(datagram::send(one.as_raw_fd(), &messages).expect("sent"), 3);
        assert_eq!(sizes(&other), [1000, 1000, 1000, 10, 10, 0]);
        let sent = datagram::send(one.as_raw_fd(), &messages[..1]).expect("sent");
        assert_eq!((sent, sizes(&other)), (1, vec![1000, 1000, 1000, 10]));
    }
}

#[test]
fn a_run_that_the_kernel_refuses_is_told_from_other_errors() {
    let (one, _) = bound();
    let (long, to) = (vec![0; 40_000], bound().1);
    let run = [IoSlice::new(&long), IoSlice::new(&long)];
    let message = Message {
        to: Some(&to),
        datagrams: &run,
    };
    let refused = datagram::send(one.as_raw_fd(), &[message]).expect_err("80,000 bytes");
    assert!(datagram::refuses_runs(&refused), "{refused}");
    let missing = std::io::Error::from_raw_os_error(libc::ECONNREFUSED);
    assert!(!datagram::refuses_runs(&missing));
}

#[test]
fn unix_sockets_without_a_name_have_no_address_and_no_runs() {
    let (near, far) = socket::pair(AF_UNIX, SOCK_DGRAM, 0).expect("a pair");
    assert!(!datagram::is_udp(near.as_raw_fd()) && !datagram::sends_runs(near.as_raw_fd()));
    assert!(datagram::receive_runs(near.as_raw_fd(), true).is_err());
    socket::send(near.as_raw_fd(), b"x").expect("sent");
    let mut buffer = [0; 4];
    let received = datagram::receive(far.as_raw_fd(), &mut buffer).expect("received");
    assert_eq!((received.len, received.from), (1, None));
}
