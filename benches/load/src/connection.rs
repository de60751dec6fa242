//! Connection: one client socket that sends, awaits the answer, and sends again.
//!
//! Cost: one `writev` and one `recv` a request when the kernel takes and gives it whole.

use std::io::{self, IoSlice};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;

use rustix::io::{Errno, writev};
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};
use rustls::ClientConfig;

use crate::tls::Session;
use crate::workload::{Exchange, Workload};

/// A connected, non-blocking socket with one request under way.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: OwnedFd,
    session: Option<Box<Session>>,
    exchange: Exchange,
    is_finished: bool,
    sent: usize,
    started_ns: u64,
    pub(crate) answers: u64,
}

impl Connection {
    /// Connect to an address.
    ///
    /// With a `config` TLS is spoken; the handshake is done while the first request waits.
    pub(crate) fn open(address: &str, config: Option<&Arc<ClientConfig>>) -> io::Result<Self> {
        let session = config.map(Session::new).transpose()?.map(Box::new);
        Ok(Self {
            stream: connect(address)?,
            session,
            exchange: Exchange::new(),
            is_finished: false,
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
        if let Some(session) = &mut self.session {
            let (head, tail) = workload.request(&self.exchange);
            session.write(head)?;
            session.write(tail)?;
            self.sent = head.len() + tail.len();
        }
        self.send(workload)
    }

    /// Send what is left of the request; true when nothing is.
    pub(crate) fn send(&mut self, workload: &Workload) -> io::Result<bool> {
        if let Some(session) = &mut self.session {
            return session.flush(&self.stream);
        }
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
    ///
    /// What the handshake has to say in return is sent at once, as far as the socket takes it.
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
            Ok((received, _)) => &buffer[..received],
            Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let exchange = &mut self.exchange;
        let is_answered = match &mut self.session {
            None => workload.accept(exchange, received)?,
            Some(session) => {
                let accept = |bytes: &[u8]| workload.accept(exchange, bytes);
                let is_answered = session.receive(received, accept)?;
                session.flush(&self.stream)?;
                is_answered
            }
        };
        if !is_answered {
            return Ok(None);
        }
        self.answers += 1;
        Ok(Some(self.started_ns))
    }

    /// Whether the session has bytes that the socket did not take yet.
    pub(crate) fn is_blocked(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| !session.is_flushed())
    }

    /// Say that nothing follows, as a client does that closes; the server then closes too.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.is_finished = true;
        if let Some(session) = &mut self.session {
            session.write_end();
            // An alert of some 20 bytes, after a request that the server has read.
            session.flush(&self.stream)?;
        }
        match shutdown(&self.stream, Shutdown::Write) {
            Ok(()) | Err(Errno::NOTCONN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(crate) const fn is_finished(&self) -> bool {
        self.is_finished
    }

    /// Read once what follows the answer; the time of the request when the server has closed.
    pub(crate) fn await_end(&mut self, buffer: &mut [u8]) -> io::Result<Option<u64>> {
        match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => Ok(Some(self.started_ns)),
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Connect to `address`, a Unix socket's path when it contains a slash; do not block from then on.
pub(crate) fn connect(address: &str) -> io::Result<OwnedFd> {
    if address.contains('/') {
        let stream = UnixStream::connect(address)?;
        stream.set_nonblocking(true)?;
        return Ok(stream.into());
    }
    let stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_nonblocking(true)?;
    Ok(stream.into())
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}
