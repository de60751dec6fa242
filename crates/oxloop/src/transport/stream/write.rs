//! Writing: what a batch of callbacks writes leaves in one system call (see `event_loop::unsent`).
//!
//! Every method that shows the queue (its size, a water mark) or ends it (`close`, `abort`,
//! `write_eof`) flushes first, so that the program sees what asyncio would show, which sends at
//! once. A socket that somebody else holds is sent to at once.

use super::connection::FatalError;
use super::{StreamThis, StreamTransport};
use crate::error::{errno_of, os_error};
use crate::py::args::Args;
use crate::py::class::OfNative;
use crate::py::method::Methods;
use crate::transport::base::count_lost_write;
use crate::transport::write_queue::{Sends, chunk_of, is_writable_data};
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use reactor::socket::{self, How};
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;

/// Sends from a write queue to a stream socket.
struct Socket(RawFd);

impl Sends for Socket {
    fn one(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::send(self.0, bytes)
    }

    fn many(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        socket::send_vectored(self.0, slices)
    }
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.procedure(
        c"write",
        "data",
        |this, args| this.write(&*args.one("write", "data")?),
        c"Send or queue bytes; never blocks.",
    );
    methods.procedure(
        c"writelines",
        "list_of_data",
        writelines,
        c"Send or queue an iterable of bytes objects.",
    );
    methods.nullary_procedure(
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

impl<'py> StreamThis<'_, 'py> {
    #[inline]
    fn write(&self, data: &Bound<'py, PyAny>) -> PyResult<()> {
        if !is_writable_data(data) {
            return Err(wrong_data(data));
        }
        self.check_writable("write")?;
        let Some(chunk) = chunk_of(data)? else {
            return Ok(());
        };
        if self.is_lost()? {
            return Ok(());
        }
        if self.own().by_object {
            return self.write_by_object(chunk);
        }
        self.own().queue.borrow_mut().push(chunk);
        self.queued_more()
    }

    /// Sends or queues bytes of our own making: TLS records.
    ///
    /// # Errors
    /// As `transport.write`.
    pub(crate) fn write_owned(&self, bytes: Vec<u8>) -> PyResult<()> {
        self.check_writable("write")?;
        if self.is_lost()? {
            return Ok(());
        }
        if self.own().by_object {
            return self.write_by_object(PyBytes::new(self.py(), &bytes));
        }
        self.own().queue.borrow_mut().push_owned(bytes);
        self.queued_more()
    }

    fn check_writable(&self, function: &str) -> PyResult<()> {
        if self.own().eof.get() {
            return Err(PyRuntimeError::new_err(format!(
                "Cannot call {function}() after write_eof()"
            )));
        }
        if self.own().sendfile.get() {
            return Err(PyRuntimeError::new_err(format!(
                "unable to {function}; sendfile is in progress"
            )));
        }
        Ok(())
    }

    /// True if the connection is lost. The write is dropped then, and counted.
    fn is_lost(&self) -> PyResult<bool> {
        let lost = &self.own().flags.conn_lost;
        if lost.get() == 0 {
            return Ok(false);
        }
        count_lost_write(self.py(), lost, "socket.send() raised exception.")?;
        Ok(true)
    }

    /// Called after something was queued: sends it now, or at the end of the batch, or leaves it to
    /// the writable event that is awaited already.
    #[inline]
    fn queued_more(&self) -> PyResult<()> {
        let (inner, state) = (self.own(), self.loop_state());
        let (blocked, size, has_slices) = {
            let queue = inner.queue.borrow();
            (queue.is_blocked(), queue.size(), queue.has_slices_for(1))
        };
        if blocked {
            return self.maybe_pause_protocol();
        }
        let waits = state.is_in_callback()
            && has_slices
            && (size <= inner.flow.high_water() || self.kernel_takes(size));
        if waits && !inner.descriptor.borrow().is_shared(self.py()) {
            self.flush_later();
            return Ok(());
        }
        self.send_now()?;
        self.maybe_pause_protocol()
    }

    /// Sends what is queued here, and before it what was written to other transports earlier.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    #[inline]
    pub(super) fn send_now(&self) -> PyResult<()> {
        self.loop_state().flush(self.py());
        self.try_flush()
    }

    /// Sends what is queued, as far as the kernel takes it. Errors end the connection.
    pub(crate) fn flush(&self) {
        if let Err(error) = self.try_flush() {
            self.loop_state()
                .interrupt(self.py(), error, &self.object());
        }
    }

    fn try_flush(&self) -> PyResult<()> {
        let inner = self.own();
        inner.written.set(false);
        let size = {
            let queue = inner.queue.borrow();
            if queue.is_blocked() || queue.is_empty() {
                return Ok(());
            }
            queue.size()
        };
        if self.send_some()? && inner.queue.borrow().is_blocked() {
            return self.refused_some(size);
        }
        inner.room.end();
        Ok(())
    }

    /// The kernel took less than all `size` bytes.
    #[cold]
    fn refused_some(&self, size: usize) -> PyResult<()> {
        self.wait_to_send()?;
        if self.own().room.holds(size) {
            return self.promise_broken();
        }
        self.own().room.end();
        Ok(())
    }

    /// Sends from the queue with one system call; false if the connection failed.
    fn send_some(&self) -> PyResult<bool> {
        if self.own().by_object {
            return self.send_more_by_object();
        }
        let (py, inner) = (self.py(), self.own());
        let sent = self
            .fd()
            .and_then(|fd| inner.queue.borrow().send(py, &Socket(fd)));
        match sent {
            Ok(sent) => {
                self.advance(sent);
                Ok(true)
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                inner.queue.borrow_mut().set_blocked(true);
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

    #[inline(always)]
    pub(super) fn count_sent(&self, bytes: usize) {
        let traffic = &self.loop_state().metrics().traffic;
        traffic.bytes_sent.add(bytes as u64);
    }

    /// Removes the `sent` bytes from the queue. If some are left, only a writable event sends more.
    #[inline]
    pub(super) fn advance(&self, sent: usize) {
        self.count_sent(sent);
        let mut queue = self.own().queue.borrow_mut();
        let memory = self.loop_state().record_memory();
        queue.advance(self.py(), sent, |sent| memory.give_back(sent));
        let left = !queue.is_empty();
        queue.set_blocked(left);
    }

    /// Serves a writable event. The protocol and the exception handler are called in the context of
    /// the connection.
    pub(super) fn write_ready(&self) -> PyResult<()> {
        self.own().context.run(self.py(), || self.write_more())
    }

    fn write_more(&self) -> PyResult<()> {
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
            return self.end_now();
        }
        if inner.eof.get() {
            return self.shut_down_later();
        }
        Ok(())
    }

    fn write_eof(&self) -> PyResult<()> {
        let (inner, flags) = (self.own(), &self.own().flags);
        // First: if this send fails, the connection is closing, `write_eof` does nothing, and later
        // writes are dropped.
        self.send_now()?;
        if flags.closing.get() || inner.eof.replace(true) {
            return Ok(());
        }
        if inner.queue.borrow().is_empty() && flags.conn_lost.get() == 0 {
            self.shut_down_writing()?;
        }
        Ok(())
    }

    /// # Errors
    /// EBADF if the program closed the socket; what a socket object's own method raises.
    fn shut_down_writing(&self) -> PyResult<()> {
        if self.own().by_object {
            return self.shut_down_by_object();
        }
        let shut = self.fd().and_then(|fd| socket::shutdown(fd, How::Write));
        shut.map_err(|error| os_error(&error))
    }

    /// Shuts the writing side down once the queue is sent. `write_eof` has returned before, so an
    /// error ends the connection.
    fn shut_down_later(&self) -> PyResult<()> {
        let Err(error) = self.shut_down_writing() else {
            return Ok(());
        };
        // The peer is gone, which the reading side reports.
        let peer_gone = errno_of(self.py(), &error)? == Some(libc::ENOTCONN);
        if peer_gone {
            return Ok(());
        }
        self.fatal_error(
            FatalError::Python(error),
            "Fatal write error on socket transport",
        )
    }
}

#[cold]
fn wrong_data(data: &Bound<'_, PyAny>) -> PyErr {
    let expected = if cfg!(Py_3_14) {
        "bytes, bytearray, or memoryview object"
    } else {
        "bytes-like object"
    };
    let kind = data.get_type().name().and_then(|name| name.repr());
    kind.map_or_else(
        |error| error,
        |kind| PyTypeError::new_err(format!("data argument must be a {expected}, not {kind}")),
    )
}

fn writelines<'py>(this: &StreamThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let py = this.py();
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
        chunks.extend(chunk_of(&line)?);
    }
    if chunks.is_empty() || this.is_lost()? {
        return Ok(());
    }
    let fits = this.own().queue.borrow().has_slices_for(chunks.len());
    if !fits {
        // asyncio has sent what was written before, and queues what one call does not take of this.
        this.send_now()?;
    }
    {
        let mut queue = this.own().queue.borrow_mut();
        for chunk in chunks {
            queue.push(chunk);
        }
    }
    if this.own().by_object {
        this.write_lines_by_object()
    } else {
        this.queued_more()
    }
}
