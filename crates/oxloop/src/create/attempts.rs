//! Connection attempts to the addresses of a host: one after the other, or staggered (RFC 8305).
//!
//! Each staggered attempt is a task. The next one starts when the previous one has failed or
//! `happy_eyeballs_delay` has passed. The first that connects wins; the others are cancelled and
//! waited for, so that none outlives the call.
//!
//! Invariants:
//! - a socket has one owner at any time, an `OpenSocket` or the result of an attempt's task. It is
//!   closed once: by the attempt if that failed or was cancelled, or by the race if another attempt
//!   won.

use super::happy_eyeballs;
use super::transport::OpenSocket;
use crate::dns::is_resolved;
use crate::error::caught;
use crate::event_loop::EventLoop;
use crate::py::imports;
use crate::sock::connect_made;
use pyo3::exceptions::{PyOSError, PyTimeoutError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PySlice};
use std::cell::RefCell;
use std::rc::Rc;

/// How `create_connection` goes from one address to the next.
pub(super) struct NextAddress {
    pub(super) happy_eyeballs_delay: Option<Py<PyAny>>,
    pub(super) interleave: Option<Py<PyAny>>,
    pub(super) all_errors: bool,
}

/// The addresses to try, and what went wrong so far, by attempt.
pub(super) struct Attempts {
    pub(super) remote: Vec<Py<PyAny>>,
    local: Rc<Option<Vec<Py<PyAny>>>>,
    errors: Errors,
}

/// The exceptions of one attempt or of all, in the order of the attempts.
#[derive(Clone, Default)]
struct Errors(Rc<RefCell<Vec<Vec<PyErr>>>>);

impl Errors {
    fn begin(&self) -> usize {
        let mut all = self.0.borrow_mut();
        all.push(Vec::new());
        all.len() - 1
    }

    fn add(&self, attempt: usize, error: PyErr) {
        self.0.borrow_mut()[attempt].push(error);
    }

    fn take(&self) -> Vec<PyErr> {
        self.0.take().into_iter().flatten().collect()
    }
}

impl Attempts {
    /// # Errors
    /// What is no list of address infos.
    pub(super) fn new(
        py: Python<'_>,
        next: &NextAddress,
        remote: &Py<PyAny>,
        local: Option<&Py<PyAny>>,
    ) -> PyResult<Self> {
        let mut remote = infos(remote.bind(py))?;
        let ahead = match (&next.interleave, &next.happy_eyeballs_delay) {
            (Some(count), _) if count.bind(py).is_truthy()? => {
                Some(count_ahead(count.bind(py), remote.len())?)
            }
            (None, Some(_)) => Some(0),
            _ => None,
        };
        if let Some(ahead) = ahead {
            remote = interleaved(py, remote, ahead)?;
        }
        Ok(Self {
            remote,
            local: Rc::new(local.map(|local| infos(local.bind(py))).transpose()?),
            errors: Errors::default(),
        })
    }

    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// The exception for all attempts; what the task throws in.
    pub(super) async fn connect(
        self,
        this: &Py<EventLoop>,
        next: &NextAddress,
    ) -> PyResult<OpenSocket> {
        let connected = match &next.happy_eyeballs_delay {
            None => self.in_turn(this).await?,
            Some(delay) => happy_eyeballs::staggered(this, &self, delay).await?,
        };
        match connected {
            Some(sock) => Ok(sock),
            None => Err(Python::attach(|py| {
                failure(py, self.errors.take(), next.all_errors).unwrap_or_else(|error| error)
            })),
        }
    }

    async fn in_turn(&self, this: &Py<EventLoop>) -> PyResult<Option<OpenSocket>> {
        for index in 0..self.remote.len() {
            match self.attempt(index).connect(this).await {
                Ok(sock) => return Ok(Some(sock)),
                Err(error) if Python::attach(|py| error.is_instance_of::<PyOSError>(py)) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    pub(super) fn attempt(&self, index: usize) -> Attempt {
        Attempt {
            info: Python::attach(|py| self.remote[index].clone_ref(py)),
            local: Rc::clone(&self.local),
            errors: self.errors.clone(),
        }
    }
}

/// An attempt at one address.
pub(super) struct Attempt {
    info: Py<PyAny>,
    local: Rc<Option<Vec<Py<PyAny>>>>,
    errors: Errors,
}

impl Attempt {
    /// # Errors
    /// What the task throws in, and the attempt's own exception, which is noted too.
    pub(super) async fn connect(self, this: &Py<EventLoop>) -> PyResult<OpenSocket> {
        let number = self.errors.begin();
        let local = self.local.as_ref().as_deref();
        let note = |error| self.errors.add(number, error);
        let outcome = connect_one(this, &self.info, local, note).await;
        if let Err(error) = &outcome {
            Python::attach(|py| {
                if error.is_instance_of::<PyOSError>(py) {
                    self.errors.add(number, error.clone_ref(py));
                }
            });
        }
        outcome
    }
}

fn infos(infos: &Bound<'_, PyAny>) -> PyResult<Vec<Py<PyAny>>> {
    infos
        .try_iter()?
        .map(|info| info.map(Bound::unbind))
        .collect()
}

/// How many addresses of the first family, of at most `most`, come before the families alternate.
///
/// # Errors
/// What Python raises for a number that cannot be compared, or end a slice.
fn count_ahead(count: &Bound<'_, PyAny>, most: usize) -> PyResult<usize> {
    let py = count.py();
    if !count.gt(1)? {
        return Ok(0);
    }
    let slice = py.get_type::<PySlice>();
    let slice = slice.call1((py.None(), count.sub(1)?, py.None()))?;
    let indices = slice.call_method1(intern!(py, "indices"), (most,))?;
    indices.get_item(1)?.extract()
}

/// Alternates between the families, after the first `ahead` addresses of the first family.
fn interleaved(py: Python<'_>, infos: Vec<Py<PyAny>>, ahead: usize) -> PyResult<Vec<Py<PyAny>>> {
    let mut families: Vec<(Bound<'_, PyAny>, Vec<Py<PyAny>>)> = Vec::new();
    for info in infos {
        let family = info.bind(py).get_item(0)?;
        let mut known = None;
        for (index, (other, _)) in families.iter().enumerate() {
            if other.eq(&family)? {
                known = Some(index);
            }
        }
        match known {
            Some(index) => families[index].1.push(info),
            None => families.push((family, vec![info])),
        }
    }
    let mut queues: Vec<_> = families
        .into_iter()
        .map(|(_, infos)| infos.into_iter())
        .collect();
    let mut ordered: Vec<Py<PyAny>> = queues
        .first_mut()
        .map_or_else(Vec::new, |first| first.take(ahead).collect());
    loop {
        let round: Vec<_> = queues.iter_mut().filter_map(Iterator::next).collect();
        if round.is_empty() {
            return Ok(ordered);
        }
        ordered.extend(round);
    }
}

/// Makes, binds and connects one socket. `note` gets the errors of the local addresses.
async fn connect_one(
    this: &Py<EventLoop>,
    info: &Py<PyAny>,
    local: Option<&[Py<PyAny>]>,
    note: impl FnMut(PyErr),
) -> PyResult<OpenSocket> {
    let opened = Python::attach(|py| open(info.bind(py), local, note))?;
    let OpenedSocket {
        sock,
        address,
        resolved,
    } = opened;
    connect_made(this, sock.object(), address, resolved).await?;
    Ok(sock)
}

/// A socket and where it is to be connected to.
struct OpenedSocket {
    sock: OpenSocket,
    address: Py<PyAny>,
    resolved: bool,
}

fn open(
    info: &Bound<'_, PyAny>,
    local: Option<&[Py<PyAny>]>,
    note: impl FnMut(PyErr),
) -> PyResult<OpenedSocket> {
    let py = info.py();
    type Info<'py> = (
        Bound<'py, PyAny>,
        Bound<'py, PyAny>,
        Bound<'py, PyAny>,
        Bound<'py, PyAny>,
        Bound<'py, PyAny>,
    );
    let (family, kind, proto, _name, address): Info<'_> = info.extract()?;
    let sock = OpenSocket::made(socket(&family, &kind, &proto)?.unbind());
    if let Some(local) = local {
        bind(sock.object().bind(py), &family, local, note)?;
    }
    Ok(OpenedSocket {
        sock,
        resolved: is_resolved(&family, &address),
        address: address.unbind(),
    })
}

/// A non-blocking socket, made by `socket.socket` as it is now: programs replace that class.
fn socket<'py>(
    family: &Bound<'py, PyAny>,
    kind: &Bound<'py, PyAny>,
    proto: &Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let py = family.py();
    let class = imports::socket(py)?.getattr(intern!(py, "socket"))?;
    let kwargs = PyDict::new(py);
    kwargs.set_item(intern!(py, "family"), family)?;
    kwargs.set_item(intern!(py, "type"), kind)?;
    kwargs.set_item(intern!(py, "proto"), proto)?;
    let sock = class.call((), Some(&kwargs))?;
    sock.call_method1(intern!(py, "setblocking"), (false,))?;
    Ok(sock)
}

/// Binds to the first local address of the family that can be bound.
fn bind(
    sock: &Bound<'_, PyAny>,
    family: &Bound<'_, PyAny>,
    local: &[Py<PyAny>],
    mut note: impl FnMut(PyErr),
) -> PyResult<()> {
    let py = sock.py();
    let mut last = None;
    for info in local {
        let info = info.bind(py);
        if info.get_item(0)?.ne(family)? {
            continue;
        }
        let address = info.get_item(4)?;
        match sock.call_method1(intern!(py, "bind"), (&address,)) {
            Ok(_) => {
                last.into_iter().for_each(note);
                return Ok(());
            }
            Err(error) if error.is_instance_of::<PyOSError>(py) => {
                let error = bind_error(py, &error, &address)?;
                last.replace(error).into_iter().for_each(&mut note);
            }
            Err(error) => return Err(error),
        }
    }
    Err(match last {
        Some(error) => error,
        None => PyOSError::new_err(format!(
            "no matching local address with family={} found",
            family.repr()?
        )),
    })
}

/// asyncio's wording of an address that cannot be bound.
///
/// # Errors
/// What the exception's attributes or the address's `repr` raise.
pub(super) fn bind_error(
    py: Python<'_>,
    error: &PyErr,
    address: &Bound<'_, PyAny>,
) -> PyResult<PyErr> {
    let value = error.value(py);
    // Since 3.13 with the errno in the text.
    let text = if cfg!(Py_3_13) {
        value.str()?.into_any()
    } else {
        value.getattr(intern!(py, "strerror"))?.str()?.into_any()
    };
    let text = format!(
        "error while attempting to bind on address {}: {}",
        address.repr()?,
        text.call_method0(intern!(py, "lower"))?
    );
    let errno = value.getattr(intern!(py, "errno"))?.unbind();
    Ok(PyOSError::new_err((errno, text)))
}

/// The exception for a host of which no address answered.
fn failure(py: Python<'_>, errors: Vec<PyErr>, all: bool) -> PyResult<PyErr> {
    if all {
        let errors = PyList::new(py, errors.iter().map(|error| caught(py, error)))?;
        let group = imports::exception_group(py)?;
        return Ok(PyErr::from_value(
            group.call1(("create_connection failed", errors))?,
        ));
    }
    let mut texts = Vec::with_capacity(errors.len());
    for error in &errors {
        texts.push(error.value(py).str()?.to_string());
    }
    let alike = texts.iter().all(|text| *text == texts[0]);
    match errors.into_iter().next() {
        None => Ok(PyTimeoutError::new_err("create_connection failed")),
        Some(first) if alike => Ok(first),
        Some(_) => Ok(PyOSError::new_err(format!(
            "Multiple exceptions: {}",
            texts.join(", ")
        ))),
    }
}
