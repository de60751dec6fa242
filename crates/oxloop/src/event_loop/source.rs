//! `Source`: the owner of a registration with the kernel.

use super::held::{Held, TransportKind};
use super::numbers::Holder;
use super::watch::Watch;
use crate::py::class::{Visit, VisitStopped};
use pyo3::prelude::*;

/// The registry's entry for a token.
pub(crate) enum Source {
    /// The eventfd that `call_soon_threadsafe` writes to.
    Notifier,
    /// The pipe behind `signal.set_wakeup_fd`.
    Signals,
    /// `add_reader` and `add_writer`.
    Watch(Watch),
    /// An object that waits for the kernel: the loop keeps it alive.
    Held(Held),
    /// A weak reference to a transport that waits for nothing (paused, or closing): whoever else
    /// has it keeps it alive, as in asyncio.
    Idle(Held),
}

impl Source {
    /// Who has the number that it is registered with.
    pub(super) const fn holder(&self) -> Holder {
        match self {
            Self::Notifier | Self::Signals => Holder::Loop,
            Self::Watch(_) => Holder::Watch,
            Self::Held(held) | Self::Idle(held) => match held.kind.transport {
                Some(_) => Holder::Transport,
                None => Holder::Loop,
            },
        }
    }

    /// False in the child of a fork for what is its parent's: the child processes.
    pub(super) const fn is_inherited(&self) -> bool {
        match self {
            Self::Held(held) => held.kind.is_inherited,
            _ => true,
        }
    }

    /// True if its event queues a handle: of the program, of a server, or for a signal.
    #[inline]
    pub(super) const fn queues_handles(&self) -> bool {
        match self {
            Self::Held(held) => held.kind.queues_handles,
            Self::Watch(watch) => watch.has_handles(),
            Self::Signals => true,
            Self::Notifier | Self::Idle(_) => false,
        }
    }

    /// The object, if the source is one that still lives: owned, so that nothing of the registry is
    /// borrowed while it is asked.
    #[inline]
    pub(super) fn held(&self, py: Python<'_>) -> Option<Held> {
        match self {
            Self::Held(held) => Some(held.clone_ref(py)),
            Self::Idle(weak) => weak.upgrade(py),
            Self::Notifier | Self::Signals | Self::Watch(_) => None,
        }
    }

    /// The same of a transport.
    pub(super) fn transport<'py>(
        &self,
        py: Python<'py>,
    ) -> Option<(Bound<'py, PyAny>, &'static TransportKind)> {
        let held = self.held(py)?;
        let kind = held.kind.transport.as_ref()?;
        Some((held.object.into_bound(py), kind))
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        match self {
            Self::Notifier | Self::Signals | Self::Idle(_) => Ok(()),
            Self::Watch(watch) => watch.traverse(visit),
            Self::Held(held) => held.traverse(visit),
        }
    }
}
