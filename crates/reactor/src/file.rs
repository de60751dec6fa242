//! Files: the file operations that an event loop needs, one system call each.
//!
//! A path is the bytes that the kernel gets. Errors keep the raw errno; a path with a NUL in it is
//! EINVAL, without a system call.
//!
//! Cost: one system call, which may block on a slow file system; no allocation except for a long
//! path.

#![forbid(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use rustix::fs::Stat;

use crate::sys;

/// What stat(2) tells of a file, as far as a loop asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The type of the file and its permissions: `st_mode`.
    pub mode: u32,
    /// The number of the file in its file system: `st_ino`.
    pub inode: u64,
    /// In bytes: `st_size`.
    pub size: i64,
}

impl Status {
    #[expect(
        clippy::unnecessary_cast,
        trivial_numeric_casts,
        reason = "the fields have other types on other architectures"
    )]
    fn of(stat: &Stat) -> Self {
        Self {
            mode: stat.st_mode as u32,
            inode: stat.st_ino as u64,
            size: stat.st_size as i64,
        }
    }

    /// The type of the file alone: S_IFSOCK, S_IFIFO, …
    pub const fn kind(&self) -> u32 {
        self.mode & libc::S_IFMT
    }
}

/// The file at `path`, where a symbolic link leads; see stat(2).
pub fn stat(path: &[u8]) -> io::Result<Status> {
    Ok(Status::of(&rustix::fs::stat(path)?))
}

/// The open file behind `fd`; see fstat(2).
pub fn fstat(fd: RawFd) -> io::Result<Status> {
    Ok(Status::of(&sys::file::fstat(fd)?))
}

/// Removes the name `path`; see unlink(2).
pub fn unlink(path: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::unlink(path)?)
}

/// Sends at most `count` bytes of the file `source` from `offset` on to the socket `fd`, and
/// returns how many; 0 is the end of the file. Waits if the socket does. See sendfile(2).
pub fn sendfile(fd: RawFd, source: RawFd, offset: u64, count: usize) -> io::Result<usize> {
    sys::file::sendfile(fd, source, offset, count)
}

/// Moves the position of `fd` to `offset`; see lseek(2).
pub fn seek(fd: RawFd, offset: u64) -> io::Result<()> {
    sys::file::seek(fd, offset)
}
