//! `Settings`: what the program has set on its loop.

use super::EventLoop;
use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use crate::py::imports;
use crate::py::object::TypeWatch;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::cell::{Cell, RefCell};

/// What it has set, and what it has replaced.
pub(crate) struct Settings {
    pub(super) debug: Cell<bool>,
    /// An override of `time` on the instance or in a subclass.
    pub(super) custom_time: Cell<bool>,
    /// The same of `sock_connect`.
    pub(crate) custom_sock_connect: Cell<bool>,
    /// Tells whether somebody patched the `_run` of asyncio's handles, as profilers do.
    pub(super) handle_run: TypeWatch,
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

impl Settings {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let hooks = Hooks {
            slow_callback_duration: Some(0.1_f64.into_pyobject(py)?.into_any().unbind()),
            asyncgens: Some(imports::weak_set(py)?.call0()?.unbind()),
            ..Hooks::default()
        };
        Ok(Self {
            debug: Cell::new(imports::is_debug_mode(py)?.call0()?.is_truthy()?),
            custom_time: Cell::new(false),
            custom_sock_connect: Cell::new(false),
            handle_run: watch_of_run(py)?,
            hooks: RefCell::new(hooks),
        })
    }
}

impl Hooks {
    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.option(self.exception_handler.as_ref())?;
        visit.option(self.task_factory.as_ref())?;
        visit.option(self.default_executor.as_ref())?;
        visit.option(self.slow_callback_duration.as_ref())?;
        visit.option(self.asyncgens.as_ref())?;
        visit.option(self.old_asyncgen_hooks.as_ref())?;
        visit.option(self.origin_tracking.as_ref())
    }
}

/// A timer handle's `_run` is the one of all handles, unless somebody gave it its own.
fn watch_of_run(py: Python<'_>) -> PyResult<TypeWatch> {
    let base = imports::handle(py)?.cast::<PyType>()?;
    let class = imports::timer_handle(py)?.cast::<PyType>()?;
    TypeWatch::new(class, "_run").map(|watch| watch.with_base(base))
}

impl EventLoop {
    /// What asyncio's loop calls by name must be what is assigned on an instance: a `time` moves
    /// the timers, `sock_connect` makes the connections.
    pub(super) fn attribute_changed(
        &self,
        this: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if name.eq("time")? || name.eq("sock_connect")? {
            self.find_overrides(this)?;
        }
        Ok(())
    }

    pub(super) fn find_overrides(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let state = self.state(this.py());
        state.settings.custom_time.set(is_overridden(this, "time")?);
        let connects = is_overridden(this, "sock_connect")?;
        state.settings.custom_sock_connect.set(connects);
        Ok(())
    }
}

/// True if the method is another one than ours, on the instance or in its class.
fn is_overridden(this: &Bound<'_, EventLoop>, method: &str) -> PyResult<bool> {
    let own = this.getattr("__dict__")?.cast_into::<PyDict>()?;
    if own.contains(method)? {
        return Ok(true);
    }
    let native = this.py().get_type::<EventLoop>().getattr(method)?;
    Ok(!this.get_type().getattr(method)?.is(&native))
}
