//! What the transport waits for, as the loop's poller has it. The rules are the stream transport's:
//! interest may be more than what is wanted until an unwanted event arrives.

use super::{DatagramThis, Inner};
use crate::event_loop::source::Source;
use pyo3::prelude::*;
use reactor::poller::{Event, Interest};

impl DatagramThis<'_, '_> {
    pub(super) fn wanted(&self) -> Interest {
        let mut wanted = Interest::NONE;
        if self.wants_to_read() {
            wanted = wanted.with(Interest::READABLE);
        }
        if self.own().queue.borrow().is_blocked() {
            wanted = wanted.with(Interest::WRITABLE);
        }
        wanted
    }

    #[inline]
    pub(super) fn wants_to_read(&self) -> bool {
        let flags = &self.own().flags;
        flags.started.get() && !flags.paused.get() && !flags.closing.get()
    }

    /// The loop keeps a transport alive exactly while it waits for the kernel.
    fn update_hold(&self) {
        let (inner, wanted) = (self.own(), !self.wanted().is_empty());
        let Some(token) = inner.token.get() else {
            return;
        };
        if inner.flags.held.replace(wanted) == wanted {
            return;
        }
        let transport = self.to_ref();
        let source = if wanted {
            Source::Datagram(transport)
        } else {
            match transport.downgrade(self.py()) {
                Ok(weak) => Source::IdleDatagram(weak),
                // Without memory for a weak reference the loop goes on keeping it.
                Err(_) => return inner.flags.held.set(true),
            }
        };
        self.loop_state().hold_transport(token, source);
    }

    /// Registers what is wanted and missing.
    pub(super) fn want_more(&self) {
        self.update_hold();
        let wanted = self.wanted();
        let has = self.own().interest.get();
        if has.is_none_or(|has| !has.contains(wanted)) {
            self.apply(wanted);
        }
    }

    /// Makes the kernel's interest exactly `wanted`; without any, the descriptor leaves the poller,
    /// which would report a pending error again and again.
    pub(super) fn apply(&self, wanted: Interest) {
        self.update_hold();
        let inner = self.own();
        if let Err(error) = self.register(inner, wanted) {
            // The descriptor was closed behind the transport's back: nothing will come from it.
            let error = error.into_value(self.py()).into_any();
            if let Err(error) = self.force_close(Some(error)) {
                error.write_unraisable(self.py(), Some(&self.object()));
            }
        }
    }

    fn register(&self, inner: &Inner, wanted: Interest) -> PyResult<()> {
        let state = self.loop_state();
        let Some(token) = inner.token.get() else {
            return Ok(());
        };
        let has = inner.interest.get();
        inner.interest.set((!wanted.is_empty()).then_some(wanted));
        match (has, wanted.is_empty()) {
            (None, true) => {}
            (Some(_), true) => state.suspend_registration(inner.fd),
            (None, false) => return state.resume_registration(inner.fd, token, wanted),
            (Some(_), false) => state.set_interest(inner.fd, token, wanted),
        }
        Ok(())
    }

    /// The kernel has something to say about the descriptor.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, and what the exception handler lets out.
    #[inline]
    pub(crate) fn on_event(&self, event: Event) -> PyResult<()> {
        if event.readable && self.wants_to_read() {
            if self.loop_state().has_ready() {
                // What is queued goes first, as in asyncio: it may be who waits for the datagram.
                self.read_soon()?;
            } else {
                self.read_ready()?;
            }
        }
        if event.writable && self.own().queue.borrow().is_blocked() {
            self.write_ready()?;
        }
        let wanted = self.wanted();
        let unwanted = event.readable && !wanted.contains(Interest::READABLE)
            || event.writable && !wanted.contains(Interest::WRITABLE);
        if unwanted && self.own().interest.get().is_some_and(|has| has != wanted) {
            self.apply(wanted);
        }
        Ok(())
    }
}
