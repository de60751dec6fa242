//! Connection: one accepted socket and what it still owes its peer.
//!
//! Invariants:
//! - While `unsent` is not empty nothing is read, so a peer that does not read
//!   cannot make it grow past one buffer of answers.
//!
//! Cost: one `recv` and one `send` a request; no allocation unless a `send` was short.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::tls::TlsEcho;

const HTTP_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 13\r\n\r\nHello, world!";
const HEAD_END: &[u8; 4] = b"\r\n\r\n";

/// What a connection does with the bytes it is sent.
pub(crate) enum Answer {
    /// Send them back.
    Echo,
    /// Send back what they say, encrypted as they are.
    Tls(TlsEcho),
    /// Send one plaintext response for each blank line, the end of a GET's head.
    Http,
}

/// What the server has to do after a connection handled its event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    AwaitReadable,
    AwaitWritable,
    Close,
}

/// One accepted, non-blocking socket.
pub(crate) struct Connection {
    stream: OwnedFd,
    answer: Answer,
    unsent: Vec<u8>,
    sent: usize,
    head_end_matched: usize,
}

impl Connection {
    pub(crate) const fn new(stream: OwnedFd, answer: Answer) -> Self {
        Self {
            stream,
            answer,
            unsent: Vec::new(),
            sent: 0,
            head_end_matched: 0,
        }
    }

    /// Handle readiness: send what is owed, or else read once and answer.
    pub(crate) fn on_ready(&mut self, buffer: &mut [u8]) -> Result<Next> {
        if !self.unsent.is_empty() {
            return self.flush();
        }
        let received = match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(Next::Close),
            Ok((received, _)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Next::AwaitReadable),
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..received];
        let (stream, unsent) = (&self.stream, &mut self.unsent);
        match &mut self.answer {
            Answer::Echo => send_or_keep(stream, unsent, bytes)?,
            Answer::Http => {
                for _ in 0..count_heads(&mut self.head_end_matched, bytes) {
                    send_or_keep(stream, unsent, HTTP_RESPONSE)?;
                }
            }
            Answer::Tls(tls) => {
                if !tls.answer(bytes, |records| send_or_keep(stream, unsent, records))? {
                    return Ok(Next::Close);
                }
            }
        }
        Ok(if self.unsent.is_empty() {
            Next::AwaitReadable
        } else {
            Next::AwaitWritable
        })
    }

    fn flush(&mut self) -> Result<Next> {
        match send(&self.stream, &self.unsent[self.sent..], SendFlags::NOSIGNAL) {
            Ok(sent) => self.sent += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if self.sent < self.unsent.len() {
            return Ok(Next::AwaitWritable);
        }
        self.unsent.clear();
        self.sent = 0;
        Ok(Next::AwaitReadable)
    }
}

/// Send bytes after those that are `unsent`, and keep there what the socket does not take.
fn send_or_keep(stream: &OwnedFd, unsent: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    if !unsent.is_empty() {
        unsent.extend_from_slice(bytes);
        return Ok(());
    }
    let sent = match send(stream, bytes, SendFlags::NOSIGNAL) {
        Ok(sent) => sent,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(error) => return Err(error),
    };
    if sent < bytes.len() {
        unsent.extend_from_slice(&bytes[sent..]);
    }
    Ok(())
}

/// Count the request heads that end in `bytes`; a head may span several reads.
fn count_heads(matched: &mut usize, bytes: &[u8]) -> usize {
    let mut heads = 0;
    for &byte in bytes {
        if byte == HEAD_END[*matched] {
            *matched += 1;
        } else {
            *matched = usize::from(byte == HEAD_END[0]);
        }
        if *matched == HEAD_END.len() {
            heads += 1;
            *matched = 0;
        }
    }
    heads
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::{Answer, Connection, HTTP_RESPONSE, Next};

    fn pair(answer: Answer) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("non-blocking mode");
        (Connection::new(ours.into(), answer), theirs)
    }

    #[test]
    fn echoes_what_it_reads() {
        let (mut connection, mut peer) = pair(Answer::Echo);
        let mut buffer = [0; 64];
        peer.write_all(b"abc").expect("room for three bytes");
        assert_eq!(connection.on_ready(&mut buffer), Ok(Next::AwaitReadable));
        let mut echo = [0; 3];
        peer.read_exact(&mut echo).expect("the echo");
        assert_eq!(&echo, b"abc");
    }

    #[test]
    fn owes_what_the_peer_does_not_read_yet() {
        let (mut connection, mut peer) = pair(Answer::Echo);
        let mut buffer = vec![0; 1 << 20];
        peer.set_nonblocking(true).expect("non-blocking mode");
        let chunk = vec![7; 1 << 16];
        let (mut written, mut echoed) = (0, 0);
        let mut next = Next::AwaitReadable;
        while next == Next::AwaitReadable {
            written += peer.write(&chunk).unwrap_or(0);
            next = connection.on_ready(&mut buffer).expect("a live peer");
        }
        assert_eq!(next, Next::AwaitWritable);
        while echoed < written {
            match peer.read(&mut buffer) {
                Ok(count) => {
                    assert!(buffer[..count].iter().all(|&byte| byte == 7));
                    echoed += count;
                }
                Err(_) => {
                    next = connection.on_ready(&mut []).expect("a live peer");
                }
            }
        }
        assert_eq!((echoed, next), (written, Next::AwaitReadable));
    }

    #[test]
    fn answers_a_head_that_arrives_in_pieces() {
        let (mut connection, mut peer) = pair(Answer::Http);
        let mut buffer = [0; 64];
        for piece in [
            "GET / HTTP/1.1\r\nhost: a\r\n\r",
            "\nGET / HTTP/1.1\r\n\r\n",
        ] {
            peer.write_all(piece.as_bytes())
                .expect("room for a request");
            assert_eq!(connection.on_ready(&mut buffer), Ok(Next::AwaitReadable));
        }
        let mut responses = vec![0; HTTP_RESPONSE.len() * 2];
        peer.read_exact(&mut responses).expect("two responses");
        assert_eq!(responses, HTTP_RESPONSE.repeat(2));
    }

    #[test]
    fn closes_at_the_end_of_the_stream() {
        let (mut connection, peer) = pair(Answer::Echo);
        drop(peer);
        assert_eq!(connection.on_ready(&mut [0; 8]), Ok(Next::Close));
    }
}
