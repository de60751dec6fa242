//! Socket and pipe calls on real descriptors, with their errno.

#![forbid(unsafe_code)]

use std::io::{self, ErrorKind, IoSlice};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use reactor::addr::SocketAddress;
use reactor::poller::{Events, Interest, Poller};
use reactor::socket::{self, AF_INET, AF_UNIX, How, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET};
use reactor::token::Token;

fn errno<T>(result: io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn is_nonblocking(fd: RawFd) -> bool {
    let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).expect("fdinfo");
    let flags = info
        .lines()
        .find_map(|line| line.strip_prefix("flags:"))
        .expect("flags");
    let flags = i32::from_str_radix(flags.trim(), 8).expect("an octal number");
    assert_ne!(
        flags & libc::O_CLOEXEC,
        0,
        "every new descriptor is closed on exec"
    );
    flags & libc::O_NONBLOCK != 0
}

fn wait_for(fd: RawFd, interest: Interest) {
    let poller = Poller::new().expect("epoll");
    poller.add(fd, Token::reserved(0), interest).expect("add");
    let ready = poller
        .wait(&mut Events::new(), Some(Duration::from_secs(30)))
        .expect("a wait");
    assert_eq!(ready, 1, "nothing happened");
}

fn listener() -> (OwnedFd, SocketAddress) {
    let listener = socket::socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
    let fd = listener.as_raw_fd();
    let any_port = SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    socket::bind(fd, &any_port).expect("bind");
    socket::listen(fd, 16).expect("listen");
    let address = socket::local_address(fd).expect("its address");
    (listener, address)
}

fn pending_error(fd: RawFd) -> i32 {
    socket::get_option_int(fd, SOL_SOCKET, libc::SO_ERROR).expect("SO_ERROR")
}

fn connected() -> (OwnedFd, OwnedFd) {
    let (listener, address) = listener();
    let client = socket::socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
    let started = socket::connect(client.as_raw_fd(), &address);
    assert!(started.is_ok() || errno(started) == Some(libc::EINPROGRESS));
    wait_for(listener.as_raw_fd(), Interest::READABLE);
    let (server, peer) = socket::accept(listener.as_raw_fd()).expect("accept");
    wait_for(client.as_raw_fd(), Interest::WRITABLE);
    assert_eq!(pending_error(client.as_raw_fd()), 0);
    assert_eq!(
        socket::local_address(client.as_raw_fd()).expect("its address"),
        peer
    );
    assert_eq!(
        socket::peer_address(client.as_raw_fd()).expect("its peer"),
        address
    );
    (client, server)
}

#[test]
fn everything_made_is_nonblocking_and_closed_on_exec() {
    let (client, server) = connected();
    let (left, right) = socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a pair");
    let (reader, writer) = socket::pipe().expect("a pipe");
    for fd in [&client, &server, &left, &right, &reader, &writer] {
        assert!(is_nonblocking(fd.as_raw_fd()));
    }
    socket::set_nonblocking(client.as_raw_fd(), false).expect("set");
    assert!(!is_nonblocking(client.as_raw_fd()));
    socket::set_nonblocking(client.as_raw_fd(), true).expect("set");
    assert!(is_nonblocking(client.as_raw_fd()));
}

#[test]
fn bytes_travel() {
    let (client, server) = connected();
    assert_eq!(socket::send(client.as_raw_fd(), b"one").expect("send"), 3);
    let parts = [IoSlice::new(b"-"), IoSlice::new(b""), IoSlice::new(b"two")];
    assert_eq!(
        socket::send_vectored(client.as_raw_fd(), &parts).expect("sendmsg"),
        4
    );
    wait_for(server.as_raw_fd(), Interest::READABLE);
    let mut received = Vec::new();
    while received.len() < 7 {
        let mut buffer = [0; 16];
        match socket::recv_into_slice(server.as_raw_fd(), &mut buffer) {
            Ok(count) => received.extend_from_slice(&buffer[..count]),
            Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
        }
    }
    assert_eq!(received, b"one-two");
    let mut buffer = [MaybeUninit::uninit(); 16];
    assert_eq!(
        errno(socket::recv(server.as_raw_fd(), &mut buffer)),
        Some(libc::EAGAIN)
    );
    socket::shutdown(client.as_raw_fd(), How::Write).expect("shutdown");
    wait_for(server.as_raw_fd(), Interest::READABLE);
    assert_eq!(
        socket::recv(server.as_raw_fd(), &mut buffer).expect("the end"),
        b""
    );
}

#[test]
fn pipes_carry_bytes_and_end() {
    let (reader, writer) = socket::pipe().expect("a pipe");
    assert_eq!(socket::write(writer.as_raw_fd(), b"one").expect("write"), 3);
    let parts = [IoSlice::new(b"t"), IoSlice::new(b"wo")];
    assert_eq!(
        socket::write_vectored(writer.as_raw_fd(), &parts).expect("writev"),
        3
    );
    let mut buffer = [0; 16];
    assert_eq!(
        socket::read_into_slice(reader.as_raw_fd(), &mut buffer).expect("read"),
        6
    );
    assert_eq!(&buffer[..6], b"onetwo");
    assert_eq!(
        errno(socket::read_into_slice(reader.as_raw_fd(), &mut buffer)),
        Some(libc::EAGAIN)
    );
    drop(writer);
    assert_eq!(
        socket::read_into_slice(reader.as_raw_fd(), &mut buffer).expect("the end"),
        0
    );
    let mut none = [0; 1];
    assert_eq!(
        errno(socket::recv_into_slice(reader.as_raw_fd(), &mut none)),
        Some(libc::ENOTSOCK)
    );
}

#[test]
fn more_slices_than_the_kernel_takes_are_sent_in_part() {
    let (left, right) = socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a pair");
    let parts = vec![IoSlice::new(b"x"); 3000];
    assert_eq!(
        socket::send_vectored(left.as_raw_fd(), &parts).expect("sendmsg"),
        1024
    );
    assert_eq!(
        socket::write_vectored(left.as_raw_fd(), &parts).expect("writev"),
        1024
    );
    let mut buffer = [0; 4096];
    assert_eq!(
        socket::recv_into_slice(right.as_raw_fd(), &mut buffer).expect("recv"),
        2048
    );
}

#[test]
fn a_full_socket_takes_part_and_then_refuses() {
    let (left, _right) = socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a pair");
    let bytes = vec![0; 16 << 20];
    let taken = socket::send(left.as_raw_fd(), &bytes).expect("a part");
    assert!(taken > 0 && taken < bytes.len());
    assert_eq!(
        errno(socket::send(left.as_raw_fd(), &bytes)),
        Some(libc::EAGAIN)
    );
}

#[test]
fn a_peer_that_is_gone_is_an_errno_and_no_signal() {
    let (left, right) = socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a pair");
    drop(right);
    let fd = left.as_raw_fd();
    assert_eq!(errno(socket::send(fd, b"x")), Some(libc::EPIPE));
    assert_eq!(
        errno(socket::send_vectored(fd, &[IoSlice::new(b"x")])),
        Some(libc::EPIPE)
    );
    let mut buffer = [0; 1];
    assert_eq!(
        socket::recv_into_slice(fd, &mut buffer).expect("the end"),
        0
    );
}

#[test]
fn a_reset_is_seen() {
    let (client, server) = connected();
    // Closing with unread data resets the connection.
    socket::send(server.as_raw_fd(), b"unread").expect("send");
    wait_for(client.as_raw_fd(), Interest::READABLE);
    drop(client);
    wait_for(server.as_raw_fd(), Interest::READABLE);
    let mut buffer = [0; 16];
    let received = socket::recv_into_slice(server.as_raw_fd(), &mut buffer);
    assert_eq!(errno(received), Some(libc::ECONNRESET));
}

#[test]
fn a_refused_connection_is_seen() {
    let (listener, address) = listener();
    drop(listener);
    let client = socket::socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
    let fd = client.as_raw_fd();
    let refused = match errno(socket::connect(fd, &address)) {
        Some(libc::EINPROGRESS) => {
            wait_for(fd, Interest::WRITABLE);
            Some(pending_error(fd))
        }
        at_once => at_once,
    };
    assert_eq!(refused, Some(libc::ECONNREFUSED));
    assert_eq!(pending_error(fd), 0, "taking it clears it");
}

#[test]
fn accept_says_that_nobody_is_there() {
    let (listener, _) = listener();
    assert_eq!(
        errno(socket::accept(listener.as_raw_fd())),
        Some(libc::EAGAIN)
    );
}

#[test]
fn a_port_in_use_is_refused() {
    let (_listener, address) = listener();
    let other = socket::socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
    assert_eq!(
        errno(socket::bind(other.as_raw_fd(), &address)),
        Some(libc::EADDRINUSE)
    );
}

#[test]
fn a_negative_backlog_still_accepts() {
    let listener = socket::socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
    let any_port = SocketAddress::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0));
    socket::bind(listener.as_raw_fd(), &any_port).expect("bind");
    socket::listen(listener.as_raw_fd(), -5).expect("listen");
    let listening = socket::get_option_int(listener.as_raw_fd(), SOL_SOCKET, libc::SO_ACCEPTCONN);
    assert_eq!(listening.expect("SO_ACCEPTCONN"), 1);
}

#[test]
fn options_are_set_and_read() {
    let (client, _server) = connected();
    let fd = client.as_raw_fd();
    for on in [true, false] {
        socket::set_nodelay(fd, on).expect("TCP_NODELAY");
        let value = socket::get_option_int(fd, libc::IPPROTO_TCP, libc::TCP_NODELAY);
        assert_eq!(value.expect("TCP_NODELAY") != 0, on);
    }
    socket::set_option_int(fd, SOL_SOCKET, libc::SO_KEEPALIVE, 1).expect("SO_KEEPALIVE");
    let value = socket::get_option_int(fd, SOL_SOCKET, libc::SO_KEEPALIVE);
    assert_eq!(value.expect("SO_KEEPALIVE"), 1);
    assert_eq!(
        errno(socket::set_option_int(fd, SOL_SOCKET, -1, 1)),
        Some(libc::ENOPROTOOPT)
    );
}

#[test]
fn sockets_say_what_they_are() {
    let datagram = socket::socket(AF_INET, SOCK_DGRAM, 0).expect("a socket");
    let fd = datagram.as_raw_fd();
    assert_eq!(socket::socket_kind(fd).expect("SO_TYPE"), SOCK_DGRAM);
    assert_eq!(socket::socket_family(fd).expect("SO_DOMAIN"), AF_INET);
    assert_eq!(
        socket::socket_protocol(fd).expect("SO_PROTOCOL"),
        libc::IPPROTO_UDP
    );
    let (reader, _writer) = socket::pipe().expect("a pipe");
    assert_eq!(
        errno(socket::socket_kind(reader.as_raw_fd())),
        Some(libc::ENOTSOCK)
    );
    assert_eq!(errno(socket::socket_family(-1)), Some(libc::EBADF));
}

#[test]
fn what_is_not_connected_is_refused() {
    let socket = socket::socket(AF_INET, SOCK_STREAM, 0).expect("a socket");
    let fd = socket.as_raw_fd();
    assert_eq!(errno(socket::peer_address(fd)), Some(libc::ENOTCONN));
    assert_eq!(errno(socket::shutdown(fd, How::Both)), Some(libc::ENOTCONN));
    assert_eq!(errno(socket::send(-1, b"x")), Some(libc::EBADF));
    assert_eq!(errno(socket::accept(-1)), Some(libc::EBADF));
}

/// Sends what the kernel promises to take until it promises nothing.
fn send_what_is_promised(near: RawFd, pieces: usize) -> usize {
    let mut sent = 0;
    loop {
        let room = socket::send_room(near).expect("SO_MEMINFO");
        if room == 0 {
            return sent;
        }
        let bytes = vec![7; room];
        let slices: Vec<_> = bytes
            .chunks(room.div_ceil(pieces))
            .map(IoSlice::new)
            .collect();
        let taken = socket::send_vectored(near, &slices).expect("a send");
        assert_eq!(taken, room, "after {sent} bytes, in {pieces} pieces");
        sent += taken;
    }
}

#[test]
fn all_that_send_room_promises_is_taken() {
    for send_buffer in [None, Some(4096), Some(65_536), Some(1_000_000)] {
        for pieces in [1, 7, 1000] {
            let unix = socket::pair(AF_UNIX, SOCK_STREAM, 0).expect("a pair");
            for (near, _far) in [unix, connected()] {
                if let Some(bytes) = send_buffer {
                    socket::set_option_int(near.as_raw_fd(), SOL_SOCKET, libc::SO_SNDBUF, bytes)
                        .expect("SO_SNDBUF");
                }
                assert!(send_what_is_promised(near.as_raw_fd(), pieces) > 2000);
            }
        }
    }
}

#[test]
fn send_room_of_a_pipe_is_an_error() {
    let (_reading, writing) = socket::pipe().expect("a pipe");
    assert_eq!(
        errno(socket::send_room(writing.as_raw_fd())),
        Some(libc::ENOTSOCK)
    );
}
