//! Sockets and byte streams: one function a call.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::slice;

use libc::{c_int, c_void, socklen_t};
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags};

use super::address::RawAddress;
use super::{borrowed, check, transfer};
use crate::addr::SocketAddress;

const NEW_SOCKET: c_int = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;

const SEND_NOW: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// writev(2) and sendmsg(2) take no more slices than this.
const IOV_MAX: usize = libc::UIO_MAXIOV as usize;

pub(crate) fn socket(family: c_int, kind: c_int, protocol: c_int) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::socket(family, kind | NEW_SOCKET, protocol) })?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(crate) fn pair(family: c_int, kind: c_int, protocol: c_int) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the call fills in the two descriptors that the array has room for.
    check(unsafe { libc::socketpair(family, kind | NEW_SOCKET, protocol, fds.as_mut_ptr()) })?;
    Ok(own_both(fds))
}

pub(crate) fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [-1; 2];
    // SAFETY: the call fills in the two descriptors that the array has room for.
    check(unsafe { libc::pipe2(fds.as_mut_ptr(), libc::O_NONBLOCK | libc::O_CLOEXEC) })?;
    Ok(own_both(fds))
}

pub(crate) fn pipe_capacity(fd: RawFd) -> io::Result<usize> {
    // SAFETY: takes no pointer.
    let capacity = check(unsafe { libc::fcntl(fd, libc::F_GETPIPE_SZ) })?;
    Ok(capacity.unsigned_abs() as usize)
}

pub(crate) fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let duplicate = check(unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) })?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(duplicate) })
}

pub(crate) fn is_open(fd: RawFd) -> bool {
    // SAFETY: takes no pointer.
    unsafe { libc::fcntl(fd, libc::F_GETFD) != -1 }
}

fn own_both([first, second]: [RawFd; 2]) -> (OwnedFd, OwnedFd) {
    // SAFETY: called with descriptors that a successful call has just made, which nothing else
    // owns.
    unsafe { (OwnedFd::from_raw_fd(first), OwnedFd::from_raw_fd(second)) }
}

#[inline]
pub(crate) fn accept(fd: RawFd) -> io::Result<(OwnedFd, SocketAddress)> {
    let mut peer = RawAddress::empty();
    let accepted = loop {
        let (address, len) = peer.as_out();
        // SAFETY: the pointers are to `peer`, which is alive and has room for any address.
        match check(unsafe { libc::accept4(fd, address, len, NEW_SOCKET) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => break result?,
        }
    };
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    let accepted = unsafe { OwnedFd::from_raw_fd(accepted) };
    Ok((accepted, peer.to_address()))
}

pub(crate) fn connect(fd: RawFd, address: &SocketAddress) -> io::Result<()> {
    let address = RawAddress::new(address)?;
    // SAFETY: `address` is alive during the call and has as many bytes as its length says.
    check(unsafe { libc::connect(fd, address.as_ptr(), address.len()) })?;
    Ok(())
}

pub(crate) fn bind(fd: RawFd, address: &SocketAddress) -> io::Result<()> {
    let address = RawAddress::new(address)?;
    // SAFETY: `address` is alive during the call and has as many bytes as its length says.
    check(unsafe { libc::bind(fd, address.as_ptr(), address.len()) })?;
    Ok(())
}

pub(crate) fn listen(fd: RawFd, backlog: c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::listen(fd, backlog) })?;
    Ok(())
}

pub(crate) fn shutdown(fd: RawFd, how: c_int) -> io::Result<()> {
    // SAFETY: takes no pointer.
    check(unsafe { libc::shutdown(fd, how) })?;
    Ok(())
}

pub(crate) fn local_address(fd: RawFd) -> io::Result<SocketAddress> {
    let mut address = RawAddress::empty();
    let (out, len) = address.as_out();
    // SAFETY: the pointers are to `address`, which is alive and has room for any address.
    check(unsafe { libc::getsockname(fd, out, len) })?;
    Ok(address.to_address())
}

pub(crate) fn peer_address(fd: RawFd) -> io::Result<SocketAddress> {
    let mut address = RawAddress::empty();
    let (out, len) = address.as_out();
    // SAFETY: the pointers are to `address`, which is alive and has room for any address.
    check(unsafe { libc::getpeername(fd, out, len) })?;
    Ok(address.to_address())
}

#[inline]
pub(crate) fn recv(fd: RawFd, buffer: &mut [MaybeUninit<u8>]) -> io::Result<&mut [u8]> {
    let fd = borrowed(fd)?;
    let receive =
        || rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT).map(|(_, length)| length);
    let length = retry_on_intr(receive)?.min(buffer.len());
    // SAFETY: the kernel wrote that many bytes to the start of `buffer`.
    Ok(unsafe { slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), length) })
}

#[inline]
pub(crate) fn recv_into_slice(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let fd = borrowed(fd)?;
    let receive =
        || rustix::net::recv(fd, &mut *buffer, RecvFlags::DONTWAIT).map(|(_, length)| length);
    Ok(retry_on_intr(receive)?)
}

#[inline]
pub(crate) fn send(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let fd = borrowed(fd)?;
    Ok(retry_on_intr(|| rustix::net::send(fd, bytes, SEND_NOW))?)
}

#[inline]
pub(crate) fn send_vectored(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: a msghdr is plain integers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { MaybeUninit::zeroed().assume_init() };
    // IoSlice has the layout of iovec by its documentation; the kernel reads the slices only.
    message.msg_iov = slices.as_ptr().cast::<libc::iovec>().cast_mut();
    #[cfg_attr(
        target_env = "gnu",
        expect(trivial_numeric_casts, reason = "an int in musl")
    )]
    let count = slices.len().min(IOV_MAX) as _;
    message.msg_iovlen = count;
    // SAFETY: the message names `slices`, which are borrowed during the call, and nothing else.
    transfer(|| unsafe { libc::sendmsg(fd, &raw const message, libc::MSG_NOSIGNAL) })
}

#[inline]
pub(crate) fn read_into_slice(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    let (start, len) = (buffer.as_mut_ptr().cast::<c_void>(), buffer.len());
    // SAFETY: `buffer` is borrowed mutably during the call and has `len` bytes.
    transfer(|| unsafe { libc::read(fd, start, len) })
}

#[inline]
pub(crate) fn write(fd: RawFd, bytes: &[u8]) -> io::Result<usize> {
    let (start, len) = (bytes.as_ptr().cast::<c_void>(), bytes.len());
    // SAFETY: `bytes` is borrowed during the call and has `len` bytes.
    transfer(|| unsafe { libc::write(fd, start, len) })
}

#[inline]
pub(crate) fn write_vectored(fd: RawFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    let count = slices.len().min(IOV_MAX) as c_int;
    let start = slices.as_ptr().cast::<libc::iovec>();
    // SAFETY: IoSlice has the layout of iovec by its documentation; `slices` are borrowed during
    // the call and there are at least `count`.
    transfer(|| unsafe { libc::writev(fd, start, count) })
}

/// The first `N` ints of an option's value.
#[inline]
pub(crate) fn option_ints<const N: usize>(
    fd: RawFd,
    level: c_int,
    name: c_int,
) -> io::Result<[c_int; N]> {
    let mut values = [0; N];
    let mut len = size_of_val(&values) as socklen_t;
    let start = values.as_mut_ptr().cast();
    // SAFETY: the kernel writes at most `len` bytes to `values`; both are alive during the call.
    check(unsafe { libc::getsockopt(fd, level, name, start, &raw mut len) })?;
    Ok(values)
}

#[inline]
pub(crate) fn set_option_int(fd: RawFd, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    let len = size_of::<c_int>() as socklen_t;
    // SAFETY: the kernel reads `len` bytes of `value`, which is alive during the call.
    check(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), len) })?;
    Ok(())
}

pub(crate) fn set_nonblocking(fd: RawFd, nonblocking: bool) -> io::Result<()> {
    let mut on = c_int::from(nonblocking);
    // SAFETY: FIONBIO reads one int from `on`, which is alive during the call.
    check(unsafe { libc::ioctl(fd, libc::FIONBIO, &raw mut on) })?;
    Ok(())
}
