//! Datagram sockets: receives and sends with addresses, several datagrams in one system call.
//!
//! A *run* is several datagrams of one size from or to one peer; the last may be shorter. The
//! kernel carries a run through the network stack as one packet: UDP_GRO joins datagrams that
//! arrive, UDP_SEGMENT divides those that are sent (both in udp(7)). This is what makes UDP fast;
//! several messages in one call (sendmmsg(2)) only save system calls.
//!
//! Errors keep the raw errno. An error that an earlier datagram caused (ECONNREFUSED, after an ICMP
//! message) is reported by the next call, which then has sent or received nothing.
//!
//! Cost: one system call each; sending several messages allocates.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use crate::addr::SocketAddress;
use crate::socket;
use crate::sys;

pub use crate::sys::datagram::{Message, Received};

/// Most datagrams of a run that is sent (UDP_MAX_SEGMENTS of older kernels).
pub const RUN_MOST: usize = 64;
/// Most bytes of a run that is sent: what one IPv4 packet carries.
pub const RUN_BYTES_MOST: usize = 65_507;

/// Receives a datagram, or a run if [`receive_runs`] allowed it; see recvmsg(2). What does not fit
/// into `buffer` is lost.
#[inline]
pub fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<Received> {
    sys::datagram::receive(fd, buffer)
}

/// Sends one datagram; see sendto(2).
#[inline]
pub fn send_to(fd: RawFd, bytes: &[u8], to: &SocketAddress) -> io::Result<()> {
    sys::datagram::send_to(fd, bytes, to)
}

/// Sends messages in order and returns how many the kernel took, at least one; see sendmmsg(2). An
/// error is the first message's.
///
/// EIO, EINVAL, EMSGSIZE, ENOPROTOOPT and EOPNOTSUPP for a run may mean that the kernel or the
/// device does not send runs of that size; see [`refuses_runs`].
#[inline]
pub fn send(fd: RawFd, messages: &[Message<'_>]) -> io::Result<usize> {
    match messages {
        [] => Ok(0),
        [message] => sys::datagram::send_message(fd, message).map(|()| 1),
        messages => sys::datagram::send_messages(fd, messages),
    }
}

/// Whether an error in sending a run can be about the run, so that its datagrams have to be sent
/// one by one.
pub fn refuses_runs(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::ENOPROTOOPT | libc::EOPNOTSUPP)
    )
}

/// Whether such an error is about the size of the datagrams, so that shorter ones may do.
pub fn refuses_size(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EMSGSIZE))
}

/// Whether the socket is one of UDP.
pub fn is_udp(fd: RawFd) -> bool {
    let inet = matches!(
        socket::socket_family(fd),
        Ok(libc::AF_INET | libc::AF_INET6)
    );
    inet && socket::socket_protocol(fd).is_ok_and(|protocol| protocol == libc::IPPROTO_UDP)
}

/// Whether the kernel sends runs on this socket (Linux 4.18).
pub fn sends_runs(fd: RawFd) -> bool {
    is_udp(fd) && socket::get_option_int(fd, libc::SOL_UDP, libc::UDP_SEGMENT).is_ok()
}

/// Lets the kernel deliver runs (Linux 5.0), or ends that. ENOPROTOOPT: it cannot.
pub fn receive_runs(fd: RawFd, on: bool) -> io::Result<()> {
    socket::set_option_int(fd, libc::SOL_UDP, libc::UDP_GRO, on.into())
}
