//! `SelectorTransport`: what the transports of sockets have in common, as asyncio's
//! `_SelectorTransport`: which events they wait for and, in `lifecycle`, how they begin and end.
//!
//! Invariants:
//! - the registration's interest may be more than what is wanted, until an unwanted event arrives.
//!   What is wanted and missing is registered at once.
//! - the loop keeps a transport alive exactly while the transport wants an event.
//! - once the socket object has another number, or none, the old one is only taken out of the
//!   poller; no other system call is made for it.
//!
//! Cost: this code is compiled into each of the two types, without a look-up at run time.

mod extra_info;
mod lifecycle;

use super::base::Parties;
use super::flow_control::{FlowControl, FlowControlled};
use super::polled::{Polled, PolledState};
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::registration::Registration;
use crate::py::class::{This, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::slot::Slot;
use crate::py::socket::no_descriptor;
use pyo3::prelude::*;
use pyo3::types::PyString;
use reactor::poller::Interest;
use std::cell::Cell;
use std::fmt::Write as _;
use std::ops::Deref;
use std::os::fd::RawFd;

pub(super) use extra_info::{ask_inherited, ask_names};
pub(super) use lifecycle::add_methods;

/// The part of a transport's payload that does not depend on the kind of its socket.
pub(crate) struct SelectorState {
    pub(super) polled: PolledState,
    /// A future that is done once `connection_made` was called.
    waiter: Slot,
    /// In the loop's list of transports to flush.
    pub(super) written: Cell<bool>,
    pub(super) flow: FlowControl,
}

impl SelectorState {
    pub(super) fn new(
        event_loop: &Bound<'_, EventLoop>,
        fd: RawFd,
        protocol: Py<PyAny>,
        context: Captured,
        waiter: Option<Py<PyAny>>,
    ) -> Self {
        let parties = Parties::new(event_loop, protocol, context);
        Self {
            polled: PolledState::new(parties, Registration::new(fd)),
            waiter: waiter.into(),
            written: Cell::new(false),
            flow: FlowControl::new(),
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        self.parties.traverse(visit)?;
        self.waiter.traverse(visit)
    }

    pub(super) fn clear(&self, py: Python<'_>) {
        self.parties.clear(py);
        self.waiter.set(None);
    }
}

/// In place of inheritance: asyncio's `_SelectorTransport` has base classes.
impl Deref for SelectorState {
    type Target = PolledState;

    #[inline(always)]
    fn deref(&self) -> &PolledState {
        &self.polled
    }
}

/// What the type for one kind of sockets adds.
pub(crate) trait SelectorTransport: Polled + FlowControlled {
    fn selector_state(&self, py: Python<'_>) -> &SelectorState;

    /// True if a server of the loop accepted it.
    fn is_accepted(_this: &This<'_, '_, Self>) -> bool {
        false
    }

    fn wants_to_read(this: &This<'_, '_, Self>) -> bool {
        let flags = this.flags();
        flags.started.get() && !flags.reading.is_paused() && !flags.closing.get()
    }

    fn wants_to_write(this: &This<'_, '_, Self>) -> bool;

    fn has_unsent(this: &This<'_, '_, Self>) -> bool;

    fn drop_unsent(this: &This<'_, '_, Self>);

    /// Called after `connection_made`, when reading has begun.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    fn begun(_this: &This<'_, '_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// Called when reading is resumed: delivers what was read before it was paused.
    fn reading_resumed(_this: &This<'_, '_, Self>) -> PyResult<()> {
        Ok(())
    }
}

impl<'py, T: SelectorTransport> This<'_, 'py, T> {
    #[inline]
    pub(super) fn wants_to_read(&self) -> bool {
        T::wants_to_read(self)
    }

    /// The events that the transport wants.
    #[inline]
    pub(super) fn wanted(&self) -> Interest {
        let mut wanted = Interest::NONE;
        if T::wants_to_read(self) {
            wanted = wanted.with(Interest::READABLE);
        }
        if T::wants_to_write(self) {
            wanted = wanted.with(Interest::WRITABLE);
        }
        wanted
    }

    fn update_hold(&self) {
        let (registration, wanted) = (self.registration(), !self.wanted().is_empty());
        registration.hold(self.py(), self.loop_state(), wanted, || self.held());
    }

    /// Has the loop send what is queued at the end of the batch.
    #[inline]
    pub(super) fn flush_later(&self) {
        if !self
            .payload()
            .selector_state(self.py())
            .written
            .replace(true)
        {
            self.loop_state().flush_later(self.held());
        }
    }

    /// Adds what is wanted and missing to the kernel's interest.
    pub(super) fn want_more(&self) {
        self.update_hold();
        let wanted = self.wanted();
        if !self.registration().interest().contains(wanted) {
            self.apply(wanted);
        }
    }

    /// Registers for the writable event, after something could not be sent.
    ///
    /// # Errors
    /// RuntimeError on a closed loop, which serves no events; the queue is dropped then.
    pub(super) fn wait_to_send(&self) -> PyResult<()> {
        if let Err(error) = self.loop_state().check_closed() {
            T::drop_unsent(self);
            return Err(error);
        }
        self.want_more();
        Ok(())
    }

    /// Makes the kernel's interest exactly `wanted`. If nothing is wanted, the descriptor leaves
    /// the poller: a hang-up or an error is reported even then, and the loop would spin.
    pub(super) fn apply(&self, wanted: Interest) {
        self.update_hold();
        if let Err(error) = self.register(wanted) {
            // The program closed the descriptor behind the transport's back: no event will come
            // from it.
            let error = error.into_value(self.py()).into_any();
            if let Err(error) = self.force_close(Some(error)) {
                self.loop_state()
                    .interrupt(self.py(), error, &self.object());
            }
        }
    }

    fn register(&self, wanted: Interest) -> PyResult<()> {
        let registration = self.registration();
        if registration.is_begun() && !wanted.is_empty() && !self.has_descriptor()? {
            return Err(os_error(&no_descriptor()));
        }
        registration.set(self.loop_state(), wanted)
    }

    /// After an event that was not wanted: ends the interest in it.
    #[inline]
    pub(super) fn drop_unwanted(&self, readable: bool, writable: bool) {
        let wanted = self.wanted();
        let unwanted = readable && !wanted.contains(Interest::READABLE)
            || writable && !wanted.contains(Interest::WRITABLE);
        let has = self.registration().interest();
        if unwanted && !has.is_empty() && has != wanted {
            self.apply(wanted);
        }
    }
}

/// asyncio's form: the class, the descriptor, and what is polled.
pub(super) fn repr<'py, T: SelectorTransport>(
    this: &This<'_, 'py, T>,
) -> PyResult<Bound<'py, PyAny>> {
    let mut text = format!("<{}", this.object().get_type().name()?);
    let closed = T::is_closed(this);
    if closed {
        text.push_str(" closed");
    } else if this.flags().closing.get() {
        text.push_str(" closing");
    }
    let _written = write!(text, " fd={}", this.registration().fd());
    if !closed && this.loop_state().check_closed().is_ok() {
        let wanted = this.wanted();
        let polling = |interest| {
            if wanted.contains(interest) {
                "polling"
            } else {
                "idle"
            }
        };
        let _written = write!(
            text,
            " read={} write=<{}, bufsize={}>",
            polling(Interest::READABLE),
            polling(Interest::WRITABLE),
            this.queued()
        );
    }
    text.push('>');
    Ok(PyString::new(this.py(), &text).into_any())
}
