//! The queue of datagrams to send. Neighbours of one size to one address are sent as a run; several
//! runs and single datagrams are sent with one system call.

use crate::py::class::{Visit, VisitStopped};
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use reactor::addr::SocketAddress;
use reactor::datagram::{self, Message, RUN_BYTES_MOST, RUN_MOST};
use reactor::socket;
use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::RawFd;

/// Most messages of one system call.
const MESSAGES_MOST: usize = 32;
/// Most datagrams of one system call.
const DATAGRAMS_MOST: usize = 512;

/// Where a datagram goes.
pub(super) enum Target {
    /// The peer that the socket is connected to.
    Peer,
    Address(SocketAddress),
    /// The socket object's own methods send it: a host name, or a socket that is not plain.
    Object(Py<PyAny>),
}

impl Target {
    fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Peer, Self::Peer) => true,
            (Self::Address(one), Self::Address(other)) => one == other,
            _ => false,
        }
    }
}

/// One datagram.
pub(super) struct Datagram {
    pub(super) data: Py<PyBytes>,
    pub(super) to: Target,
}

/// What one system call did.
pub(super) struct Sent {
    /// How many datagrams left, or the error of the first message.
    pub(super) outcome: io::Result<usize>,
    /// How many datagrams the first message had.
    pub(super) first_run: usize,
}

impl Sent {
    /// No system call was made.
    pub(super) const fn none(error: io::Error) -> Self {
        Self {
            outcome: Err(error),
            first_run: 1,
        }
    }
}

/// Datagrams in the order of their `sendto`.
pub(super) struct SendQueue {
    datagrams: VecDeque<Datagram>,
    /// asyncio's accounting: bytes, and a fixed number for each datagram.
    size: usize,
    header: usize,
    /// The kernel has no room: only a writable event sends more.
    pub(super) blocked: bool,
    /// The largest datagram that may be part of a run; 0 if the kernel or the device refuses runs.
    run_size_most: usize,
}

impl SendQueue {
    pub(super) fn new(header: usize, runs: bool) -> Self {
        Self {
            datagrams: VecDeque::new(),
            size: 0,
            header,
            blocked: false,
            run_size_most: if runs { RUN_BYTES_MOST / 2 } else { 0 },
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        for datagram in &self.datagrams {
            if let Target::Object(object) = &datagram.to {
                visit.object(object)?;
            }
        }
        Ok(())
    }

    pub(super) const fn size(&self) -> usize {
        self.size
    }

    pub(super) const fn is_blocked(&self) -> bool {
        self.blocked
    }

    /// True if the kernel may take something that is queued.
    pub(super) fn can_send(&self) -> bool {
        !self.blocked && !self.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.datagrams.is_empty()
    }

    pub(super) fn push(&mut self, py: Python<'_>, datagram: Datagram) {
        self.size += self.size_of(py, &datagram);
        self.datagrams.push_back(datagram);
    }

    /// Puts back what could not be sent.
    pub(super) fn push_front(&mut self, py: Python<'_>, datagram: Datagram) {
        self.size += self.size_of(py, &datagram);
        self.datagrams.push_front(datagram);
    }

    pub(super) fn pop(&mut self, py: Python<'_>) -> Option<Datagram> {
        let datagram = self.datagrams.pop_front()?;
        self.size -= self.size_of(py, &datagram);
        Some(datagram)
    }

    fn size_of(&self, py: Python<'_>, datagram: &Datagram) -> usize {
        datagram.data.as_bytes(py).len() + self.header
    }

    /// Takes everything out, for the caller to drop.
    pub(super) fn take(&mut self) -> VecDeque<Datagram> {
        self.size = 0;
        self.blocked = false;
        std::mem::take(&mut self.datagrams)
    }

    /// True if the socket object has to send the first datagram.
    pub(super) fn is_first_for_object(&self) -> bool {
        matches!(
            self.datagrams.front(),
            Some(Datagram {
                to: Target::Object(_),
                ..
            })
        )
    }

    /// The kernel refused a run: later runs are of smaller datagrams, or no runs are sent any more.
    pub(super) fn refused(&mut self, py: Python<'_>, error: &io::Error) {
        let size = self
            .datagrams
            .front()
            .map_or(0, |first| first.data.as_bytes(py).len());
        self.run_size_most = if datagram::refuses_size(error) {
            size.saturating_sub(1).min(self.run_size_most)
        } else {
            0
        };
    }

    /// Sends from the front, with one system call. The first datagram must not be one for the
    /// socket object.
    pub(super) fn send(&self, py: Python<'_>, fd: RawFd) -> Sent {
        let first_run = self.run_at(py, 0);
        if first_run == 1 && self.datagrams.len() == 1 {
            let outcome = self.send_first(py, fd).map(|()| 1);
            return Sent { outcome, first_run };
        }
        let mut runs = [0; MESSAGES_MOST];
        let (mut count, mut total) = (0, 0);
        while count < MESSAGES_MOST && total < DATAGRAMS_MOST {
            let run = self.run_at(py, total);
            if run == 0 {
                break;
            }
            runs[count] = run;
            count += 1;
            total += run;
        }
        let outcome = self.send_runs(py, fd, &runs[..count], total);
        Sent { outcome, first_run }
    }

    fn send_first(&self, py: Python<'_>, fd: RawFd) -> io::Result<()> {
        let first = &self.datagrams[0];
        let bytes = first.data.as_bytes(py);
        match &first.to {
            Target::Address(to) => datagram::send_to(fd, bytes, to),
            _ => socket::send(fd, bytes).map(drop),
        }
    }

    fn send_runs(
        &self,
        py: Python<'_>,
        fd: RawFd,
        runs: &[usize],
        total: usize,
    ) -> io::Result<usize> {
        let slices: Vec<IoSlice<'_>> = self
            .datagrams
            .iter()
            .take(total)
            .map(|datagram| IoSlice::new(datagram.data.as_bytes(py)))
            .collect();
        let mut start = 0;
        let message = |run: &usize| {
            let first = start;
            start += run;
            Message {
                to: match &self.datagrams[first].to {
                    Target::Address(to) => Some(to),
                    _ => None,
                },
                datagrams: &slices[first..start],
            }
        };
        let messages: Vec<Message<'_>> = runs.iter().map(message).collect();
        let sent = datagram::send(fd, &messages)?;
        Ok(runs[..sent].iter().sum())
    }

    /// How many datagrams from `start` on can leave in one message.
    fn run_at(&self, py: Python<'_>, start: usize) -> usize {
        let mut rest = self.datagrams.range(start.min(self.datagrams.len())..);
        let Some(first) = rest.next() else {
            return 0;
        };
        if matches!(first.to, Target::Object(_)) {
            return 0;
        }
        let size = first.data.as_bytes(py).len();
        if size == 0 || size > self.run_size_most {
            return 1;
        }
        let (mut count, mut bytes) = (1, size);
        for next in rest.take(RUN_MOST - 1) {
            let length = next.data.as_bytes(py).len();
            let fits = length > 0 && length <= size && bytes + length <= RUN_BYTES_MOST;
            if !fits || !next.to.is_same(&first.to) {
                break;
            }
            count += 1;
            bytes += length;
            if length < size {
                break;
            }
        }
        count
    }
}
