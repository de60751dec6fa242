//! Writing: what a callback writes leaves in one system call when the callback returns.
//!
//! Exact `bytes` are queued without a copy; anything mutable is copied, so that the program may go on
//! changing it. Whoever can observe the queue (its size, a water mark, `close`, `abort`, `write_eof`)
//! flushes first, so that it sees what asyncio's write-at-once would show.

use super::connection::FatalError;
use super::{StreamThis, StreamTransport};
use crate::py::args::Args;
use crate::py::buffer::copy_to_bytes;
use crate::py::class::OfNative;
use crate::py::imports;
use crate::py::method::Methods;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyByteArray, PyBytes, PyList, PyMemoryView, PyString};
use reactor::socket::{self, How};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};

/// Most buffers that one sendmsg(2) takes (UIO_MAXIOV).
const SLICES_MOST: usize = 1024;
/// Buffers whose slices fit on the stack.
const SLICES_INLINE: usize = 16;
/// Writes to a lost connection before asyncio warns.
const WARN_AFTER: u32 = 5;

/// Bytes that wait to be sent.
pub(super) struct WriteQueue {
    chunks: VecDeque<Py<PyBytes>>,
    /// How much of the first chunk is sent already.
    offset: usize,
    size: usize,
    /// The kernel took less than it was given: only a writable event sends more.
    blocked: bool,
}

impl WriteQueue {
    pub(super) const fn new() -> Self {
        Self {
            chunks: VecDeque::new(),
            offset: 0,
            size: 0,
            blocked: false,
        }
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    fn push(&mut self, chunk: Bound<'_, PyBytes>) {
        self.size += chunk.as_bytes().len();
        self.chunks.push_back(chunk.unbind());
    }

    /// Takes everything out, for the caller to drop.
    pub(super) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new())
    }

    /// Sends from the front: one system call.
    fn send(&self, py: Python<'_>, fd: i32) -> io::Result<usize> {
        let first = &self.chunks[0].as_bytes(py)[self.offset..];
        if self.chunks.len() == 1 {
            return socket::send(fd, first);
        }
        let rest = self
            .chunks
            .iter()
            .skip(1)
            .map(|chunk| IoSlice::new(chunk.as_bytes(py)));
        let slices = std::iter::once(IoSlice::new(first)).chain(rest);
        if self.chunks.len() <= SLICES_INLINE {
            let mut inline = [IoSlice::new(&[]); SLICES_INLINE];
            for (place, slice) in inline.iter_mut().zip(slices) {
                *place = slice;
            }
            return socket::send_vectored(fd, &inline[..self.chunks.len()]);
        }
        socket::send_vectored(fd, &slices.take(SLICES_MOST).collect::<Vec<_>>())
    }

    /// Removes `sent` bytes from the front.
    fn advance(&mut self, py: Python<'_>, sent: usize) {
        self.size -= sent;
        let mut left = sent;
        while let Some(first) = self.chunks.front() {
            let length = first.as_bytes(py).len() - self.offset;
            if left < length {
                self.offset += left;
                return;
            }
            left -= length;
            self.offset = 0;
            // A bytes object has no destructor that could come back here.
            drop(self.chunks.pop_front().map(|chunk| chunk.into_bound(py)));
        }
    }
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.method(
        c"write",
        |this, args| {
            let data = args.one("write", "data")?;
            this.write(&data)
        },
        c"Send or queue bytes; never blocks.",
    );
    methods.method(
        c"writelines",
        writelines,
        c"Send or queue an iterable of bytes objects.",
    );
    methods.nullary(
        c"write_eof",
        |this| this.write_eof(),
        c"Shut the writing side down once the queue is sent.",
    );
    methods.nullary(
        c"can_write_eof",
        |this| this.boolean(true),
        c"True: stream sockets can be half-closed.",
    );
}

pub(crate) fn chunk_of<'py>(data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    match data.cast::<PyBytes>() {
        Ok(bytes) => Ok(bytes.clone()),
        Err(_) => copy_to_bytes(data),
    }
}

pub(crate) fn is_writable_data(data: &Bound<'_, PyAny>) -> bool {
    data.is_instance_of::<PyBytes>()
        || data.is_instance_of::<PyByteArray>()
        || data.is_instance_of::<PyMemoryView>()
}

impl<'py> StreamThis<'_, 'py> {
    #[inline]
    fn write(&self, data: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        if !is_writable_data(data) {
            return Err(PyTypeError::new_err(format!(
                "data argument must be a bytes, bytearray, or memoryview object, not {}",
                data.get_type().name()?.repr()?
            )));
        }
        self.check_writable("write")?;
        let none = self.py().None().into_bound(self.py());
        let chunk = chunk_of(data)?;
        if chunk.as_bytes().is_empty() || self.is_lost()? {
            return Ok(none);
        }
        self.own().queue.borrow_mut().push(chunk);
        self.queued_more()?;
        Ok(none)
    }

    fn check_writable(&self, function: &str) -> PyResult<()> {
        if self.own().flags.eof.get() {
            return Err(PyRuntimeError::new_err(format!(
                "Cannot call {function}() after write_eof()"
            )));
        }
        Ok(())
    }

    /// True if the connection is lost: what is written then is dropped, with a warning in the end.
    fn is_lost(&self) -> PyResult<bool> {
        let lost = &self.own().flags.conn_lost;
        if lost.get() == 0 {
            return Ok(false);
        }
        if lost.get() >= WARN_AFTER {
            imports::logger(self.py())?
                .call_method1("warning", ("socket.send() raised exception.",))?;
        }
        lost.set(lost.get().saturating_add(1));
        Ok(true)
    }

    /// Something was queued: send it now, at the end of the callback, or when the peer reads.
    #[inline]
    fn queued_more(&self) -> PyResult<()> {
        let (inner, state) = (self.own(), self.loop_state());
        let (blocked, size) = {
            let queue = inner.queue.borrow();
            (queue.blocked, queue.size)
        };
        if blocked {
            return self.maybe_pause_protocol();
        }
        if state.is_in_callback() && size <= inner.high_water.get() {
            if !inner.flags.written.replace(true) {
                state.flush_later(self.to_ref());
            }
            return Ok(());
        }
        self.try_flush()?;
        self.maybe_pause_protocol()
    }

    /// Sends what is queued, as far as the kernel takes it. Errors end the connection.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.try_flush() {
            // Only a KeyboardInterrupt or SystemExit out of an exception handler comes this far, at a
            // point where nobody can receive it.
            error.write_unraisable(self.py(), Some(&self.object()));
        }
    }

    fn try_flush(&self) -> PyResult<()> {
        let inner = self.own();
        inner.flags.written.set(false);
        {
            let queue = inner.queue.borrow();
            if queue.blocked || queue.is_empty() {
                return Ok(());
            }
        }
        if self.send_some()? && inner.queue.borrow().is_blocked() {
            self.want_more();
        }
        Ok(())
    }

    /// One system call's worth; false if the connection failed.
    fn send_some(&self) -> PyResult<bool> {
        let (py, inner) = (self.py(), self.own());
        let sent = inner.queue.borrow().send(py, inner.fd);
        match sent {
            Ok(sent) => {
                let mut queue = inner.queue.borrow_mut();
                queue.advance(py, sent);
                queue.blocked = !queue.is_empty();
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                inner.queue.borrow_mut().blocked = true;
                Ok(true)
            }
            Err(error) => {
                let unsent = inner.queue.borrow_mut().take();
                drop(unsent);
                self.fatal_error(
                    FatalError::Os(&error),
                    "Fatal write error on socket transport",
                )?;
                Ok(false)
            }
        }
    }

    /// The kernel takes more.
    pub(super) fn write_ready(&self) -> PyResult<()> {
        let inner = self.own();
        if inner.flags.conn_lost.get() > 0 || !self.send_some()? {
            return Ok(());
        }
        // May write more, which has to leave before a connection that is closing ends.
        self.maybe_resume_protocol()?;
        self.try_flush()?;
        if !inner.queue.borrow().is_empty() {
            return Ok(());
        }
        if inner.flags.closing.get() {
            if inner.flags.conn_lost.get() == 0 {
                inner.flags.conn_lost.set(1);
                return self.schedule_connection_lost(None);
            }
        } else if inner.flags.eof.get() {
            self.shutdown_writing();
        }
        Ok(())
    }

    fn write_eof(&self) -> PyResult<Bound<'py, PyAny>> {
        let flags = &self.own().flags;
        let none = self.py().None().into_bound(self.py());
        if flags.closing.get() || flags.eof.get() {
            return Ok(none);
        }
        flags.eof.set(true);
        self.flush();
        if self.own().queue.borrow().is_empty() && flags.conn_lost.get() == 0 {
            self.shutdown_writing();
        }
        Ok(none)
    }

    fn shutdown_writing(&self) {
        // ENOTCONN: the peer is gone, which the reading side reports.
        let _shut = socket::shutdown(self.own().fd, How::Write);
    }
}

fn writelines<'py>(this: &StreamThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let py = this.py();
    let none = py.None().into_bound(py);
    let lines = args.one("writelines", "list_of_data")?;
    if cfg!(not(Py_3_12)) {
        let joined = PyBytes::new(py, b"").call_method1("join", (lines,))?;
        return this.write(&joined);
    }
    this.check_writable("writelines")?;
    let lines = PyList::new(py, lines.try_iter()?.collect::<PyResult<Vec<_>>>()?)?;
    let mut chunks = Vec::with_capacity(lines.len());
    for line in lines {
        if line.is_instance_of::<PyString>() {
            return Err(PyTypeError::new_err(
                "memoryview: a bytes-like object is required, not 'str'",
            ));
        }
        chunks.push(chunk_of(&line)?);
    }
    chunks.retain(|chunk| !chunk.as_bytes().is_empty());
    if chunks.is_empty() || this.is_lost()? {
        return Ok(none);
    }
    {
        let mut queue = this.own().queue.borrow_mut();
        for chunk in chunks {
            queue.push(chunk);
        }
    }
    this.queued_more()?;
    Ok(none)
}
