//! `Polled`: a transport whose descriptor the loop polls.
//!
//! The loop serves an event at once, within the poll, or by a handle behind what is queued, which
//! calls `_on_event`. Either way, an exception that nothing else handles (of `connection_lost`
//! after the last bytes, for example) is reported as the exception of a handle.

use super::base::{BaseTransport, Parties};
use super::reading_switch::ReadingSwitch;
use crate::error::{os_error, then_cleaned};
use crate::event_loop::exceptions;
use crate::event_loop::held::{Held, Kind, TransportKind};
use crate::event_loop::metrics::ConnectionKind;
use crate::event_loop::registration::Registration;
use crate::event_loop::snapshot::Backlog;
use crate::py::class::{Native, OfNative, This};
use crate::py::context::Captured;
use crate::py::file::{Known, has_descriptor};
use crate::py::handle::HandleRef;
use crate::py::method::Methods;
use crate::py::schedule::handle_for;
use crate::py::socket::no_descriptor;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};
use pyo3::{Borrowed, intern};
use reactor::poller::Event;
use reactor::socket;
use std::cell::Cell;
use std::ops::Deref;

/// The part of a transport's payload that does not depend on what kind of file is polled.
pub(crate) struct PolledState {
    pub(super) parties: Parties,
    pub(super) registration: Registration,
    pub(super) flags: Flags,
}

/// The state of a transport; `closing` and `conn_lost` are asyncio's attributes.
#[derive(Default)]
pub(crate) struct Flags {
    /// `connection_made` was called and reading may begin.
    pub(super) started: Cell<bool>,
    pub(super) reading: ReadingSwitch,
    pub(super) closing: Cell<bool>,
    /// Of a socket: 1 once `connection_lost` is scheduled, and one more for each write after that.
    /// Of a pipe: counts failures, and writes after one.
    pub(super) conn_lost: Cell<u32>,
}

impl PolledState {
    pub(super) fn new(parties: Parties, registration: Registration) -> Self {
        Self {
            parties,
            registration,
            flags: Flags::default(),
        }
    }
}

/// In place of inheritance: asyncio's transports have base classes.
impl Deref for PolledState {
    type Target = Parties;

    #[inline(always)]
    fn deref(&self) -> &Parties {
        &self.parties
    }
}

pub(crate) trait Polled: Native {
    /// The functions that the loop calls on it.
    const KIND: &'static Kind = &Kind {
        on_event: on_event::<Self>,
        renewal: |object, _| {
            let this = This::<Self>::of(object)?;
            this.registration().renewal(|| Self::known(&this))
        },
        flush: |object| {
            if let Some(this) = This::<Self>::of(object) {
                Self::flush(&this);
            }
        },
        transport: Some(TransportKind {
            has_freed_number: |object| {
                This::<Self>::of(object).map_or(Ok(true), |this| this.has_freed_number())
            },
            number_taken: |object| {
                This::<Self>::of(object).map_or(Ok(()), |this| this.number_taken())
            },
            backlog: |object| {
                This::<Self>::of(object).map_or_else(Backlog::default, |this| Self::backlog(&this))
            },
        }),
        ..Kind::NONE
    };

    fn polled(&self, py: Python<'_>) -> &PolledState;

    /// What it goes over, for the loop's metrics.
    fn connection_kind(this: &This<'_, '_, Self>) -> ConnectionKind;

    /// What it has queued, for the loop's metrics. Runs no Python code.
    fn backlog(_this: &This<'_, '_, Self>) -> Backlog {
        Backlog::default()
    }

    /// Serves an event of the descriptor. The transport may have changed since the poll, so its
    /// state is checked again.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, what `connection_lost` and closing the
    /// file raise, and what the exception handler lets out.
    fn on_event(this: &This<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// Sends what was written, at the end of the batch.
    fn flush(_this: &This<'_, '_, Self>) {}

    /// As `BaseTransport::close`.
    fn close(this: &This<'_, '_, Self>) -> PyResult<()>;

    /// As `BaseTransport::protocol_changes`.
    fn protocol_changes(_this: &This<'_, '_, Self>, _protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        Ok(())
    }

    /// Ends the transport because of an error; what is queued is lost.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    fn fail(this: &This<'_, '_, Self>, error: Py<PyAny>) -> PyResult<()>;

    /// Whether the descriptor is still the transport's: the program may have closed or detached the
    /// socket or file. Runs no Python code.
    fn known(this: &This<'_, '_, Self>) -> Known;

    /// True once the socket or file is closed.
    fn is_closed(this: &This<'_, '_, Self>) -> bool;

    /// Closes the socket or file. The registration has ended before.
    ///
    /// # Errors
    /// What the object's close() raises.
    fn close_file(this: &This<'_, '_, Self>) -> PyResult<()>;

    /// Drops what waited for the connection that is now lost.
    ///
    /// # Errors
    /// What a future raises that is no future of asyncio's.
    fn forget(_this: &This<'_, '_, Self>) -> PyResult<()> {
        Ok(())
    }
}

impl<T: Polled> BaseTransport for T {
    #[inline]
    fn parties(&self, py: Python<'_>) -> &Parties {
        &self.polled(py).parties
    }

    fn is_closing(&self, py: Python<'_>) -> bool {
        self.polled(py).flags.closing.get()
    }

    fn close(this: &This<'_, '_, Self>) -> PyResult<()> {
        <T as Polled>::close(this)
    }

    fn protocol_changes(this: &This<'_, '_, Self>, protocol: &Bound<'_, PyAny>) -> PyResult<()> {
        <T as Polled>::protocol_changes(this, protocol)
    }
}

impl<'py, T: Polled> This<'_, 'py, T> {
    #[inline]
    pub(super) fn flags(&self) -> &Flags {
        &self.payload().polled(self.py()).flags
    }

    #[inline]
    pub(super) fn registration(&self) -> &Registration {
        &self.payload().polled(self.py()).registration
    }

    /// The transport and its table, for the loop to keep.
    #[inline]
    pub(super) fn held(&self) -> Held {
        Held {
            object: self.object().to_owned().unbind(),
            kind: T::KIND,
        }
    }

    /// True unless the program closed the socket or file under the transport.
    ///
    /// # Errors
    /// What the object's own `fileno()` raises.
    #[inline]
    pub(super) fn has_descriptor(&self) -> PyResult<bool> {
        match T::known(self) {
            Known::Kept => Ok(true),
            Known::Lost => Ok(false),
            Known::Nothing(object) => {
                has_descriptor(object.bind(self.py()), self.registration().fd())
            }
        }
    }

    fn has_freed_number(&self) -> PyResult<bool> {
        Ok(self.flags().closing.get() || !self.has_descriptor()?)
    }

    fn number_taken(&self) -> PyResult<()> {
        if !self.has_descriptor()? {
            return self.descriptor_lost();
        }
        if self.flags().closing.get() {
            return self.registration().move_aside(self.loop_state());
        }
        Ok(())
    }

    /// The program closed the socket or file under the transport, and its number has a new user:
    /// the transport ends, and the descriptor is left alone.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    fn descriptor_lost(&self) -> PyResult<()> {
        self.registration().end(self.loop_state());
        let error = os_error(&no_descriptor()).into_value(self.py());
        T::fail(self, error.into_any())
    }

    /// Called when the number to register is not this file's any more. If the number is closed,
    /// EBADF is raised, as by epoll_ctl(2). If it is another file's, the transport ends, as it
    /// would at that file's first event.
    #[cold]
    pub(super) fn lacks_descriptor(&self) -> PyResult<()> {
        if socket::is_open(self.registration().fd()) {
            return self.descriptor_lost();
        }
        Err(os_error(&no_descriptor()))
    }

    /// Calls the protocol's `connection_lost`, then ends the registration, closes the socket or
    /// file, and drops the rest.
    pub(super) fn call_connection_lost(&self, error: &Bound<'py, PyAny>) -> PyResult<()> {
        let metrics = self.loop_state().metrics();
        metrics.connection_lost(T::connection_kind(self), !error.is_none());
        let told = self.tell_connection_lost(error);
        // The peer, which may be on this loop too, sees the end: what was written comes before.
        self.loop_state().flush(self.py());
        self.registration().end(self.loop_state());
        let closed = T::close_file(self);
        let forgotten = T::forget(self);
        self.forget_protocol();
        then_cleaned(self.py(), then_cleaned(self.py(), told, closed), forgotten)
    }

    /// For the finalizer: a transport that was not closed warns, and closes its socket or file.
    pub(super) fn finalize(&self) {
        if T::is_closed(self) {
            return;
        }
        self.finalize_open(|| {
            self.registration().end(self.loop_state());
            T::close_file(self)
        });
    }
}

/// Serves an event of the transport `object` now, or queues a handle for it if `queue`.
fn on_event<T: Polled>(object: &Bound<'_, PyAny>, event: Event, queue: bool) -> PyResult<()> {
    let Some(this) = This::<T>::of(object) else {
        return Ok(());
    };
    let (readable, writable) = (event.readable, event.writable);
    if !queue {
        return serve(&this, readable, writable);
    }
    let handle = handle_of_event(&this, readable, writable, Captured::empty())?;
    this.loop_state().enqueue(handle);
    Ok(())
}

/// Serves an event now.
///
/// # Errors
/// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
#[inline]
fn serve<T: Polled>(this: &This<'_, '_, T>, readable: bool, writable: bool) -> PyResult<()> {
    let py = this.py();
    T::on_event(this, readable, writable)
        .and_then(|()| this.event_loop().get().state(py).look_for_signals(py))
        .or_else(|error| report(this, readable, writable, error))
}

/// The handle that serves an event.
///
/// # Errors
/// MemoryError, and in debug mode what extracting a traceback raises.
fn handle_of_event<T: Polled>(
    this: &This<'_, '_, T>,
    readable: bool,
    writable: bool,
    context: Captured,
) -> PyResult<HandleRef> {
    let py = this.py();
    let serve = this.object().getattr(intern!(py, "_on_event"))?;
    let readable = PyBool::new(py, readable);
    let writable = PyBool::new(py, writable);
    let changes = PyInt::new(py, this.flags().reading.changes());
    let arguments = [readable.as_any(), writable.as_any(), changes.as_any()];
    let event_loop = this.event_loop();
    let owner = event_loop.as_any().as_borrowed();
    let handle = handle_for(py, owner, &serve, &arguments, context)?;
    event_loop.get().state(py).trace_source(py, &handle)?;
    Ok(handle)
}

/// Reports an exception as that of a handle that ran in the context of the connection, which
/// `serve` has left by now.
#[cold]
fn report<T: Polled>(
    this: &This<'_, '_, T>,
    readable: bool,
    writable: bool,
    error: PyErr,
) -> PyResult<()> {
    let py = this.py();
    let context = &this.payload().parties(py).context;
    let context = Captured::given(&context.object(py)?);
    let handle = handle_of_event(this, readable, writable, context)?;
    exceptions::report_handle(this.event_loop(), &handle, error)
}

pub(super) fn add_methods<T: Polled>(methods: &mut Methods<OfNative<T>>) {
    methods.procedure(
        c"_on_event",
        "readable, writable, reading_changes",
        |this, args| {
            let names = ["readable", "writable", "reading_changes"];
            let [readable, writable, changes] = args.bind("_on_event", names, 3)?;
            let is_set = |given: Option<Borrowed<'_, '_, PyAny>>| {
                given.map_or(Ok(false), |given| given.is_truthy())
            };
            let changes: Option<u32> = changes.map(|changes| changes.extract()).transpose()?;
            let readable = is_set(readable)? && changes == Some(this.flags().reading.changes());
            serve(this, readable, is_set(writable)?)
        },
        c"The kernel has an event; what was queued before it has run.",
    );
}
