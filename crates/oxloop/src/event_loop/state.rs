//! `State`: the whole state of a loop, in groups.
//!
//! It is used only while attached to the interpreter (`py::attached`), and no borrow of it is alive
//! while Python code can run.

use super::kernel::Kernel;
use super::memory::Memory;
use super::metrics::Metrics;
use super::queues::Queues;
use super::run::Run;
use super::settings::Settings;
use super::signals::{Look, Signals};
use super::unsent::Unsent;
use super::waker::Waker;
use reactor::resolver::Resolver;
use std::cell::{Cell, RefCell};
use std::sync::Arc;

/// Everything a loop knows. Field order is drop order.
pub(crate) struct State {
    pub(super) queues: Queues,
    pub(super) kernel: Kernel,
    pub(super) signals: RefCell<Signals>,
    pub(super) look: Look,
    pub(super) run: Run,
    pub(super) unsent: Unsent,
    pub(super) waker: Waker,
    pub(crate) memory: Memory,
    pub(super) metrics: Metrics,
    pub(crate) settings: Settings,
    pub(super) resolver: RefCell<Option<Arc<Resolver>>>,
    pub(super) closed: Cell<bool>,
}
