//! Files by their descriptors.

use std::io;
use std::os::fd::RawFd;

use rustix::fs::{SeekFrom, Stat};

use super::borrowed;

pub(crate) fn fstat(fd: RawFd) -> io::Result<Stat> {
    Ok(rustix::fs::fstat(borrowed(fd)?)?)
}

pub(crate) fn sendfile(
    fd: RawFd,
    source: RawFd,
    mut offset: u64,
    count: usize,
) -> io::Result<usize> {
    let (fd, source) = (borrowed(fd)?, borrowed(source)?);
    Ok(rustix::fs::sendfile(fd, source, Some(&mut offset), count)?)
}

pub(crate) fn seek(fd: RawFd, offset: u64) -> io::Result<()> {
    rustix::fs::seek(borrowed(fd)?, SeekFrom::Start(offset))?;
    Ok(())
}
