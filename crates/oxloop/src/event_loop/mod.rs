//! `EventLoop`: the methods of `asyncio.AbstractEventLoop`, one file for each group of them.
//!
//! | asyncio's method | file |
//! |---|---|
//! | run_forever, run_until_complete, stop, close, is_running, is_closed | `lifecycle`, `turn` |
//! | call_soon, call_soon_threadsafe, call_later, call_at, time | `schedule` |
//! | create_future, create_task, task factory | `tasks` |
//! | add_reader, add_writer, remove_reader, remove_writer | `watchers`, `numbers` |
//! | add_signal_handler, remove_signal_handler | `signals`, `wakeup_fd` |
//! | run_in_executor and the default executor | `executor` |
//! | exception handlers | `exceptions` |
//! | getaddrinfo, getnameinfo | `dns/` |
//! | create_*, connect_*, start_tls, subprocess_* | `create/` |
//! | sock_recv and every other sock_* | `sock/`, `readiness` |
//! | debug mode | `debug` |
//! | asynchronous generators | `asyncgens` |
//!
//! What oxloop adds: `metrics` and `snapshot`, what a loop counts and how that is shown.
//!
//! A loop's state is `State`, in groups: `queues`, `kernel`, `signals`, `run`, `unsent`, `waker`,
//! `memory`, `metrics`, `settings`.
//!
//! The Python class `oxloop.EventLoop` inherits from this class and from `AbstractEventLoop`; it
//! has the `__dict__`, so any attribute can be assigned on an instance.
//!
//! Invariants:
//! - all state is touched attached (`py::attached`), and no borrow of it is alive while Python code
//!   can run.
//! - a pending handle of `call_soon` is in the ready queue, one of `call_later` or `call_at` in the
//!   timer heap until it is due and in the ready queue from then on. A handle of a watcher or a
//!   signal stays with it, and is in the ready queue too for each event that it has to run for.

mod asyncgens;
mod debug;
pub(crate) mod exceptions;
mod executor;
pub(crate) mod fork;
pub(crate) mod handle;
pub(crate) mod held;
mod histogram;
mod kernel;
pub(crate) mod lifecycle;
pub(crate) mod memory;
pub(crate) mod metrics;
mod numbers;
mod poll;
mod queues;
pub(crate) mod readiness;
pub(crate) mod registration;
mod run;
pub(crate) mod schedule;
pub(crate) mod sendfile;
mod settings;
mod signals;
pub(crate) mod snapshot;
pub(crate) mod source;
mod state;
mod tasks;
pub(crate) mod turn;
mod unconfirmed;
mod unsent;
mod waker;
mod wakeup_fd;
pub(crate) mod watch;
mod watchers;

use crate::py::attached::Attached;
use crate::py::class::{This, Visit};
use crate::py::coroutine_method;
use crate::py::method::{Methods, OfPyClass, extend_class};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use pyo3::{PyTraverseError, PyVisit};

pub(crate) use state::State;

/// A receiver of a loop method.
pub(crate) type LoopThis<'a, 'py> = This<'a, 'py, EventLoop>;

/// The native part of `oxloop.EventLoop`.
#[pyclass(
    name = "EventLoop",
    module = "oxloop._oxloop",
    subclass,
    frozen,
    dict,
    weakref
)]
pub(crate) struct EventLoop {
    state: Attached<State>,
}

impl EventLoop {
    #[inline(always)]
    pub(crate) const fn state(&self, py: Python<'_>) -> &State {
        self.state.get(py)
    }
}

#[pymethods]
impl EventLoop {
    /// The arguments are for the `__init__` of a subclass; the loop's own takes none.
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(
        py: Python<'_>,
        _arguments: &Bound<'_, PyTuple>,
        _keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let state = lifecycle::new_state(py)?;
        Ok(Self {
            state: Attached::new(state),
        })
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let visit = Visit::of_pyclass(visit);
        let state = self.state.during_collection(&visit);
        state
            .traverse(&visit)
            .map_err(crate::py::class::VisitStopped::into_pyclass)
    }

    fn __clear__(&self, py: Python<'_>) {
        lifecycle::release_all(py, self.state(py));
    }

    fn __setattr__(
        slf: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
        value: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        crate::py::object::generic_set(slf.as_any(), name, Some(value))?;
        slf.get().attribute_changed(slf, name)
    }

    fn __delattr__(slf: &Bound<'_, Self>, name: &Bound<'_, PyAny>) -> PyResult<()> {
        crate::py::object::generic_set(slf.as_any(), name, None)?;
        slf.get().attribute_changed(slf, name)
    }
}

/// Every method that returns a coroutine.
const COROUTINE_METHODS: [&str; 25] = [
    "_make_subprocess_transport",
    "_sock_writable",
    "connect_accepted_socket",
    "connect_read_pipe",
    "connect_write_pipe",
    "create_connection",
    "create_datagram_endpoint",
    "create_server",
    "create_unix_connection",
    "create_unix_server",
    "getaddrinfo",
    "getnameinfo",
    "shutdown_asyncgens",
    "shutdown_default_executor",
    "sock_accept",
    "sock_connect",
    "sock_recv",
    "sock_recv_into",
    "sock_recvfrom",
    "sock_recvfrom_into",
    "sock_recvmsg",
    "sock_sendall",
    "sock_sendmsg",
    "sock_sendto",
    "start_tls",
];

/// Adds the methods that take their arguments without a tuple, and makes the coroutine methods look
/// like ones.
pub(crate) fn add_methods(py: Python<'_>) -> PyResult<()> {
    let mut methods = Methods::<OfPyClass<EventLoop>>::new();
    schedule::add_methods(&mut methods);
    tasks::add_methods(&mut methods);
    watchers::add_methods(&mut methods);
    executor::add_methods(&mut methods);
    signals::add_methods(&mut methods);
    extend_class(py, methods)?;
    coroutine_method::install(&py.get_type::<EventLoop>(), &COROUTINE_METHODS)
}
