//! `WritePipeTransport`: what `connect_write_pipe` makes.
//!
//! The writing end of a pipe or socket is polled for reading too: it becomes readable when the
//! reader goes away, so that this is noticed without a write. A character device does not tell.

use super::{FileKind, transport};
use crate::error::os_error;
use crate::event_loop::snapshot::Backlog;
use crate::py::class::{Class, OfNative, Slots, create};
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::base::{BaseTransport, count_lost_write};
use crate::transport::flow_control::{self, FlowControl, FlowControlled};
use crate::transport::pipe::transport::{PipeSide, PipeThis, PipeTransport};
use crate::transport::write_queue::{Sends, WriteQueue, chunk_of, is_writable_data};
use pyo3::exceptions::{PyAssertionError, PyBrokenPipeError, PyOSError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyType};
use reactor::poller::Interest;
use reactor::socket;
use std::cell::RefCell;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::RawFd;

/// Sends from a write queue with write(2).
struct File(RawFd);

impl Sends for File {
    fn one(&self, bytes: &[u8]) -> io::Result<usize> {
        socket::write(self.0, bytes)
    }

    fn many(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        socket::write_vectored(self.0, slices)
    }
}

/// The writing end.
pub(crate) struct Writing {
    queue: RefCell<WriteQueue>,
    flow: FlowControl,
    /// A readable event means that the reader is gone.
    notices_reader: bool,
}

pub(crate) type WritePipeTransport = PipeTransport<Writing>;

type WriteThis<'a, 'py> = PipeThis<'a, 'py, Writing>;

static CLASS: Class = Class::new();

impl PipeSide for Writing {
    const POLLED: Interest = Interest::WRITABLE;
    const REFUSAL: &'static str = "Pipe transport is only for pipes, sockets and character devices";

    fn new(kind: FileKind) -> Self {
        Self {
            queue: RefCell::new(WriteQueue::new()),
            flow: FlowControl::new(),
            notices_reader: kind != FileKind::Device,
        }
    }

    fn class() -> &'static Class {
        &CLASS
    }

    /// The reader is gone, or there is room for more.
    fn on_event(this: &WriteThis<'_, '_>, readable: bool, writable: bool) -> PyResult<()> {
        if this.end().ended.get() {
            return Ok(());
        }
        if readable && this.own().notices_reader && this.flags().started.get() {
            return this.reader_gone();
        }
        if writable && this.own().queue.borrow().is_blocked() {
            let py = this.py();
            return this.parties(py).context.run(py, || this.write_ready());
        }
        Ok(())
    }

    fn begin(this: &WriteThis<'_, '_>) -> PyResult<()> {
        this.flags().started.set(true);
        this.listen()
    }

    fn close(this: &WriteThis<'_, '_>) -> PyResult<()> {
        this.write_eof()
    }

    fn fail(this: &WriteThis<'_, '_>, error: Py<PyAny>) -> PyResult<()> {
        this.count_failure();
        this.close_now(Some(error))
    }

    fn bufsize(this: &WriteThis<'_, '_>) -> Option<usize> {
        Some(this.queued())
    }

    fn backlog(this: &WriteThis<'_, '_>) -> Backlog {
        this.backlog_of_queue()
    }
}

impl FlowControlled for WritePipeTransport {
    fn flow(&self, py: Python<'_>) -> &FlowControl {
        &self.side(py).flow
    }

    fn queued(this: &WriteThis<'_, '_>) -> usize {
        this.own().queue.borrow().size()
    }
}

impl<'py> WriteThis<'_, 'py> {
    fn own(&self) -> &Writing {
        self.side(self.py())
    }

    /// Registers the interest that the transport has now.
    fn listen(&self) -> PyResult<()> {
        let own = self.own();
        let mut wanted = Interest::NONE;
        if own.notices_reader && self.flags().started.get() && !self.end().ended.get() {
            wanted = wanted.with(Interest::READABLE);
        }
        if own.queue.borrow().is_blocked() {
            wanted = wanted.with(Interest::WRITABLE);
        }
        self.listen_for(wanted)
    }

    fn write(&self, data: &Bound<'py, PyAny>) -> PyResult<()> {
        if !is_writable_data(data) {
            return Err(PyAssertionError::new_err(data.repr()?.unbind()));
        }
        let Some(chunk) = chunk_of(data)? else {
            return Ok(());
        };
        // What was written before may be for the same peer.
        self.loop_state().flush(self.py());
        if self.is_lost()? {
            return Ok(());
        }
        let waits = !self.own().queue.borrow().is_empty();
        self.own().queue.borrow_mut().push(chunk);
        if !waits && self.send_some()? {
            self.wait_to_write()?;
        }
        self.maybe_pause_protocol()
    }

    /// Registers for the writable event if the kernel did not take everything.
    ///
    /// # Errors
    /// RuntimeError on a closed loop, which serves no events; the queue is dropped then.
    fn wait_to_write(&self) -> PyResult<()> {
        if !self.own().queue.borrow().is_blocked() {
            return Ok(());
        }
        if let Err(error) = self.loop_state().check_closed() {
            let unsent = self.own().queue.borrow_mut().take();
            drop(unsent);
            return Err(error);
        }
        self.listen()
    }

    /// True if nothing can be written any more. The write is dropped then, and counted.
    fn is_lost(&self) -> PyResult<bool> {
        let lost = &self.flags().conn_lost;
        if lost.get() == 0 && !self.flags().closing.get() {
            return Ok(false);
        }
        let warning = "pipe closed by peer or os.write(pipe, data) raised exception.";
        count_lost_write(self.py(), lost, warning)?;
        Ok(true)
    }

    /// Sends from the queue with one system call; false if the pipe failed.
    fn send_some(&self) -> PyResult<bool> {
        let (py, own) = (self.py(), self.own());
        let fd = match self.fd() {
            Ok(fd) => fd,
            Err(error) => return self.write_failed(error).map(|()| false),
        };
        let sent = own.queue.borrow().send(py, &File(fd));
        match sent {
            Ok(sent) => {
                let traffic = &self.loop_state().metrics().traffic;
                traffic.bytes_sent.add(sent as u64);
                let mut queue = own.queue.borrow_mut();
                queue.advance(py, sent, drop);
                let left = !queue.is_empty();
                queue.set_blocked(left);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                own.queue.borrow_mut().set_blocked(true);
                Ok(true)
            }
            Err(error) => self.write_failed(os_error(&error)).map(|()| false),
        }
    }

    #[cold]
    fn write_failed(&self, error: PyErr) -> PyResult<()> {
        self.count_failure();
        let expected = error.is_instance_of::<PyOSError>(self.py());
        let message = "Fatal write error on pipe transport";
        let error = self.report_fatal(error, expected, message)?;
        self.close_now(Some(error))
    }

    fn count_failure(&self) {
        let lost = &self.flags().conn_lost;
        lost.set(lost.get().saturating_add(1));
    }

    /// Drops what is queued and queues `connection_lost(error)`.
    fn close_now(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let unsent = self.own().queue.borrow_mut().take();
        drop(unsent);
        self.schedule_end(error)
    }

    fn write_eof(&self) -> PyResult<()> {
        if self.flags().closing.replace(true) || !self.own().queue.borrow().is_empty() {
            return Ok(());
        }
        self.schedule_end(None)
    }

    fn reader_gone(&self) -> PyResult<()> {
        let py = self.py();
        self.log_in_debug("info", "%r was closed by peer")?;
        let unsent = !self.own().queue.borrow().is_empty();
        let error = unsent.then(|| PyBrokenPipeError::new_err(()).into_value(py).into_any());
        self.close_now(error)
    }

    fn write_ready(&self) -> PyResult<()> {
        if !self.send_some()? || !self.own().queue.borrow().is_empty() {
            return Ok(());
        }
        self.listen()?;
        // May write more.
        self.maybe_resume_protocol()?;
        if !self.flags().closing.get() || self.end().ended.get() {
            return Ok(());
        }
        self.end().ended.set(true);
        self.registration().end(self.loop_state());
        let none = self.none()?;
        self.call_connection_lost(&none)
    }
}

fn add_writing(methods: &mut Methods<OfNative<WritePipeTransport>>) {
    methods.procedure(
        c"write",
        "data",
        |this, args| this.write(&*args.one("write", "data")?),
        c"Write or queue bytes; never blocks.",
    );
    methods.procedure(
        c"writelines",
        "list_of_data",
        |this, args| {
            let lines = args.one("writelines", "list_of_data")?;
            let empty = PyBytes::new(this.py(), b"");
            this.write(&empty.call_method1("join", (lines,))?)
        },
        c"Write or queue an iterable of bytes objects.",
    );
    methods.nullary_procedure(
        c"write_eof",
        |this| this.write_eof(),
        c"Close the pipe once the queue is written.",
    );
    methods.nullary(
        c"can_write_eof",
        |this| this.boolean(true),
        c"True: the reader sees the end when the pipe is closed.",
    );
    methods.nullary_procedure(
        c"abort",
        |this| this.close_now(None),
        c"Close at once; what is queued is lost.",
    );
}

/// Makes the type; called once, at import.
pub(super) fn create_type(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    let mut methods = Methods::<OfNative<WritePipeTransport>>::new();
    transport::add_methods(&mut methods);
    flow_control::add_methods(&mut methods);
    add_writing(&mut methods);
    // asyncio's write transport inherits from asyncio.Transport too.
    let base = imports::transport(py)?.cast::<PyType>()?;
    create::<WritePipeTransport>(
        py,
        c"oxloop._oxloop.WritePipeTransport",
        c"The writing end of a pipe, see asyncio.WriteTransport.",
        base,
        methods,
        Slots::with_repr::<OfNative<WritePipeTransport>, _>(transport::repr),
    )?;
    module.add("WritePipeTransport", CLASS.type_object(py))
}
