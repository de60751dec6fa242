//! Server: a listening socket, an epoll set and the table of connections.
//!
//! Single-threaded and level-triggered, like asyncio's selector loop, with nothing
//! between the kernel and the answer.
//!
//! Invariants:
//! - The event data of a connection is its index in `connections`. One `epoll_wait`
//!   reports a descriptor at most once, so an index freed while a batch is handled
//!   cannot be named again by that batch.
//!
//! Cost: one `epoll_wait` a batch, and what its connections cost.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::rc::Rc;

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::{SocketFlags, accept_with, listen, sockopt};

use crate::connection::{Answer, Connection, Next};
use crate::tls::Tls;

const LISTENER: u64 = u64::MAX;
const BACKLOG: i32 = 1024;
const BUFFER_LEN: usize = 256 * 1024;
const EVENTS_MAX: usize = 1024;

struct Entry {
    connection: Connection,
    interest: EventFlags,
}

/// A server on one listening socket, which answers in one way on every connection.
pub(crate) struct Server {
    listener: OwnedFd,
    address: String,
    is_tcp: bool,
    answer: Answer,
    tls: Option<Rc<Tls>>,
    epoll: OwnedFd,
    connections: Vec<Option<Entry>>,
    vacant: Vec<usize>,
    buffer: Vec<u8>,
}

impl Server {
    /// Listen on `address`, a Unix socket's path when it contains a slash.
    pub(crate) fn bind(address: &str, answer: Answer, tls: Option<Rc<Tls>>) -> io::Result<Self> {
        let is_tcp = !address.contains('/');
        let (listener, address): (OwnedFd, String) = if is_tcp {
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            let bound = listener.local_addr()?.to_string();
            (listener.into(), bound)
        } else {
            let listener = UnixListener::bind(address)?;
            listener.set_nonblocking(true)?;
            (listener.into(), address.to_owned())
        };
        // A second listen only sets the backlog: the standard library's default is too short
        // for a burst of connections.
        listen(&listener, BACKLOG)?;
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(
            &epoll,
            &listener,
            EventData::new_u64(LISTENER),
            EventFlags::IN,
        )?;
        let buffer = vec![0; BUFFER_LEN];
        let (connections, vacant) = (Vec::new(), Vec::new());
        Ok(Self {
            listener,
            address,
            is_tcp,
            answer,
            tls,
            epoll,
            connections,
            vacant,
            buffer,
        })
    }

    /// The bound address, with the port that the kernel picked.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// Serve until an error that is not one connection's own.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let unused = Event {
            flags: EventFlags::empty(),
            data: EventData::new_u64(0),
        };
        let mut events = vec![unused; EVENTS_MAX];
        loop {
            let count = match epoll::wait(&self.epoll, events.as_mut_slice(), None) {
                Ok(count) => count,
                Err(Errno::INTR) => continue,
                Err(error) => return Err(error.into()),
            };
            for event in &events[..count] {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    index => self.dispatch(index as usize)?,
                }
            }
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let stream = match accept_with(&self.listener, flags) {
            Ok(stream) => stream,
            Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if self.is_tcp {
            sockopt::set_tcp_nodelay(&stream, true)?;
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.connections.push(None);
            self.connections.len() - 1
        });
        let tls = self.tls.as_ref().map(Tls::accept).transpose()?;
        let connection = Connection::new(stream, tls, self.answer.clone());
        let interest = if connection.next() == Next::AwaitReadable {
            EventFlags::IN
        } else {
            EventFlags::OUT
        };
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &connection, data, interest)?;
        self.connections[index] = Some(Entry {
            connection,
            interest,
        });
        Ok(())
    }

    fn dispatch(&mut self, index: usize) -> io::Result<()> {
        let Some(entry) = self.connections[index].as_mut() else {
            return Ok(());
        };
        // A failed connection is closed like a finished one: its peer sees the end.
        let interest = match entry
            .connection
            .on_ready(&mut self.buffer)
            .unwrap_or(Next::Close)
        {
            Next::AwaitReadable => EventFlags::IN,
            Next::AwaitWritable => EventFlags::OUT,
            Next::Close => {
                self.connections[index] = None;
                self.vacant.push(index);
                return Ok(());
            }
        };
        if interest != entry.interest {
            let data = EventData::new_u64(index as u64);
            epoll::modify(&self.epoll, &entry.connection, data, interest)?;
            entry.interest = interest;
        }
        Ok(())
    }
}
