//! `Kernel`: the epoll instance, the registrations, and the events of a poll.

use super::EventLoop;
use super::numbers::Numbers;
use super::readiness::Stale;
use super::source::Source;
use super::unconfirmed::Unconfirmed;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use reactor::busy_poll::BusyPoll;
use reactor::poller::{Events, Poller};
use reactor::token::Registry;
use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

/// The epoll instance, and what is registered there.
pub(crate) struct Kernel {
    /// What is registered with the kernel, by token.
    pub(super) sources: RefCell<Registry<Source>>,
    /// Which registration a descriptor's number has.
    pub(super) numbers: RefCell<Numbers>,
    /// None once the loop is closed. Shared with the wait that is under way.
    pub(super) poller: RefCell<Option<Arc<Poller>>>,
    /// How long to ask before waiting, see `new_event_loop(busy_poll=)`; None: not at all.
    pub(super) busy_poll: Cell<Option<BusyPoll>>,
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
            busy_poll: Cell::default(),
            stale: RefCell::default(),
            unconfirmed: RefCell::default(),
            wait_numbers: Cell::default(),
            events: Cell::new(Some(Box::new(Events::new()))),
            forks: Cell::new(super::fork::generation()),
        }
    }
}

#[pymethods]
impl EventLoop {
    /// Microseconds for which the loop asks the kernel again and again before it waits; 0: never.
    #[getter]
    fn busy_poll(&self, py: Python<'_>) -> u128 {
        let busy = self.state(py).kernel.busy_poll.get();
        busy.map_or(0, |busy| busy.limit().as_micros())
    }

    #[setter]
    fn set_busy_poll(&self, py: Python<'_>, microseconds: i64) -> PyResult<()> {
        let microseconds = u64::try_from(microseconds)
            .map_err(|_| PyValueError::new_err("busy_poll must not be negative"))?;
        let limit = Duration::from_micros(microseconds);
        let busy = (!limit.is_zero()).then_some(BusyPoll::new(limit));
        self.state(py).kernel.busy_poll.set(busy);
        Ok(())
    }
}
