//! `add_reader`, `add_writer` and their removal: level-triggered callbacks on any descriptor.
//!
//! Invariants:
//! - a descriptor has at most one registration; it belongs to a watcher or to a transport.
//! - a registration ends in the kernel when its last callback is removed, so that a descriptor that
//!   is closed and opened again is never mistaken for the old one. (A registration that served
//!   `sock_recv` and its like stays for the next call, see `readiness`.)
//!
//! Cost: epoll_ctl(2) once for each change of interest, as asyncio has it.

use super::handle::cancel_aloud;
use super::numbers::Holder;
use super::readiness::wake;
use super::source::Source;
use super::watch::{Side, Watch};
use super::{EventLoop, LoopThis, State};
use crate::error::os_error;
use crate::py::args::Args;
use crate::py::file::too_large_for_int;
use crate::py::handle::HandleRef;
use crate::py::method::{Methods, OfPyClass};
use crate::py::schedule::Scheduled;
use pyo3::exceptions::{PyAttributeError, PyRuntimeError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use reactor::poller::Interest;
use reactor::token::Token;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.procedure(
        c"add_reader",
        "fd, callback, *args",
        |this, args| this.add_watcher(args, Side::Reader, "add_reader"),
        c"Call callback(*args) whenever fd is readable.",
    );
    methods.procedure(
        c"add_writer",
        "fd, callback, *args",
        |this, args| this.add_watcher(args, Side::Writer, "add_writer"),
        c"Call callback(*args) whenever fd is writable.",
    );
    methods.method(
        c"remove_reader",
        "fd",
        |this, args| this.remove_watcher(&*args.one("remove_reader", "fd")?, Side::Reader),
        c"Stop watching fd for reading; True if it was watched.",
    );
    methods.method(
        c"remove_writer",
        "fd",
        |this, args| this.remove_watcher(&*args.one("remove_writer", "fd")?, Side::Writer),
        c"Stop watching fd for writing; True if it was watched.",
    );
    methods.procedure(
        c"_ensure_fd_no_transport",
        "fd",
        |this, args| {
            let file = args.one("_ensure_fd_no_transport", "fd")?;
            if let Some(fd) = possible(&number_of(&file)?) {
                this.ensure_no_transport(&file, fd)?;
            }
            Ok(())
        },
        c"RuntimeError if fd belongs to a live transport.",
    );
}

/// The number behind an int or an object with fileno().
fn number_of<'py>(file: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
    if file.is_instance_of::<PyInt>() {
        return Ok(file.clone());
    }
    let py = file.py();
    let as_int = |number| py.get_type::<PyInt>().call1((number,));
    let number = file.call_method0("fileno").and_then(as_int);
    number.map_err(|error| {
        let expected = error.is_instance_of::<PyAttributeError>(py)
            || error.is_instance_of::<PyTypeError>(py)
            || error.is_instance_of::<PyValueError>(py);
        if expected { invalid_file(file) } else { error }
    })
}

/// The number, if a descriptor can have it.
fn possible(number: &Bound<'_, PyAny>) -> Option<RawFd> {
    number.extract().ok().filter(|fd| *fd >= 0)
}

/// The error of asyncio's selector for a number that no descriptor can have.
fn impossible(number: &Bound<'_, PyAny>) -> PyResult<PyErr> {
    Ok(if number.lt(0)? {
        PyValueError::new_err(format!("Invalid file descriptor: {number}"))
    } else {
        too_large_for_int()
    })
}

fn invalid_file(file: &Bound<'_, PyAny>) -> PyErr {
    let shown = file
        .repr()
        .map_or_else(|_| String::new(), |text| text.to_string());
    PyValueError::new_err(format!("Invalid file object: {shown}"))
}

impl<'py> LoopThis<'_, 'py> {
    fn loop_state(&self) -> &State {
        self.payload().state(self.py())
    }

    /// # Errors
    /// RuntimeError if the descriptor belongs to a transport that is not closing.
    pub(crate) fn ensure_no_transport(&self, file: &Bound<'py, PyAny>, fd: RawFd) -> PyResult<()> {
        self.loop_state().ensure_no_transport(file, fd)
    }

    fn add_watcher(&self, args: Args<'_, 'py>, side: Side, function: &'static str) -> PyResult<()> {
        let py = self.py();
        let scheduled = Scheduled::parse(function, ["fd", "callback"], &args)?;
        let file = scheduled.leading[0];
        let number = number_of(&file)?;
        let fd = possible(&number);
        if let Some(fd) = fd {
            self.ensure_no_transport(&file, fd)?;
        }
        self.loop_state().check_closed()?;
        let Some(fd) = fd else {
            return Err(impossible(&number)?);
        };
        let handle = scheduled.handle(self.object())?;
        self.loop_state().trace_source(py, &handle)?;
        handle.set_repeating();
        let replaced = self.loop_state().watch(fd, &file, side, handle)?;
        if let Some(replaced) = replaced {
            cancel_aloud(py, &replaced, self.loop_state().settings.debug.get())?;
            replaced.release_ref(py);
        }
        Ok(())
    }

    fn remove_watcher(&self, file: &Bound<'py, PyAny>, side: Side) -> PyResult<Bound<'py, PyAny>> {
        let (py, state) = (self.py(), self.loop_state());
        let number = number_of(file)?;
        let fd = possible(&number);
        if let Some(fd) = fd {
            self.ensure_no_transport(file, fd)?;
        }
        let removed = match state.find_watch(fd, file) {
            _ if state.closed.get() => None,
            Some((fd, token)) => state.unwatch(py, fd, token, side)?,
            None if number.lt(0)? => return Err(impossible(&number)?),
            None => None,
        };
        let found = removed.is_some();
        if let Some(handle) = removed {
            cancel_aloud(py, &handle, state.settings.debug.get())?;
            handle.release_ref(py);
        }
        Ok(found.into_pyobject(py)?.to_owned().into_any())
    }
}

/// A watch that the kernel does not have. It was taken out of the registry, with its waiters.
pub(super) struct Lost {
    error: io::Error,
    watch: Option<Watch>,
}

impl Lost {
    /// Wakes the waiters, which try again and get the error themselves; returns the error of
    /// epoll_ctl(2).
    ///
    /// # Errors
    /// As `wake`.
    pub(super) fn woken(self, py: Python<'_>) -> PyResult<io::Error> {
        if let Some(watch) = self.watch {
            wake(py, watch.waiters)?;
        }
        Ok(self.error)
    }

    /// As `woken`, for a caller who gets the error.
    pub(super) fn tell(self, py: Python<'_>) -> PyErr {
        match self.woken(py) {
            Ok(error) => os_error(&error),
            Err(error) => error,
        }
    }
}

impl State {
    /// # Errors
    /// RuntimeError if the descriptor belongs to a transport that is not closing.
    pub(super) fn ensure_no_transport(&self, file: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<()> {
        let py = file.py();
        let Some((transport, kind)) = self.transport_of(py, fd) else {
            return Ok(());
        };
        if (kind.has_freed_number)(&transport)? {
            return Ok(());
        }
        Err(PyRuntimeError::new_err(format!(
            "File descriptor {} is used by transport {}",
            file.repr()?,
            transport.repr()?
        )))
    }

    /// Puts `handle` on one side of the descriptor and returns the one that it replaces.
    pub(super) fn watch(
        &self,
        fd: RawFd,
        file: &Bound<'_, PyAny>,
        side: Side,
        handle: HandleRef,
    ) -> PyResult<Option<HandleRef>> {
        let py = file.py();
        let file = (!file.is_instance_of::<PyInt>()).then(|| file.clone().unbind());
        let token = self.kernel.numbers.borrow().watch(fd);
        let Some(token) = token else {
            let mut watch = Watch::new(fd);
            watch.file = file;
            *watch.side(side) = Some(handle);
            self.register_watch(watch)?;
            return Ok(None);
        };
        let (replaced, earlier, interest) = {
            let mut sources = self.kernel.sources.borrow_mut();
            let Some(Source::Watch(watch)) = sources.get_mut(token) else {
                unreachable!("invariant: a watched entry's token leads to its watch");
            };
            let earlier = match file {
                Some(file) => watch.file.replace(file),
                None => None,
            };
            let replaced = watch.side(side).replace(handle);
            (replaced, earlier, watch.interest())
        };
        drop(earlier);
        let rewatched = self.rewatch(fd, token, interest, Some(side));
        rewatched.map_err(|lost| lost.tell(py))?;
        Ok(replaced)
    }

    /// Registers a descriptor that nobody watches.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; RuntimeError on a closed loop.
    pub(super) fn register_watch(&self, mut watch: Watch) -> PyResult<()> {
        let (fd, interest) = (watch.fd, watch.interest());
        watch.registered = interest;
        self.register(fd, Source::Watch(watch), interest).map(drop)
    }

    /// Tells the kernel the interest of a watch. If the kernel has no such registration, the number
    /// belongs to another file now. Then it is registered again, for the side that was just asked
    /// for and for waiting coroutines, whose next system call shows them the change.
    pub(super) fn rewatch(
        &self,
        fd: RawFd,
        token: Token,
        interest: Interest,
        asked: Option<Side>,
    ) -> Result<(), Lost> {
        match self.narrow(fd, token, interest) {
            Err(Lost { error, watch }) if error.kind() == ErrorKind::NotFound => {
                let Some(mut watch) = watch else {
                    return Ok(());
                };
                let dead = watch.end_handles_but(asked);
                drop(dead);
                if asked.is_none() {
                    watch.file = None;
                }
                self.add_again(fd, watch)
            }
            changed => changed,
        }
    }

    /// Registers a watch anew. The old registration may live on in a duplicate of the descriptor,
    /// so this one has a token of its own.
    fn add_again(&self, fd: RawFd, mut watch: Watch) -> Result<(), Lost> {
        let interest = watch.interest();
        watch.registered = interest;
        let token = self
            .kernel
            .sources
            .borrow_mut()
            .insert(Source::Watch(watch));
        self.kernel
            .numbers
            .borrow_mut()
            .set(fd, token, Holder::Watch);
        self.with_poller(|poller| poller.add(fd, token, interest))
            .map_err(|error| self.lose(fd, token, error))
    }

    /// Tells the kernel a watch's interest.
    fn narrow(&self, fd: RawFd, token: Token, interest: Interest) -> Result<(), Lost> {
        self.with_poller(|poller| poller.modify(fd, token, interest))
            .map_err(|error| self.lose(fd, token, error))?;
        if let Some(Source::Watch(watch)) = self.kernel.sources.borrow_mut().get_mut(token) {
            watch.registered = interest;
        }
        Ok(())
    }

    /// The kernel does not watch the descriptor: neither does the loop, as asyncio has it.
    fn lose(&self, fd: RawFd, token: Token, error: io::Error) -> Lost {
        let watch = match self.forget(fd, token) {
            Some(Source::Watch(watch)) => Some(watch),
            _ => None,
        };
        Lost { error, watch }
    }

    /// Ends one side's watch and returns its handle.
    ///
    /// # Errors
    /// As `Lost::woken`.
    fn unwatch(
        &self,
        py: Python<'_>,
        fd: RawFd,
        token: Token,
        side: Side,
    ) -> PyResult<Option<HandleRef>> {
        let (removed, interest) = {
            let mut sources = self.kernel.sources.borrow_mut();
            let Some(Source::Watch(watch)) = sources.get_mut(token) else {
                return Ok(None);
            };
            (watch.side(side).take(), watch.interest())
        };
        if interest.is_empty() {
            drop(self.deregister(fd, token));
        } else if removed.is_some() {
            self.narrow_or_end(py, fd, token, interest)?;
        }
        Ok(removed)
    }

    /// Tells the kernel that less is wanted of a watch. One that the kernel has lost ends.
    ///
    /// # Errors
    /// As `Lost::woken`.
    pub(super) fn narrow_or_end(
        &self,
        py: Python<'_>,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> PyResult<()> {
        match self.narrow(fd, token, interest) {
            Ok(()) => Ok(()),
            Err(lost) => lost.woken(py).map(drop),
        }
    }

    /// The registration of a descriptor, or of a file object that was closed meanwhile.
    fn find_watch(&self, fd: Option<RawFd>, file: &Bound<'_, PyAny>) -> Option<(RawFd, Token)> {
        if let Some(fd) = fd {
            return self
                .kernel
                .numbers
                .borrow()
                .watch(fd)
                .map(|token| (fd, token));
        }
        self.kernel
            .sources
            .borrow()
            .iter()
            .find_map(|(token, source)| match source {
                Source::Watch(watch) if watch.file.as_ref().is_some_and(|own| own.is(file)) => {
                    Some((watch.fd, token))
                }
                _ => None,
            })
    }
}
