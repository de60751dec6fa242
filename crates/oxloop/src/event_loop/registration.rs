//! `Registration`: a descriptor that the loop polls for its owner, a transport, a listener or a
//! child process: its number, its token, and the interest that the kernel has.
//!
//! Invariants:
//! - while it has a token, the registry has its owner under that token.
//! - `interest` is what the kernel was told; the kernel is told of changes only.
//! - whoever has a registration ends it before it lets go of the descriptor. There is no `Drop`, as
//!   the loop is needed for that.
//!
//! Cost: one epoll_ctl(2) for each change.

use super::State;
use super::held::Held;
use super::numbers::add_or_modify;
use super::source::Source;
use crate::error::os_error;
use crate::py::file::Known;
use crate::py::socket::no_descriptor;
use pyo3::prelude::*;
use reactor::poller::Interest;
use reactor::socket;
use reactor::token::Token;
use std::cell::Cell;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// What a new epoll instance must be told of a descriptor.
pub(crate) struct Renewal {
    pub(crate) fd: RawFd,
    pub(crate) token: Token,
    pub(crate) interest: Interest,
    /// The object whose descriptor it is, if only its `fileno()` can tell whether it still is.
    pub(crate) to_ask: Option<Py<PyAny>>,
}

/// A descriptor's number, its token and its interest. It is made before it begins, and can begin
/// again after its end.
pub(crate) struct Registration {
    fd: RawFd,
    /// Polled in place of `fd`, whose number has another registration.
    duplicate: Cell<Option<OwnedFd>>,
    /// None before the beginning and after the end.
    token: Cell<Option<Token>>,
    /// `NONE` while the descriptor is not in the poller.
    interest: Cell<Interest>,
    /// The registry has a strong reference to the owner.
    held: Cell<bool>,
}

impl Registration {
    /// One that has not begun.
    pub(crate) const fn new(fd: RawFd) -> Self {
        Self {
            fd,
            duplicate: Cell::new(None),
            token: Cell::new(None),
            interest: Cell::new(Interest::NONE),
            held: Cell::new(false),
        }
    }

    /// The number of the owner's descriptor.
    pub(crate) const fn fd(&self) -> RawFd {
        self.fd
    }

    /// What the kernel has.
    #[inline]
    pub(crate) const fn interest(&self) -> Interest {
        self.interest.get()
    }

    pub(crate) fn has_token(&self, token: Token) -> bool {
        self.token.get() == Some(token)
    }

    /// True from the beginning to the end.
    pub(crate) const fn is_begun(&self) -> bool {
        self.token.get().is_some()
    }

    /// The number that is polled.
    fn polled(&self) -> RawFd {
        // A cell is less than half as large as one that can be borrowed.
        let duplicate = self.duplicate.take();
        let polled = duplicate.as_ref().map_or(self.fd, AsRawFd::as_raw_fd);
        self.duplicate.set(duplicate);
        polled
    }

    /// Takes the number for a transport that waits for nothing yet. The kernel is not told.
    ///
    /// # Errors
    /// MemoryError, and as `State::enter`.
    pub(crate) fn enter(&self, py: Python<'_>, state: &State, owner: Held) -> PyResult<()> {
        let source = Source::Idle(owner.downgrade(py)?);
        self.token.set(Some(state.enter(self.fd, source)?));
        Ok(())
    }

    /// Takes the number for an owner that waits for `interest`. The loop keeps the owner alive.
    ///
    /// # Errors
    /// As `State::register`.
    pub(crate) fn begin(&self, state: &State, owner: Held, interest: Interest) -> PyResult<()> {
        let token = state.register(self.polled(), Source::Held(owner), interest)?;
        self.token.set(Some(token));
        self.interest.set(interest);
        self.held.set(true);
        Ok(())
    }

    /// As `begin`, with a duplicate of the descriptor if the number has a registration.
    ///
    /// # Errors
    /// As `begin`; what dup(2) says, and what a socket or file object's own `fileno()` raises.
    pub(crate) fn begin_beside(
        &self,
        py: Python<'_>,
        state: &State,
        owner: Held,
        interest: Interest,
    ) -> PyResult<()> {
        state.take_from_transport(py, self.fd)?;
        if state.is_registered(self.fd) {
            let duplicate = socket::duplicate(self.fd).map_err(|error| os_error(&error))?;
            self.duplicate.set(Some(duplicate));
        }
        self.begin(state, owner, interest)
    }

    /// Polls a duplicate from here on: the number gets another owner, and the kernel has not taken
    /// all data of this one.
    ///
    /// # Errors
    /// What dup(2) and epoll_ctl(2) say.
    pub(crate) fn move_aside(&self, state: &State) -> PyResult<()> {
        let interest = self.interest.get();
        let Some(token) = self.token.get().filter(|_| !interest.is_empty()) else {
            return Ok(());
        };
        let duplicate = socket::duplicate(self.fd).map_err(|error| os_error(&error))?;
        self.set(state, Interest::NONE)?;
        state.renumber(self.fd, duplicate.as_raw_fd(), token);
        self.duplicate.set(Some(duplicate));
        self.set(state, interest)
    }

    /// Makes the kernel's interest exactly `wanted`. Without any, the descriptor leaves the poller:
    /// the kernel reports a hang-up or an error whether it is wanted or not.
    ///
    /// # Errors
    /// What epoll_ctl(2) says of a descriptor that comes back into the poller; EBADF if its number
    /// has another owner by now. Other failures show up at the next event.
    pub(crate) fn set(&self, state: &State, wanted: Interest) -> PyResult<()> {
        let (fd, has) = (self.polled(), self.interest.get());
        let Some(token) = self.token.get().filter(|_| has != wanted) else {
            return Ok(());
        };
        if state.has_number(fd, token) {
            let told = state.with_poller(|poller| match (has.is_empty(), wanted.is_empty()) {
                (true, _) => add_or_modify(poller, fd, token, wanted),
                (false, true) => poller.delete(fd),
                (false, false) => poller.modify(fd, token, wanted),
            });
            if has.is_empty() {
                told.map_err(|error| os_error(&error))?;
            }
        } else if has.is_empty() {
            return Err(os_error(&no_descriptor()));
        }
        self.interest.set(wanted);
        Ok(())
    }

    /// Makes the loop keep the owner alive, or stops that.
    pub(crate) fn hold(
        &self,
        py: Python<'_>,
        state: &State,
        holds: bool,
        owner: impl FnOnce() -> Held,
    ) {
        let Some(token) = self.token.get() else {
            return;
        };
        if self.held.replace(holds) == holds {
            return;
        }
        let source = match (holds, owner()) {
            (true, owner) => Source::Held(owner),
            (false, owner) => match owner.downgrade(py) {
                Ok(weak) => Source::Idle(weak),
                // Without memory for a weak reference the loop goes on keeping it.
                Err(_) => return self.held.set(true),
            },
        };
        let old = {
            let mut sources = state.kernel.sources.borrow_mut();
            let place = sources.get_mut(token);
            place.map(|place| std::mem::replace(place, source))
        };
        drop(old);
    }

    /// Ends it, and closes a duplicate. Drops the registry's reference to the owner, so nothing may
    /// be borrowed.
    pub(crate) fn end(&self, state: &State) {
        let Some(token) = self.token.take() else {
            return;
        };
        self.held.set(false);
        let source = if self.interest.replace(Interest::NONE).is_empty() {
            state.forget(self.polled(), token)
        } else {
            state.deregister(self.polled(), token)
        };
        drop(self.duplicate.take());
        drop(source);
    }

    /// What a new epoll instance must be told of it, unless its descriptor is lost, as `known` has
    /// it. A duplicate cannot be lost: it is nobody else's.
    pub(crate) fn renewal(&self, known: impl FnOnce() -> Known) -> Option<Renewal> {
        let (token, interest, fd) = (self.token.get()?, self.interest.get(), self.polled());
        let descriptor = if fd == self.fd { known() } else { Known::Kept };
        let to_ask = match descriptor {
            Known::Lost => return None,
            Known::Kept => None,
            Known::Nothing(object) => Some(object),
        };
        (!interest.is_empty()).then(|| Renewal {
            fd,
            token,
            interest,
            to_ask,
        })
    }
}
