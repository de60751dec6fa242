//! `State`: what a loop knows.
//!
//! It is touched attached (`py::attached`), and no borrow of it is alive while Python code can run.

use super::held::Held;
use super::readiness::Stale;
use super::record_memory::RecordMemory;
use super::registrations::Numbers;
use super::signals::Signals;
use super::source::Source;
use super::unconfirmed::Unconfirmed;
use crate::py::handle::HandleRef;
use crate::py::object::TypeWatch;
use crate::py::signals::Breaker;
use pyo3::exceptions::PyBaseException;
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use reactor::notifier::Notifier;
use reactor::poller::{Events, Poller};
use reactor::resolver::Resolver;
use reactor::timer::TimerHeap;
use reactor::token::Registry;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;

/// Everything a loop knows. Field order is drop order.
pub(crate) struct State {
    /// Callbacks that run in this turn or the next.
    pub(super) ready: RefCell<VecDeque<HandleRef>>,
    /// How many of them, from the front, are this turn's, once that is known.
    pub(super) batch: Cell<Option<usize>>,
    /// What the loop's own clock showed when `call_later` made a timer last; NaN before.
    pub(super) clock_read: Cell<f64>,
    pub(super) timers: RefCell<TimerHeap<HandleRef>>,
    /// What is registered with the kernel, by token.
    pub(super) sources: RefCell<Registry<Source>>,
    /// Which registration a descriptor's number has.
    pub(super) numbers: RefCell<Numbers>,
    pub(super) signals: RefCell<Signals>,
    /// Tells, while the loop runs, that a signal may have arrived, or that another thread waits.
    pub(super) breaker: Cell<Breaker>,
    /// How many turns there have been.
    pub(super) turns: Cell<u32>,
    /// Transports that the callback that runs now wrote to.
    pub(super) written: RefCell<VecDeque<Held>>,
    /// A KeyboardInterrupt or SystemExit that came up where nobody can receive it: it ends the run.
    pub(super) interruption: RefCell<Option<Py<PyBaseException>>>,
    /// None once the loop is closed. Shared with the wait that is under way.
    pub(super) poller: RefCell<Option<Arc<Poller>>>,
    /// Tokens that events came with after their registrations had ended.
    pub(super) stale: RefCell<Stale>,
    pub(super) unconfirmed: RefCell<Unconfirmed>,
    /// How many waits for descriptors there have been.
    pub(super) wait_numbers: Cell<u64>,
    /// What a poll brought; whoever polls takes it, until its events are dispatched.
    pub(super) events: Cell<Option<Box<Events>>>,
    pub(super) notifier: RefCell<Option<Arc<Notifier>>>,
    /// True while the loop's thread waits in the kernel without the GIL.
    pub(super) waiting: Cell<bool>,
    pub(super) closed: Cell<bool>,
    pub(super) stopping: Cell<bool>,
    pub(super) debug: Cell<bool>,
    /// `threading.get_ident()` of the running thread, 0 when not running.
    pub(super) thread: Cell<u64>,
    /// True while a callback of this loop runs: what it writes leaves when it returns.
    pub(super) in_callback: Cell<bool>,
    /// An override of `time` on the instance or in a subclass.
    pub(super) custom_time: Cell<bool>,
    /// The same of `sock_connect`.
    pub(crate) custom_sock_connect: Cell<bool>,
    /// Tells whether somebody patched the `_run` of asyncio's handles, as profilers do.
    pub(super) handle_run: TypeWatch,
    pub(super) resolver: RefCell<Option<Arc<Resolver>>>,
    /// The fork generation that the kernel objects belong to.
    pub(super) forks: Cell<u32>,
    /// Where transports read before the size is known; shared, since one read runs at a time.
    pub(super) scratch: Cell<Option<Box<[u8]>>>,
    /// How much the latest `sock_recv` of any socket got.
    pub(crate) last_sock_recv: Cell<usize>,
    pub(super) record_memory: RecordMemory,
    pub(super) hooks: RefCell<Hooks>,
}

/// The Python objects that a program sets on its loop.
#[derive(Default)]
pub(crate) struct Hooks {
    pub(super) exception_handler: Option<Py<PyAny>>,
    pub(super) task_factory: Option<Py<PyAny>>,
    pub(super) default_executor: Option<Py<PyAny>>,
    pub(super) slow_callback_duration: Option<Py<PyAny>>,
    pub(super) asyncgens: Option<Py<PyAny>>,
    pub(super) old_asyncgen_hooks: Option<Py<PyTuple>>,
    pub(super) current_handle: Option<HandleRef>,
    pub(super) executor_shutdown: bool,
    pub(super) asyncgens_shutdown: bool,
    /// The depth to restore when origin tracking ends.
    pub(super) origin_tracking: Option<Py<PyAny>>,
}
