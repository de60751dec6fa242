//! `SelectorTransport`: what the transports of sockets have in common, asyncio's
//! `_SelectorTransport`: what the loop waits for on their behalf, and (in `lifecycle`) how they
//! begin and end.
//!
//! Invariants:
//! - `interest` is what the kernel has; it may be more than what is wanted, until an unwanted event
//!   arrives. What is wanted and missing is registered at once.
//! - the loop keeps a transport alive exactly while it waits for the kernel.
//! - the kernel is told nothing about a number whose socket object has another one by now.
//!
//! Cost: all of it is compiled into the two types; nothing is looked up at run time.

mod extra_info;
mod lifecycle;

use super::base::{BaseTransport, Parties};
use super::flow_control::{FlowControl, FlowControlled};
use super::polled::Polled;
use super::reading_switch::ReadingSwitch;
use crate::error::os_error;
use crate::event_loop::EventLoop;
use crate::event_loop::registrations::Registration;
use crate::event_loop::source::Source;
use crate::py::class::{Native, This, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::file::has_descriptor;
use crate::py::slot::Slot;
use crate::py::socket::no_descriptor;
use pyo3::prelude::*;
use pyo3::types::PyString;
use reactor::poller::Interest;
use reactor::socket;
use reactor::token::Token;
use std::cell::Cell;
use std::fmt::Write as _;
use std::ops::Deref;
use std::os::fd::RawFd;

pub(super) use extra_info::ask_names;
pub(super) use lifecycle::add_methods;

/// The part of a transport's payload that does not depend on the kind of its socket.
pub(crate) struct SelectorState {
    parties: Parties,
    pub(super) fd: RawFd,
    token: Cell<Option<Token>>,
    /// What the kernel has; `None` while the descriptor is taken out of the poller.
    interest: Cell<Option<Interest>>,
    /// Waits for `connection_made` to have been called.
    waiter: Slot,
    pub(super) flags: Flags,
    pub(super) flow: FlowControl,
}

/// asyncio's own attributes of a transport, by their names there.
#[derive(Default)]
pub(crate) struct Flags {
    /// `connection_made` was called and reading may begin.
    pub(super) started: Cell<bool>,
    pub(super) reading: ReadingSwitch,
    pub(super) closing: Cell<bool>,
    /// Counts `connection_lost` being scheduled, and writes after it.
    pub(super) conn_lost: Cell<u32>,
    /// The loop's registry has a strong reference.
    held: Cell<bool>,
    /// Linked into the loop's list of transports to flush.
    pub(super) written: Cell<bool>,
}

impl SelectorState {
    pub(super) fn new(
        event_loop: &Bound<'_, EventLoop>,
        fd: RawFd,
        protocol: Py<PyAny>,
        context: Captured,
        waiter: Option<Py<PyAny>>,
    ) -> Self {
        Self {
            parties: Parties::new(event_loop, protocol, context),
            fd,
            token: Cell::new(None),
            interest: Cell::new(None),
            waiter: waiter.into(),
            flags: Flags::default(),
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

/// As asyncio's class inherits from the general one.
impl Deref for SelectorState {
    type Target = Parties;

    #[inline(always)]
    fn deref(&self) -> &Parties {
        &self.parties
    }
}

/// What a kind of sockets adds.
pub(crate) trait SelectorTransport: Native {
    fn selector_state(&self, py: Python<'_>) -> &SelectorState;

    /// As `Polled::on_event`.
    fn on_event(this: &This<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// As `Polled::flush`.
    fn flush(this: &This<'_, '_, Self>);

    fn wants_to_read(this: &This<'_, '_, Self>) -> bool {
        let flags = &this.selector().flags;
        flags.started.get() && !flags.reading.is_paused() && !flags.closing.get()
    }

    fn wants_to_write(this: &This<'_, '_, Self>) -> bool;

    fn queued(this: &This<'_, '_, Self>) -> usize;

    fn has_unsent(this: &This<'_, '_, Self>) -> bool;

    fn drop_unsent(this: &This<'_, '_, Self>);

    /// As `FlowControlled::send_written`.
    fn send_written(this: &This<'_, '_, Self>) -> PyResult<()>;

    /// As `BaseTransport::protocol_changes`.
    fn protocol_changes(_this: &This<'_, '_, Self>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(())
    }

    /// `connection_made` was called, and reading has begun.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    fn begun(_this: &This<'_, '_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// Reading was resumed: what was read before it was paused can be delivered.
    fn reading_resumed(_this: &This<'_, '_, Self>) -> PyResult<()> {
        Ok(())
    }

    /// True if the socket object is known to have another descriptor than the transport's, or none:
    /// the program closed or detached it. Runs no Python code.
    fn has_lost_descriptor(this: &This<'_, '_, Self>) -> bool;

    /// The socket object, if only its `fileno()` can tell.
    fn object_to_ask(this: &This<'_, '_, Self>) -> Option<Py<PyAny>>;

    /// True once the socket is closed.
    fn is_closed(this: &This<'_, '_, Self>) -> bool;

    /// Closes the socket and lets go of what it belongs to; the registration has ended.
    ///
    /// # Errors
    /// What the socket object's close() raises.
    fn close_socket(this: &This<'_, '_, Self>) -> PyResult<()>;

    /// Drops what waited for the connection that is now lost.
    fn forget(this: &This<'_, '_, Self>) -> PyResult<()> {
        Self::drop_unsent(this);
        Ok(())
    }
}

impl<T: SelectorTransport> BaseTransport for T {
    #[inline]
    fn parties(&self, py: Python<'_>) -> &Parties {
        &self.selector_state(py).parties
    }

    fn is_closing(&self, py: Python<'_>) -> bool {
        self.selector_state(py).flags.closing.get()
    }

    fn close(this: &This<'_, '_, Self>) -> PyResult<()> {
        this.close()
    }

    fn protocol_changes(this: &This<'_, '_, Self>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        <T as SelectorTransport>::protocol_changes(this, protocol)
    }
}

impl<T: SelectorTransport> Polled for T {
    #[inline]
    fn on_event(this: &This<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()> {
        <T as SelectorTransport>::on_event(this, readable, writable)
    }

    fn reading_changes(&self, py: Python<'_>) -> u32 {
        self.selector_state(py).flags.reading.changes()
    }

    #[inline]
    fn flush(this: &This<'_, '_, Self>) {
        <T as SelectorTransport>::flush(this);
    }

    fn registration(this: &This<'_, '_, Self>, token: Token) -> Option<Registration> {
        let own = this.selector();
        if T::has_lost_descriptor(this) {
            return None;
        }
        own.interest.get().map(|interest| Registration {
            fd: own.fd,
            token,
            interest,
            to_ask: T::object_to_ask(this),
        })
    }

    fn has_descriptor(this: &This<'_, '_, Self>) -> PyResult<bool> {
        if T::has_lost_descriptor(this) {
            return Ok(false);
        }
        let fd = this.selector().fd;
        match T::object_to_ask(this) {
            Some(object) => has_descriptor(object.bind(this.py()), fd),
            None => Ok(true),
        }
    }

    fn descriptor_lost(this: &This<'_, '_, Self>) -> PyResult<()> {
        this.deregister();
        let error = os_error(&no_descriptor()).into_value(this.py());
        this.force_close(Some(error.into_any()))
    }
}

impl<T: SelectorTransport> FlowControlled for T {
    #[inline]
    fn flow(&self, py: Python<'_>) -> &FlowControl {
        &self.selector_state(py).flow
    }

    #[inline]
    fn queued(this: &This<'_, '_, Self>) -> usize {
        <T as SelectorTransport>::queued(this)
    }

    fn send_written(this: &This<'_, '_, Self>) -> PyResult<()> {
        <T as SelectorTransport>::send_written(this)
    }
}

impl<'py, T: SelectorTransport> This<'_, 'py, T> {
    #[inline]
    fn selector(&self) -> &SelectorState {
        self.payload().selector_state(self.py())
    }

    /// The number that is to be watched is not this socket's. What epoll_ctl(2) would say of it is
    /// raised; if it is another file's, the connection ends, as it would at that file's first
    /// event.
    #[cold]
    fn lacks_descriptor(&self) -> PyResult<()> {
        if socket::is_open(self.selector().fd) {
            return T::descriptor_lost(self);
        }
        Err(os_error(&no_descriptor()))
    }

    #[inline]
    pub(super) fn wants_to_read(&self) -> bool {
        T::wants_to_read(self)
    }

    /// What the transport wants to hear about.
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
        let (state, wanted) = (self.selector(), !self.wanted().is_empty());
        let Some(token) = state.token.get() else {
            return;
        };
        if state.flags.held.replace(wanted) == wanted {
            return;
        }
        let source = if wanted {
            Source::Held(self.held())
        } else {
            match self.held().downgrade(self.py()) {
                Ok(weak) => Source::Idle(weak),
                // Without memory for a weak reference the loop goes on keeping it.
                Err(_) => return state.flags.held.set(true),
            }
        };
        self.loop_state().hold_transport(token, source);
    }

    /// Registers what is wanted and missing.
    pub(super) fn want_more(&self) {
        self.update_hold();
        let wanted = self.wanted();
        let has = self.selector().interest.get();
        if has.is_none_or(|has| !has.contains(wanted)) {
            self.apply(wanted);
        }
    }

    /// Something could not be sent: the kernel says when it takes more.
    ///
    /// # Errors
    /// RuntimeError on a closed loop, where nobody hears that; nothing is kept then.
    pub(super) fn wait_to_send(&self) -> PyResult<()> {
        if let Err(error) = self.loop_state().check_closed() {
            T::drop_unsent(self);
            return Err(error);
        }
        self.want_more();
        Ok(())
    }

    /// Makes the kernel's interest exactly `wanted`. Without any, the descriptor leaves the poller:
    /// a hang-up or an error is reported whether it is wanted or not, and would keep the loop
    /// spinning.
    pub(super) fn apply(&self, wanted: Interest) {
        self.update_hold();
        if let Err(error) = self.register(wanted) {
            // The program closed the descriptor behind the transport's back: nothing will come from
            // it.
            let error = error.into_value(self.py()).into_any();
            if let Err(error) = self.force_close(Some(error)) {
                self.loop_state()
                    .interrupt(self.py(), error, &self.object());
            }
        }
    }

    fn register(&self, wanted: Interest) -> PyResult<()> {
        let (own, state) = (self.selector(), self.loop_state());
        let Some(token) = own.token.get() else {
            return Ok(());
        };
        if !wanted.is_empty() && !T::has_descriptor(self)? {
            return Err(os_error(&no_descriptor()));
        }
        let has = own.interest.get();
        own.interest.set((!wanted.is_empty()).then_some(wanted));
        match (has, wanted.is_empty()) {
            (None, true) => {}
            // The kernel ended the registration when the descriptor was closed.
            (Some(_), true) if T::has_lost_descriptor(self) => {}
            (Some(_), true) => state.suspend_registration(own.fd, token),
            (None, false) => return state.resume_registration(own.fd, token, wanted),
            (Some(_), false) => state.set_interest(own.fd, token, wanted),
        }
        Ok(())
    }

    /// Ends the interest in what an event brought and nobody wanted.
    #[inline]
    pub(super) fn drop_unwanted(&self, readable: bool, writable: bool) {
        let wanted = self.wanted();
        let unwanted = readable && !wanted.contains(Interest::READABLE)
            || writable && !wanted.contains(Interest::WRITABLE);
        if unwanted
            && self
                .selector()
                .interest
                .get()
                .is_some_and(|has| has != wanted)
        {
            self.apply(wanted);
        }
    }

    /// Takes the transport out of the loop's registry, and the descriptor out of the poller if it
    /// is there.
    fn deregister(&self) {
        let (own, state) = (self.selector(), self.loop_state());
        let Some(token) = own.token.take() else {
            return;
        };
        let registered = own.interest.take().is_some();
        let source = if registered && !T::has_lost_descriptor(self) {
            state.deregister(own.fd, token)
        } else {
            state.forget(own.fd, token)
        };
        drop(source);
    }
}

/// asyncio's form: the class, the descriptor, and what is polled.
pub(super) fn repr<'py, T: SelectorTransport>(
    this: &This<'_, 'py, T>,
) -> PyResult<Bound<'py, PyAny>> {
    let own = this.selector();
    let mut text = format!("<{}", this.object().get_type().name()?);
    let closed = T::is_closed(this);
    if closed {
        text.push_str(" closed");
    } else if own.flags.closing.get() {
        text.push_str(" closing");
    }
    let _written = write!(text, " fd={}", own.fd);
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
