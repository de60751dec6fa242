//! Sending: what a callback sends leaves when it returns, in as few messages as possible.
//!
//! Every method that shows the queue (its size, a water mark) or ends it (`close`, `abort`) flushes
//! first. An error of the kernel concerns one datagram: `error_received` is called, and the
//! transport goes on.

use super::queue::{Datagram, Sent, Target};
use super::{DatagramThis, DatagramTransport};
use crate::error::{asks_to_wait, leaves_the_loop, os_error};
use crate::py::args::Args;
use crate::py::class::OfNative;
use crate::py::method::Methods;
use crate::transport::base::count_lost_write;
use crate::transport::write_queue::{bytes_of, is_writable_data};
use pyo3::exceptions::{PyOSError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::{Borrowed, intern};
use reactor::datagram;
use std::io::ErrorKind;

/// Who flushes: code that has entered a context, or the loop outside of any.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Flusher {
    Program,
    Loop,
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.procedure(
        c"sendto",
        "data, addr=None",
        sendto,
        c"Send or queue a datagram, to addr or to the endpoint's remote address; never blocks.",
    );
}

fn sendto<'py>(this: &DatagramThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<()> {
    let [data, address] = args.bind("sendto", ["data", "addr"], 1)?;
    let data = data.expect("invariant: bind checked the required argument");
    if !is_writable_data(&data) {
        return Err(PyTypeError::new_err(format!(
            "data argument must be a bytes-like object, not {}",
            data.get_type().name()?.repr()?
        )));
    }
    let address = address.filter(|address| !address.is_none());
    let to = this.target(address)?;
    if this.is_lost()? {
        return Ok(());
    }
    let data = bytes_of(&data)?.unbind();
    this.queue(Datagram { data, to })
}

impl<'py> DatagramThis<'_, 'py> {
    /// # Errors
    /// ValueError for another address than the one the endpoint was made for.
    fn target(&self, given: Option<Borrowed<'_, 'py, PyAny>>) -> PyResult<Target> {
        let (py, inner) = (self.py(), self.own());
        let own = inner.address.as_ref().map(|address| address.bind(py));
        if let (Some(own), Some(given)) = (own, given)
            && !given.is(own)
            && !given.eq(own)?
        {
            return Err(PyValueError::new_err(format!(
                "Invalid address: must be None or {}",
                own.str()?
            )));
        }
        let to_peer = inner.kind.connected || (inner.kind.paired && given.is_none());
        if to_peer && inner.kind.native {
            return Ok(Target::Peer);
        }
        let address = match (own, given) {
            (Some(own), _) => own.clone(),
            (None, Some(given)) => given.to_owned(),
            (None, None) => py.None().into_bound(py),
        };
        let known = if inner.kind.native {
            inner
                .peers
                .borrow_mut()
                .address(&address, inner.kind.family)
        } else {
            None
        };
        Ok(known.map_or_else(|| Target::Object(address.unbind()), Target::Address))
    }

    /// True if a datagram could not be sent any more. It is dropped then, and counted.
    fn is_lost(&self) -> PyResult<bool> {
        let inner = self.own();
        let lost = &inner.flags.conn_lost;
        let open = inner.socket.borrow().is_some();
        if open && (lost.get() == 0 || inner.address.is_none()) {
            return Ok(false);
        }
        count_lost_write(self.py(), lost, "socket.send() raised exception.")?;
        Ok(true)
    }

    #[inline]
    fn queue(&self, datagram: Datagram) -> PyResult<()> {
        let (inner, state) = (self.own(), self.loop_state());
        let for_object = matches!(datagram.to, Target::Object(_));
        let (blocked, size) = {
            let mut queue = inner.queue.borrow_mut();
            queue.push(self.py(), datagram);
            (queue.blocked, queue.size())
        };
        if blocked {
            return self.maybe_pause_protocol();
        }
        let waits = state.is_in_callback() && !for_object && size <= inner.flow.high_water();
        if waits && !self.is_socket_shared() {
            self.flush_later();
            return Ok(());
        }
        self.send_now()?;
        self.maybe_pause_protocol()
    }

    /// Sends what is queued here, and before it what was written to other transports earlier.
    ///
    /// # Errors
    /// As `try_flush`.
    #[inline]
    pub(super) fn send_now(&self) -> PyResult<()> {
        self.loop_state().flush(self.py());
        self.try_flush(Flusher::Program)
    }

    /// Sends what was written, at the end of the batch.
    pub(crate) fn flush_written(&self) {
        if let Err(error) = self.try_flush(Flusher::Loop) {
            self.loop_state()
                .interrupt(self.py(), error, &self.object());
        }
    }

    /// Sends what is queued, as far as the kernel takes it. After an error, the rest leaves later.
    ///
    /// # Errors
    /// KeyboardInterrupt, SystemExit, and what the exception handler lets out.
    pub(super) fn try_flush(&self, flusher: Flusher) -> PyResult<()> {
        self.own().written.set(false);
        let outcome = self.send_all(flusher);
        if outcome.is_err() && self.own().queue.borrow().can_send() {
            self.flush_later();
        }
        outcome
    }

    /// # Errors
    /// As `try_flush`.
    fn send_all(&self, flusher: Flusher) -> PyResult<()> {
        let inner = self.own();
        loop {
            let for_object = {
                let queue = inner.queue.borrow();
                if !queue.can_send() {
                    return Ok(());
                }
                queue.is_first_for_object()
            };
            if for_object {
                self.send_by_object(flusher)?;
            } else {
                self.send_some(flusher)?;
            }
        }
    }

    /// Sends from the queue with one system call.
    fn send_some(&self, flusher: Flusher) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let sent = match self.fd() {
            Ok(fd) => inner.queue.borrow().send(py, fd),
            Err(error) => Sent::none(error),
        };
        match sent.outcome {
            Ok(count) => {
                let mut queue = inner.queue.borrow_mut();
                for _ in 0..count {
                    // A bytes object has no destructor that could come back here.
                    if let Some(datagram) = queue.pop(py) {
                        self.count_sent(datagram.data.as_bytes(py).len());
                    }
                }
                Ok(())
            }
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                self.block()
            }
            Err(error) if sent.first_run > 1 && datagram::refuses_runs(&error) => {
                inner.queue.borrow_mut().refused(py, &error);
                Ok(())
            }
            Err(error) => {
                let unsent = inner.queue.borrow_mut().pop(py);
                drop(unsent);
                self.error_received(os_error(&error), flusher)
            }
        }
    }

    #[inline(always)]
    fn count_sent(&self, bytes: usize) {
        let traffic = &self.loop_state().metrics().traffic;
        traffic.datagrams_sent.add(1);
        traffic.bytes_sent.add(bytes as u64);
    }

    /// Sends the first datagram with the socket object's own method, as asyncio does.
    #[cold]
    fn send_by_object(&self, flusher: Flusher) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let datagram = inner.queue.borrow_mut().pop(py);
        let (Some(datagram), Some(socket)) = (datagram, self.socket()) else {
            return Ok(());
        };
        let data = datagram.data.bind(py);
        let address = match &datagram.to {
            Target::Object(address) if inner.kind.paired => {
                Some(address).filter(|it| !it.is_none(py))
            }
            Target::Object(address) if !inner.kind.connected => Some(address),
            _ => None,
        };
        let sent = match address {
            Some(address) => socket.call_method1(intern!(py, "sendto"), (data, address)),
            None => socket.call_method1(intern!(py, "send"), (data,)),
        };
        let Err(error) = sent else {
            self.count_sent(data.as_bytes().len());
            return Ok(());
        };
        if asks_to_wait(py, &error) {
            inner.queue.borrow_mut().push_front(py, datagram);
            return self.block();
        }
        if error.is_instance_of::<PyOSError>(py) {
            return self.error_received(error, flusher);
        }
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        self.fatal_error(error, "Fatal write error on datagram transport")
    }

    fn block(&self) -> PyResult<()> {
        self.own().queue.borrow_mut().blocked = true;
        self.wait_to_send()
    }

    /// Tells the protocol that a datagram was not sent or received; the endpoint goes on.
    pub(super) fn error_received(&self, error: PyErr, flusher: Flusher) -> PyResult<()> {
        let py = self.py();
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let error = error.into_value(py);
        let tell = || protocol.call_method1(intern!(py, "error_received"), (error,));
        let told = match flusher {
            Flusher::Program => tell(),
            Flusher::Loop => self.own().context.run(py, tell),
        };
        told.map(drop)
            .or_else(|error| self.report_callback(error, "error_received"))
    }

    /// Serves a writable event. The protocol and the exception handler are called in the context of
    /// the endpoint.
    pub(super) fn write_ready(&self) -> PyResult<()> {
        self.own().context.run(self.py(), || self.write_more())
    }

    fn write_more(&self) -> PyResult<()> {
        let inner = self.own();
        if inner.flags.conn_lost.get() > 0 {
            return Ok(());
        }
        inner.queue.borrow_mut().blocked = false;
        self.try_flush(Flusher::Program)?;
        // May send more.
        self.maybe_resume_protocol()?;
        let drained = inner.queue.borrow().is_empty();
        if drained && inner.flags.closing.get() {
            return self.end_now();
        }
        Ok(())
    }
}
