//! `Coroutine`: a Rust `async fn` as a Python coroutine object.
//!
//! `send` polls the future. To wait, Rust code awaits a Python awaitable through `await_python`:
//! what the awaitable yields goes to the running task, and what the task sends or throws goes to
//! the awaitable. So cancellation and timeouts arrive exactly as in Python code, without a second
//! executor or a waker.
//!
//! Invariants:
//! - the future is taken out of its cell while it is polled: a coroutine that is awaited by itself
//!   raises ValueError, as CPython's does.
//! - an exception given to `throw` before the first step ends the coroutine without running it.
//! - `close` and the collector drop the future, whose destructors must not wait.
//! - a suspended coroutine, not its future, owns what it awaits, and exposes that to `tp_traverse`.
//!   The collector then sees the cycle of a task, its coroutine, the awaited future and the task's
//!   callback on that future. So a task that nobody will wake is destroyed with its message, as in
//!   asyncio. Anything else that a Rust future holds is invisible to the collector: it must not
//!   lead back to what is awaited, except through objects shared by `Coroutine::of` or kept by
//!   `await_python_keeping`.
//!
//! Cost: one boxed future and one object a call; no allocation for a step.

use super::args::Args;
use super::attached::Attached;
use super::class::{Class, Native, OfNative, Ref, Slots, This, Visit, VisitStopped, create};
use super::heap_type::slot;
use super::method::{Methods, guarded, repr_slot};
use super::{imports, interpreter_exit};
use pyo3::exceptions::{
    PyBaseException, PyGeneratorExit, PyRuntimeError, PyRuntimeWarning, PyStopIteration,
    PyTypeError, PyValueError,
};
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{Borrowed, ffi};
use std::cell::{Cell, RefCell};
use std::ffi::{c_int, c_void};
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::ptr;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

type BoxedFuture = Pin<Box<dyn Future<Output = PyResult<Py<PyAny>>>>>;

/// What the task gave to the step that runs now.
enum Resume {
    Send(Py<PyAny>),
    Throw(PyErr),
}

/// What the coroutine owns while its future is suspended.
struct Awaited {
    /// The iterator of what is awaited.
    awaited: Py<PyAny>,
    kept: Option<Py<PyAny>>,
}

thread_local! {
    /// The exchange between a coroutine's step and the `await_python` inside it.
    static RESUME: Cell<Option<(Awaited, Resume)>> = const { Cell::new(None) };
    static YIELDED: Cell<Option<(Awaited, Py<PyAny>)>> = const { Cell::new(None) };
    /// What a destructor could not raise.
    static INTERRUPTION: Cell<Option<PyErr>> = const { Cell::new(None) };
}

/// Lets the step of a coroutine that runs, or the next one, raise what a destructor cannot:
/// KeyboardInterrupt and SystemExit.
pub(crate) fn raise_in_step(error: PyErr) {
    INTERRUPTION.set(Some(error));
}

enum Stage {
    /// Not started.
    Fresh(BoxedFuture),
    /// What is awaited is dropped first, as it would be if the future owned it.
    Suspended {
        held: Awaited,
        future: BoxedFuture,
    },
    Running,
    Done,
}

/// The payload of a Python coroutine object.
pub(crate) struct Coroutine {
    name: &'static str,
    /// What the future holds as well; the collector may see it.
    shared: Attached<Option<Rc<dyn Shared>>>,
    stage: Attached<RefCell<Stage>>,
}

/// References that a coroutine and its future own together.
pub(crate) trait Shared {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped>;
}

impl<T> Shared for Py<T> {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(self)
    }
}

impl<T, U> Shared for (Py<T>, Py<U>) {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.0)?;
        visit.object(&self.1)
    }
}

impl<T: Native> Shared for Ref<T> {
    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(self.as_object())
    }
}

static CLASS: Class = Class::new();

impl Native for Coroutine {
    fn class() -> &'static Class {
        &CLASS
    }

    fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        // What else a Rust future holds cannot be listed; it counts as reachable.
        if let Some(shared) = self.shared.during_collection(visit) {
            shared.traverse(visit)?;
        }
        if let Ok(stage) = self.stage.during_collection(visit).try_borrow()
            && let Stage::Suspended { held, .. } = &*stage
        {
            visit.object(&held.awaited)?;
            visit.option(held.kept.as_ref())?;
        }
        Ok(())
    }

    fn clear(&self, py: Python<'_>) {
        drop(self.finish(py));
    }

    fn finalize(this: &This<'_, '_, Self>) {
        let fresh = matches!(&*this.stage.get(this.py()).borrow(), Stage::Fresh(_));
        if fresh {
            this.warn_never_awaited();
        }
        drop(this.payload().finish(this.py()));
    }
}

impl This<'_, '_, Coroutine> {
    fn warn_never_awaited(&self) {
        let py = self.py();
        let text = format!("coroutine '{}' was never awaited", self.name);
        let warned = std::ffi::CString::new(text)
            .map_err(PyErr::from)
            .and_then(|text| PyErr::warn(py, &py.get_type::<PyRuntimeWarning>(), &text, 1));
        if let Err(error) = warned {
            error.write_unraisable(py, Some(&self.object()));
        }
    }
}

impl Coroutine {
    /// Wraps `future`; `name` is the qualified name that `repr` and warnings show.
    pub(crate) fn object<'py, F>(
        py: Python<'py>,
        name: &'static str,
        future: F,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        F: Future<Output = PyResult<Py<PyAny>>> + 'static,
    {
        Self::with(py, name, None, Box::pin(future))
    }

    /// As `object`, for a method of `this`: the future's reference to it is one that the collector
    /// sees. For a `this` that leads to what the future waits for.
    pub(crate) fn of<'py, S, M, F>(
        py: Python<'py>,
        name: &'static str,
        this: S,
        method: M,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        S: Shared + 'static,
        M: FnOnce(Rc<S>) -> F,
        F: Future<Output = PyResult<Py<PyAny>>> + 'static,
    {
        let shared = Rc::new(this);
        let future = Box::pin(method(Rc::clone(&shared)));
        Self::with(py, name, Some(shared), future)
    }

    /// As `of`, for a method of a PyO3 class.
    pub(crate) fn method<'py, T, M, F>(
        this: &Bound<'py, T>,
        name: &'static str,
        method: M,
    ) -> PyResult<Bound<'py, PyAny>>
    where
        T: 'static,
        M: FnOnce(Rc<Py<T>>) -> F,
        F: Future<Output = PyResult<Py<PyAny>>> + 'static,
    {
        Self::of(this.py(), name, this.clone().unbind(), method)
    }

    fn with<'py>(
        py: Python<'py>,
        name: &'static str,
        shared: Option<Rc<dyn Shared>>,
        future: BoxedFuture,
    ) -> PyResult<Bound<'py, PyAny>> {
        let coroutine = Self {
            name,
            shared: Attached::new(shared),
            stage: Attached::new(RefCell::new(Stage::Fresh(future))),
        };
        let coroutine = Ref::new(py, coroutine)?;
        Ok(coroutine.as_object().bind(py).clone())
    }

    fn finish(&self, py: Python<'_>) -> Stage {
        self.stage.get(py).replace(Stage::Done)
    }

    /// Runs one step: `Ok(Err(value))` is a yielded value, `Ok(Ok(value))` the result.
    fn step(&self, py: Python<'_>, resume: Resume) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
        let mut future = match self.stage.get(py).replace(Stage::Running) {
            Stage::Fresh(future) => match resume {
                Resume::Send(_) => future,
                Resume::Throw(error) => {
                    self.finish(py);
                    return Err(error);
                }
            },
            Stage::Suspended { held, future } => {
                RESUME.set(Some((held, resume)));
                future
            }
            Stage::Running => return Err(PyValueError::new_err("coroutine already executing")),
            Stage::Done => {
                self.finish(py);
                return Err(PyRuntimeError::new_err(
                    "cannot reuse already awaited coroutine",
                ));
            }
        };
        let polled = future
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()));
        if let Some(error) = INTERRUPTION.take() {
            drop(YIELDED.take());
            self.finish(py);
            return Err(error);
        }
        let Poll::Ready(outcome) = polled else {
            let (held, yielded) = YIELDED
                .take()
                .expect("invariant: only await_python makes a future wait");
            *self.stage.get(py).borrow_mut() = Stage::Suspended { held, future };
            return Ok(Err(yielded));
        };
        self.finish(py);
        outcome.map(Ok)
    }
}

/// Waits for a Python awaitable from Rust code that runs in a `Coroutine`.
///
/// # Errors
/// What the awaitable raises, which includes what the task throws into it.
pub(crate) async fn await_python(awaitable: Py<PyAny>) -> PyResult<Py<PyAny>> {
    drive(awaitable, &mut None).await
}

/// Lets the loop go through one iteration, as `asyncio.sleep(0)` does.
///
/// # Errors
/// What the task throws in.
pub(crate) async fn next_turn() -> PyResult<()> {
    let turn = Python::attach(|py| imports::sleep(py)?.call1((0,)).map(Bound::unbind))?;
    await_python(turn).await.map(drop)
}

/// As `await_python`, and gives back `kept`, which the collector sees meanwhile: for objects that
/// lead to what is awaited and that the caller needs afterwards.
pub(crate) async fn await_python_keeping(
    awaitable: Py<PyAny>,
    kept: Py<PyAny>,
) -> (PyResult<Py<PyAny>>, Py<PyAny>) {
    let mut kept = Some(kept);
    let outcome = drive(awaitable, &mut kept).await;
    let kept = kept.expect("invariant: a step gives back what the coroutine held");
    (outcome, kept)
}

async fn drive(awaitable: Py<PyAny>, kept: &mut Option<Py<PyAny>>) -> PyResult<Py<PyAny>> {
    let mut iterator = Python::attach(|py| await_iterator(awaitable.bind(py)).map(Bound::unbind))?;
    drop(awaitable);
    let mut resume = Python::attach(|py| Resume::Send(py.None()));
    loop {
        let outcome = Python::attach(|py| advance(iterator.bind(py), resume))?;
        match outcome {
            Ok(value) => return Ok(value),
            Err(yielded) => {
                let held = Awaited {
                    awaited: iterator,
                    kept: kept.take(),
                };
                let (held, answer) = suspend(held, yielded).await;
                (iterator, *kept, resume) = (held.awaited, held.kept, answer);
            }
        }
    }
}

/// Yields to the task, and gives back what is awaited with what the task answers.
async fn suspend(held: Awaited, yielded: Py<PyAny>) -> (Awaited, Resume) {
    let mut suspension = Some((held, yielded));
    poll_fn(move |_context| {
        if let Some(suspension) = suspension.take() {
            YIELDED.set(Some(suspension));
            return Poll::Pending;
        }
        Poll::Ready(
            RESUME
                .take()
                .expect("invariant: a step resumes what it suspended"),
        )
    })
    .await
}

/// The iterator behind `await`: the object itself for a coroutine, else what `__await__` returns.
fn await_iterator<'py>(awaitable: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    let py = awaitable.py();
    // SAFETY: the slots are read from a live type object; `am_await` is called with its instance.
    unsafe {
        let class = ffi::Py_TYPE(awaitable.as_ptr());
        let slots = (*class).tp_as_async;
        if !slots.is_null()
            && let Some(am_await) = (*slots).am_await
        {
            return Bound::from_owned_ptr_or_err(py, am_await(awaitable.as_ptr()));
        }
    }
    Err(PyTypeError::new_err(format!(
        "object {} can't be used in 'await' expression",
        awaitable.get_type().name()?
    )))
}

/// One step of a Python iterator: `Ok(value)` is its result, `Err(value)` what it yields.
fn advance(iterator: &Bound<'_, PyAny>, resume: Resume) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
    match resume {
        Resume::Send(value) => send_into(iterator, value.bind(iterator.py())),
        Resume::Throw(error) => throw_into(iterator, error),
    }
}

fn send_into(
    iterator: &Bound<'_, PyAny>,
    value: &Bound<'_, PyAny>,
) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
    let py = iterator.py();
    let mut result = ptr::null_mut();
    // SAFETY: both objects are alive; the call stores a new reference in `result` unless it fails.
    unsafe {
        match interpreter_exit::iter_send(iterator.as_ptr(), value.as_ptr(), &raw mut result) {
            ffi::PySendResult::PYGEN_RETURN => Ok(Ok(Bound::from_owned_ptr(py, result).unbind())),
            ffi::PySendResult::PYGEN_NEXT => Ok(Err(Bound::from_owned_ptr(py, result).unbind())),
            ffi::PySendResult::PYGEN_ERROR => Err(PyErr::fetch(py)),
        }
    }
}

fn throw_into(iterator: &Bound<'_, PyAny>, error: PyErr) -> PyResult<Result<Py<PyAny>, Py<PyAny>>> {
    let py = iterator.py();
    let Ok(throw) = iterator.getattr(pyo3::intern!(py, "throw")) else {
        return Err(error);
    };
    match throw.call1((error.into_value(py),)) {
        Ok(yielded) => Ok(Err(yielded.unbind())),
        Err(stop) if stop.is_instance_of::<PyStopIteration>(py) => Ok(Ok(stop
            .value(py)
            .getattr(pyo3::intern!(py, "value"))?
            .unbind())),
        Err(raised) => Err(raised),
    }
}

/// A result for a caller that expects the iterator protocol.
fn deliver<'py>(
    py: Python<'py>,
    outcome: PyResult<Result<Py<PyAny>, Py<PyAny>>>,
) -> PyResult<Bound<'py, PyAny>> {
    match outcome? {
        Err(yielded) => Ok(yielded.into_bound(py)),
        Ok(result) => Err(PyStopIteration::new_err((result,))),
    }
}

fn send<'py>(this: &This<'_, 'py, Coroutine>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let value = args.one("send", "value")?;
    if matches!(&*this.stage.get(this.py()).borrow(), Stage::Fresh(_)) && !value.is_none() {
        return Err(PyTypeError::new_err(
            "can't send non-None value to a just-started coroutine",
        ));
    }
    deliver(
        this.py(),
        this.step(this.py(), Resume::Send(value.to_owned().unbind())),
    )
}

fn throw<'py>(this: &This<'_, 'py, Coroutine>, args: Args<'_, 'py>) -> PyResult<Bound<'py, PyAny>> {
    let [kind, value, _traceback] = args.bind("throw", ["type", "value", "traceback"], 1)?;
    let kind = kind.expect("invariant: bind checked the required argument");
    let error = match (kind.cast::<PyType>(), value) {
        (Ok(_), Some(value)) if !value.is_none() && value.is_instance(&kind)? => {
            PyErr::from_value(value.to_owned())
        }
        (Ok(_), Some(value)) if !value.is_none() => PyErr::from_value(kind.call1((value,))?),
        (Ok(_), _) => PyErr::from_value(kind.call0()?),
        (Err(_), _) => PyErr::from_value(kind.to_owned()),
    };
    deliver(this.py(), this.step(this.py(), Resume::Throw(error)))
}

fn close(this: &This<'_, '_, Coroutine>) -> PyResult<()> {
    let py = this.py();
    let suspended = match &*this.stage.get(py).borrow() {
        Stage::Suspended { .. } => true,
        Stage::Fresh(_) | Stage::Done => false,
        Stage::Running => return Err(PyValueError::new_err("coroutine already executing")),
    };
    if !suspended {
        drop(this.finish(py));
        return Ok(());
    }
    // An instance, as PyO3 could not make one of it while the interpreter ends.
    let exit = py.get_type::<PyGeneratorExit>().call0()?;
    match this.step(py, Resume::Throw(PyErr::from_value(exit))) {
        Ok(Err(_)) => Err(PyRuntimeError::new_err("coroutine ignored GeneratorExit")),
        Ok(Ok(_)) => Ok(()),
        Err(error)
            if error.is_instance_of::<PyGeneratorExit>(py)
                || error.is_instance_of::<PyStopIteration>(py) =>
        {
            Ok(())
        }
        Err(error) => Err(error),
    }
}

fn running(py: Python<'_>, coroutine: &Coroutine) -> bool {
    matches!(&*coroutine.stage.get(py).borrow(), Stage::Running)
}

/// Makes the type; called once, at import.
pub(crate) fn create_type(py: Python<'_>) -> PyResult<()> {
    let mut methods = Methods::<OfNative<Coroutine>>::new();
    methods.method(
        c"send",
        "object, /",
        send,
        c"Resume with a value; raise StopIteration at the end.",
    );
    methods.method(
        c"throw",
        "type, value=None, traceback=None",
        throw,
        c"Resume with an exception.",
    );
    methods.nullary_procedure(c"close", close, c"Throw GeneratorExit and end.");
    methods.getter(c"__name__", |this| {
        let last = this.name.rsplit('.').next().unwrap_or(this.name);
        Ok(PyString::new(this.py(), last).into_any())
    });
    methods.getter(c"__qualname__", |this| {
        Ok(PyString::new(this.py(), this.name).into_any())
    });
    methods.getter(c"cr_running", |this| this.boolean(running(this.py(), this)));
    methods.getter(c"cr_frame", |this| this.none());
    methods.getter(c"cr_code", |this| this.none());
    methods.getter(c"cr_await", |this| this.none());
    let extra = Slots(vec![
        slot(ffi::Py_am_await, return_self as *mut c_void),
        slot(ffi::Py_tp_iter, return_self as *mut c_void),
        slot(ffi::Py_tp_iternext, iternext as *mut c_void),
        slot(ffi::Py_am_send, am_send as *mut c_void),
        repr_slot::<OfNative<Coroutine>, _>(repr),
    ]);
    let object = py.get_type::<PyAny>();
    create::<Coroutine>(
        py,
        c"oxloop._oxloop.Coroutine",
        c"A coroutine that runs in the event loop's own code.",
        &object,
        methods,
        extra,
    )
}

unsafe extern "C" fn return_self(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: CPython calls with a live instance.
    unsafe { ffi::Py_NewRef(object) }
}

/// # Safety
/// `object` is a live coroutine.
unsafe fn this<'a, 'py>(py: Python<'py>, object: *mut ffi::PyObject) -> This<'a, 'py, Coroutine> {
    use super::method::Access;
    // SAFETY: as the caller promises.
    unsafe { This::from_raw(py, object, OfNative::<Coroutine>::target(object)) }
}

unsafe extern "C" fn iternext(object: *mut ffi::PyObject) -> *mut ffi::PyObject {
    guarded(|py| {
        // SAFETY: CPython calls with a live instance.
        let this = unsafe { this(py, object) };
        match this.step(py, Resume::Send(py.None()))? {
            Err(yielded) => Ok(yielded.into_ptr()),
            Ok(result) => stop_iteration(result.bind(py)).map(|()| ptr::null_mut()),
        }
    })
    .unwrap_or(ptr::null_mut())
}

/// Ends an iteration with a result: without an exception if that is None, which CPython's own
/// coroutines do as well, and with one that need not be built from arguments if it can be.
fn stop_iteration(result: &Bound<'_, PyAny>) -> PyResult<()> {
    if result.is_none() {
        return Ok(());
    }
    if result.is_instance_of::<PyTuple>() || result.is_instance_of::<PyBaseException>() {
        // As the value of StopIteration these would be taken for its arguments, or for itself.
        return Err(PyStopIteration::new_err((result.clone().unbind(),)));
    }
    // SAFETY: the type and the value are live objects.
    unsafe { ffi::PyErr_SetObject(ffi::PyExc_StopIteration, result.as_ptr()) };
    Ok(())
}

unsafe extern "C" fn am_send(
    object: *mut ffi::PyObject,
    value: *mut ffi::PyObject,
    result: *mut *mut ffi::PyObject,
) -> c_int {
    let outcome = guarded(|py| {
        // SAFETY: CPython calls with a live instance and a live value.
        let (this, value) = unsafe {
            (
                this(py, object),
                Borrowed::from_ptr(py, value).to_owned().unbind(),
            )
        };
        this.step(py, Resume::Send(value))
    });
    let (stored, code) = match outcome {
        Some(Ok(value)) => (value.into_ptr(), ffi::PySendResult::PYGEN_RETURN),
        Some(Err(value)) => (value.into_ptr(), ffi::PySendResult::PYGEN_NEXT),
        None => (ptr::null_mut(), ffi::PySendResult::PYGEN_ERROR),
    };
    // SAFETY: CPython passes a place for the result, and takes over the reference.
    unsafe { result.write(stored) };
    code as c_int
}

fn repr<'py>(this: &This<'_, 'py, Coroutine>) -> PyResult<Bound<'py, PyAny>> {
    let address = this.object().as_ptr();
    let text = format!("<coroutine object {} at {address:p}>", this.name);
    Ok(PyString::new(this.py(), &text).into_any())
}
