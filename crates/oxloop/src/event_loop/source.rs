//! `Source`: what a registration with the kernel stands for.

use super::registrations::Holder;
use super::watch::Watch;
use crate::py::class::{Ref, Visit, VisitStopped};
use crate::server::Server;
use crate::transport::base::BaseTransport;
use crate::transport::datagram::DatagramTransport;
use crate::transport::pipe::{ReadPipeTransport, WritePipeTransport};
use crate::transport::stream::StreamTransport;
use crate::transport::subprocess::SubprocessTransport;
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// The entry of the registry that a poll event's token leads to.
pub(crate) enum Source {
    /// The eventfd that `call_soon_threadsafe` writes to.
    Notifier,
    /// The pipe behind `signal.set_wakeup_fd`.
    Signals,
    /// `add_reader` and `add_writer`.
    Watch(Watch),
    /// A transport that waits for the kernel: the loop keeps it alive.
    Stream(Ref<StreamTransport>),
    /// A weak reference to a transport that waits for nothing (paused, or closing): whoever else
    /// has it keeps it alive, as in asyncio.
    IdleStream(Py<PyAny>),
    /// The same two of a datagram transport.
    Datagram(Ref<DatagramTransport>),
    IdleDatagram(Py<PyAny>),
    Listener {
        server: Py<Server>,
        fd: RawFd,
    },
    ReadPipe(Ref<ReadPipeTransport>),
    WritePipe(Ref<WritePipeTransport>),
    /// The pidfd of a child process: readable once it has exited.
    Child(Ref<SubprocessTransport>),
}

impl Source {
    /// Who has the number that it is registered with.
    pub(super) const fn holder(&self) -> Holder {
        match self {
            Self::Notifier | Self::Signals | Self::Listener { .. } | Self::Child(_) => Holder::Loop,
            Self::Watch(_) => Holder::Watch,
            _ => Holder::Transport,
        }
    }

    /// False in the child of a fork for what is its parent's: the child processes.
    pub(super) const fn is_inherited(&self) -> bool {
        !matches!(self, Self::Child(_))
    }

    /// True if its event queues a handle of the program's, of a server, or for a signal.
    #[inline]
    pub(super) const fn queues_handles(&self) -> bool {
        match self {
            Self::Watch(watch) => watch.has_handles(),
            Self::Listener { .. } | Self::Signals => true,
            _ => false,
        }
    }

    /// The server, if the source is one of its listeners.
    pub(super) const fn server(&self) -> Option<&Py<Server>> {
        match self {
            Self::Listener { server, .. } => Some(server),
            _ => None,
        }
    }

    /// The transport, if the source is one that still lives.
    pub(super) fn stream(&self, py: Python<'_>) -> Option<Ref<StreamTransport>> {
        match self {
            Self::Stream(transport) => Some(transport.clone_ref(py)),
            Self::IdleStream(weak) => Ref::from_weak(weak.bind(py)),
            _ => None,
        }
    }

    /// The datagram transport, if the source is one that still lives.
    pub(super) fn datagram(&self, py: Python<'_>) -> Option<Ref<DatagramTransport>> {
        match self {
            Self::Datagram(transport) => Some(transport.clone_ref(py)),
            Self::IdleDatagram(weak) => Ref::from_weak(weak.bind(py)),
            _ => None,
        }
    }

    /// The transport, if the source is one that still lives.
    pub(super) fn transport(&self, py: Python<'_>) -> Option<OwnedTransport> {
        match self {
            Self::ReadPipe(pipe) => Some(OwnedTransport::ReadPipe(pipe.clone_ref(py))),
            Self::WritePipe(pipe) => Some(OwnedTransport::WritePipe(pipe.clone_ref(py))),
            Self::Datagram(_) | Self::IdleDatagram(_) => {
                self.datagram(py).map(OwnedTransport::Datagram)
            }
            _ => self.stream(py).map(OwnedTransport::Stream),
        }
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Notifier | Self::Signals | Self::IdleStream(_) | Self::IdleDatagram(_) => Ok(()),
            Self::Watch(watch) => watch.traverse(visit),
            Self::Stream(transport) => visit.object(transport.as_object()),
            Self::Datagram(transport) => visit.object(transport.as_object()),
            Self::Listener { server, .. } => visit.object(server),
            Self::ReadPipe(pipe) => visit.object(pipe.as_object()),
            Self::WritePipe(pipe) => visit.object(pipe.as_object()),
            Self::Child(transport) => visit.object(transport.as_object()),
        }
    }
}

/// A transport, owned, so that nothing of the registry is borrowed while it is asked.
pub(super) enum OwnedTransport {
    Stream(Ref<StreamTransport>),
    Datagram(Ref<DatagramTransport>),
    ReadPipe(Ref<ReadPipeTransport>),
    WritePipe(Ref<WritePipeTransport>),
}

impl OwnedTransport {
    pub(super) const fn as_object(&self) -> &Py<PyAny> {
        match self {
            Self::Stream(transport) => transport.as_object(),
            Self::Datagram(transport) => transport.as_object(),
            Self::ReadPipe(transport) => transport.as_object(),
            Self::WritePipe(transport) => transport.as_object(),
        }
    }

    pub(super) fn is_closing(&self, py: Python<'_>) -> bool {
        match self {
            Self::Stream(transport) => transport.is_closing(py),
            Self::Datagram(transport) => transport.is_closing(py),
            Self::ReadPipe(transport) => transport.is_closing(py),
            Self::WritePipe(transport) => transport.is_closing(py),
        }
    }

    /// True unless the program closed the socket or file under the transport: its number is free
    /// then.
    ///
    /// # Errors
    /// What the object's own `fileno()` raises.
    pub(super) fn has_descriptor(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Stream(transport) => transport.this(py).has_descriptor(),
            Self::Datagram(transport) => transport.this(py).has_descriptor(),
            Self::ReadPipe(transport) => transport.this(py).has_descriptor(),
            Self::WritePipe(transport) => transport.this(py).has_descriptor(),
        }
    }

    /// Tells a transport without a descriptor that its number has a new user.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    pub(super) fn descriptor_lost(&self, py: Python<'_>) -> PyResult<()> {
        match self {
            Self::Stream(transport) => transport.this(py).descriptor_lost(),
            Self::Datagram(transport) => transport.this(py).descriptor_lost(),
            Self::ReadPipe(transport) => transport.this(py).descriptor_lost(),
            Self::WritePipe(transport) => transport.this(py).descriptor_lost(),
        }
    }
}
