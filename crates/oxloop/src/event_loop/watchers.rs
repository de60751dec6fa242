//! `add_reader`, `add_writer` and their removal: level-triggered callbacks on any descriptor.
//!
//! Invariants:
//! - a descriptor has at most one registration; it belongs to a watcher or to a transport.
//! - a registration ends in the kernel when its last callback is removed, so that a descriptor that
//!   is closed and made anew is never mistaken for the old one. (One that served `sock_recv` and
//!   its like stays for the next call, see `readiness`.)
//!
//! Cost: epoll_ctl(2) once for each change of interest, as asyncio has it.

use super::readiness::Waiter;
use super::source::Source;
use super::{EventLoop, LoopThis, State};
use crate::error::os_error;
use crate::py::args::Args;
use crate::py::class::{Visit, VisitStopped};
use crate::py::handle::HandleRef;
use crate::py::method::{Methods, OfPyClass};
use crate::py::schedule::Scheduled;
use crate::transport::stream::StreamTransport;
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyInt;
use reactor::poller::{Event, Interest, Poller};
use reactor::token::Token;
use std::io::{self, ErrorKind};
use std::os::fd::RawFd;

/// Which registration a descriptor has, by its number.
#[derive(Default)]
pub(super) struct Watched(Vec<Option<Entry>>);

#[derive(Clone, Copy)]
struct Entry {
    token: Token,
    /// A transport's own registration, which `add_reader` must leave alone.
    transport: bool,
}

impl Watched {
    /// The token of a descriptor that is no transport's.
    pub(super) fn token(&self, fd: RawFd) -> Option<Token> {
        self.get(fd)
            .filter(|entry| !entry.transport)
            .map(|entry| entry.token)
    }

    pub(super) fn set_token(&mut self, fd: RawFd, token: Token) {
        let transport = false;
        self.set(fd, Some(Entry { token, transport }));
    }

    fn get(&self, fd: RawFd) -> Option<Entry> {
        usize::try_from(fd)
            .ok()
            .and_then(|index| self.0.get(index).copied().flatten())
    }

    fn set(&mut self, fd: RawFd, entry: Option<Entry>) {
        let Ok(index) = usize::try_from(fd) else {
            return;
        };
        if index >= self.0.len() {
            self.0.resize(index + 1, None);
        }
        self.0[index] = entry;
    }
}

/// The callbacks on one descriptor.
pub(crate) struct Watch {
    pub(super) fd: RawFd,
    /// The object that was given instead of a number: it is still known when it is closed.
    file: Option<Py<PyAny>>,
    reader: Option<HandleRef>,
    writer: Option<HandleRef>,
    /// Coroutines that wait for one event.
    pub(super) waiters: Vec<Waiter>,
    /// What the kernel was told last.
    pub(super) registered: Interest,
    /// Listed to be confirmed before the loop sleeps, see `confirm`.
    pub(super) unconfirmed: bool,
}

impl Watch {
    pub(super) const fn new(fd: RawFd) -> Self {
        Self {
            fd,
            file: None,
            reader: None,
            writer: None,
            waiters: Vec::new(),
            registered: Interest::NONE,
            unconfirmed: false,
        }
    }

    /// What somebody waits for.
    pub(super) fn interest(&self) -> Interest {
        let handles = [
            self.reader.as_ref().map(|_| Interest::READABLE),
            self.writer.as_ref().map(|_| Interest::WRITABLE),
        ];
        let waiters = self.waiters.iter().map(|waiter| waiter.side.interest());
        let all = handles.into_iter().flatten().chain(waiters);
        all.fold(Interest::NONE, Interest::with)
    }

    pub(super) fn ready_reader(&self, py: Python<'_>, event: Event) -> Option<HandleRef> {
        ready(py, event.readable, self.reader.as_ref())
    }

    pub(super) fn ready_writer(&self, py: Python<'_>, event: Event) -> Option<HandleRef> {
        ready(py, event.writable, self.writer.as_ref())
    }

    pub(super) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.option(self.file.as_ref())?;
        for waiter in &self.waiters {
            visit.object(&waiter.future)?;
        }
        for handle in [&self.reader, &self.writer].into_iter().flatten() {
            handle.traverse_queued(visit)?;
        }
        Ok(())
    }

    const fn side(&mut self, side: Side) -> &mut Option<HandleRef> {
        match side {
            Side::Reader => &mut self.reader,
            Side::Writer => &mut self.writer,
        }
    }
}

fn ready(py: Python<'_>, ready: bool, handle: Option<&HandleRef>) -> Option<HandleRef> {
    handle
        .filter(|handle| ready && !handle.is_cancelled())
        .map(|handle| handle.clone_ref(py))
}

#[derive(Clone, Copy)]
pub(super) enum Side {
    Reader,
    Writer,
}

impl Side {
    pub(super) const fn interest(self) -> Interest {
        match self {
            Self::Reader => Interest::READABLE,
            Self::Writer => Interest::WRITABLE,
        }
    }

    pub(super) const fn is_ready(self, event: Event) -> bool {
        match self {
            Self::Reader => event.readable,
            Self::Writer => event.writable,
        }
    }
}

impl State {
    /// Registers a descriptor of the loop's own.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; RuntimeError on a closed loop.
    pub(crate) fn register(
        &self,
        fd: RawFd,
        source: Source,
        interest: Interest,
    ) -> PyResult<Token> {
        self.check_closed()?;
        let token = self.sources.borrow_mut().insert(source);
        let added = self.with_poller(|poller| add_or_modify(poller, fd, token, interest));
        if let Err(error) = added {
            let source = self.sources.borrow_mut().remove(token);
            drop(source);
            return Err(os_error(&error));
        }
        Ok(token)
    }

    /// Registers a transport's descriptor, which `add_reader` then refuses.
    ///
    /// # Errors
    /// As `register`.
    pub(crate) fn register_transport(
        &self,
        fd: RawFd,
        source: Source,
        interest: Interest,
    ) -> PyResult<Token> {
        let token = self.register(fd, source, interest)?;
        let transport = true;
        self.watched
            .borrow_mut()
            .set(fd, Some(Entry { token, transport }));
        Ok(token)
    }

    /// True if the descriptor's number has a registration.
    pub(crate) fn is_registered(&self, fd: RawFd) -> bool {
        self.watched.borrow().get(fd).is_some()
    }

    /// Takes a transport in, whose descriptor `add_reader` then refuses. The kernel hears of it
    /// when the transport asks for an interest (`resume_registration`).
    pub(crate) fn adopt_transport(&self, fd: RawFd, source: Source) -> Token {
        // What watched the descriptor before, a registration kept for `sock_recv` above all.
        let watch = self.watched.borrow().token(fd);
        drop(watch.and_then(|token| self.deregister(fd, token)));
        let token = self.sources.borrow_mut().insert(source);
        self.watched.borrow_mut().set(
            fd,
            Some(Entry {
                token,
                transport: true,
            }),
        );
        token
    }

    /// Keeps an adopted transport alive, or leaves that to others; its token stays valid.
    pub(crate) fn hold_transport(&self, token: Token, source: Source) {
        let old = {
            let mut sources = self.sources.borrow_mut();
            sources
                .get_mut(token)
                .map(|place| std::mem::replace(place, source))
        };
        drop(old);
    }

    /// The open stream transports that `wanted` picks.
    pub(crate) fn stream_transports(
        &self,
        py: Python<'_>,
        wanted: impl Fn(&StreamTransport) -> bool,
    ) -> Vec<Py<PyAny>> {
        let sources = self.sources.borrow();
        let transports = sources.iter().filter_map(|(_, source)| source.stream(py));
        let transports = transports.filter(|transport| wanted(transport));
        let transports = transports.map(|transport| transport.as_object().clone_ref(py));
        transports.collect()
    }

    /// Changes the interest of a registration; a failure shows up at the next event.
    pub(crate) fn set_interest(&self, fd: RawFd, token: Token, interest: Interest) {
        // The descriptor is open and registered while its owner has the token.
        let _changed = self.with_poller(|poller| poller.modify(fd, token, interest));
    }

    /// Takes a registered descriptor out of the poller; the token stays valid.
    pub(crate) fn suspend_registration(&self, fd: RawFd) {
        let _suspended = self.with_poller(|poller| poller.delete(fd));
    }

    /// Puts a suspended descriptor back.
    ///
    /// # Errors
    /// What epoll_ctl(2) says.
    pub(crate) fn resume_registration(
        &self,
        fd: RawFd,
        token: Token,
        interest: Interest,
    ) -> PyResult<()> {
        self.with_poller(|poller| add_or_modify(poller, fd, token, interest))
            .map_err(|error| os_error(&error))
    }

    /// Ends a registration and gives its source back, to be dropped outside of any borrow.
    pub(crate) fn deregister(&self, fd: RawFd, token: Token) -> Option<Source> {
        let source = self.forget(fd, token)?;
        // ENOENT and EBADF: the kernel ended it when the descriptor was closed.
        let _ended = self.with_poller(|poller| poller.delete(fd));
        Some(source)
    }

    /// Ends a registration that the kernel does not have (any more).
    pub(crate) fn forget(&self, fd: RawFd, token: Token) -> Option<Source> {
        {
            let mut watched = self.watched.borrow_mut();
            if watched.get(fd).is_some_and(|entry| entry.token == token) {
                watched.set(fd, None);
            }
        }
        self.sources.borrow_mut().remove(token)
    }

    pub(super) fn with_poller<R>(
        &self,
        body: impl FnOnce(&Poller) -> io::Result<R>,
    ) -> io::Result<R> {
        match &*self.poller.borrow() {
            Some(poller) => body(poller),
            None => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }
}

/// Adds a registration, or takes over one that nobody ended, of a descriptor closed elsewhere.
fn add_or_modify(poller: &Poller, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
    match poller.add(fd, token, interest) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            poller.modify(fd, token, interest)
        }
        added => added,
    }
}

pub(super) fn add_methods(methods: &mut Methods<OfPyClass<EventLoop>>) {
    methods.method(
        c"add_reader",
        |this, args| this.add_watcher(args, Side::Reader, "add_reader"),
        c"Call callback(*args) whenever fd is readable.",
    );
    methods.method(
        c"add_writer",
        |this, args| this.add_watcher(args, Side::Writer, "add_writer"),
        c"Call callback(*args) whenever fd is writable.",
    );
    methods.method(
        c"remove_reader",
        |this, args| this.remove_watcher(&*args.one("remove_reader", "fd")?, Side::Reader),
        c"Stop watching fd for reading; True if it was watched.",
    );
    methods.method(
        c"remove_writer",
        |this, args| this.remove_watcher(&*args.one("remove_writer", "fd")?, Side::Writer),
        c"Stop watching fd for writing; True if it was watched.",
    );
    methods.method(
        c"_ensure_fd_no_transport",
        |this, args| {
            let file = args.one("_ensure_fd_no_transport", "fd")?;
            this.ensure_no_transport(&file, descriptor(&file)?)?;
            this.none()
        },
        c"RuntimeError if fd belongs to a live transport.",
    );
}

/// The number behind an int or an object with fileno().
fn descriptor(file: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    if file.is_instance_of::<PyInt>() {
        return file.extract().map_err(|_error| invalid_file(file));
    }
    let number = file
        .call_method0("fileno")
        .and_then(|number| number.extract());
    number.map_err(|_error| invalid_file(file))
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

    fn add_watcher(
        &self,
        args: Args<'_, 'py>,
        side: Side,
        function: &'static str,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = self.py();
        let scheduled = Scheduled::parse(function, ["fd", "callback"], &args)?;
        let file = scheduled.leading[0];
        let fd = descriptor(&file)?;
        self.ensure_no_transport(&file, fd)?;
        self.loop_state().check_closed()?;
        if fd < 0 {
            return Err(PyValueError::new_err(format!(
                "Invalid file descriptor: {fd}"
            )));
        }
        let handle = scheduled.handle(self.object())?;
        handle.set_repeating();
        let replaced = self.loop_state().watch(fd, &file, side, handle)?;
        if let Some(replaced) = replaced {
            replaced.cancel(py);
            replaced.release_ref(py);
        }
        Ok(py.None().into_bound(py))
    }

    fn remove_watcher(&self, file: &Bound<'py, PyAny>, side: Side) -> PyResult<Bound<'py, PyAny>> {
        let (py, state) = (self.py(), self.loop_state());
        let fd = descriptor(file)?;
        self.ensure_no_transport(file, fd)?;
        let removed = if state.closed.get() {
            None
        } else {
            state.unwatch(fd, file, side)
        };
        let found = removed.is_some();
        if let Some(handle) = removed {
            handle.cancel(py);
            handle.release_ref(py);
        }
        Ok(found.into_pyobject(py)?.to_owned().into_any())
    }
}

impl State {
    /// # Errors
    /// RuntimeError if the descriptor belongs to a transport that is not closing.
    pub(super) fn ensure_no_transport(&self, file: &Bound<'_, PyAny>, fd: RawFd) -> PyResult<()> {
        let py = file.py();
        let Some(entry) = self.watched.borrow().get(fd) else {
            return Ok(());
        };
        if !entry.transport {
            return Ok(());
        }
        let transport = {
            let sources = self.sources.borrow();
            sources
                .get(entry.token)
                .and_then(|source| source.open_transport(py))
        };
        let Some(transport) = transport else {
            return Ok(());
        };
        Err(PyRuntimeError::new_err(format!(
            "File descriptor {} is used by transport {}",
            file.repr()?,
            transport.bind(py).repr()?
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
        let file = (!file.is_instance_of::<PyInt>()).then(|| file.clone().unbind());
        let token = self.watched.borrow().token(fd);
        let Some(token) = token else {
            let mut watch = Watch::new(fd);
            watch.file = file;
            *watch.side(side) = Some(handle);
            self.register_watch(watch)?;
            return Ok(None);
        };
        let (replaced, interest) = {
            let mut sources = self.sources.borrow_mut();
            let Some(Source::Watch(watch)) = sources.get_mut(token) else {
                unreachable!("invariant: a watched entry's token leads to its watch");
            };
            if watch.file.is_none() {
                watch.file = file;
            }
            let replaced = watch.side(side).replace(handle);
            (replaced, watch.interest())
        };
        self.rewatch(fd, token, interest)
            .map_err(|error| os_error(&error))?;
        Ok(replaced)
    }

    /// Registers a descriptor that nobody watches.
    ///
    /// # Errors
    /// What epoll_ctl(2) says; RuntimeError on a closed loop.
    pub(super) fn register_watch(&self, mut watch: Watch) -> PyResult<()> {
        let (fd, interest) = (watch.fd, watch.interest());
        watch.registered = interest;
        let token = self.register(fd, Source::Watch(watch), interest)?;
        self.watched.borrow_mut().set_token(fd, token);
        Ok(())
    }

    /// Tells the kernel the interest of a watch, whose registration it may have ended by itself.
    /// That the kernel does not know it means that the descriptor is another one now: its old
    /// registration may live on in a duplicate, so the new one gets a token of its own.
    pub(super) fn rewatch(&self, fd: RawFd, token: Token, interest: Interest) -> io::Result<()> {
        let token = match self.with_poller(|poller| poller.modify(fd, token, interest)) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let token = self.renew_token(fd, token);
                self.with_poller(|poller| poller.add(fd, token, interest))?;
                token
            }
            changed => changed.map(|()| token)?,
        };
        if let Some(Source::Watch(watch)) = self.sources.borrow_mut().get_mut(token) {
            watch.registered = interest;
        }
        Ok(())
    }

    fn renew_token(&self, fd: RawFd, token: Token) -> Token {
        let mut sources = self.sources.borrow_mut();
        let Some(source) = sources.remove(token) else {
            return token;
        };
        let token = sources.insert(source);
        self.watched.borrow_mut().set_token(fd, token);
        token
    }

    /// Ends one side's watch and returns its handle.
    pub(super) fn unwatch(
        &self,
        fd: RawFd,
        file: &Bound<'_, PyAny>,
        side: Side,
    ) -> Option<HandleRef> {
        let (fd, token) = self.find_watch(fd, file)?;
        let (removed, interest) = {
            let mut sources = self.sources.borrow_mut();
            let Some(Source::Watch(watch)) = sources.get_mut(token) else {
                return None;
            };
            (watch.side(side).take(), watch.interest())
        };
        if interest.is_empty() {
            drop(self.deregister(fd, token));
        } else if removed.is_some() {
            // A failure shows up at the next event.
            let _changed = self.rewatch(fd, token, interest);
        }
        removed
    }

    /// The registration of a descriptor, or of a file object that was closed meanwhile.
    fn find_watch(&self, fd: RawFd, file: &Bound<'_, PyAny>) -> Option<(RawFd, Token)> {
        if fd >= 0 {
            return self.watched.borrow().token(fd).map(|token| (fd, token));
        }
        self.sources
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
