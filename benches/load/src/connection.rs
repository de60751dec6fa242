//! Connection: one client socket that sends, awaits the answer, and sends again.
//!
//! Cost: one `writev` and one `recv` a request when the kernel takes and gives it whole.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::{Errno, writev};
use rustix::net::{RecvFlags, recv};

use crate::workload::{Exchange, Workload};

/// A connected, non-blocking socket with one request under way.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: OwnedFd,
    exchange: Exchange,
    sent: usize,
    started_ns: u64,
    pub(crate) answers: u64,
}

impl Connection {
    /// Connect to `address`, a Unix socket's path when it contains a slash.
    pub(crate) fn open(address: &str) -> io::Result<Self> {
        let stream: OwnedFd = if address.contains('/') {
            let stream = UnixStream::connect(address)?;
            stream.set_nonblocking(true)?;
            stream.into()
        } else {
            let stream = TcpStream::connect(address)?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            stream.into()
        };
        Ok(Self {
            stream,
            exchange: Exchange::new(),
            sent: 0,
            started_ns: 0,
            answers: 0,
        })
    }

    /// Begin the next request; false when it could not be sent whole.
    pub(crate) fn start(&mut self, workload: &Workload, now_ns: u64) -> io::Result<bool> {
        self.exchange.advance();
        self.sent = 0;
        self.started_ns = now_ns;
        self.send(workload)
    }

    /// Send what is left of the request; true when nothing is.
    pub(crate) fn send(&mut self, workload: &Workload) -> io::Result<bool> {
        let (head, tail) = workload.request(&self.exchange);
        let length = head.len() + tail.len();
        if self.sent == length {
            return Ok(true);
        }
        let rest_of_head = &head[self.sent.min(head.len())..];
        let rest_of_tail = &tail[self.sent.saturating_sub(head.len())..];
        match writev(
            &self.stream,
            &[IoSlice::new(rest_of_head), IoSlice::new(rest_of_tail)],
        ) {
            Ok(sent) => self.sent += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.sent == length)
    }

    /// Read once; the time the request was begun when its answer is now complete.
    pub(crate) fn receive(
        &mut self,
        workload: &Workload,
        buffer: &mut [u8],
    ) -> io::Result<Option<u64>> {
        let received = match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => {
                let text = "the server closed a connection";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Ok((received, _)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !workload.accept(&mut self.exchange, &buffer[..received])? {
            return Ok(None);
        }
        self.answers += 1;
        Ok(Some(self.started_ns))
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
