//! Connection: one accepted socket and what it still owes its peer.
//!
//! Invariants:
//! - While `unsent` is not empty nothing is read and no message is begun, so a peer that does
//!   not read cannot make it grow past one buffer of answers.
//!
//! Cost: one `recv` and one `send` a request, or one `send` a message; no allocation unless a
//! `send` was short.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, Result};
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::bulk::{Messages, Receipts};
use crate::tls::TlsStream;

const HTTP_RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain; charset=utf-8\r\n\
    content-length: 13\r\n\r\nHello, world!";
const HEAD_END: &[u8; 4] = b"\r\n\r\n";
/// As many messages as a loop's server writes in one turn, see `bulk.py`.
const BURST: usize = 16;

/// What a connection does with the bytes it is sent.
#[derive(Clone)]
pub(crate) enum Answer {
    /// Send them back.
    Echo,
    /// Send one plaintext response for each blank line, the end of a GET's head.
    Http,
    /// Say how much has come.
    Receive(Receipts),
    /// Expect none, and send messages for as long as the connection lives.
    Send(Messages),
}

impl Answer {
    /// Return what answers some bytes, if not by the count of heads.
    fn to<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        match self {
            Self::Echo => bytes,
            Self::Http | Self::Send(_) => b"",
            Self::Receive(receipts) => receipts.of(bytes.len()),
        }
    }
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
    tls: Option<TlsStream>,
    answer: Answer,
    unsent: Vec<u8>,
    sent: usize,
    head_end_matched: usize,
}

impl Connection {
    pub(crate) const fn new(stream: OwnedFd, tls: Option<TlsStream>, answer: Answer) -> Self {
        Self {
            stream,
            tls,
            answer,
            unsent: Vec::new(),
            sent: 0,
            head_end_matched: 0,
        }
    }

    /// What is to be awaited, while the connection lives.
    pub(crate) fn next(&self) -> Next {
        if self.unsent.is_empty() && !self.is_sending() {
            Next::AwaitReadable
        } else {
            Next::AwaitWritable
        }
    }

    /// Tell whether the next message can be sent.
    fn is_sending(&self) -> bool {
        let is_sender = matches!(self.answer, Answer::Send(_));
        is_sender && self.tls.as_ref().is_none_or(TlsStream::is_established)
    }

    /// Handle readiness: send what is owed or wanted, or else read once and answer.
    pub(crate) fn on_ready(&mut self, buffer: &mut [u8]) -> Result<Next> {
        let is_open = if !self.unsent.is_empty() {
            self.flush()?;
            true
        } else if self.is_sending() {
            self.send_messages()?
        } else {
            self.receive(buffer)?
        };
        Ok(if is_open { self.next() } else { Next::Close })
    }

    /// Read once and answer; false at the end of the stream.
    fn receive(&mut self, buffer: &mut [u8]) -> Result<bool> {
        let received = match recv(&self.stream, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) | Err(Errno::CONNRESET) => return Ok(false),
            Ok((received, _)) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(true),
            Err(error) => return Err(error),
        };
        let bytes = &buffer[..received];
        let (stream, unsent, answer) = (&self.stream, &mut self.unsent, &mut self.answer);
        if let Some(tls) = &mut self.tls {
            let send = |records: &[u8]| send_or_keep(stream, unsent, records);
            return tls.exchange(bytes, |contents| answer.to(contents), send);
        }
        if let Answer::Http = answer {
            for _ in 0..count_heads(&mut self.head_end_matched, bytes) {
                send_or_keep(stream, unsent, HTTP_RESPONSE)?;
            }
            return Ok(true);
        }
        match answer.to(bytes) {
            b"" => {}
            said => send_or_keep(stream, unsent, said)?,
        }
        Ok(true)
    }

    /// Send messages until the socket takes no more, but not for ever.
    fn send_messages(&mut self) -> Result<bool> {
        let Answer::Send(messages) = &mut self.answer else {
            return Ok(true);
        };
        let (stream, unsent) = (&self.stream, &mut self.unsent);
        for _ in 0..BURST {
            if let Some(tls) = &mut self.tls {
                let message = messages.unsent();
                if !tls.write(message, |records| send_or_keep(stream, unsent, records))? {
                    return Ok(false);
                }
                messages.advance(message.len());
                if !unsent.is_empty() {
                    break;
                }
                continue;
            }
            match send(stream, messages.unsent(), SendFlags::NOSIGNAL) {
                Ok(sent) => messages.advance(sent),
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<()> {
        match send(&self.stream, &self.unsent[self.sent..], SendFlags::NOSIGNAL) {
            Ok(sent) => self.sent += sent,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error),
        }
        if self.sent == self.unsent.len() {
            self.unsent.clear();
            self.sent = 0;
        }
        Ok(())
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
    use crate::bulk::{Messages, Receipts};

    fn pair(answer: Answer) -> (Connection, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_nonblocking(true).expect("non-blocking mode");
        (Connection::new(ours.into(), None, answer), theirs)
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
    fn sends_messages_while_the_peer_reads() {
        let mut expected = Messages::new(64 * 1024).expect("a size");
        let (mut connection, mut peer) = pair(Answer::Send(expected.clone()));
        let mut buffer = vec![0; 1 << 16];
        assert_eq!(connection.next(), Next::AwaitWritable);
        for _ in 0..100 {
            assert_eq!(connection.on_ready(&mut []), Ok(Next::AwaitWritable));
            let count = peer.read(&mut buffer).expect("messages");
            for &byte in &buffer[..count] {
                assert_eq!(byte, expected.unsent()[0]);
                expected.advance(1);
            }
        }
        drop(peer);
        connection.on_ready(&mut []).expect_err("no peer");
    }

    #[test]
    fn says_how_much_has_come() {
        let (mut connection, mut peer) = pair(Answer::Receive(Receipts::default()));
        let mut buffer = vec![0; 1 << 16];
        for _ in 0..4 * 16 {
            peer.write_all(&buffer).expect("room for it");
            assert_eq!(connection.on_ready(&mut buffer), Ok(Next::AwaitReadable));
        }
        assert_eq!(connection.on_ready(&mut buffer), Ok(Next::AwaitReadable));
        let mut receipts = [0; 2];
        assert_eq!(peer.read(&mut receipts).expect("a receipt"), 1);
        assert_eq!(&receipts[..1], b".");
    }

    #[test]
    fn closes_at_the_end_of_the_stream() {
        let (mut connection, peer) = pair(Answer::Echo);
        drop(peer);
        assert_eq!(connection.on_ready(&mut [0; 8]), Ok(Next::Close));
    }
}
