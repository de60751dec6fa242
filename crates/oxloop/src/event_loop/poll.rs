//! Waiting for the kernel, and handing each event to its owner.
//!
//! The GIL is released only when the call may block. All events of one poll are dispatched under
//! one attach: a readable transport is read and its protocol called at once, a watched descriptor
//! queues its handle.
//!
//! Differs from asyncio: a transport's callbacks run within the poll, ahead of what is queued.

use super::confirm::{Plan, confirm};
use super::readiness::{Woken, wake};
use super::source::Source;
use super::turn::leaves_the_loop;
use super::{EventLoop, State};
use crate::error::os_error;
use crate::py::class::Ref;
use crate::py::handle::HandleRef;
use crate::server::Server;
use crate::transport::datagram::DatagramTransport;
use crate::transport::pipe::{ReadPipeTransport, WritePipeTransport};
use crate::transport::stream::StreamTransport;
use crate::transport::subprocess::SubprocessTransport;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use reactor::poller::{Event, Poller};
use std::os::fd::RawFd;
use std::time::Duration;

/// What an event leads to, owned, so that no borrow of the registry is alive when it runs.
enum Target {
    Notifier,
    Signals,
    Watch {
        reader: Option<HandleRef>,
        writer: Option<HandleRef>,
        woken: Woken,
    },
    Stream(Ref<StreamTransport>),
    Datagram(Ref<DatagramTransport>),
    Listener {
        server: Py<Server>,
        fd: RawFd,
    },
    ReadPipe(Ref<ReadPipeTransport>),
    WritePipe(Ref<WritePipeTransport>),
    Child(Ref<SubprocessTransport>),
}

/// Polls once and dispatches what is ready.
///
/// # Errors
/// KeyboardInterrupt, SystemExit, or what epoll_wait(2) refuses.
pub(super) fn poll(this: &Bound<'_, EventLoop>, timeout: Option<Duration>) -> PyResult<()> {
    let state = this.get().state(this.py());
    let plan = state.unconfirmed.borrow_mut().plan(timeout);
    match plan {
        Plan::Wait => return poll_once(this, state, timeout).map(drop),
        Plan::Ask => {
            if poll_once(this, state, Some(Duration::ZERO))? > 0 {
                return Ok(());
            }
        }
        Plan::Confirm => {}
    }
    confirm(this, state)?;
    // Who waited for a descriptor that is gone is ready to run.
    let ready = !state.ready.borrow().is_empty();
    let timeout = if ready { Some(Duration::ZERO) } else { timeout };
    poll_once(this, state, timeout).map(drop)
}

/// One call of epoll_wait(2); returns how many events it brought.
#[inline]
fn poll_once(
    this: &Bound<'_, EventLoop>,
    state: &State,
    timeout: Option<Duration>,
) -> PyResult<usize> {
    let py = this.py();
    let Some(mut poller) = state.poller.borrow_mut().take() else {
        return state.check_closed().map(|()| 0);
    };
    let waited = wait(py, state, &mut poller, timeout);
    let mut events = state.events.take();
    if let Ok(count) = &waited {
        events.extend((0..*count).map(|index| poller.event(index)));
    }
    let interrupted = poller.interrupted();
    *state.poller.borrow_mut() = Some(poller);
    waited.map_err(|error| os_error(&error))?;
    if interrupted {
        py.check_signals()?;
    }
    state.in_callback.set(true);
    let outcome = events.iter().try_for_each(|event| {
        let outcome = dispatch(this, state, *event);
        super::turn::flush_writes(py, state);
        outcome.or_else(|error| report(this, error))
    });
    state.in_callback.set(false);
    state.drop_ghosts(py);
    let count = events.len();
    events.clear();
    *state.events.borrow_mut() = events;
    outcome.map(|()| count)
}

fn wait(
    py: Python<'_>,
    state: &State,
    poller: &mut Poller,
    timeout: Option<Duration>,
) -> std::io::Result<usize> {
    if timeout == Some(Duration::ZERO) {
        return poller.wait(timeout);
    }
    state.waiting.set(true);
    let waited = py.detach(|| poller.wait(timeout));
    state.waiting.set(false);
    waited
}

fn dispatch(this: &Bound<'_, EventLoop>, state: &State, event: Event) -> PyResult<()> {
    let py = this.py();
    let Some(target) = target(py, state, event) else {
        return Ok(());
    };
    match target {
        Target::Stream(transport) => {
            let outcome = transport.this(py).on_event(event);
            transport.release(py);
            outcome
        }
        Target::Datagram(transport) => {
            let outcome = transport.this(py).on_event(event);
            transport.release(py);
            outcome
        }
        Target::Watch {
            reader,
            writer,
            woken,
        } => {
            let handles = reader.into_iter().chain(writer);
            handles.for_each(|handle| state.enqueue(handle));
            state.trim(event, &woken);
            wake(py, woken)
        }
        Target::Listener { server, fd } => crate::server::on_readable(server.bind(py), fd),
        Target::ReadPipe(pipe) => pipe.this(py).on_event(event),
        Target::WritePipe(pipe) => pipe.this(py).on_event(event),
        Target::Child(transport) => transport.this(py).on_exit_event(),
        Target::Notifier => {
            if let Some(notifier) = &*state.notifier.borrow() {
                notifier.clear();
            }
            Ok(())
        }
        Target::Signals => super::signals::on_readable(this),
    }
}

#[inline]
fn target(py: Python<'_>, state: &State, event: Event) -> Option<Target> {
    let mut sources = state.sources.borrow_mut();
    let Some(source) = sources.get_mut(event.token) else {
        // Its registration ended earlier in this very poll, or else the kernel has a ghost.
        drop(sources);
        state.note_stale(event.token);
        return None;
    };
    Some(match source {
        source @ (Source::Stream(_) | Source::IdleStream(_)) => Target::Stream(source.stream(py)?),
        source @ (Source::Datagram(_) | Source::IdleDatagram(_)) => {
            Target::Datagram(source.datagram(py)?)
        }
        Source::Watch(watch) => Target::Watch {
            reader: watch.ready_reader(py, event),
            writer: watch.ready_writer(py, event),
            woken: watch.take_waiters(event),
        },
        Source::Listener { server, fd } => Target::Listener {
            server: server.clone_ref(py),
            fd: *fd,
        },
        Source::ReadPipe(pipe) => Target::ReadPipe(pipe.clone_ref(py)),
        Source::WritePipe(pipe) => Target::WritePipe(pipe.clone_ref(py)),
        Source::Child(transport) => Target::Child(transport.clone_ref(py)),
        Source::Notifier => Target::Notifier,
        Source::Signals => Target::Signals,
    })
}

/// What a transport's callback raised where nobody else can take it, such as `connection_lost`.
#[cold]
fn report(this: &Bound<'_, EventLoop>, error: PyErr) -> PyResult<()> {
    let py = this.py();
    if leaves_the_loop(py, &error) {
        return Err(error);
    }
    let context = PyDict::new(py);
    context.set_item("message", "Exception in callback of the event loop")?;
    context.set_item("exception", error.into_value(py))?;
    super::exceptions::report(this, &context)
}
