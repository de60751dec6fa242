//! The life of a transport that has a socket: it is made, paused and resumed, closed or aborted, or
//! ended by an error.

use super::{SelectorState, SelectorTransport};
use crate::py::args::Args;
use crate::py::class::{OfNative, Ref, This};
use crate::py::future::end_unless_cancelled;
use crate::py::method::Methods;
use crate::transport::{base, flow_control, polled};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

impl SelectorState {
    /// Queues `connection_made` and `_begin`, and enters a new transport into the loop's registry.
    ///
    /// # Errors
    /// What scheduling raises; MemoryError.
    pub(in crate::transport) fn enter<T: SelectorTransport>(
        py: Python<'_>,
        transport: &Ref<T>,
    ) -> PyResult<()> {
        let this = transport.this(py);
        this.schedule_beginning()?;
        let metrics = this.loop_state().metrics();
        metrics.connection_made(T::connection_kind(&this), T::is_accepted(&this));
        // The handles that were just queued keep it alive until it reads.
        this.registration()
            .enter(py, this.loop_state(), this.held())
    }
}

impl<'py, T: SelectorTransport> This<'_, 'py, T> {
    fn begin(&self) -> PyResult<()> {
        self.flags().started.set(true);
        if self.flags().conn_lost.get() == 0 {
            self.want_more();
        }
        T::begun(self)?;
        let py = self.py();
        let Some(waiter) = self.payload().selector_state(py).waiter.take() else {
            return Ok(());
        };
        end_unless_cancelled(waiter.bind(py), Ok(py.None()))
    }

    fn is_reading(&self) -> bool {
        let flags = self.flags();
        !flags.closing.get() && !flags.reading.is_paused()
    }

    fn pause_reading(&self) -> PyResult<()> {
        if !self.is_reading() {
            return Ok(());
        }
        // The kernel's interest stays until an event comes that nobody wants.
        self.flags().reading.turn();
        self.update_hold();
        self.log_in_debug("debug", "%r pauses reading")
    }

    fn resume_reading(&self) -> PyResult<()> {
        let flags = self.flags();
        if flags.closing.get() || !flags.reading.is_paused() {
            return Ok(());
        }
        flags.reading.turn();
        self.loop_state().check_closed()?;
        if !self.has_descriptor()? {
            return self.lacks_descriptor();
        }
        self.want_more();
        T::reading_resumed(self)?;
        self.log_in_debug("debug", "%r resumes reading")
    }

    pub(in crate::transport) fn close(&self) -> PyResult<()> {
        T::send_written(self)?;
        let flags = self.flags();
        if flags.closing.replace(true) {
            return Ok(());
        }
        self.apply(self.wanted());
        if T::has_unsent(self) {
            return Ok(());
        }
        flags.conn_lost.set(flags.conn_lost.get() + 1);
        self.schedule_connection_lost(None)
    }

    pub(in crate::transport) fn abort(&self) -> PyResult<()> {
        self.force_close(None)
    }

    /// Drops what the kernel has not taken and schedules `connection_lost(error)`.
    pub(in crate::transport) fn force_close(&self, error: Option<Py<PyAny>>) -> PyResult<()> {
        let flags = self.flags();
        if flags.conn_lost.get() > 0 {
            return Ok(());
        }
        // asyncio has sent what was written before. If that fails, it ends the connection.
        T::send_written(self)?;
        if flags.conn_lost.get() > 0 {
            return Ok(());
        }
        T::drop_unsent(self);
        flags.closing.set(true);
        flags.conn_lost.set(1);
        self.apply(self.wanted());
        self.schedule_connection_lost(error)
    }

    /// Ends a closed transport whose last bytes are sent: at once, as in asyncio.
    ///
    /// # Errors
    /// What `connection_lost` and the socket object's close() raise.
    pub(in crate::transport) fn end_now(&self) -> PyResult<()> {
        let lost = &self.flags().conn_lost;
        if lost.get() > 0 {
            return Ok(());
        }
        lost.set(1);
        self.call_connection_lost(&self.py().None().into_bound(self.py()))
    }

    /// Reports an exception that ends the connection, and closes at once. An OSError counts as the
    /// peer's doing: it is logged in debug mode only. `connection_lost` gets the exception in any
    /// case.
    ///
    /// # Errors
    /// KeyboardInterrupt and SystemExit, and what the exception handler lets out.
    #[cold]
    pub(in crate::transport) fn fatal_error(
        &self,
        error: impl Into<PyErr>,
        message: &str,
    ) -> PyResult<()> {
        let error = error.into();
        let expected = error.is_instance_of::<PyOSError>(self.py());
        let value = self.report_fatal(error, expected, message)?;
        self.force_close(Some(value))
    }
}

fn fatal_error<T: SelectorTransport>(this: &This<'_, '_, T>, args: Args<'_, '_>) -> PyResult<()> {
    let [error, message] = args.bind("_fatal_error", ["exc", "message"], 1)?;
    let error = error.expect("invariant: bind checked the required argument");
    let message = message.map_or_else(
        || Ok("Fatal error on transport".to_owned()),
        |message| message.extract::<String>(),
    )?;
    this.fatal_error(PyErr::from_value(error.to_owned()), &message)
}

/// The methods of asyncio's `_SelectorTransport` and of what it inherits from.
pub(in crate::transport) fn add_methods<T: SelectorTransport>(methods: &mut Methods<OfNative<T>>) {
    base::add_methods(methods);
    polled::add_methods(methods);
    flow_control::add_methods(methods);
    add_reading(methods);
    methods.nullary_procedure(
        c"abort",
        |this| this.abort(),
        c"Close at once; what is queued is lost.",
    );
    methods.procedure(
        c"_call_connection_lost",
        "exc",
        |this, args| this.call_connection_lost(&*args.one("_call_connection_lost", "exc")?),
        c"The deferred end.",
    );
    methods.procedure(
        c"_force_close",
        "exc",
        |this, args| {
            let error = args.one("_force_close", "exc")?;
            this.force_close((!error.is_none()).then(|| error.to_owned().unbind()))
        },
        c"Close at once because of an exception.",
    );
    methods.procedure(
        c"_fatal_error",
        "exc, message='Fatal error on transport'",
        fatal_error,
        c"Report an exception and close at once.",
    );
    methods.getter(c"_closing", |this| this.boolean(this.flags().closing.get()));
    methods.getter(c"_paused", |this| {
        this.boolean(this.flags().reading.is_paused())
    });
    methods.getter(c"_sock_fd", |this| {
        T::send_written(this)?;
        Ok(this
            .registration()
            .fd()
            .into_pyobject(this.py())?
            .into_any())
    });
}

fn add_reading<T: SelectorTransport>(methods: &mut Methods<OfNative<T>>) {
    methods.nullary_procedure(
        c"_begin",
        |this| this.begin(),
        c"Starts reading, after connection_made.",
    );
    methods.nullary_procedure(
        c"pause_reading",
        |this| this.pause_reading(),
        c"Deliver nothing until resume_reading().",
    );
    methods.nullary_procedure(
        c"resume_reading",
        |this| this.resume_reading(),
        c"Deliver again what arrives.",
    );
    methods.nullary(
        c"is_reading",
        |this| this.boolean(this.is_reading()),
        c"True unless paused or closing.",
    );
}
