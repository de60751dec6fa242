//! `Settings`: what the program has set or replaced on its loop.

use super::EventLoop;
use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use crate::py::imports;
use crate::py::object::TypeWatch;
use crate::py::slot::Slot;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple, PyType};
use std::cell::{Cell, RefCell};

/// What it has set, and what it has replaced.
pub(crate) struct Settings {
    pub(super) debug: Cell<bool>,
    /// An override of `time` on the instance or in a subclass.
    pub(super) custom_time: Cell<bool>,
    /// The same of `sock_connect` and of `get_debug`.
    pub(crate) custom_sock_connect: Cell<bool>,
    pub(super) custom_get_debug: Cell<bool>,
    /// Tells whether somebody patched the `_run` of asyncio's handles, as profilers do.
    pub(super) handle_run: TypeWatch,
    pub(super) exception_handler: Slot,
    pub(super) task_factory: Slot,
    pub(super) default_executor: Slot,
    pub(super) slow_callback_duration: Slot,
    pub(super) asyncgens: Slot,
    pub(super) old_asyncgen_hooks: Slot<PyTuple>,
    /// The depth to restore when origin tracking ends.
    pub(super) origin_tracking: Slot,
    /// The handle that runs, in debug mode.
    pub(super) current_handle: RefCell<Option<HandleRef>>,
    pub(super) executor_shutdown: Cell<bool>,
    pub(super) asyncgens_shutdown: Cell<bool>,
}

impl Settings {
    pub(super) fn new(py: Python<'_>) -> PyResult<Self> {
        let slow = 0.1_f64.into_pyobject(py)?.into_any().unbind();
        Ok(Self {
            debug: Cell::new(imports::is_debug_mode(py)?.call0()?.is_truthy()?),
            custom_time: Cell::default(),
            custom_sock_connect: Cell::default(),
            // Until a run has looked.
            custom_get_debug: Cell::new(true),
            handle_run: watch_of_run(py)?,
            exception_handler: Slot::default(),
            task_factory: Slot::default(),
            default_executor: Slot::default(),
            slow_callback_duration: slow.into(),
            asyncgens: imports::weak_set(py)?.call0()?.unbind().into(),
            old_asyncgen_hooks: Slot::default(),
            origin_tracking: Slot::default(),
            current_handle: RefCell::default(),
            executor_shutdown: Cell::default(),
            asyncgens_shutdown: Cell::default(),
        })
    }

    const fn objects(&self) -> [&Slot; 6] {
        [
            &self.exception_handler,
            &self.task_factory,
            &self.default_executor,
            &self.slow_callback_duration,
            &self.asyncgens,
            &self.origin_tracking,
        ]
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        let mut objects = self.objects().into_iter();
        objects.try_for_each(|slot| slot.traverse(visit))?;
        self.old_asyncgen_hooks.traverse(visit)
    }

    pub(super) fn clear(&self) {
        self.objects().into_iter().for_each(|slot| slot.set(None));
        self.old_asyncgen_hooks.set(None);
        drop(self.current_handle.take());
    }
}

/// A timer handle's `_run` is the one of all handles, unless somebody gave it its own.
fn watch_of_run(py: Python<'_>) -> PyResult<TypeWatch> {
    let base = imports::handle(py)?.cast::<PyType>()?;
    let class = imports::timer_handle(py)?.cast::<PyType>()?;
    TypeWatch::new(class, "_run").map(|watch| watch.with_base(base))
}

impl EventLoop {
    /// What asyncio calls by name must be what is assigned on an instance: a `time` moves the
    /// timers, `sock_connect` makes the connections, `get_debug` is asked by cancelled handles.
    pub(super) fn attribute_changed(
        &self,
        this: &Bound<'_, Self>,
        name: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if name.eq("time")? || name.eq("sock_connect")? || name.eq("get_debug")? {
            self.find_overrides(this)?;
        }
        Ok(())
    }

    pub(super) fn find_overrides(&self, this: &Bound<'_, Self>) -> PyResult<()> {
        let state = self.state(this.py());
        state.settings.custom_time.set(is_overridden(this, "time")?);
        let connects = is_overridden(this, "sock_connect")?;
        state.settings.custom_sock_connect.set(connects);
        let asks = is_overridden(this, "get_debug")?;
        state.settings.custom_get_debug.set(asks);
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
