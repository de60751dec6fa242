//! `Source`: what a registration with the kernel stands for.

use super::watchers::Watch;
use crate::py::class::{Ref, Visit, VisitStopped};
use crate::server::Server;
use crate::transport::stream::StreamTransport;
use pyo3::prelude::*;
use std::os::fd::RawFd;

/// The entry of the registry that a poll event's token leads to.
pub(crate) enum Source {
    /// The eventfd that `call_soon_threadsafe` writes to.
    Notifier,
    /// The socket pair behind `signal.set_wakeup_fd`.
    Signals,
    /// `add_reader` and `add_writer`.
    Watch(Watch),
    Stream(Ref<StreamTransport>),
    Listener {
        server: Py<Server>,
        fd: RawFd,
    },
}

impl Source {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Notifier | Self::Signals => Ok(()),
            Self::Watch(watch) => watch.traverse(visit),
            Self::Stream(transport) => visit.object(transport.as_object()),
            Self::Listener { server, .. } => visit.object(server),
        }
    }
}
