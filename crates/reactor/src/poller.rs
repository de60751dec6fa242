//! Poller: which descriptors are ready, from epoll(7), level-triggered.
//!
//! This module is the contract for the poller of another platform:
//!
//! - Level-triggered: while a registered condition holds, every wait reports it. `add_reader`
//!   promises that, and a transport may read less than is available.
//! - One registration per descriptor, named by a [`Token`] that comes back with every event. The
//!   poller neither owns the descriptor nor remembers it; the caller deletes it *before* closing
//!   it, because the kernel keeps a registration alive while any duplicate of the descriptor is
//!   open.
//! - An error or hang-up is reported whatever the interest is, even an empty one. A registration
//!   without interest would therefore spin after a hang-up: delete it instead, and add it again.
//! - `add` refuses what cannot be polled (EPERM for a regular file), what is registered already
//!   (EEXIST) and what is closed (EBADF); `modify` and `delete` answer ENOENT for what is not
//!   there.
//! - A wait ends before its timeout only with an event or a signal. A signal ends it without an
//!   event and with [`Events::interrupted`] true, so that the caller can run signal handlers.
//! - `add`, `modify` and `delete` may be called from any thread while another one waits, and take
//!   effect for that wait.
//!
//! Cost: one system call a wait. Timeouts have nanoseconds (`epoll_pwait2`, Linux 5.11). An older
//! kernel refuses that call once; from then on it gets milliseconds, rounded up.
//! Differs from asyncio: `selectors.EpollSelector` rounds every timeout up to a millisecond.

#![forbid(unsafe_code)]

use std::fmt;
use std::io;
use std::ops::BitOr;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use crate::sys::epoll::{self, EpollEvent};
use crate::token::Token;

const EVENTS_MIN: usize = 256;

/// What a registration waits for.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Interest(u8);

impl Interest {
    /// Nothing (errors and hang-ups are reported all the same).
    pub const NONE: Self = Self(0);
    /// Data, end of stream, or a connection to accept.
    pub const READABLE: Self = Self(1);
    /// Room for data, or the outcome of a connect.
    pub const WRITABLE: Self = Self(2);

    /// Whether everything in `other` is in `self`.
    #[inline]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether it waits for nothing.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// `self` and `other` together.
    #[inline]
    #[must_use]
    pub const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// `self` less what is in `other`.
    #[inline]
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn to_epoll(self) -> u32 {
        let mut bits = 0;
        if self.contains(Self::READABLE) {
            bits |= epoll::IN;
        }
        if self.contains(Self::WRITABLE) {
            bits |= epoll::OUT;
        }
        bits
    }
}

impl BitOr for Interest {
    type Output = Self;

    #[inline]
    fn bitor(self, other: Self) -> Self {
        self.with(other)
    }
}

impl fmt::Debug for Interest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            match (self.contains(Self::READABLE), self.contains(Self::WRITABLE)) {
                (false, false) => "Interest(NONE)",
                (true, false) => "Interest(READABLE)",
                (false, true) => "Interest(WRITABLE)",
                (true, true) => "Interest(READABLE | WRITABLE)",
            },
        )
    }
}

/// What one wait found out about one registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "four independent facts from the kernel"
)]
pub struct Event {
    /// The token that the descriptor was registered with.
    pub token: Token,
    /// Reading would not block. Set by every condition but EPOLLOUT, as asyncio's selector does, so
    /// that an error reaches a reader.
    pub readable: bool,
    /// Writing would not block. Set by every condition but EPOLLIN, for the same reason.
    pub writable: bool,
    /// EPOLLERR: an error is pending on the descriptor, or the reading end of a pipe is gone.
    pub error: bool,
    /// EPOLLHUP or EPOLLRDHUP: the peer has closed.
    pub hangup: bool,
}

impl Event {
    #[inline]
    const fn from_epoll(bits: u32, token: Token) -> Self {
        Self {
            token,
            readable: bits & !epoll::OUT != 0,
            writable: bits & !epoll::IN != 0,
            error: bits & epoll::ERR != 0,
            hangup: bits & (epoll::HUP | epoll::RDHUP) != 0,
        }
    }
}

/// What one wait found. The caller owns it, so that a wait only needs a shared reference to the
/// poller.
pub struct Events {
    records: Vec<EpollEvent>,
    ready: usize,
    interrupted: bool,
}

impl Events {
    /// Room for a few events; see [`Events::reserve`].
    pub fn new() -> Self {
        Self {
            records: vec![EpollEvent::EMPTY; EVENTS_MIN],
            ready: 0,
            interrupted: false,
        }
    }

    /// How many events the last wait brought.
    #[inline]
    pub const fn len(&self) -> usize {
        self.ready
    }

    /// Whether the last wait brought none.
    #[inline]
    pub const fn is_empty(&self) -> bool {
        self.ready == 0
    }

    /// The `i`-th event of the last wait.
    ///
    /// # Panics
    ///
    /// When the last wait brought fewer than `i + 1` events.
    #[inline]
    pub fn get(&self, i: usize) -> Event {
        let event = self.records[..self.ready][i];
        Event::from_epoll(event.bits(), Token::from_u64(event.data()))
    }

    /// Whether a signal ended the last wait.
    #[inline]
    pub const fn interrupted(&self) -> bool {
        self.interrupted
    }

    /// Makes room for `count` events. One wait then brings all that are ready of so many
    /// descriptors; with less room, the rest is for the next wait.
    #[inline]
    pub fn reserve(&mut self, count: usize) {
        if count > self.records.len() {
            self.grow(count);
        }
    }

    #[cold]
    fn grow(&mut self, count: usize) {
        let len = count.next_power_of_two();
        self.records.resize(len, EpollEvent::EMPTY);
    }
}

impl Default for Events {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events")
            .field("ready", &self.ready)
            .field("interrupted", &self.interrupted)
            .finish_non_exhaustive()
    }
}

/// An epoll instance.
#[derive(Debug)]
pub struct Poller {
    epoll: OwnedFd,
    milliseconds_only: bool,
}

impl Poller {
    /// Makes an epoll instance that is closed on exec (see epoll_create1(2)).
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            epoll: epoll::create()?,
            milliseconds_only: false,
        })
    }

    /// Registers `fd` (see epoll_ctl(2) for EBADF, EEXIST, EPERM, ENOSPC).
    #[inline]
    pub fn add(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        epoll::add(self.as_raw_fd(), fd, interest.to_epoll(), token.to_u64())
    }

    /// Gives a registered `fd` another token or interest (ENOENT when it is not registered).
    #[inline]
    pub fn modify(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        epoll::modify(self.as_raw_fd(), fd, interest.to_epoll(), token.to_u64())
    }

    /// Ends the registration of `fd` (ENOENT when it is not registered, EBADF when it is closed).
    #[inline]
    pub fn delete(&self, fd: RawFd) -> io::Result<()> {
        epoll::delete(self.as_raw_fd(), fd)
    }

    /// Waits until something is ready, a signal arrives or `timeout` is over (`None`: never). Fills
    /// `events` in and returns how many there are; a signal gives none, with
    /// [`Events::interrupted`] true.
    #[inline]
    pub fn wait(&self, events: &mut Events, timeout: Option<Duration>) -> io::Result<usize> {
        events.ready = 0;
        events.interrupted = false;
        let epoll = self.epoll.as_raw_fd();
        match epoll::wait(epoll, &mut events.records, timeout, self.milliseconds_only) {
            Ok(ready) => events.ready = ready,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => events.interrupted = true,
            Err(error) => return Err(error),
        }
        Ok(events.ready)
    }

    /// Behaves as on a kernel without `epoll_pwait2`, for tests of that path.
    #[doc(hidden)]
    pub const fn use_milliseconds_only(&mut self) {
        self.milliseconds_only = true;
    }
}

impl AsRawFd for Poller {
    #[inline]
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}
