//! Sockets: the non-blocking system calls that transports use.
//!
//! Every function takes the descriptor as a number, because it may belong to a Python socket object
//! that no Rust type owns; a function that makes a descriptor returns an [`OwnedFd`]. The number of
//! a closed descriptor gives EBADF.
//!
//! Errors keep the raw errno. Calls that move bytes, and `accept`, are tried again after EINTR, as
//! in CPython (PEP 475); `connect` is not, because the kernel continues it in the background.
//!
//! Cost: one system call each, no allocation except for Unix names. Differs from asyncio: accepting
//! and making a socket sets it non-blocking in the same call.

#![forbid(unsafe_code)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{OwnedFd, RawFd};

pub use libc::{
    AF_INET, AF_INET6, AF_UNIX, AF_UNSPEC, IPPROTO_IPV6, IPPROTO_TCP, IPV6_V6ONLY, SO_ACCEPTCONN,
    SO_KEEPALIVE, SO_REUSEADDR, SO_REUSEPORT, SOCK_DGRAM, SOCK_STREAM, SOL_SOCKET, TCP_NODELAY,
};

use crate::addr::SocketAddress;
use crate::sys;

/// Which half of a connection [`shutdown`] ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// No more receiving.
    Read,
    /// No more sending: the peer sees the end of the stream.
    Write,
    /// Neither.
    Both,
}

/// Makes a non-blocking socket that is closed on exec; see socket(2).
pub fn socket(family: i32, kind: i32, protocol: i32) -> io::Result<OwnedFd> {
    sys::socket::socket(family, kind, protocol)
}

/// Makes two connected sockets, non-blocking and closed on exec; see socketpair(2).
pub fn pair(family: i32, kind: i32, protocol: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    sys::socket::pair(family, kind, protocol)
}

/// Makes a pipe and returns its reading and its writing end, non-blocking and closed on exec; see
/// pipe(2).
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    sys::socket::pipe()
}

/// How many bytes fit into the pipe; see F_GETPIPE_SZ in fcntl(2).
pub fn pipe_capacity(fd: RawFd) -> io::Result<usize> {
    sys::socket::pipe_capacity(fd)
}

/// Another descriptor for the same open file, closed on exec; see fcntl(2).
pub fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    sys::socket::duplicate(fd)
}

/// True if the number has an open file, whosever it is; see F_GETFD in fcntl(2).
#[must_use]
pub fn is_open(fd: RawFd) -> bool {
    sys::socket::is_open(fd)
}

/// Takes a connection off the queue, non-blocking and closed on exec; see accept4(2).
///
/// EAGAIN: there is none. ECONNABORTED and the network errors that accept(2) lists concern the one
/// connection; EMFILE, ENFILE, ENOBUFS and ENOMEM leave it in the queue.
#[inline]
pub fn accept(fd: RawFd) -> io::Result<(OwnedFd, SocketAddress)> {
    sys::socket::accept(fd)
}

/// Starts to connect; see connect(2).
///
/// EINPROGRESS and EINTR: the outcome is in SO_ERROR when the socket is writable.
/// EAGAIN on a Unix socket: the server's queue is full, and nothing has been started.
pub fn connect(fd: RawFd, address: &SocketAddress) -> io::Result<()> {
    sys::socket::connect(fd, address)
}

/// Gives the socket its local address; see bind(2).
pub fn bind(fd: RawFd, address: &SocketAddress) -> io::Result<()> {
    sys::socket::bind(fd, address)
}

/// Begins to queue connections; see listen(2). A negative `backlog` counts as zero, as in CPython.
pub fn listen(fd: RawFd, backlog: i32) -> io::Result<()> {
    sys::socket::listen(fd, backlog.max(0))
}

/// Receives bytes to the start of `buffer` and returns them; none is the end of the stream (or an
/// empty `buffer`). See recv(2). Never waits, even if the socket does.
#[inline]
pub fn recv(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<&mut [u8]> {
    sys::socket::recv(fd, buffer)
}

/// [`recv`] for memory that is initialised already; returns how many bytes it received.
#[inline]
pub fn recv_into_slice(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    sys::socket::recv_into_slice(fd, buffer)
}

/// Sends the start of `bytes` and returns how many the kernel took; see send(2). Never waits, even
/// if the socket does. A peer that is gone is EPIPE, never SIGPIPE.
#[inline]
pub fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    sys::socket::send(fd, bytes)
}

/// Sends the start of the concatenated `slices` in one call and returns how many bytes the kernel
/// took; see sendmsg(2). Slices past the kernel's limit (1,024) wait for the next call. A peer that
/// is gone is EPIPE, never SIGPIPE.
#[inline]
pub fn send_vectored(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    sys::socket::send_vectored(fd, slices)
}

/// [`recv_into_slice`] for what is no socket; see read(2).
#[inline]
pub fn read_into_slice(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    sys::socket::read_into_slice(fd, buffer)
}

/// [`send`] for what is no socket; see write(2). Writing to a pipe without a reader raises SIGPIPE
/// (which Python ignores) beside EPIPE.
#[inline]
pub fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    sys::socket::write(fd, bytes)
}

/// [`send_vectored`] for what is no socket; see writev(2) and [`write()`].
#[inline]
pub fn write_vectored(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    sys::socket::write_vectored(fd, slices)
}

/// Ends one or both halves of a connection; see shutdown(2). ENOTCONN: it is over already.
pub fn shutdown(fd: RawFd, how: How) -> io::Result<()> {
    let how = match how {
        How::Read => libc::SHUT_RD,
        How::Write => libc::SHUT_WR,
        How::Both => libc::SHUT_RDWR,
    };
    sys::socket::shutdown(fd, how)
}

/// The address that the socket is bound to; see getsockname(2).
pub fn local_address(fd: RawFd) -> io::Result<SocketAddress> {
    sys::socket::local_address(fd)
}

/// The address that the socket is connected to; see getpeername(2). ENOTCONN: it is not.
pub fn peer_address(fd: RawFd) -> io::Result<SocketAddress> {
    sys::socket::peer_address(fd)
}

/// Sets an option whose value is an int; see setsockopt(2).
pub fn set_option_int(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    sys::socket::set_option_int(fd, level, name, value)
}

/// Reads an option whose value is an int; see getsockopt(2).
pub fn get_option_int(fd: RawFd, level: i32, name: i32) -> io::Result<i32> {
    let [value] = sys::socket::option_ints(fd, level, name)?;
    Ok(value)
}

/// How many bytes a send would take now for certain; see SO_MEMINFO in Linux's asm/socket.h.
///
/// The kernel counts its own structures as well, so this is half of what is left. It takes less
/// only if the whole system is short of memory, with TCP_NOTSENT_LOWAT, or if the peer's window is
/// so small that the structures are most of it. ENOPROTOOPT: the kernel cannot tell.
pub fn send_room(fd: RawFd) -> io::Result<usize> {
    // In the order of libc's SK_MEMINFO_*. TCP counts what is queued in one way, Unix sockets in
    // the other.
    let [_, _, allocated, buffer, _, queued] =
        sys::socket::option_ints(fd, SOL_SOCKET, libc::SO_MEMINFO)?;
    let left = buffer.saturating_sub(allocated.max(queued));
    Ok(usize::try_from(left / 2).unwrap_or(0))
}

/// SOCK_STREAM, SOCK_DGRAM, … (SO_TYPE in socket(7)). ENOTSOCK: it is no socket.
pub fn socket_kind(fd: RawFd) -> io::Result<i32> {
    get_option_int(fd, SOL_SOCKET, libc::SO_TYPE)
}

/// AF_INET, AF_UNIX, … (SO_DOMAIN in socket(7)). ENOTSOCK: it is no socket.
pub fn socket_family(fd: RawFd) -> io::Result<i32> {
    get_option_int(fd, SOL_SOCKET, libc::SO_DOMAIN)
}

/// The protocol number (SO_PROTOCOL in socket(7)). ENOTSOCK: it is no socket.
pub fn socket_protocol(fd: RawFd) -> io::Result<i32> {
    get_option_int(fd, SOL_SOCKET, libc::SO_PROTOCOL)
}

/// Sends small segments at once (TCP_NODELAY in tcp(7)).
pub fn set_nodelay(fd: RawFd, on: bool) -> io::Result<()> {
    set_option_int(fd, IPPROTO_TCP, TCP_NODELAY, on.into())
}

/// Sets or clears O_NONBLOCK (FIONBIO in ioctl(2)).
pub fn set_nonblocking(fd: RawFd, on: bool) -> io::Result<()> {
    sys::socket::set_nonblocking(fd, on)
}
