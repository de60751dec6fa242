//! `Polled`: a transport whose descriptor the loop polls.
//!
//! The loop serves an event at once, within the poll, or by a handle behind what is queued, which
//! calls `_on_event`. Either way, an exception that nothing else handles (of `connection_lost`
//! after the last bytes, for example) is reported as the exception of a handle.

use super::base::BaseTransport;
use crate::event_loop::exceptions;
use crate::event_loop::held::{Held, Kind, TransportKind};
use crate::event_loop::registrations::Registration;
use crate::py::class::{OfNative, This};
use crate::py::context::Captured;
use crate::py::handle::HandleRef;
use crate::py::method::Methods;
use crate::py::schedule::handle_for;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyInt};
use pyo3::{Borrowed, intern};
use reactor::poller::Event;
use reactor::token::Token;

pub(crate) trait Polled: BaseTransport {
    /// The functions that the loop calls on it.
    const KIND: &'static Kind = &Kind {
        on_event: on_event::<Self>,
        registration: |object, token| {
            This::<Self>::of(object).and_then(|this| Self::registration(&this, token))
        },
        flush: |object| {
            if let Some(this) = This::<Self>::of(object) {
                Self::flush(&this);
            }
        },
        transport: Some(TransportKind {
            is_closing: |object| {
                This::<Self>::of(object).is_none_or(|this| this.is_closing(object.py()))
            },
            has_descriptor: |object| {
                This::<Self>::of(object).map_or(Ok(false), |this| Self::has_descriptor(&this))
            },
            descriptor_lost: |object| {
                This::<Self>::of(object).map_or(Ok(()), |this| Self::descriptor_lost(&this))
            },
        }),
        ..Kind::NONE
    };

    /// Serves an event of the descriptor. The transport may have changed since the poll, so its
    /// state is checked again.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit from the protocol, what `connection_lost` and closing the
    /// file raise, and what the exception handler lets out.
    fn on_event(this: &This<'_, '_, Self>, readable: bool, writable: bool) -> PyResult<()>;

    /// How often reading was paused or resumed. A queued event does not read if that has happened
    /// since the poll; the next poll reports again what is readable.
    fn reading_changes(&self, py: Python<'_>) -> u32;

    /// Sends what a callback has written, after it has returned.
    fn flush(_this: &This<'_, '_, Self>) {}

    /// What a new epoll instance must be told, if anything.
    fn registration(this: &This<'_, '_, Self>, token: Token) -> Option<Registration>;

    /// True unless the program closed the socket or file under the transport.
    ///
    /// # Errors
    /// What the object's own `fileno()` raises.
    fn has_descriptor(this: &This<'_, '_, Self>) -> PyResult<bool>;

    /// The program closed the socket or file under the transport, and its number has a new user:
    /// the transport ends, and the descriptor is left alone.
    ///
    /// # Errors
    /// RuntimeError on a closed loop.
    fn descriptor_lost(this: &This<'_, '_, Self>) -> PyResult<()>;
}

impl<T: Polled> This<'_, '_, T> {
    /// The transport and its table, for the loop to keep.
    #[inline]
    pub(super) fn held(&self) -> Held {
        Held {
            object: self.object().to_owned().unbind(),
            kind: T::KIND,
        }
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
    let changes = PyInt::new(py, this.payload().reading_changes(py));
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
            let readable =
                is_set(readable)? && changes == Some(this.payload().reading_changes(this.py()));
            serve(this, readable, is_set(writable)?)
        },
        c"The kernel has an event; what was queued before it has run.",
    );
}
