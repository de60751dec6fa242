//! `Incoming`: a connection between accept(2) and its transport.
//!
//! As in asyncio, the protocol factory is called in the turn after the accept. Cancelling all
//! tasks, or closing the server, ends the connection before that.
//!
//! Invariants:
//! - each one has a queued call of `Server._begin`, in the same order.
//! - when the server or the loop is closed, the connections are closed; their places in the queue
//!   stay until their queued calls have run.
//!
//! Cost: a handle, and a place in a queue.

use super::accept::Accepted;
use super::{Server, ServerState};
use crate::error::{after_cleanup, leaves_the_loop, then_cleaned};
use crate::event_loop::exceptions;
use crate::event_loop::schedule::soon_method;
use crate::py::class::{Ref, Visit, VisitStopped};
use crate::py::context::Captured;
use crate::py::imports;
use crate::py::socket::SocketObject;
use crate::tls::HandshakeWaiter;
use crate::tls::options::TlsOptions;
use crate::transport::stream::{self, Acceptor, Connected, Descriptor, Peer, StreamTransport};
use pyo3::exceptions::PyAssertionError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::collections::VecDeque;
use std::rc::Rc;

/// A connection that waits for its turn.
pub(super) struct Incoming {
    /// None once the server was closed.
    connection: Option<Accepted>,
    /// A future that is done when it is accepted. Made when somebody looks at the tasks.
    end: Option<Py<PyAny>>,
}

impl Incoming {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.option(self.end.as_ref())?;
        match &self.connection {
            Some(Accepted::Object(connection, peer)) => {
                visit.object(connection)?;
                visit.object(peer)
            }
            Some(Accepted::Kernel(..)) | None => Ok(()),
        }
    }
}

impl ServerState {
    /// Keeps a connection for the next turn.
    ///
    /// # Errors
    /// MemoryError; the connection is closed then.
    pub(super) fn begin_later(&self, this: &Bound<'_, Server>, accepted: Accepted) -> PyResult<()> {
        let py = this.py();
        self.show_accepting(this)?;
        let begin = this.getattr(intern!(py, "_begin"))?;
        let event_loop = self.event_loop.bind(py);
        soon_method(py, event_loop, &begin, &[], Captured::empty())?;
        self.incoming.borrow_mut().push_back(Incoming {
            connection: Some(accepted),
            end: None,
        });
        Ok(())
    }

    /// Makes a transport of the connection whose turn it is.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, what the exception handler lets out, and what closing a
    /// socket object raises.
    pub(super) fn begin(&self, this: &Bound<'_, Server>) -> PyResult<()> {
        let py = this.py();
        let incoming = self.incoming.borrow_mut().pop_front();
        let Some(Incoming { connection, end }) = incoming else {
            return Ok(());
        };
        let Some(end) = end else {
            return self.make_transport(this, connection).map(drop);
        };
        let end = end.bind(py);
        if end.call_method0(intern!(py, "cancelled"))?.is_truthy()? {
            return connection.map_or(Ok(()), |connection| connection.close(py));
        }
        match self.make_transport(this, connection) {
            Ok(Some(transport)) => transport.this(py).go_on_watched(end),
            other => {
                let told = imports::set_result_unless_cancelled(py)?.call1((end, py.None()));
                then_cleaned(py, other.map(drop), told.map(drop))
            }
        }
    }

    /// None if the connection ended without a transport.
    fn make_transport(
        &self,
        this: &Bound<'_, Server>,
        connection: Option<Accepted>,
    ) -> PyResult<Option<Ref<StreamTransport>>> {
        let py = this.py();
        let object = connection.as_ref().and_then(|it| it.object(py));
        let context = self.context.copy(py)?;
        let protocol = match context.run(py, || self.factory.bind(py).call0()) {
            Ok(protocol) => protocol,
            Err(error) => return context.run(py, || self.failed(py, object, error, None)),
        };
        let connection = match connection {
            Some(connection) if self.is_closed() => {
                connection.close(py)?;
                None
            }
            connection => connection,
        };
        let Some(connection) = connection else {
            // asyncio asserts that the server is open, and reports the AssertionError in debug mode
            // only.
            if self.event_loop.get().state(py).is_debug() {
                let error = PyAssertionError::new_err(());
                context.run(py, || self.report(py, error, Some(protocol)))?;
            }
            return Ok(None);
        };
        self.start(this, connection, &protocol, context)
            .map(Some)
            .or_else(|error| self.failed(py, object, error, Some(protocol)))
    }

    fn start(
        &self,
        this: &Bound<'_, Server>,
        connection: Accepted,
        protocol: &Bound<'_, PyAny>,
        context: Captured,
    ) -> PyResult<Ref<StreamTransport>> {
        let py = this.py();
        let protocol = match &self.tls {
            None => protocol.clone(),
            Some(tls) => secured(self, tls, protocol)?,
        };
        let (descriptor, peer) = connection.into_parts(py)?;
        let connected = Connected {
            descriptor,
            protocol: protocol.unbind(),
            waiter: None,
            peer,
            acceptor: Some(Acceptor {
                server: this.clone().into_any().unbind(),
                clients: Rc::clone(&self.clients),
            }),
            context,
        };
        stream::start(self.event_loop.bind(py), connected)
    }

    /// Closes the socket `object` of a connection that failed, and reports the error.
    #[cold]
    fn failed<T>(
        &self,
        py: Python<'_>,
        object: Option<Py<PyAny>>,
        error: PyErr,
        protocol: Option<Bound<'_, PyAny>>,
    ) -> PyResult<Option<T>> {
        let closed = object.map_or(Ok(()), |object| close(object.bind(py)));
        if leaves_the_loop(py, &error) {
            return Err(after_cleanup(py, error, closed));
        }
        self.report(py, error, protocol)?;
        closed.map(|()| None)
    }

    #[cold]
    fn report(
        &self,
        py: Python<'_>,
        error: PyErr,
        protocol: Option<Bound<'_, PyAny>>,
    ) -> PyResult<()> {
        let context = PyDict::new(py);
        context.set_item(
            "message",
            "Error on transport creation for incoming connection",
        )?;
        context.set_item("exception", error.into_value(py))?;
        if let Some(protocol) = protocol {
            context.set_item("protocol", protocol)?;
        }
        exceptions::report(self.event_loop.bind(py), &context)
    }

    /// Closes the connections that wait for their turn: the server or the loop is closed.
    pub(super) fn drop_incoming(&self, py: Python<'_>) -> PyResult<()> {
        let connections: Vec<Accepted> = {
            let mut incoming = self.incoming.borrow_mut();
            let connections = incoming.iter_mut().map(|it| it.connection.take());
            connections.flatten().collect()
        };
        let mut outcome = Ok(());
        for connection in connections {
            let closed = connection.close(py);
            outcome = then_cleaned(py, outcome, closed);
        }
        outcome
    }

    /// Makes a future for each connection that has none yet: it is done when the connection is
    /// accepted.
    ///
    /// # Errors
    /// MemoryError.
    pub(super) fn watch_incoming<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let unwatched = |incoming: &VecDeque<Incoming>| {
            let unwatched = incoming.iter().filter(|it| it.end.is_none());
            unwatched.count()
        };
        let count = unwatched(&self.incoming.borrow());
        let event_loop = self.event_loop.bind(py);
        let futures = (0..count)
            .map(|_| event_loop.call_method0(intern!(py, "create_future")))
            .collect::<PyResult<Vec<_>>>()?;
        let mut incoming = self.incoming.borrow_mut();
        let unwatched = incoming.iter_mut().filter(|it| it.end.is_none());
        for (incoming, future) in unwatched.zip(&futures) {
            incoming.end = Some(future.clone().unbind());
        }
        drop(incoming);
        Ok(futures)
    }
}

impl Accepted {
    fn object(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        match self {
            Self::Kernel(..) => None,
            Self::Object(connection, _) => Some(connection.clone_ref(py)),
        }
    }

    fn into_parts(self, py: Python<'_>) -> PyResult<(Descriptor, Peer)> {
        Ok(match self {
            Self::Kernel(fd, peer, kind) => (Descriptor::Own(fd, kind), Peer::Address(peer)),
            Self::Object(connection, name) => {
                let connection = SocketObject::new(connection.bind(py))?;
                (Descriptor::Socket(connection), Peer::Name(name))
            }
        })
    }

    fn close(self, py: Python<'_>) -> PyResult<()> {
        self.object(py)
            .map_or(Ok(()), |object| close(object.bind(py)))
    }
}

/// The TLS protocol between the transport and the program's `protocol`. When the
/// handshake fails, the TLS protocol closes the connection.
fn secured<'py>(
    inner: &ServerState,
    tls: &TlsOptions,
    protocol: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = protocol.py();
    let event_loop = inner.event_loop.bind(py);
    let secured = tls.protocol(event_loop, protocol, HandshakeWaiter::Server, true, true)?;
    Ok(secured.as_object().bind(py).clone())
}

fn close(socket: &Bound<'_, PyAny>) -> PyResult<()> {
    socket.call_method0(intern!(socket.py(), "close")).map(drop)
}
