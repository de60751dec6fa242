//! The loop's registrations with the kernel, by token and by the descriptor's number.
//!
//! The same number may mean another file later: the program may close its own socket under a
//! transport, or under `add_reader`, and the kernel then gives the number to another file. So every
//! change names the token too, and is made only while the number belongs to that token.
//!
//! Invariants:
//! - a number has at most one registration, the latest; the previous holder of the number is told.
//! - in the child of a fork nothing reaches the epoll instance of the parent, see `fork`.
//!
//! Cost: one epoll_ctl(2) for each change, from any thread, while the loop waits or not.

use super::State;
use super::held::TransportKind;
use super::readiness::wake;
use super::source::Source;
use crate::error::os_error;
use crate::py::socket::no_descriptor;
use pyo3::prelude::*;
use reactor::poller::{Interest, Poller};
use reactor::token::Token;
use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

/// Who has a number.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Holder {
    /// `add_reader`, `add_writer`, and coroutines that wait for the descriptor.
    Watch,
    /// A transport: `add_reader` must leave it alone.
    Transport,
    /// The loop, a server or a child process.
    Loop,
}

#[derive(Clone, Copy)]
pub(super) struct Entry {
    pub(super) token: Token,
    pub(super) holder: Holder,
}

/// Numbers below this are indexes into a table, which grows up to 12 MiB. A program may pass any
/// number, and only the kernel knows which are descriptors.
const TABLE_SIZE: usize = 1 << 20;

/// Which registration a number has.
#[derive(Default)]
pub(super) struct Numbers {
    table: Vec<Option<Entry>>,
    /// The numbers that are too high for the table.
    high: HashMap<usize, Entry>,
}

impl Numbers {
    #[inline]
    pub(super) fn get(&self, fd: RawFd) -> Option<Entry> {
        let index = usize::try_from(fd).ok()?;
        match self.table.get(index) {
            Some(place) => *place,
            None => self.high.get(&index).copied(),
        }
    }

    /// The token of a number that is watched for the program.
    pub(super) fn watch(&self, fd: RawFd) -> Option<Token> {
        let entry = self.get(fd);
        let entry = entry.filter(|entry| entry.holder == Holder::Watch);
        entry.map(|entry| entry.token)
    }

    #[inline]
    fn has(&self, fd: RawFd, token: Token) -> bool {
        self.get(fd).is_some_and(|entry| entry.token == token)
    }

    pub(super) fn set(&mut self, fd: RawFd, token: Token, holder: Holder) {
        let Ok(index) = usize::try_from(fd) else {
            return;
        };
        let entry = Entry { token, holder };
        if index >= TABLE_SIZE {
            self.high.insert(index, entry);
            return;
        }
        if index >= self.table.len() {
            self.table.resize(index + 1, None);
        }
        self.table[index] = Some(entry);
    }

    fn clear(&mut self, fd: RawFd, token: Token) {
        let Ok(index) = usize::try_from(fd) else {
            return;
        };
        if let Some(place) = self.table.get_mut(index) {
            place.take_if(|entry| entry.token == token);
        } else if self.has(fd, token) {
            self.high.remove(&index);
        }
    }
}

impl State {
    /// Registers a descriptor.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; RuntimeError on a closed loop.
    pub(crate) fn register(
        &self,
        fd: RawFd,
        source: Source,
        interest: Interest,
    ) -> PyResult<Token> {
        self.check_closed()?;
        let token = self.enter(fd, source)?;
        let added = self.with_poller(|poller| add_or_modify(poller, fd, token, interest));
        if let Err(error) = added {
            drop(self.forget(fd, token));
            return Err(os_error(&error));
        }
        Ok(token)
    }

    /// True if the number has a registration.
    pub(crate) fn is_registered(&self, fd: RawFd) -> bool {
        self.kernel.numbers.borrow().get(fd).is_some()
    }

    /// Gives the number to `source`. The kernel hears of it by `register`, or when a transport
    /// asks for an interest (`Registration::set`).
    ///
    /// # Errors
    /// As `take_over`.
    pub(crate) fn enter(&self, fd: RawFd, source: Source) -> PyResult<Token> {
        self.take_over(fd)?;
        let holder = source.holder();
        let token = self.kernel.sources.borrow_mut().insert(source);
        self.kernel.numbers.borrow_mut().set(fd, token, holder);
        Ok(token)
    }

    /// The number gets a new holder. A previous watch ends, usually a registration kept for
    /// `sock_recv`; coroutines that wait on it try again, and see the file's error. A transport
    /// whose socket or file the program has closed is told. One that is closing and has unsent data
    /// goes on with a duplicate.
    ///
    /// # Errors
    /// What a future raises that is no future of asyncio's, and a file object's own `fileno()`;
    /// what dup(2) says.
    fn take_over(&self, fd: RawFd) -> PyResult<()> {
        let Some(entry) = self.kernel.numbers.borrow().get(fd) else {
            return Ok(());
        };
        match entry.holder {
            Holder::Watch => self.end_watch(fd, entry.token),
            Holder::Transport => Python::attach(|py| self.take_from_transport(py, fd)),
            Holder::Loop => Ok(()),
        }
    }

    fn end_watch(&self, fd: RawFd, token: Token) -> PyResult<()> {
        let Some(Source::Watch(mut watch)) = self.deregister(fd, token) else {
            return Ok(());
        };
        Python::attach(|py| wake(py, std::mem::take(&mut watch.waiters)))
    }

    /// Tells a transport that its number gets another user.
    ///
    /// # Errors
    /// What a socket or file object's own `fileno()` raises; what dup(2) and epoll_ctl(2) say.
    pub(crate) fn take_from_transport(&self, py: Python<'_>, fd: RawFd) -> PyResult<()> {
        let transport = self.transport_of(py, fd);
        transport.map_or(Ok(()), |(transport, kind)| (kind.number_taken)(&transport))
    }

    /// The transport that has the number.
    pub(super) fn transport_of<'py>(
        &self,
        py: Python<'py>,
        fd: RawFd,
    ) -> Option<(Bound<'py, PyAny>, &'static TransportKind)> {
        let entry = self.kernel.numbers.borrow().get(fd)?;
        if entry.holder != Holder::Transport {
            return None;
        }
        let sources = self.kernel.sources.borrow();
        sources.get(entry.token)?.transport(py)
    }

    /// The open transports.
    pub(crate) fn transports<'py>(&self, py: Python<'py>) -> Vec<Bound<'py, PyAny>> {
        let sources = self.kernel.sources.borrow();
        let transports = sources
            .iter()
            .filter_map(|(_, source)| source.transport(py));
        transports.map(|(transport, _)| transport).collect()
    }

    /// Ends a registration and gives its source back, to be dropped outside of any borrow.
    pub(crate) fn deregister(&self, fd: RawFd, token: Token) -> Option<Source> {
        if self.has_number(fd, token) {
            // ENOENT and EBADF: the kernel ended it when the descriptor was closed.
            let _ended = self.with_poller(|poller| poller.delete(fd));
        }
        self.forget(fd, token)
    }

    /// Ends a registration that the kernel does not have (any more).
    pub(crate) fn forget(&self, fd: RawFd, token: Token) -> Option<Source> {
        self.kernel.numbers.borrow_mut().clear(fd, token);
        self.kernel.sources.borrow_mut().remove(token)
    }

    /// Gives the owner of `token`, a transport, the number `to` in place of `from`.
    pub(super) fn renumber(&self, from: RawFd, to: RawFd, token: Token) {
        let mut numbers = self.kernel.numbers.borrow_mut();
        numbers.clear(from, token);
        numbers.set(to, token, Holder::Transport);
    }

    #[inline]
    pub(super) fn has_number(&self, fd: RawFd, token: Token) -> bool {
        self.kernel.numbers.borrow().has(fd, token)
    }

    /// Calls the poller: this process's own.
    ///
    /// # Errors
    /// What the call says; EBADF without a poller.
    pub(super) fn with_poller<R>(
        &self,
        body: impl FnOnce(&Poller) -> io::Result<R>,
    ) -> io::Result<R> {
        self.leave_parent()?;
        match &*self.kernel.poller.borrow() {
            Some(poller) => body(poller),
            None => Err(no_descriptor()),
        }
    }
}

/// Adds a registration, or takes over one that nobody ended, of a descriptor closed elsewhere.
pub(super) fn add_or_modify(
    poller: &Poller,
    fd: RawFd,
    token: Token,
    interest: Interest,
) -> io::Result<()> {
    match poller.add(fd, token, interest) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            poller.modify(fd, token, interest)
        }
        added => added,
    }
}
