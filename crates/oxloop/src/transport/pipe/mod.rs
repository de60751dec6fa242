//! Pipes: `ReadPipeTransport` and `WritePipeTransport`, over pipes, FIFOs, sockets and character
//! devices; `asyncio.ReadTransport` and `asyncio.WriteTransport` by inheritance.
//!
//! | What | File |
//! |---|---|
//! | the file object, its registration, its end | `transport` |
//! | data_received, eof_received, pause_reading, resume_reading | `read` |
//! | write, write_eof, flow control, the reader's going away | `write` |
//!
//! Invariants:
//! - the file object that the program gave is closed in the deferred `connection_lost`, or by the
//!   finalizer of a transport that was never closed.
//! - the program can close the file behind the transport's back, and its number may belong to
//!   another file then. So the kernel is called only while the file object has that number
//!   (`py::file`); otherwise the outcome is EBADF.
//! - each transport has a registration of its own: if the descriptor's number has one already (a
//!   terminal that is read and written), the transport registers a duplicate.
//! - the loop keeps a transport alive exactly while it is registered.
//!
//! Cost: read(2) into the loop's scratch memory and one `bytes`; write(2) as soon as something is
//! written, writev(2) for what had to wait. Differs from asyncio: `add_reader` and `add_writer`
//! refuse the descriptor of a pipe transport while it is registered, as they refuse a socket
//! transport's.

mod read;
mod transport;
mod write;

pub(crate) use read::ReadPipeTransport;
pub(crate) use write::WritePipeTransport;

use crate::error::os_error;
use crate::file;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::socket;
use std::os::fd::RawFd;

/// Makes the types; called once, at import.
pub(crate) fn create_types(module: &Bound<'_, PyModule>) -> PyResult<()> {
    read::create_type(module)?;
    write::create_type(module)
}

/// The kinds of files that can be polled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum FileKind {
    Fifo,
    Socket,
    Device,
}

/// The kind of a descriptor's file, or None if that cannot be polled.
fn kind_of(py: Python<'_>, fd: RawFd) -> PyResult<Option<FileKind>> {
    Ok(match file::fstat(py, fd)?.kind() {
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFSOCK => Some(FileKind::Socket),
        libc::S_IFCHR => Some(FileKind::Device),
        _ => None,
    })
}

fn set_nonblocking(fd: RawFd) -> PyResult<()> {
    socket::set_nonblocking(fd, true).map_err(|error| os_error(&error))
}

/// The values of `get_extra_info`: the file object.
fn extra_of<'py>(pipe: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyDict>> {
    let extra = PyDict::new(pipe.py());
    extra.set_item(intern!(pipe.py(), "pipe"), pipe)?;
    Ok(extra)
}
