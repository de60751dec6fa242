//! Reads and writes through a socket object's own methods, as asyncio does it with every socket:
//! for subclasses of `socket.socket`, and for other objects that behave like sockets.
//!
//! Invariants:
//! - each method is called when the running Python's asyncio would call it; what is written is sent
//!   at once.
//! - a method may write more. While it sends a new chunk, that chunk is not in the queue; while it
//!   sends queued chunks, these stay in the queue, and what it writes is queued behind them.

use super::StreamThis;
use super::connection::FatalError;
use crate::error::{asks_to_wait, leaves_the_loop};
use crate::py::imports;
use crate::py::object::call_method;
use crate::transport::delivery::Delivery;
use crate::transport::selector::ask_names as ask_both_names;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyInt, PyList, PyString};

/// The size that asyncio passes to `recv`.
const READ_MOST: usize = 256 * 1024;

const READ_FAILED: &str = "Fatal read error on socket transport";
const WRITE_FAILED: &str = "Fatal write error on socket transport";

/// Puts `sockname` and `peername` into `extra`, and sets TCP_NODELAY.
///
/// # Errors
/// What the socket's methods raise, except for an OSError of `getsockname` or `getpeername`.
pub(super) fn ask_names(socket: &Bound<'_, PyAny>, extra: &Bound<'_, PyDict>) -> PyResult<()> {
    ask_both_names(socket, extra)?;
    imports::set_nodelay(socket.py())?
        .call1((socket,))
        .map(drop)
}

impl<'py> StreamThis<'_, 'py> {
    fn call_socket(
        &self,
        name: &Bound<'py, PyString>,
        argument: &Bound<'py, PyAny>,
    ) -> PyResult<Option<Bound<'py, PyAny>>> {
        let Some(socket) = self.object_of_socket() else {
            return Ok(None);
        };
        call_method(socket.bind(self.py()), name, &[argument]).map(Some)
    }

    /// Reads once, with `recv` or `recv_into`.
    #[cold]
    pub(super) fn read_by_object(&self) -> PyResult<()> {
        match self.own().delivery.get() {
            Delivery::Data | Delivery::StreamReader => self.receive_by_object(),
            Delivery::Buffered | Delivery::Native(_) => self.fill_by_object(),
        }
    }

    fn receive_by_object(&self) -> PyResult<()> {
        let py = self.py();
        let most = PyInt::new(py, READ_MOST);
        let received = self
            .own()
            .context
            .run(py, || self.call_socket(intern!(py, "recv"), &most));
        match received {
            Ok(Some(data)) if data.is_truthy()? => {
                if let Ok(bytes) = data.cast::<PyBytes>() {
                    self.count_received(bytes.as_bytes().len());
                }
                self.deliver(&data)
            }
            Ok(Some(_)) => self.on_eof(),
            Ok(None) => Ok(()),
            Err(error) => self.reading_failed_by_object(error),
        }
    }

    fn fill_by_object(&self) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let Some(buffer) = self.lent_buffer(&protocol)? else {
            return Ok(());
        };
        let received = self.own().context.run(py, || {
            let count = self.call_socket(intern!(py, "recv_into"), &buffer)?;
            count.map(|count| count.extract::<usize>()).transpose()
        });
        match received {
            Ok(Some(0)) => self.on_eof(),
            Ok(Some(count)) => {
                self.count_received(count);
                self.buffer_updated(count)
            }
            Ok(None) => Ok(()),
            Err(error) => self.reading_failed_by_object(error),
        }
    }

    fn reading_failed_by_object(&self, error: PyErr) -> PyResult<()> {
        let failed = || self.failed_by_object(error, READ_FAILED);
        self.own().context.run(self.py(), failed).map(drop)
    }

    /// Ends the connection and returns false; returns true if the method would block.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    fn failed_by_object(&self, error: PyErr, message: &str) -> PyResult<bool> {
        let py = self.py();
        if asks_to_wait(py, &error) {
            return Ok(true);
        }
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let unsent = self.own().queue.borrow_mut().take();
        drop(unsent);
        self.fatal_error(FatalError::Python(error), message)?;
        Ok(false)
    }

    /// Sends a chunk at once if nothing is queued, and queues what is left of it.
    #[cold]
    pub(super) fn write_by_object(&self, chunk: Bound<'py, PyBytes>) -> PyResult<()> {
        let py = self.py();
        // What was written to other transports earlier leaves earlier.
        self.loop_state().flush(py);
        let mut rest = chunk;
        let waits = !self.own().queue.borrow().is_empty();
        if !waits {
            let sent = match self.call_socket(intern!(py, "send"), rest.as_any()) {
                Ok(Some(sent)) => {
                    let sent = sent.extract::<usize>()?;
                    self.count_sent(sent.min(rest.as_bytes().len()));
                    sent
                }
                Ok(None) => return Ok(()),
                Err(error) => {
                    if !self.failed_by_object(error, WRITE_FAILED)? {
                        return Ok(());
                    }
                    0
                }
            };
            match rest.as_bytes().get(sent..) {
                None | Some([]) => return Ok(()),
                Some(left) => rest = PyBytes::new(py, left),
            }
        }
        self.own().queue.borrow_mut().push(rest);
        if !waits {
            self.wait_by_object()?;
        }
        self.maybe_pause_protocol()
    }

    fn wait_by_object(&self) -> PyResult<()> {
        self.own().queue.borrow_mut().set_blocked(true);
        self.wait_to_send()
    }

    /// Sends the queue at once, also if something was queued before.
    #[cold]
    pub(super) fn write_lines_by_object(&self) -> PyResult<()> {
        self.loop_state().flush(self.py());
        if !self.send_more_by_object()? || self.own().queue.borrow().is_empty() {
            return Ok(());
        }
        self.wait_by_object()?;
        self.maybe_pause_protocol()
    }

    /// Sends from the queue with one call of a method; false if the connection failed.
    #[cold]
    pub(super) fn send_more_by_object(&self) -> PyResult<bool> {
        let py = self.py();
        let chunks = self.own().queue.borrow().objects(py);
        let sent = if cfg!(Py_3_12) {
            let chunks = PyList::new(py, chunks)?;
            self.call_socket(intern!(py, "sendmsg"), chunks.try_iter()?.as_any())
        } else {
            let joined = PyBytes::new(py, b"").call_method1("join", (chunks,))?;
            self.call_socket(intern!(py, "send"), &joined)
        };
        let sent = sent.and_then(|sent| sent.map_or(Ok(0), |sent| sent.extract::<usize>()));
        match sent {
            Ok(sent) => {
                // The method may have ended the connection, which dropped the queue.
                let queued = self.own().queue.borrow().size();
                self.advance(sent.min(queued));
                Ok(true)
            }
            Err(error) => self.failed_by_object(error, WRITE_FAILED),
        }
    }

    pub(super) fn shut_down_by_object(&self) -> PyResult<()> {
        let py = self.py();
        let how = PyInt::new(py, libc::SHUT_WR);
        self.call_socket(intern!(py, "shutdown"), &how).map(drop)
    }
}
