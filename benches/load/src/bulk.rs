//! Bulk: bytes in one direction, as fast as the other side takes or sends them.
//!
//! The stream of a connection is one of messages: the number of each modulo 16 as 16 hexadecimal
//! digits, then the filler of an echo. Whoever receives can tell from it that nothing is lost,
//! doubled or out of order.
//!
//! - Receiving, every byte is compared; what a server sends has to be that stream.
//! - Sending, the server has to say a dot for each 4 MiB that it received. They are awaited after
//!   the window: what the kernel took and the server never saw is an error, not a rate.
//!
//! Cost: one `writev` or `recv` for up to 256 KiB, and a comparison of what is received.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::{Errno, writev};
use rustix::net::{RecvFlags, recv};

use crate::connection::connect;
use crate::events::{Watching, dispatch_until};
use crate::options::{Mode, Options};
use crate::sys::monotonic;
use crate::tls::Session;
use crate::window::{Exchanging, Report, Results, latencies, measure};
use crate::workload::{HEADER_LEN, filler};

const BUFFER_LEN: usize = 256 * 1024;
const MESSAGES: usize = 16;
const RECEIPT: u8 = b'.';
const RECEIPT_BYTES: u64 = 4 << 20;
const RECEIPTS_MAX_NS: u64 = 5_000_000_000;

/// Connect, warm up and measure as the options say.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    measure(options, Bulk::connect(options)?)
}

/// The messages that a stream repeats for ever.
struct Pattern(Vec<u8>);

/// One connection and how far its stream has got.
struct Stream {
    socket: OwnedFd,
    session: Option<Box<Session>>,
    interest: EventFlags,
    /// Bytes received, or taken to be sent.
    moved: u64,
    moved_before: u64,
    receipts: u64,
}

struct Bulk {
    is_sending: bool,
    is_ending: bool,
    size: u64,
    pattern: Pattern,
    epoll: OwnedFd,
    streams: Vec<Stream>,
    buffer: Vec<u8>,
}

impl Pattern {
    fn new(size: usize) -> Self {
        let filler = filler(size);
        let message =
            |number: usize| [format!("{number:0HEADER_LEN$x}").as_bytes(), &filler].concat();
        Self((0..MESSAGES).flat_map(message).collect())
    }

    /// What follows at that place of a stream, up to the end of the pattern.
    fn at(&self, place: u64) -> &[u8] {
        &self.0[(place % self.0.len() as u64) as usize..]
    }

    fn check(&self, mut place: u64, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let expected = self.at(place);
            let count = expected.len().min(bytes.len());
            if bytes[..count] != expected[..count] {
                return Err(wrong("what arrived is not the stream that was expected"));
            }
            bytes = &bytes[count..];
            place += count as u64;
        }
        Ok(())
    }
}

impl Stream {
    fn open(options: &Options) -> io::Result<Self> {
        let session = options.tls.as_ref().map(Session::new).transpose()?;
        let mut stream = Self {
            socket: connect(&options.address)?,
            session: session.map(Box::new),
            interest: EventFlags::IN,
            moved: 0,
            moved_before: 0,
            receipts: 0,
        };
        if let Some(session) = &mut stream.session {
            session.flush(&stream.socket)?;
        }
        Ok(stream)
    }

    /// Send what the socket takes, and no further than that place of the stream.
    fn send(&mut self, pattern: &Pattern, end: u64) -> io::Result<()> {
        let left = (end - self.moved).min(BUFFER_LEN as u64) as usize;
        let bytes = pattern.at(self.moved);
        let bytes = &bytes[..left.min(bytes.len())];
        if let Some(session) = &mut self.session {
            if session.is_handshaking() {
                return session.flush(&self.socket).map(drop);
            }
            if session.is_flushed() && !bytes.is_empty() {
                session.write(bytes)?;
                self.moved += bytes.len() as u64;
            }
            return session.flush(&self.socket).map(drop);
        }
        match writev(&self.socket, &[IoSlice::new(bytes)]) {
            Ok(sent) => self.moved += sent as u64,
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Read once and pass on what was said.
    fn receive(
        &mut self,
        buffer: &mut [u8],
        mut accept: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let received = match recv(&self.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((0, _)) => {
                let text = "the server closed a connection";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
            }
            Ok((received, _)) => &buffer[..received],
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let Some(session) = &mut self.session else {
            return accept(received);
        };
        session.receive(received, |bytes| accept(bytes).map(|()| false))?;
        session.flush(&self.socket).map(drop)
    }

    fn wanted(&self, end: Option<u64>) -> EventFlags {
        let is_handshaking = self
            .session
            .as_ref()
            .is_some_and(|each| each.is_handshaking());
        let is_blocked = self.session.as_ref().is_some_and(|each| !each.is_flushed());
        if is_blocked || (!is_handshaking && end.is_some_and(|end| self.moved < end)) {
            EventFlags::IN | EventFlags::OUT
        } else {
            EventFlags::IN
        }
    }

    /// Where the last receipt that is due falls.
    const fn end(&self) -> u64 {
        self.moved.next_multiple_of(RECEIPT_BYTES)
    }
}

impl Bulk {
    fn connect(options: &Options) -> io::Result<Self> {
        let mut bulk = Self {
            is_sending: options.mode == Mode::BulkSend,
            is_ending: false,
            size: u64::from(options.size),
            pattern: Pattern::new(options.size as usize),
            epoll: epoll::create(CreateFlags::CLOEXEC)?,
            streams: Vec::new(),
            buffer: vec![0; BUFFER_LEN],
        };
        for index in 0..options.connections as usize {
            let stream = Stream::open(options)?;
            let data = EventData::new_u64(index as u64);
            epoll::add(&bulk.epoll, &stream.socket, data, stream.interest)?;
            bulk.streams.push(stream);
            bulk.watch(index)?;
        }
        Ok(bulk)
    }

    /// How far a stream may go, if it sends at all.
    fn end(&self, stream: &Stream) -> Option<u64> {
        let end = if self.is_ending {
            stream.end()
        } else {
            u64::MAX
        };
        self.is_sending.then_some(end)
    }

    fn watch(&mut self, index: usize) -> io::Result<()> {
        let stream = &self.streams[index];
        let wanted = stream.wanted(self.end(stream));
        if stream.interest != wanted {
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &stream.socket, data, wanted)?;
            self.streams[index].interest = wanted;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let stream = &mut self.streams[index];
        let (mut moved, mut receipts) = (stream.moved, stream.receipts);
        let (is_sending, pattern) = (self.is_sending, &self.pattern);
        stream.receive(&mut self.buffer, |bytes| {
            if is_sending {
                receipts += bytes.len() as u64;
                let is_due = receipts * RECEIPT_BYTES <= moved;
                if !is_due || bytes.iter().any(|&byte| byte != RECEIPT) {
                    return Err(wrong("the server said something other than a due receipt"));
                }
            } else {
                pattern.check(moved, bytes)?;
                moved += bytes.len() as u64;
            }
            Ok(())
        })?;
        (stream.moved, stream.receipts) = (moved, receipts);
        Ok(())
    }

    /// Send up to the next receipt of each stream and wait for all of them.
    fn await_receipts(&mut self) -> io::Result<()> {
        self.is_ending = true;
        for index in 0..self.streams.len() {
            self.watch(index)?;
        }
        dispatch_until(self, monotonic() + RECEIPTS_MAX_NS)?;
        if self.is_done() {
            return Ok(());
        }
        Err(wrong("the server did not say that it received everything"))
    }
}

impl Watching for Bulk {
    fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn dispatch(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.receive(index)?;
        }
        if flags.contains(EventFlags::OUT) {
            let end = self.end(&self.streams[index]).unwrap_or(0);
            let stream = &mut self.streams[index];
            stream.send(&self.pattern, end.max(stream.moved))?;
        }
        self.watch(index)
    }

    fn is_done(&self) -> bool {
        let is_complete = |each: &Stream| each.receipts * RECEIPT_BYTES == each.moved;
        self.is_ending && self.streams.iter().all(is_complete)
    }
}

impl Exchanging for Bulk {
    fn exchange_until(&mut self, end_ns: u64) -> io::Result<()> {
        dispatch_until(self, end_ns)
    }

    fn forget(&mut self) {
        for stream in &mut self.streams {
            stream.moved_before = stream.moved;
        }
    }

    fn into_results(mut self) -> io::Result<Results> {
        let moved = |each: &Stream| each.moved - each.moved_before;
        let bytes = self.streams.iter().map(moved).sum();
        let idle_connections = self.streams.iter().filter(|each| moved(each) == 0).count();
        if self.is_sending {
            self.await_receipts()?;
        }
        Ok(Results {
            requests: bytes / self.size,
            bytes: Some(bytes),
            latencies: latencies(),
            idle_connections,
        })
    }
}

fn wrong(text: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, text)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::{Pattern, RECEIPT_BYTES, run};
    use crate::options::Options;

    fn options(address: &str, arguments: &str) -> Options {
        Options::of(&format!(
            "{address} --size 65536 --warmup 0.05 --seconds 0.2 {arguments}"
        ))
    }

    fn serve(converse: fn(TcpStream)) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || converse(stream));
            }
        });
        address
    }

    /// Send the stream with one byte changed, at that place if there is one.
    fn source(mut stream: TcpStream, changed: Option<usize>) {
        let mut bytes = Pattern::new(65536).0;
        if let Some(place) = changed {
            bytes[place] ^= 1;
        }
        // The client leaves at the end of its window.
        while stream.write_all(&bytes).is_ok() {}
    }

    /// Receive, and give a receipt for each time that so many bytes have come.
    fn sink(mut stream: TcpStream, receipt_bytes: u64) {
        let (mut buffer, mut received) = (vec![0; 1 << 18], 0);
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            received += count as u64;
            while received >= receipt_bytes {
                received -= receipt_bytes;
                drop(stream.write_all(b"."));
            }
        }
    }

    #[test]
    fn bytes_are_counted_both_ways() {
        for (mode, address) in [
            ("bulk-receive", serve(|stream| source(stream, None))),
            ("bulk-send", serve(|stream| sink(stream, RECEIPT_BYTES))),
            ("bulk", serve(|stream| sink(stream, RECEIPT_BYTES))),
        ] {
            let arguments = format!("--mode {mode} --connections 3");
            let report = run(&options(&address, &arguments)).expect("a good server");
            let bytes = report.results.bytes.expect("bulk counts bytes");
            assert!(bytes > 0, "{mode}");
            assert_eq!(report.results.requests, bytes / 65536);
            assert_eq!(report.results.idle_connections, 0, "{mode}");
        }
    }

    #[test]
    fn a_wrong_stream_is_found_out() {
        let address = serve(|stream| source(stream, Some(999_999)));
        let error = run(&options(&address, "--mode bulk-receive")).expect_err("a wrong byte");
        let text = "what arrived is not the stream that was expected";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn wrong_receipts_are_found_out() {
        let early = serve(|stream| sink(stream, 4096));
        let error = run(&options(&early, "--mode bulk-send")).expect_err("early receipts");
        let text = "the server said something other than a due receipt";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn the_pattern_tells_neighbours_apart_and_repeats() {
        let pattern = Pattern::new(20);
        let bytes = &pattern.0;
        assert_eq!(bytes.len(), 16 * 20);
        assert_eq!(&bytes[..16], b"0000000000000000");
        assert_eq!(&bytes[15 * 20..][..16], b"000000000000000f");
        let twice = [bytes.as_slice(), bytes].concat();
        pattern.check(0, &twice).expect("the stream");
        pattern.check(7, &twice[7..]).expect("the stream, later");
        pattern
            .check(0, &twice[20..])
            .expect_err("one message lost");
    }
}
