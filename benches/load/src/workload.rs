//! Workload: what is sent, and when the answer to it is complete.
//!
//! An echo message is 16 hexadecimal digits, its number on the connection, followed by
//! a filler shared by all connections; every byte that comes back is compared. An HTTP
//! response must be a 200 with a content-length and, if one is given, the expected body.
//!
//! Cost: no allocation per request; one comparison of the bytes received.

use std::io;

pub(crate) const HEADER_LEN: usize = 16;
const HEAD_LEN_MAX: usize = 16 * 1024;

/// What every connection of a run sends and expects.
#[derive(Debug)]
pub(crate) enum Workload {
    /// A message of `HEADER_LEN + filler.len()` bytes that must come back unchanged.
    Echo { filler: Vec<u8> },
    /// A GET, and the body its response must have.
    Http {
        request: Vec<u8>,
        body: Option<Vec<u8>>,
    },
}

/// One connection's present request and what has arrived of its answer.
#[derive(Debug)]
pub(crate) struct Exchange {
    number: u64,
    step: u64,
    header: [u8; HEADER_LEN],
    received: usize,
    response: Vec<u8>,
}

impl Workload {
    /// Messages of `size` bytes; `is_line` ends each with its only newline.
    pub(crate) fn echo(size: usize, is_line: bool) -> Self {
        let mut filler = filler(size);
        if let (true, Some(last)) = (is_line, filler.last_mut()) {
            *last = b'\n';
        }
        Self::Echo { filler }
    }

    pub(crate) fn http(path: &str, body: Option<&str>) -> Self {
        let request = format!("GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: */*\r\n\r\n");
        Self::Http {
            request: request.into_bytes(),
            body: body.map(|body| body.as_bytes().into()),
        }
    }

    /// The request's bytes in two parts; the second is shared by all connections.
    pub(crate) fn request<'a>(&'a self, exchange: &'a Exchange) -> (&'a [u8], &'a [u8]) {
        match self {
            Self::Echo { filler } => (&exchange.header, filler),
            Self::Http { request, .. } => (request, &[]),
        }
    }

    /// Take received bytes; true when the answer is complete, an error when it is wrong.
    pub(crate) fn accept(&self, exchange: &mut Exchange, bytes: &[u8]) -> io::Result<bool> {
        match self {
            Self::Echo { filler } => exchange.accept_echo(filler, bytes),
            Self::Http { body, .. } => exchange.accept_response(body.as_deref(), bytes),
        }
    }
}

impl Exchange {
    pub(crate) const fn new() -> Self {
        Self::numbered(0, 1)
    }

    /// Messages with the numbers `first + step`, `first + 2 * step` and so on.
    pub(crate) const fn numbered(first: u64, step: u64) -> Self {
        Self {
            number: first,
            step,
            header: [b'0'; HEADER_LEN],
            received: 0,
            response: Vec::new(),
        }
    }

    /// Begin the next request: a stale or repeated answer to the last one is then wrong.
    pub(crate) fn advance(&mut self) {
        self.number += self.step;
        self.received = 0;
        self.response.clear();
        for (position, digit) in self.header.iter_mut().rev().enumerate() {
            let nibble = (self.number >> (4 * position)) & 0xf;
            *digit = b"0123456789abcdef"[nibble as usize];
        }
    }

    /// Which of `slots` exchanges, numbered from 0 in steps of their count, an echo is for.
    pub(crate) fn slot_of(echo: &[u8], slots: usize) -> io::Result<usize> {
        let digits = echo
            .get(..HEADER_LEN)
            .and_then(|header| str::from_utf8(header).ok());
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let number = number.ok_or_else(|| wrong("an answer without a number"))?;
        Ok((number % slots as u64) as usize)
    }

    fn accept_echo(&mut self, filler: &[u8], bytes: &[u8]) -> io::Result<bool> {
        let start = self.received;
        let end = start + bytes.len();
        if end > HEADER_LEN + filler.len() {
            return Err(wrong("more came back than was sent"));
        }
        let in_header = HEADER_LEN.saturating_sub(start).min(bytes.len());
        let (head, tail) = bytes.split_at(in_header);
        let offset = start.saturating_sub(HEADER_LEN);
        if self.header[start.min(HEADER_LEN)..][..in_header] != *head
            || filler[offset..][..tail.len()] != *tail
        {
            return Err(wrong("what came back is not what was sent"));
        }
        self.received = end;
        Ok(end == HEADER_LEN + filler.len())
    }

    fn accept_response(&mut self, body: Option<&[u8]>, bytes: &[u8]) -> io::Result<bool> {
        self.response.extend_from_slice(bytes);
        let Some(head_len) = find(&self.response, b"\r\n\r\n") else {
            if self.response.len() > HEAD_LEN_MAX {
                return Err(wrong("the head of a response does not end"));
            }
            return Ok(false);
        };
        let (head, rest) = self.response.split_at(head_len);
        if !head.starts_with(b"HTTP/1.1 200 ") {
            let line = head.split(|&byte| byte == b'\r').next().unwrap_or(head);
            return Err(wrong(&format!(
                "not a 200: {}",
                String::from_utf8_lossy(line)
            )));
        }
        let length = content_length(head).ok_or_else(|| wrong("no content-length"))?;
        let received = &rest[4..];
        if received.len() < length {
            return Ok(false);
        }
        if received.len() > length || body.is_some_and(|body| body != received) {
            return Err(wrong("the body of a response is not the expected one"));
        }
        Ok(true)
    }
}

/// What follows the number in a message of that size.
pub(crate) fn filler(size: usize) -> Vec<u8> {
    (HEADER_LEN..size)
        .map(|offset| b'!' + (offset % 94) as u8)
        .collect()
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes
        .windows(pattern.len())
        .position(|window| window == pattern)
}

fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|&byte| byte == b'\n').find_map(|line| {
        let colon = line.iter().position(|&byte| byte == b':')?;
        if !line[..colon].eq_ignore_ascii_case(b"content-length") {
            return None;
        }
        str::from_utf8(&line[colon + 1..]).ok()?.trim().parse().ok()
    })
}

#[cfg(test)]
mod tests {
    use super::{Exchange, Workload};

    fn sent(workload: &Workload, exchange: &Exchange) -> Vec<u8> {
        let (head, tail) = workload.request(exchange);
        [head, tail].concat()
    }

    #[test]
    fn an_echo_is_complete_at_its_last_byte_however_it_is_cut() {
        let workload = Workload::echo(1024, false);
        for cut in [1, 7, 15, 16, 17, 1000, 1024] {
            let mut exchange = Exchange::new();
            exchange.advance();
            let message = sent(&workload, &exchange);
            assert_eq!(message.len(), 1024);
            let mut completions = Vec::new();
            for chunk in message.chunks(cut) {
                completions.push(
                    workload
                        .accept(&mut exchange, chunk)
                        .expect("the same bytes"),
                );
            }
            assert_eq!(
                completions.iter().position(|&done| done),
                Some(completions.len() - 1)
            );
        }
    }

    #[test]
    fn any_changed_byte_of_an_echo_is_wrong() {
        let workload = Workload::echo(64, true);
        for position in 0..64 {
            let mut exchange = Exchange::new();
            exchange.advance();
            let mut message = sent(&workload, &exchange);
            message[position] ^= 1;
            assert!(workload.accept(&mut exchange, &message).is_err());
        }
    }

    #[test]
    fn too_much_and_stale_echoes_are_wrong() {
        let workload = Workload::echo(64, false);
        let mut exchange = Exchange::new();
        exchange.advance();
        let message = sent(&workload, &exchange);
        let longer = [message.as_slice(), b"x"].concat();
        assert!(workload.accept(&mut exchange, &longer).is_err());
        exchange.advance();
        assert!(workload.accept(&mut exchange, &message).is_err());
    }

    #[test]
    fn a_line_has_one_newline_at_its_end() {
        let workload = Workload::echo(1024, true);
        let mut exchange = Exchange::new();
        exchange.advance();
        let message = sent(&workload, &exchange);
        assert_eq!(message.iter().position(|&byte| byte == b'\n'), Some(1023));
    }

    #[test]
    fn a_response_is_complete_with_its_body() {
        let workload = Workload::http("/", Some("Hello"));
        let mut exchange = Exchange::new();
        let response = b"HTTP/1.1 200 OK\r\nserver: x\r\nContent-Length: 5\r\n\r\nHello";
        let (last, first) = response.split_last().expect("not empty");
        for byte in first {
            assert!(
                !workload
                    .accept(&mut exchange, &[*byte])
                    .expect("a good prefix")
            );
        }
        assert!(
            workload
                .accept(&mut exchange, &[*last])
                .expect("a good response")
        );
    }

    #[test]
    fn bad_responses_are_wrong() {
        for response in [
            "HTTP/1.1 500 Internal Server Error\r\ncontent-length: 5\r\n\r\nHello",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHullo",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nHelloH",
        ] {
            let workload = Workload::http("/", Some("Hello"));
            let answer = workload.accept(&mut Exchange::new(), response.as_bytes());
            assert!(answer.is_err(), "{response}");
        }
    }
}
