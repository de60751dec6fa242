//! eventfd(2).

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use super::check;

const COUNTER_LEN: usize = size_of::<u64>();

pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) })?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to the counter, which makes the descriptor readable. The only failure that a live
/// eventfd has is EAGAIN at 2^64 - 2, and then it is readable already.
#[inline]
pub(crate) fn add_one(fd: RawFd) {
    let one = 1_u64;
    // SAFETY: reads the eight bytes of `one`, which is alive during the call.
    unsafe { libc::write(fd, (&raw const one).cast(), COUNTER_LEN) };
}

/// Sets the counter back to zero. EAGAIN says that it was zero, which is no failure either.
#[inline]
pub(crate) fn reset(fd: RawFd) {
    let mut counter = 0_u64;
    // SAFETY: writes the eight bytes of `counter`, which is alive during the call.
    unsafe { libc::read(fd, (&raw mut counter).cast(), COUNTER_LEN) };
}
