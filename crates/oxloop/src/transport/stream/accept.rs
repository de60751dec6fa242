//! `Accept`: whether a server is still accepting a connection.
//!
//! asyncio has a task for it, `_accept_connection2`, which ends in the turn after
//! `connection_made`, or in the turn after the TLS handshake, before the handles of that turn's
//! events. Here a field of the transport stands for the task, and a handle in the place of the
//! task's last step sets it to `Over`.
//!
//! Invariants:
//! - the server's `Clients` count the transports whose field is not `Over`.
//!
//! Cost: one handle a connection.

use super::clients::Acceptor;
use super::{StreamThis, StreamTransport};
use crate::py::class::{OfNative, Visit, VisitStopped};
use crate::py::future::end_unless_cancelled;
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::delivery::Delivery;
use pyo3::intern;
use pyo3::prelude::*;

/// The field.
#[derive(Default)]
pub(super) enum Accept {
    /// No server accepted the connection, or it is accepted by now.
    #[default]
    Over,
    Running,
    /// As `Running`; the future is done when it is over.
    Watched(Py<PyAny>),
}

impl Accept {
    pub(super) const fn of(acceptor: Option<&Acceptor>) -> Self {
        match acceptor {
            Some(_) => Self::Running,
            None => Self::Over,
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Watched(future) => visit.object(future),
            Self::Running | Self::Over => Ok(()),
        }
    }
}

impl<'py> StreamThis<'_, 'py> {
    /// Queues the end of the accept: from the next turn on the connection is the protocol's.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(crate) fn accept_ends(&self) -> PyResult<()> {
        if matches!(&*self.own().accept.borrow(), Accept::Over) {
            return Ok(());
        }
        let accepted = self.object().getattr(intern!(self.py(), "_accepted"))?;
        self.soon(&accepted, &[])
    }

    /// Sets the field to `Over` and wakes the future. On a closed loop the future is left alone.
    ///
    /// # Errors
    /// What the future raises.
    pub(super) fn accept_is_over(&self) -> PyResult<()> {
        let py = self.py();
        let accept = self.own().accept.take();
        if matches!(accept, Accept::Over) {
            return Ok(());
        }
        if let Some(acceptor) = &*self.own().acceptor.borrow() {
            acceptor.clients.accepted();
        }
        let Accept::Watched(future) = accept else {
            return Ok(());
        };
        if self.loop_state().check_closed().is_err() {
            return Ok(());
        }
        end_unless_cancelled(future.bind(py), Ok(py.None()))
    }

    /// The transport that the program has or will have, and a new future that is done when the
    /// accept is over. None if it is over, or has a future already.
    ///
    /// # Errors
    /// MemoryError.
    pub(crate) fn watch_accept(&self) -> PyResult<Option<(Bound<'py, PyAny>, Bound<'py, PyAny>)>> {
        if !matches!(&*self.own().accept.borrow(), Accept::Running) {
            return Ok(None);
        }
        let future = self
            .event_loop()
            .call_method0(intern!(self.py(), "create_future"))?;
        let watched = Accept::Watched(future.clone().unbind());
        drop(self.own().accept.replace(watched));
        Ok(Some((self.outermost(), future)))
    }

    /// Goes on with `end`, the future that the connection got before it had a transport.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(crate) fn go_on_watched(&self, end: &Bound<'py, PyAny>) -> PyResult<()> {
        let watched = Accept::Watched(end.clone().unbind());
        drop(self.own().accept.replace(watched));
        imports::follow_accept(self.py())?
            .call1((self.outermost(), end))
            .map(drop)
    }

    fn outermost(&self) -> Bound<'py, PyAny> {
        let protocol = self.protocol();
        let above = match self.own().delivery.get() {
            Delivery::Native(native) => protocol.and_then(|own| (native.transport)(&own)),
            Delivery::Data | Delivery::Buffered | Delivery::StreamReader => None,
        };
        above.unwrap_or_else(|| self.object().to_owned())
    }
}

pub(super) fn add_methods(methods: &mut Methods<OfNative<StreamTransport>>) {
    methods.nullary_procedure(
        c"_accepted",
        |this| this.accept_is_over(),
        c"The server has done its part.",
    );
}
