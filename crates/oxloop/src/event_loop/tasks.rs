//! `create_future`, `create_task` and the task factory.
//!
//! Futures and tasks are asyncio's own C classes, so that `asyncio ps`, call graphs, profilers and
//! `all_tasks` see them.

use super::{EventLoop, LoopThis, State};
use crate::py::args::{
    Args, missing_argument, multiple_values, too_many_positional, unexpected_keyword,
};
use crate::py::imports;
use crate::py::method::{Methods, OfPyClass};
use crate::py::object::{call_one, call_only_keyword, call_with_keyword};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString};

/// `asyncio.tasks.Task` as it is now: programs and tests replace it.
fn task_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    attribute(imports::asyncio_tasks(py)?, intern!(py, "Task"))
}

/// `asyncio.futures.Future` as it is now.
fn future_class(py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
    attribute(imports::asyncio_futures(py)?, intern!(py, "Future"))
}

/// A module's attribute, straight from its dict.
fn attribute<'py>(
    module: &Bound<'py, PyModule>,
    name: &Bound<'py, PyString>,
) -> PyResult<Bound<'py, PyAny>> {
    match module.dict().get_item(name)? {
        Some(value) => Ok(value),
        None => module.getattr(name),
    }
}

/// As in the asyncio of the running Python; 3.13 takes more keywords from 3.13.3 on.
const CREATE_TASK_PARAMETERS: &str = if cfg!(Py_3_14) {
    "coro, **kwargs"
} else if cfg!(Py_3_13) {
    "coro, *, name=None, context=None, **kwargs"
} else {
    "coro, *, name=None, context=None"
};

fn is_task_keyword(name: &str) -> bool {
    cfg!(Py_3_13) || matches!(name, "name" | "context")
}

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.hot_method(
        c"create_future",
        "",
        create_future,
        c"A Future attached to this loop.",
    );
    methods.hot_method(
        c"create_task",
        CREATE_TASK_PARAMETERS,
        create_task,
        c"Schedule a coroutine; keywords go to the task or the task factory.",
    );
}

fn create_future<'py>(
    this: &LoopThis<'_, 'py>,
    args: Args<'_, 'py>,
) -> PyResult<Bound<'py, PyAny>> {
    args.none("create_future")?;
    this.new_future()
}

impl<'py> LoopThis<'_, 'py> {
    #[inline]
    fn is_current(&self) -> PyResult<bool> {
        is_current(self.payload().state(self.py()), &self.object())
    }

    /// `asyncio.Future(loop=self)`.
    pub(crate) fn new_future(&self) -> PyResult<Bound<'py, PyAny>> {
        new_future(self.payload().state(self.py()), &self.object())
    }
}

/// True in a callback of this loop: asyncio's classes then find the loop themselves, which saves
/// them a dict of keywords.
#[inline]
fn is_current(state: &State, event_loop: &Bound<'_, PyAny>) -> PyResult<bool> {
    let running = imports::get_running_loop(event_loop.py())?;
    Ok(state.is_in_callback() && running.call0()?.is(event_loop))
}

/// `asyncio.Future(loop=event_loop)`.
pub(super) fn new_future<'py>(
    state: &State,
    event_loop: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let class = &future_class(event_loop.py())?;
    if is_current(state, event_loop)? {
        return class.call0();
    }
    call_only_keyword(class, intern!(event_loop.py(), "loop"), event_loop)
}

fn create_task<'py>(this: &LoopThis<'_, 'py>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let (py, state) = (this.py(), this.payload().state(this.py()));
    state.check_closed()?;
    let factory = state.settings.task_factory.get(py);
    if factory.is_none() && args.positional_count() == 1 && args.keyword_count() == 0 {
        let coroutine = args.one("create_task", "coro")?;
        if this.is_current()? {
            return call_one(&task_class(py)?, &coroutine);
        }
        return call_with_keyword(
            &task_class(py)?,
            &coroutine,
            intern!(py, "loop"),
            &this.object(),
        );
    }
    let (coroutine, kwargs) = task_arguments(py, &args)?;
    let Some(factory) = factory else {
        if kwargs.contains(intern!(py, "loop"))? {
            return Err(PyTypeError::new_err(
                "_asyncio.Task() got multiple values for keyword argument 'loop'",
            ));
        }
        kwargs.set_item(intern!(py, "loop"), this.object())?;
        return task_class(py)?.call((coroutine,), Some(&kwargs));
    };
    call_factory(this, &factory, &coroutine, &kwargs)
}

fn task_arguments<'py>(
    py: Python<'py>,
    args: &Args<'_, 'py>,
) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyDict>)> {
    let kwargs = PyDict::new(py);
    let mut coroutine = args.positional(0).map(|coroutine| coroutine.to_owned());
    for (name, value) in args.keywords() {
        let text = name.to_str()?;
        if text == "coro" {
            if coroutine.replace(value.to_owned()).is_some() {
                return Err(multiple_values("create_task", text));
            }
        } else if is_task_keyword(text) {
            kwargs.set_item(name, value)?;
        } else {
            return Err(unexpected_keyword("create_task", &name));
        }
    }
    if args.positional_count() > 1 {
        return Err(too_many_positional(
            "create_task",
            1,
            args.positional_count(),
        ));
    }
    let coroutine = coroutine.ok_or_else(|| missing_argument("create_task", "coro"))?;
    Ok((coroutine, kwargs))
}

/// From 3.14 on the factory gets every keyword as it came. Before, it sees `context` only if there
/// is one, and the name is set afterwards.
fn call_factory<'py>(
    this: &LoopThis<'_, 'py>,
    factory: &Bound<'py, PyAny>,
    coroutine: &Bound<'py, PyAny>,
    kwargs: &Bound<'py, PyDict>,
) -> PyResult<Bound<'py, PyAny>> {
    if cfg!(Py_3_14) {
        return factory.call((this.object(), coroutine), Some(kwargs));
    }
    let name = kwargs.get_item("name")?;
    if name.is_some() {
        kwargs.del_item("name")?;
    }
    if kwargs
        .get_item("context")?
        .is_some_and(|context| context.is_none())
    {
        kwargs.del_item("context")?;
    }
    let task = factory.call((this.object(), coroutine), Some(kwargs))?;
    if let Some(name) = name.filter(|name| !name.is_none())
        && let Ok(set_name) = task.getattr("set_name")
    {
        set_name.call1((name,))?;
    }
    Ok(task)
}

#[pymethods]
impl EventLoop {
    /// Set a callable (loop, coro, **kwargs) that create_task() uses; None for asyncio.Task.
    fn set_task_factory(&self, py: Python<'_>, factory: Bound<'_, PyAny>) -> PyResult<()> {
        if !factory.is_none() && !factory.is_callable() {
            return Err(PyTypeError::new_err(
                "task factory must be a callable or None",
            ));
        }
        let factory = (!factory.is_none()).then(|| factory.unbind());
        self.state(py).settings.task_factory.set(factory);
        Ok(())
    }

    /// The task factory that was set, or None.
    fn get_task_factory<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        self.state(py).settings.task_factory.get(py)
    }
}
