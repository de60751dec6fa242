//! `Clients`: the connections of a server, and who waits for the last of them to end.
//!
//! A transport does not know what a server is: it counts itself in and out here, and keeps the
//! server alive, as in asyncio.

use crate::py::class::{Visit, VisitStopped};
use pyo3::intern;
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
    /// None once everybody who waited was woken.
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

    /// A transport opened.
    pub(crate) fn attach(&self) {
        self.open.set(self.open.get() + 1);
    }

    /// It is being accepted.
    pub(super) fn accepting(&self) {
        self.accepting.set(self.accepting.get() + 1);
    }

    /// It is accepted, or lost.
    pub(super) fn accepted(&self) {
        self.accepting.set(self.accepting.get().saturating_sub(1));
    }

    /// A transport is gone.
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

    /// The server is closed: the last connection that goes wakes who waits.
    pub(crate) fn server_closed(&self) {
        self.closed.set(true);
    }

    /// True once everybody was woken.
    pub(crate) fn are_over(&self) -> bool {
        self.waiters.borrow().is_none()
    }

    pub(crate) const fn are_accepting(&self) -> bool {
        self.accepting.get() > 0
    }

    pub(crate) const fn open(&self) -> usize {
        self.open.get()
    }

    /// Those who wait; None once everybody was woken.
    pub(crate) fn waiters(&self, py: Python<'_>) -> Option<Vec<Py<PyAny>>> {
        let waiters = self.waiters.borrow();
        let copy = |waiter: &Py<PyAny>| waiter.clone_ref(py);
        waiters.as_ref().map(|all| all.iter().map(copy).collect())
    }

    /// Wakes `waiter` when the server is closed and the last connection gone, unless that was.
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
            let waiter = waiter.bind(py);
            if !waiter.call_method0(intern!(py, "done"))?.is_truthy()? {
                waiter.call_method1(intern!(py, "set_result"), (py.None(),))?;
            }
        }
        Ok(())
    }

    pub(crate) fn forget_waiters(&self) {
        drop(self.waiters.take());
    }

    /// For the collector: who waits is the server's.
    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        if let Ok(waiters) = self.waiters.try_borrow() {
            let mut waiters = waiters.iter().flatten();
            waiters.try_for_each(|waiter| visit.object(waiter))?;
        }
        Ok(())
    }
}
