//! `Watch`: the callbacks and the waiting coroutines of one descriptor.

use super::registration::Renewal;
use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use pyo3::prelude::*;
use reactor::poller::{Event, Interest};
use reactor::token::Token;
use std::os::fd::RawFd;

/// The callbacks on one descriptor.
pub(crate) struct Watch {
    pub(super) fd: RawFd,
    /// The object that was given instead of a number; it is found by this once it is closed.
    pub(super) file: Option<Py<PyAny>>,
    pub(super) reader: Option<HandleRef>,
    pub(super) writer: Option<HandleRef>,
    /// Coroutines that wait for one event.
    pub(super) waiters: Vec<Waiter>,
    /// What the kernel was told last.
    pub(super) registered: Interest,
    /// The last event found no waiter. The next such event ends the registration, see `readiness`.
    pub(super) spared: bool,
    /// Listed in `Unconfirmed`: it has to be checked before the loop sleeps.
    pub(super) unconfirmed: bool,
}

impl Watch {
    pub(super) const fn new(fd: RawFd) -> Self {
        Self {
            fd,
            file: None,
            reader: None,
            writer: None,
            waiters: Vec::new(),
            registered: Interest::NONE,
            spared: false,
            unconfirmed: false,
        }
    }

    /// True if the program has a callback here.
    #[inline]
    pub(super) const fn has_handles(&self) -> bool {
        self.reader.is_some() || self.writer.is_some()
    }

    /// What somebody waits for.
    pub(super) fn interest(&self) -> Interest {
        let handles = [
            self.reader.as_ref().map(|_| Interest::READABLE),
            self.writer.as_ref().map(|_| Interest::WRITABLE),
        ];
        let waiters = self.waiters.iter().map(|waiter| waiter.side.interest());
        let all = handles.into_iter().flatten().chain(waiters);
        all.fold(Interest::NONE, Interest::with)
    }

    /// What a new epoll instance must be told. A registration that is only kept for later is made
    /// again when it is wanted.
    pub(super) fn renewal(&self, py: Python<'_>, token: Token) -> Option<Renewal> {
        let interest = self.interest();
        (!interest.is_empty()).then(|| Renewal {
            fd: self.fd,
            token,
            interest,
            to_ask: self.file.as_ref().map(|file| file.clone_ref(py)),
        })
    }

    pub(super) fn ready_reader(&self, py: Python<'_>, event: Event) -> Option<HandleRef> {
        ready(py, event.readable, self.reader.as_ref())
    }

    pub(super) fn ready_writer(&self, py: Python<'_>, event: Event) -> Option<HandleRef> {
        ready(py, event.writable, self.writer.as_ref())
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.option(self.file.as_ref())?;
        for waiter in &self.waiters {
            visit.object(&waiter.future)?;
        }
        for handle in [&self.reader, &self.writer].into_iter().flatten() {
            handle.traverse_queued(visit)?;
        }
        Ok(())
    }

    pub(super) fn take_waiters(&mut self, event: Event) -> Woken {
        let ready = |waiter: &mut Waiter| waiter.side.is_ready(event);
        self.waiters.extract_if(.., ready).collect()
    }

    /// True if nobody waits any more for what `event` reports. The first such readable event does
    /// not count: the loop polls again before the woken coroutine has read.
    pub(super) fn unwanted(&mut self, event: Event, woken: &Woken) -> bool {
        let wanted = self.interest();
        let superfluous = |side: Side| {
            let interest = side.interest();
            side.is_ready(event) && self.registered.contains(interest) && !wanted.contains(interest)
        };
        let reading = woken
            .iter()
            .any(|waiter| matches!(waiter.side, Side::Reader));
        let (written, read) = (superfluous(Side::Writer), superfluous(Side::Reader));
        let spared = std::mem::replace(&mut self.spared, read && !reading);
        written || (spared && self.spared)
    }

    /// Takes the handles out that watched another descriptor with this number.
    pub(super) fn end_handles_but(&mut self, side: Option<Side>) -> [Option<HandleRef>; 2] {
        match side {
            Some(Side::Reader) => [self.writer.take(), None],
            Some(Side::Writer) => [self.reader.take(), None],
            None => [self.reader.take(), self.writer.take()],
        }
    }

    pub(super) const fn side(&mut self, side: Side) -> &mut Option<HandleRef> {
        match side {
            Side::Reader => &mut self.reader,
            Side::Writer => &mut self.writer,
        }
    }
}

fn ready(py: Python<'_>, ready: bool, handle: Option<&HandleRef>) -> Option<HandleRef> {
    handle
        .filter(|handle| ready && !handle.is_cancelled())
        .map(|handle| handle.clone_ref(py))
}

/// A future that is done at the descriptor's next event.
pub(super) struct Waiter {
    pub(super) side: Side,
    /// Tells it from others of its descriptor.
    pub(super) number: u64,
    pub(super) future: Py<PyAny>,
}

/// The waiters that one event takes out.
pub(super) type Woken = Vec<Waiter>;

#[derive(Clone, Copy)]
pub(crate) enum Side {
    Reader,
    Writer,
}

impl Side {
    pub(super) const fn interest(self) -> Interest {
        match self {
            Self::Reader => Interest::READABLE,
            Self::Writer => Interest::WRITABLE,
        }
    }

    pub(super) const fn is_ready(self, event: Event) -> bool {
        match self {
            Self::Reader => event.readable,
            Self::Writer => event.writable,
        }
    }
}
