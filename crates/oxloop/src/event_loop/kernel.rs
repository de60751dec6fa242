//! `Kernel`: the epoll instance, the registrations, and the events of a poll.

use super::numbers::Numbers;
use super::readiness::Stale;
use super::source::Source;
use super::unconfirmed::Unconfirmed;
use reactor::poller::{Events, Poller};
use reactor::token::Registry;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// The epoll instance, and what is registered there.
pub(crate) struct Kernel {
    /// What is registered with the kernel, by token.
    pub(super) sources: RefCell<Registry<Source>>,
    /// Which registration a descriptor's number has.
    pub(super) numbers: RefCell<Numbers>,
    /// None once the loop is closed. Shared with the wait that is under way.
    pub(super) poller: RefCell<Option<Arc<Poller>>>,
    /// Tokens that events came with after their registrations had ended.
    pub(super) stale: RefCell<Stale>,
    pub(super) unconfirmed: RefCell<Unconfirmed>,
    /// How many waits for descriptors there have been.
    pub(super) wait_numbers: Cell<u64>,
    /// What a poll brought; whoever polls takes it, until its events are dispatched.
    pub(super) events: Cell<Option<Box<Events>>>,
    /// The fork generation that the kernel objects belong to.
    pub(super) forks: Cell<u32>,
}

impl Kernel {
    pub(super) fn new(poller: Poller, sources: Registry<Source>) -> Self {
        Self {
            sources: RefCell::new(sources),
            numbers: RefCell::default(),
            poller: RefCell::new(Some(Arc::new(poller))),
            stale: RefCell::default(),
            unconfirmed: RefCell::default(),
            wait_numbers: Cell::default(),
            events: Cell::new(Some(Box::new(Events::new()))),
            forks: Cell::new(super::fork::generation()),
        }
    }
}
