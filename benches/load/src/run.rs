//! Run: requests on all connections, as fast as the answers come.
//!
//! Single-threaded and level-triggered.
//!
//! Cost: the same calls as the server makes, on a core of its own.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use hdrhistogram::Histogram;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};

use crate::connection::Connection;
use crate::events::{Watching, dispatch_until};
use crate::idle::Idle;
use crate::options::Options;
use crate::sys::monotonic;
use crate::window::{Exchanging, Report, Results, latencies, measure};
use crate::workload::Workload;

const BUFFER_LEN: usize = 256 * 1024;

struct Run<'a> {
    options: &'a Options,
    workload: Workload,
    epoll: OwnedFd,
    connections: Vec<Connection>,
    interests: Vec<EventFlags>,
    buffer: Vec<u8>,
    latencies: Histogram<u64>,
}

/// Connect, warm up and measure as the options say.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    let idle = Idle::open(options)?;
    let report = measure(options, Run::connect(options)?)?;
    idle.check()?;
    Ok(report)
}

impl Exchanging for Run<'_> {
    fn exchange_until(&mut self, end_ns: u64) -> io::Result<()> {
        dispatch_until(self, end_ns)
    }

    fn forget(&mut self) {
        self.latencies.reset();
        for connection in &mut self.connections {
            connection.answers = 0;
        }
    }

    fn into_results(self) -> io::Result<Results> {
        let idle = self.connections.iter().filter(|each| each.answers == 0);
        let idle_connections = idle.count();
        Ok(Results::of_answers(self.latencies, idle_connections))
    }
}

impl Watching for Run<'_> {
    fn epoll(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }

    fn dispatch(&mut self, index: usize, flags: EventFlags) -> io::Result<()> {
        if flags.contains(EventFlags::OUT) && self.connections[index].send(&self.workload)? {
            self.watch(index, EventFlags::IN)?;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            return Ok(());
        }
        if self.connections[index].is_finished() {
            return self.await_end(index);
        }
        let Some(started_ns) = self.connections[index].receive(&self.workload, &mut self.buffer)?
        else {
            if self.connections[index].is_blocked() {
                self.watch(index, EventFlags::IN | EventFlags::OUT)?;
            }
            return Ok(());
        };
        if self.options.is_reconnecting() {
            return self.connections[index].finish();
        }
        let now_ns = monotonic();
        self.latencies.saturating_record(now_ns - started_ns);
        self.start(index, now_ns)
    }
}

impl<'a> Run<'a> {
    fn connect(options: &'a Options) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let count = options.connections as usize;
        let mut connections = Vec::with_capacity(count);
        for index in 0..count {
            connections.push(open(options, &epoll, index)?);
        }
        let interests = vec![EventFlags::IN; connections.len()];
        let (buffer, latencies) = (vec![0; BUFFER_LEN], latencies());
        let mut run = Self {
            options,
            workload: options.workload(),
            epoll,
            connections,
            interests,
            buffer,
            latencies,
        };
        for index in 0..run.connections.len() {
            run.start(index, monotonic())?;
        }
        Ok(run)
    }

    /// Count a connection that the server has closed as well, and replace it.
    fn await_end(&mut self, index: usize) -> io::Result<()> {
        let connection = &mut self.connections[index];
        let Some(started_ns) = connection.await_end(&mut self.buffer)? else {
            return Ok(());
        };
        let answers = connection.answers;
        let now_ns = monotonic();
        self.latencies.saturating_record(now_ns - started_ns);
        // The old socket leaves the epoll set as it is closed.
        self.connections[index] = open(self.options, &self.epoll, index)?;
        self.connections[index].answers = answers;
        self.interests[index] = EventFlags::IN;
        self.start(index, now_ns)
    }

    fn start(&mut self, index: usize, now_ns: u64) -> io::Result<()> {
        let is_sent = self.connections[index].start(&self.workload, now_ns)?;
        let interest = if is_sent {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        self.watch(index, interest)
    }

    fn watch(&mut self, index: usize, interest: EventFlags) -> io::Result<()> {
        if self.interests[index] != interest {
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &self.connections[index], data, interest)?;
            self.interests[index] = interest;
        }
        Ok(())
    }
}

/// Open a connection and wait for what it reads.
fn open(options: &Options, epoll: &OwnedFd, index: usize) -> io::Result<Connection> {
    let connection = Connection::open(&options.address, options.tls.as_ref())?;
    let data = EventData::new_u64(index as u64);
    epoll::add(epoll, &connection, data, EventFlags::IN)?;
    Ok(connection)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::thread;

    use super::run;
    use crate::options::Options;

    fn options(address: &str, arguments: &str) -> Options {
        Options::of(&format!(
            "{address} --warmup 0.05 --seconds 0.2 {arguments}"
        ))
    }

    /// A server that passes each chunk it reads to `answer`, on a thread a connection.
    fn serve(answer: fn(&mut TcpStream, &mut [u8])) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                thread::spawn(move || converse(stream, answer));
            }
        });
        address
    }

    fn converse(mut stream: TcpStream, answer: fn(&mut TcpStream, &mut [u8])) {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            answer(&mut stream, &mut buffer[..count]);
        }
    }

    fn echo(stream: &mut TcpStream, bytes: &mut [u8]) {
        // The client may leave at the end of its window.
        drop(stream.write_all(bytes));
    }

    #[test]
    fn every_connection_is_answered_and_the_server_is_timed() {
        let address = serve(echo);
        for size in [17, 1024, 1 << 20] {
            let pid = std::process::id();
            let arguments = format!("--connections 3 --size {size} --server-pid {pid}");
            let report = run(&options(&address, &arguments)).expect("a good server");
            assert!(report.results.requests > 0);
            assert_eq!(report.results.idle_connections, 0);
            assert!(report.window_ns >= 200_000_000);
            assert!(report.server_cpu_ns.expect("a pid was given") > 0);
        }
    }

    #[test]
    fn a_server_that_changes_a_byte_is_found_out() {
        let address = serve(|stream, bytes| {
            bytes[bytes.len() - 1] ^= 1;
            echo(stream, bytes);
        });
        let error = run(&options(&address, "")).expect_err("a wrong echo");
        assert_eq!(error.to_string(), "what came back is not what was sent");
    }

    #[test]
    fn idle_connections_stay_open() {
        let address = serve(echo);
        let report = run(&options(&address, "--idle 50")).expect("a good server");
        assert!(report.results.requests > 0);
    }

    #[test]
    fn a_server_that_leaves_is_an_error() {
        let address = serve(|stream, _| drop(stream.shutdown(std::net::Shutdown::Both)));
        run(&options(&address, "")).expect_err("no echo");
    }

    #[test]
    fn each_request_may_have_a_connection_of_its_own() {
        let address = serve(echo);
        let report = run(&options(&address, "--connections 3 --reconnect yes")).expect("an echo");
        assert!(report.results.requests > 3);
        assert_eq!(report.results.idle_connections, 0);
    }
}
