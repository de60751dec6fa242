//! Receiving: a run of datagrams in one system call, one `datagram_received` for each.
//!
//! An event is bounded by system calls and by time, so that a flood of datagrams leaves timers and
//! other connections their turn. A run is split and delivered within one entered context.

use super::peers::object_of;
use super::send::Flusher;
use super::{DatagramThis, DatagramTransport, Undelivered};
use crate::error::{asks_to_wait, leaves_the_loop, os_error};
use crate::event_loop::schedule::soon_method;
use crate::py::class::OfNative;
use crate::py::context::Captured;
use crate::py::method::Methods;
use crate::py::object::call_method;
use pyo3::exceptions::PyOSError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use reactor::addr::SocketAddress;
use reactor::{clock, datagram};
use std::cell::Cell;
use std::io::{self, ErrorKind};

/// Most system calls of one event.
const RECEIVES_MOST: usize = 64;
/// After this much time an event receives no more.
const SECONDS_MOST: f64 = 100e-6;
/// The size that asyncio passes to `recvfrom`.
const SIZE_MOST: usize = 256 * 1024;

/// So many events rely on the estimate; the next one is read until nothing is left.
const EVENTS_TRUSTED: u32 = 7;

/// Estimates how many receives an event needs: as many as the latest event that was read until
/// nothing was left. The receive that finds nothing costs as much as one that finds a datagram;
/// polling again costs less, and reports what an event leaves unread.
pub(super) struct Expectation {
    receives: Cell<usize>,
    /// How many more events rely on the estimate.
    trusted: Cell<u32>,
}

impl Expectation {
    pub(super) const fn new() -> Self {
        Self {
            receives: Cell::new(RECEIVES_MOST),
            trusted: Cell::new(0),
        }
    }

    /// The most receives of the next event.
    fn next(&self) -> usize {
        match self.trusted.get().checked_sub(1) {
            Some(left) => {
                self.trusted.set(left);
                self.receives.get()
            }
            None => RECEIVES_MOST,
        }
    }

    /// After so many receives of an event, nothing was left.
    fn ended_after(&self, receives: usize) {
        if self.trusted.get() == 0 {
            self.trusted.set(EVENTS_TRUSTED);
        }
        self.receives.set(receives.max(1));
    }
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<DatagramTransport>>) {
    methods.nullary_procedure(
        c"_read_ready",
        |this| {
            this.own().reading_soon.set(false);
            if this.wants_to_read() {
                this.read_ready()?;
            }
            Ok(())
        },
        c"Delivers what was received before reading was paused, then reads.",
    );
}

/// What one system call brought.
enum Arrived<'py> {
    One(Bound<'py, PyBytes>),
    Run(Vec<Bound<'py, PyBytes>>),
}

impl<'py> DatagramThis<'_, 'py> {
    /// Queues a handle that delivers what waits, then reads.
    pub(super) fn read_soon(&self) -> PyResult<()> {
        let py = self.py();
        if self.own().reading_soon.replace(true) {
            return Ok(());
        }
        let read = self.object().getattr(intern!(py, "_read_ready"))?;
        soon_method(py, self.event_loop(), &read, &[], Captured::empty())
    }

    /// Serves a readable event: datagrams have arrived, or an error.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, and what the exception handler lets out.
    pub(super) fn read_ready(&self) -> PyResult<()> {
        if !self.own().undelivered.borrow().is_empty() {
            self.deliver_waiting()?;
        }
        if !self.own().kind.native {
            return self.read_by_object();
        }
        let begun = clock::now();
        let expected = self.own().expectation.next();
        for count in 0..expected {
            if !self.wants_to_read() {
                return Ok(());
            }
            match self.receive() {
                Ok((arrived, from)) => self.deliver(arrived, from)?,
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
                {
                    self.own().expectation.ended_after(count);
                    return Ok(());
                }
                Err(error) => return self.error_received(os_error(&error), Flusher::Loop),
            }
            if clock::now() - begun > SECONDS_MOST {
                return Ok(());
            }
        }
        Ok(())
    }

    fn receive(&self) -> io::Result<(Arrived<'py>, Option<SocketAddress>)> {
        let (py, fd) = (self.py(), self.fd()?);
        self.loop_state().with_scratch(|scratch| {
            let received = datagram::receive(fd, scratch)?;
            let bytes = &scratch[..received.len];
            let runs = received
                .segment
                .map_or(1, |size| bytes.len().div_ceil(size));
            let traffic = &self.loop_state().metrics().traffic;
            traffic.bytes_received.add(bytes.len() as u64);
            traffic.datagrams_received.add(runs as u64);
            let arrived = match received.segment {
                None => Arrived::One(PyBytes::new(py, bytes)),
                Some(size) => Arrived::Run(
                    bytes
                        .chunks(size)
                        .map(|datagram| PyBytes::new(py, datagram))
                        .collect(),
                ),
            };
            Ok((arrived, received.from))
        })
    }

    /// Gives the protocol what arrived, as long as reading is not paused.
    fn deliver(&self, arrived: Arrived<'py>, from: Option<SocketAddress>) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        let from = object_of(py, &inner.peers, from)?;
        match arrived {
            Arrived::One(datagram) => inner.context.run(py, || self.deliver_one(&datagram, &from)),
            Arrived::Run(run) => {
                let mut run = run.into_iter();
                let delivered = inner.context.run(py, || {
                    while self.wants_to_read() {
                        let Some(datagram) = run.next() else {
                            break;
                        };
                        self.deliver_one(&datagram, &from)?;
                    }
                    Ok(())
                });
                self.keep(run.map(|datagram| (datagram.unbind(), from.clone().unbind())))?;
                delivered
            }
        }
    }

    /// Keeps the rest of a run for later, unless the transport is closing.
    fn keep(&self, rest: impl ExactSizeIterator<Item = Undelivered>) -> PyResult<()> {
        let flags = &self.own().flags;
        if rest.len() == 0 || flags.closing.get() {
            return Ok(());
        }
        self.own().undelivered.borrow_mut().extend(rest);
        if flags.reading.is_paused() {
            return Ok(());
        }
        // A KeyboardInterrupt stopped the delivery: it goes on when the loop does.
        self.read_soon()
    }

    fn deliver_waiting(&self) -> PyResult<()> {
        let (py, inner) = (self.py(), self.own());
        while self.wants_to_read() {
            let Some((datagram, from)) = inner.undelivered.borrow_mut().pop_front() else {
                return Ok(());
            };
            let (datagram, from) = (datagram.bind(py), from.bind(py));
            let delivered = inner.context.run(py, || self.deliver_one(datagram, from));
            if let Err(error) = delivered {
                if !inner.undelivered.borrow().is_empty() {
                    self.read_soon()?;
                }
                return Err(error);
            }
        }
        Ok(())
    }

    #[inline]
    fn deliver_one(
        &self,
        datagram: &Bound<'py, PyBytes>,
        from: &Bound<'py, PyAny>,
    ) -> PyResult<()> {
        let Some(protocol) = self.protocol() else {
            return Ok(());
        };
        let name = intern!(self.py(), "datagram_received");
        match call_method(&protocol, name, &[datagram.as_any(), from]) {
            Ok(_) => Ok(()),
            Err(error) => self.report_callback(error, "datagram_received"),
        }
    }

    /// Receives one datagram through a socket object that is not plain.
    fn read_by_object(&self) -> PyResult<()> {
        let py = self.py();
        let Some(socket) = self.socket().filter(|_| self.wants_to_read()) else {
            return Ok(());
        };
        let received = socket
            .call_method1(intern!(py, "recvfrom"), (SIZE_MOST,))
            .and_then(|pair| pair.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>());
        let error = match received {
            Ok((data, from)) => {
                let Some(protocol) = self.protocol() else {
                    return Ok(());
                };
                let name = intern!(py, "datagram_received");
                let context = &self.own().context;
                return context
                    .run(py, || call_method(&protocol, name, &[&data, &from]))
                    .map(drop)
                    .or_else(|error| self.report_callback(error, "datagram_received"));
            }
            Err(error) => error,
        };
        if asks_to_wait(py, &error) {
            return Ok(());
        }
        if error.is_instance_of::<PyOSError>(py) {
            return self.error_received(error, Flusher::Loop);
        }
        if leaves_the_loop(py, &error) {
            return Err(error);
        }
        let message = "Fatal read error on datagram transport";
        let context = &self.own().context;
        context.run(py, || self.fatal_error(error, message))
    }
}
