//! The C library, behind safe functions.
//!
//! Each file wraps the calls of one topic and offers slices, owned descriptors and `io::Error`s
//! instead of pointers, integers and errno. No decisions are made here.

pub(crate) mod address;
pub(crate) mod clock;
pub(crate) mod datagram;
pub(crate) mod epoll;
pub(crate) mod eventfd;
pub(crate) mod file;
pub(crate) mod resolve;
pub(crate) mod signal;
pub(crate) mod socket;

use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use libc::{c_int, ssize_t};

/// Turns the result of a call that returns -1 on failure into a `Result`.
#[inline]
fn check(result: c_int) -> io::Result<c_int> {
    if result == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// Like [`check`], for a call that returns a number of bytes and is tried again when a signal
/// handler interrupted it, as CPython does (PEP 475).
#[inline]
fn transfer(mut call: impl FnMut() -> ssize_t) -> io::Result<usize> {
    loop {
        if let Ok(bytes) = usize::try_from(call()) {
            return Ok(bytes);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// `fd` as rustix wants it, which has no -1.
#[inline]
fn borrowed<'a>(fd: RawFd) -> io::Result<BorrowedFd<'a>> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: not -1. It is used for one system call, which answers EBADF for a closed one.
    Ok(unsafe { BorrowedFd::borrow_raw(fd) })
}
