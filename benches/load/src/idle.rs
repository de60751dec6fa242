//! Idle connections: opened before anything is measured, and silent from then on.
//!
//! Each has had one request answered, so that the server has accepted it, has done its handshake
//! and knows it as it would know any that may speak again.
//!
//! Cost: none during the window; the server pays for what it keeps.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{RecvFlags, recv};
use rustix::process::{Resource, getrlimit, setrlimit};

use crate::connection::Connection;
use crate::options::Options;
use crate::sys::monotonic;
use crate::workload::Workload;

const BUFFER_LEN: usize = 256 * 1024;
const ANSWER_MAX: Timespec = Timespec {
    tv_sec: 5,
    tv_nsec: 0,
};

/// Connections that stay open until this is dropped.
pub(crate) struct Idle(Vec<Connection>);

impl Idle {
    pub(crate) fn open(options: &Options) -> io::Result<Self> {
        let workload = options.workload();
        let mut buffer = vec![0; BUFFER_LEN];
        let mut connections = Vec::with_capacity(options.idle as usize);
        for _ in 0..options.idle {
            let mut connection = Connection::open(&options.address, options.tls.as_ref())?;
            exchange(&mut connection, &workload, &mut buffer)?;
            connections.push(connection);
        }
        Ok(Self(connections))
    }

    /// Fail if the server closed one of them, or said something more.
    pub(crate) fn check(&self) -> io::Result<()> {
        let mut byte = [0];
        for connection in &self.0 {
            let peeked = recv(connection, &mut byte, RecvFlags::PEEK);
            if peeked != Err(Errno::AGAIN) {
                return Err(io::Error::other("an idle connection was not left alone"));
            }
        }
        Ok(())
    }
}

/// Have one request answered, and wait for it.
fn exchange(connection: &mut Connection, workload: &Workload, buffer: &mut [u8]) -> io::Result<()> {
    let mut is_sent = connection.start(workload, monotonic())?;
    loop {
        let blocked = !is_sent || connection.is_blocked();
        let wanted = if blocked {
            PollFlags::IN | PollFlags::OUT
        } else {
            PollFlags::IN
        };
        let mut polled = [PollFd::from_borrowed_fd(connection.as_fd(), wanted)];
        match poll(&mut polled, Some(&ANSWER_MAX)) {
            Ok(0) => {
                let text = "an idle connection got no answer for 5 s";
                return Err(io::Error::new(io::ErrorKind::TimedOut, text));
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let ready = polled[0].revents();
        if blocked && ready.contains(PollFlags::OUT) {
            is_sent = connection.send(workload)?;
        }
        if ready.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR)
            && connection.receive(workload, buffer)?.is_some()
        {
            return Ok(());
        }
    }
}

/// Allow as many open files as the system lets this process have.
pub(crate) fn raise_file_limit() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    Ok(setrlimit(Resource::Nofile, limit)?)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    use super::Idle;
    use crate::options::Options;
    use crate::sys::monotonic;

    #[test]
    fn a_connection_that_the_server_closes_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut message = [0; 64];
            stream.read_exact(&mut message).expect("a message");
            stream.write_all(&message).expect("a client that reads");
        });
        let idle =
            Idle::open(&Options::of(&format!("{address} --size 64 --idle 1"))).expect("an answer");
        server.join().expect("a server that ends");
        let end_ns = monotonic() + 5_000_000_000;
        while idle.check().is_ok() {
            assert!(monotonic() < end_ns, "nothing is found");
        }
    }
}
