//! The process's wake-up descriptor, and which loop gets a signal.
//!
//! CPython's C-level handler writes the number of every signal to the descriptor that
//! `signal.set_wakeup_fd` was given last. A process has one such descriptor and may have many
//! loops. So the loops share a pipe. Whoever reads it passes each number to the loop that has a
//! handler for it, or else writes it to the descriptor that the program had set before.
//!
//! Invariants:
//! - the pipe is the wake-up descriptor while a loop runs in the main thread or a living loop has
//!   handlers. Afterwards the previous descriptor is restored, unless somebody else has set
//!   another.
//! - the pipe is open as long as it is installed: CPython never keeps the number of a closed
//!   descriptor.
//! - the child of a fork makes a pipe of its own: its signals never reach the parent.
//! - a number that did not fit into the pipe is not lost: CPython also calls the Python-level
//!   handler (`_signal_arrived`), once for any count of them.
//! - the lock is never held across a call into Python, whose signal handlers may call this module.
//!
//! Cost: a read(2) when a signal arrived; nothing otherwise.
//! Differs from asyncio, where the descriptor belongs to the loop that set it last: signals for
//! other loops are lost, and so are signals that do not fit.

use super::{EventLoop, signals};
use crate::py::imports;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{IntoPyDict, PyWeakrefReference};
use reactor::socket;
use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

/// Numbers of one read(2).
const READ_MOST: usize = 512;
/// No pipe is smaller than a page.
const PIPE_LEAST: usize = 4096;

/// The pipe, which lives while a loop watches it or CPython writes to it.
pub(super) struct Channel {
    read: OwnedFd,
    write: OwnedFd,
    /// The process that it belongs to, as `fork` counts them.
    generation: u32,
}

impl Channel {
    /// The pipe of this process, made if there is none.
    ///
    /// # Errors
    /// What pipe2(2) refuses.
    pub(super) fn current() -> io::Result<Arc<Self>> {
        let mut process = lock();
        if let Some(channel) = process.channel() {
            return Ok(channel);
        }
        let (read, write) = socket::pipe()?;
        let generation = super::fork::generation();
        let channel = Arc::new(Self {
            read,
            write,
            generation,
        });
        process.channel = Arc::downgrade(&channel);
        Ok(channel)
    }

    /// The end that loops watch.
    pub(super) fn readable(&self) -> RawFd {
        self.read.as_raw_fd()
    }
}

type WeakLoop = Py<PyWeakrefReference>;

/// State that a process has once.
struct Process {
    channel: Weak<Channel>,
    /// The pipe, while it is the wake-up descriptor.
    installed: Option<Arc<Channel>>,
    /// The loops that run in the main thread: more than one if a callback runs another loop.
    running: Vec<WeakLoop>,
    /// The loop that added the latest handler for a signal.
    owners: BTreeMap<i32, WeakLoop>,
    /// The signals that the pipe may have had no room for, as bits from number 1 on.
    lost: u64,
}

static PROCESS: Mutex<Process> = Mutex::new(Process {
    channel: Weak::new(),
    installed: None,
    running: Vec::new(),
    owners: BTreeMap::new(),
    lost: 0,
});

/// The program's own descriptor, which was there before the pipe, or -1.
static PREVIOUS: AtomicI32 = AtomicI32::new(-1);

fn lock() -> MutexGuard<'static, Process> {
    PROCESS.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Process {
    fn channel(&self) -> Option<Arc<Channel>> {
        let channel = self.channel.upgrade()?;
        (channel.generation == super::fork::generation()).then_some(channel)
    }
}

/// `signal.set_wakeup_fd`, which only the main thread may call.
fn set_wakeup_fd(py: Python<'_>, fd: RawFd, warn_on_full_buffer: bool) -> PyResult<RawFd> {
    let kwargs = [("warn_on_full_buffer", warn_on_full_buffer)].into_py_dict(py)?;
    imports::signal(py)?
        .call_method(intern!(py, "set_wakeup_fd"), (fd,), Some(&kwargs))?
        .extract()
}

/// Makes the pipe the wake-up descriptor.
///
/// # Errors
/// ValueError outside of the main thread.
pub(super) fn install(py: Python<'_>, channel: &Arc<Channel>) -> PyResult<()> {
    let ours = channel.write.as_raw_fd();
    let found = set_wakeup_fd(py, ours, false).inspect_err(|_| {
        // If it had its effect all the same, the pipe must not stay there.
        let _undone = restore(py, -1, ours);
    })?;
    if found != ours {
        PREVIOUS.store(found, Ordering::Relaxed);
    }
    let before = lock().installed.replace(Arc::clone(channel));
    drop(before);
    Ok(())
}

/// Gives the wake-up descriptor back if no loop needs it. Main thread only.
///
/// # Errors
/// What `signal.set_wakeup_fd` raises.
pub(super) fn release(py: Python<'_>) -> PyResult<()> {
    if is_needed(py) {
        return Ok(());
    }
    let Some(channel) = lock().installed.take() else {
        return Ok(());
    };
    let previous = PREVIOUS.load(Ordering::Relaxed);
    if let Err(error) = restore(py, previous, channel.write.as_raw_fd()) {
        lock().installed = Some(channel);
        return Err(error);
    }
    PREVIOUS.store(-1, Ordering::Relaxed);
    // What arrived until just now.
    channel.drain(py, previous);
    Ok(())
}

fn is_needed(py: Python<'_>) -> bool {
    let owners: Vec<WeakLoop> = {
        let process = lock();
        if !process.running.is_empty() {
            return true;
        }
        process.owners.values().map(|it| it.clone_ref(py)).collect()
    };
    owners
        .iter()
        .filter_map(|weak| alive(weak.bind(py)))
        .any(|owner| owner.get().state(py).signals.borrow().has_handlers())
}

/// Puts `previous` back, or none if it is closed; not if somebody else has put theirs meanwhile.
fn restore(py: Python<'_>, previous: RawFd, ours: RawFd) -> PyResult<()> {
    let found = set_wakeup_fd(py, previous, true).or_else(|error| {
        if error.is_instance_of::<PyValueError>(py) || error.is_instance_of::<PyOSError>(py) {
            return set_wakeup_fd(py, -1, true);
        }
        Err(error)
    })?;
    if found != ours {
        set_wakeup_fd(py, found, true)?;
    }
    Ok(())
}

fn alive<'py>(weak: &Bound<'py, PyWeakrefReference>) -> Option<Bound<'py, EventLoop>> {
    use pyo3::types::PyWeakrefMethods;
    weak.upgrade()?.cast_into::<EventLoop>().ok()
}

/// A loop begins to run in the main thread.
///
/// # Errors
/// MemoryError; what `signal.set_wakeup_fd` raises. The pipe may be installed then: see `run_ends`.
pub(super) fn run_begins(this: &Bound<'_, EventLoop>, channel: &Arc<Channel>) -> PyResult<()> {
    let weak = PyWeakrefReference::new(this)?.unbind();
    lock().running.push(weak);
    install(this.py(), channel)
}

/// A loop has stopped running in the main thread, or failed to begin.
///
/// # Errors
/// As `release`.
pub(super) fn run_ends(this: &Bound<'_, EventLoop>) -> PyResult<()> {
    let py = this.py();
    let ended = {
        let mut process = lock();
        let is_this = |weak: &WeakLoop| is_of(weak.bind(py), this);
        let index = process.running.iter().rposition(is_this);
        index.map(|index| process.running.remove(index))
    };
    drop(ended);
    release(py)
}

fn is_of(weak: &Bound<'_, PyWeakrefReference>, this: &Bound<'_, EventLoop>) -> bool {
    alive(weak).is_some_and(|own| own.is(this))
}

/// From now on the signal goes to this loop.
///
/// # Errors
/// MemoryError.
pub(super) fn own(this: &Bound<'_, EventLoop>, number: i32) -> PyResult<()> {
    let weak = PyWeakrefReference::new(this)?.unbind();
    let before = lock().owners.insert(number, weak);
    drop(before);
    Ok(())
}

/// The signal does not go to this loop any more.
pub(super) fn disown(this: &Bound<'_, EventLoop>, number: i32) {
    let py = this.py();
    let disowned = {
        let mut process = lock();
        let owner = process.owners.get(&number);
        let is_owner = owner.is_some_and(|weak| is_of(weak.bind(py), this));
        is_owner.then(|| process.owners.remove(&number))
    };
    drop(disowned);
}

/// True if the program set a wake-up descriptor of its own, to which signals are passed on.
pub(super) fn is_forwarding() -> bool {
    PREVIOUS.load(Ordering::Relaxed) >= 0
}

/// Passes the signals that arrived to their loops, or on to the program's descriptor.
pub(super) fn drain(py: Python<'_>) {
    let channel = lock().channel();
    if let Some(channel) = channel {
        channel.drain(py, PREVIOUS.load(Ordering::Relaxed));
    }
}

impl Channel {
    fn drain(&self, py: Python<'_>, previous: RawFd) {
        let mut numbers = [0_u8; READ_MOST];
        let (mut seen, mut total) = (0, 0);
        while let Ok(count @ 1..) = socket::read_into_slice(self.readable(), &mut numbers) {
            total += count;
            for number in numbers[..count].iter().copied().map(i32::from) {
                seen |= bit(number);
                deliver(py, number, previous);
            }
            if count < READ_MOST {
                break;
            }
        }
        if total == 0 {
            return;
        }
        let running: Vec<WeakLoop> = {
            let mut process = lock();
            process.lost &= !seen;
            if self.was_full(total) {
                process.lost |= !seen;
            }
            process.running.iter().map(|it| it.clone_ref(py)).collect()
        };
        // The main thread must run the Python-level handlers, and another thread may have taken
        // what would have woken it.
        for event_loop in running.iter().filter_map(|weak| alive(weak.bind(py))) {
            event_loop.get().state(py).wake();
        }
    }

    /// True if the pipe may have been full before `total` numbers were read from it.
    fn was_full(&self, total: usize) -> bool {
        let room = || socket::pipe_capacity(self.readable()).unwrap_or(PIPE_LEAST);
        total >= PIPE_LEAST && total >= room()
    }
}

fn bit(number: i32) -> u64 {
    u32::try_from(number - 1)
        .ok()
        .and_then(|place| 1_u64.checked_shl(place))
        .unwrap_or(0)
}

/// Hands one signal to its loop, or to the program's own descriptor.
fn deliver(py: Python<'_>, number: i32, previous: RawFd) {
    let owner = lock().owners.get(&number).map(|weak| weak.clone_ref(py));
    if let Some(event_loop) = owner.and_then(|weak| alive(weak.bind(py)))
        && signals::arrived(&event_loop, number)
    {
        return;
    }
    if previous >= 0 {
        // CPython too drops what its reader leaves no room for.
        let _written = socket::write(previous, &[number as u8]);
    }
}

/// The Python-level handler of every signal that a loop handles. The C-level one has written to
/// the pipe before, if there was room.
pub(super) fn python_handler(py: Python<'_>) -> PyResult<&Bound<'_, PyAny>> {
    #[pyfunction]
    fn _signal_arrived(py: Python<'_>, signum: i32, _frame: &Bound<'_, PyAny>) {
        drain(py);
        let lost = {
            let mut process = lock();
            let lost = process.lost & bit(signum);
            process.lost &= !lost;
            lost
        };
        if lost != 0 {
            deliver(py, signum, PREVIOUS.load(Ordering::Relaxed));
        }
    }
    static HANDLER: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let handler = HANDLER.get_or_try_init(py, || {
        Ok::<_, PyErr>(wrap_pyfunction!(_signal_arrived, py)?.into_any().unbind())
    })?;
    Ok(handler.bind(py))
}

/// In the child of a fork, once the wake-up descriptor is reset: nothing is installed any more.
pub(super) fn after_fork_in_child() {
    PREVIOUS.store(-1, Ordering::Relaxed);
    let (installed, running) = {
        let mut process = lock();
        process.lost = 0;
        (
            process.installed.take(),
            std::mem::take(&mut process.running),
        )
    };
    drop((installed, running));
}
