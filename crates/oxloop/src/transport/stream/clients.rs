//! `Clients`: how many connections a server has, and the futures of `wait_closed`.
//!
//! A transport does not know the type of its server: it counts itself in and out here. It keeps the
//! server alive, as in asyncio.

use crate::py::class::{Visit, VisitStopped};
use crate::py::future::end_unless_done;
use pyo3::prelude::*;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

/// The server that accepted a transport.
pub(crate) struct Acceptor {
    pub(crate) server: Py<PyAny>,
    pub(crate) clients: Rc<Clients>,
}

/// What a server shares with its transports.
pub(crate) struct Clients {
    /// How many transports are open.
    open: Cell<usize>,
    /// How many of them are being accepted.
    accepting: Cell<usize>,
    /// The server is closed.
    closed: Cell<bool>,
    /// The futures of `wait_closed`; None once they were woken.
    waiters: RefCell<Option<Vec<Py<PyAny>>>>,
}

impl Clients {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            open: Cell::new(0),
            accepting: Cell::new(0),
            closed: Cell::new(false),
            waiters: RefCell::new(Some(Vec::new())),
        })
    }

    /// Counts a transport that opens.
    pub(crate) fn attach(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// Counts it among those that are being accepted.
    pub(super) fn accepting(&self) {
        self.accepting.set(self.accepting.get() + 1);
    }

    /// Ends that: it is accepted, or lost.
    pub(super) fn accepted(&self) {
        self.accepting.set(self.accepting.get().saturating_sub(1));
    }

    /// Counts a transport out, and wakes the waiters if it was the last one of a closed server.
    ///
    /// # Errors
    /// As `wake_waiters`.
    pub(crate) fn detach(&self, py: Python<'_>) -> PyResult<()> {
        self.open.set(self.open.get().saturating_sub(1));
        self.wake_if_over(py)
    }

    /// # Errors
    /// As `wake_waiters`.
    pub(crate) fn wake_if_over(&self, py: Python<'_>) -> PyResult<()> {
        if self.closed.get() && self.open.get() == 0 {
            return self.wake_waiters(py);
        }
        Ok(())
    }

    /// Notes that the server is closed: from now on the last transport that goes wakes the waiters.
    pub(crate) fn server_closed(&self) {
        self.closed.set(true);
    }

    /// True once the waiters were woken.
    pub(crate) fn are_over(&self) -> bool {
        self.waiters.borrow().is_none()
    }

    pub(crate) const fn are_accepting(&self) -> bool {
        self.accepting.get() > 0
    }

    pub(crate) const fn open(&self) -> usize {
        self.open.get()
    }

    /// The waiters; None once they were woken.
    pub(crate) fn waiters(&self, py: Python<'_>) -> Option<Vec<Py<PyAny>>> {
        let waiters = self.waiters.borrow();
        let copy = |waiter: &Py<PyAny>| waiter.clone_ref(py);
        waiters.as_ref().map(|all| all.iter().map(copy).collect())
    }

    /// Adds a future that is done when the server is closed and its last connection is gone. Does
    /// nothing if the waiters were woken already.
    pub(crate) fn push_waiter(&self, waiter: Py<PyAny>) {
        if let Some(waiters) = &mut *self.waiters.borrow_mut() {
            waiters.push(waiter);
        }
    }

    /// # Errors
    /// What a future raises that is no future of asyncio's.
    pub(crate) fn wake_waiters(&self, py: Python<'_>) -> PyResult<()> {
        let waiters = self.waiters.take();
        for waiter in waiters.into_iter().flatten() {
            end_unless_done(waiter.bind(py), Ok(py.None()))?;
        }
        Ok(())
    }

    pub(crate) fn forget_waiters(&self) {
        drop(self.waiters.take());
    }

    /// For the collector. Only the server calls it: the waiters belong to the server.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        if let Ok(waiters) = self.waiters.try_borrow() {
            let mut waiters = waiters.iter().flatten();
            waiters.try_for_each(|waiter| visit.object(waiter))?;
        }
        Ok(())
    }
}
