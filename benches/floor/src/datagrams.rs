//! Datagrams: a UDP socket that echoes what it gets.
//!
//! Readiness is asked for as by any event loop; then the socket is read until it is empty.
//!
//! Cost: one `epoll_wait` a batch and a failing `recvfrom` at its end, one `recvfrom` and one
//! `sendto` a datagram.

use std::io;
use std::net::UdpSocket;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;

const BUFFER_LEN: usize = 1 << 16;

/// A non-blocking socket, on any port if `address` has none.
pub(crate) fn bind(address: &str) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Echo until an error that is not one peer's own.
pub(crate) fn echo(socket: &UdpSocket) -> io::Result<()> {
    let epoll = epoll::create(CreateFlags::CLOEXEC)?;
    epoll::add(&epoll, socket, EventData::new_u64(0), EventFlags::IN)?;
    let mut buffer = vec![0; BUFFER_LEN];
    let mut events = [Event {
        flags: EventFlags::empty(),
        data: EventData::new_u64(0),
    }];
    loop {
        match epoll::wait(&epoll, events.as_mut_slice(), None) {
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        while let Some((length, peer)) = receive(socket, &mut buffer)? {
            // A peer that has left is told by an error here or at a later call.
            drop(socket.send_to(&buffer[..length], peer));
        }
    }
}

fn receive(
    socket: &UdpSocket,
    buffer: &mut [u8],
) -> io::Result<Option<(usize, std::net::SocketAddr)>> {
    match socket.recv_from(buffer) {
        Ok(received) => Ok(Some(received)),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::WouldBlock
                    | io::ErrorKind::Interrupted
                    | io::ErrorKind::ConnectionRefused
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}
