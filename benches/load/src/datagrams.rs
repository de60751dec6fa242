//! Datagrams: one UDP socket with several echoes under way, as a plain blocking client has them.
//!
//! Each of the `connections` is a slot, whose next message leaves when the answer to its last one
//! has arrived; the number of a message names its slot, so that answers may come in any order.
//! A lost datagram leaves its slot idle, which the report shows; on loopback none is lost as long
//! as all of them fit into the sockets' buffers.
//!
//! Cost: one `recv` and one `send` a request.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::time::Duration;

use hdrhistogram::Histogram;

use crate::options::Options;
use crate::sys::monotonic;
use crate::window::{Exchanging, Report, Results, latencies, measure};
use crate::workload::{Exchange, Workload};

const BUFFER_LEN: usize = 1 << 16;
const SILENCE_MAX: Duration = Duration::from_secs(5);

struct Slot {
    exchange: Exchange,
    started_ns: u64,
    answers: u64,
}

struct Run {
    workload: Workload,
    socket: UdpSocket,
    slots: Vec<Slot>,
    request: Vec<u8>,
    buffer: Vec<u8>,
    latencies: Histogram<u64>,
}

/// Connect, warm up and measure as the options say.
pub(crate) fn run(options: &Options) -> io::Result<Report> {
    measure(options, Run::connect(options)?)
}

impl Exchanging for Run {
    fn exchange_until(&mut self, end_ns: u64) -> io::Result<()> {
        while monotonic() < end_ns {
            self.exchange()?;
        }
        Ok(())
    }

    fn forget(&mut self) {
        self.latencies.reset();
        for slot in &mut self.slots {
            slot.answers = 0;
        }
    }

    fn into_results(self) -> io::Result<Results> {
        let idle = self.slots.iter().filter(|slot| slot.answers == 0);
        let idle_connections = idle.count();
        Ok(Results::of_answers(self.latencies, idle_connections))
    }
}

impl Run {
    fn connect(options: &Options) -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(&options.address)?;
        socket.set_read_timeout(Some(SILENCE_MAX))?;
        let count = u64::from(options.connections);
        let slots = (0..count).map(|slot| Slot {
            exchange: Exchange::numbered(slot, count),
            started_ns: 0,
            answers: 0,
        });
        let mut run = Self {
            workload: options.workload(),
            socket,
            slots: slots.collect(),
            request: Vec::new(),
            buffer: vec![0; BUFFER_LEN],
            latencies: latencies(),
        };
        for slot in 0..run.slots.len() {
            run.start(slot, monotonic())?;
        }
        Ok(run)
    }

    fn exchange(&mut self) -> io::Result<()> {
        let length = match self.socket.recv(&mut self.buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let text = "no answer to any datagram for 5 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Err(error) => return Err(error),
        };
        let answer = &self.buffer[..length];
        let index = Exchange::slot_of(answer, self.slots.len())?;
        let slot = &mut self.slots[index];
        if !self.workload.accept(&mut slot.exchange, answer)? {
            let text = "an answer is shorter than its request";
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        slot.answers += 1;
        let now_ns = monotonic();
        self.latencies.saturating_record(now_ns - slot.started_ns);
        self.start(index, now_ns)
    }

    fn start(&mut self, index: usize, now_ns: u64) -> io::Result<()> {
        let slot = &mut self.slots[index];
        slot.exchange.advance();
        slot.started_ns = now_ns;
        let (head, tail) = self.workload.request(&slot.exchange);
        self.request.clear();
        self.request.extend_from_slice(head);
        self.request.extend_from_slice(tail);
        self.socket.send(&self.request).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::thread;

    use super::run;
    use crate::options::Options;

    fn options(address: &str, arguments: &str) -> Options {
        Options::of(&format!(
            "{address} --mode datagrams --warmup 0.05 {arguments}"
        ))
    }

    /// A server that passes each datagram to `answer` and sends what that leaves of it.
    fn serve(answer: fn(&mut [u8]) -> usize) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address").to_string();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
                let length = answer(&mut buffer[..length]);
                // The client may leave at the end of its window.
                drop(socket.send_to(&buffer[..length], peer));
            }
        });
        address
    }

    #[test]
    fn every_slot_is_answered_and_the_server_is_timed() {
        let address = serve(|bytes| bytes.len());
        let pid = std::process::id();
        let arguments = format!("--connections 16 --size 100 --seconds 0.2 --server-pid {pid}");
        let report = run(&options(&address, &arguments)).expect("a good server");
        assert!(report.results.requests > 16);
        assert_eq!(report.results.idle_connections, 0);
        assert!(report.server_cpu_ns.expect("a pid was given") > 0);
    }

    #[test]
    fn wrong_answers_are_found_out() {
        for (answer, text) in [
            (
                (|bytes| {
                    bytes[99] ^= 1;
                    100
                }) as fn(&mut [u8]) -> usize,
                "what came back is not what was sent",
            ),
            (|_| 99, "an answer is shorter than its request"),
            (|_| 3, "an answer without a number"),
        ] {
            let address = serve(answer);
            let error = run(&options(&address, "--size 100")).expect_err("a wrong echo");
            assert_eq!(error.to_string(), text);
        }
    }
}
