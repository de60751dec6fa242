//! Checks for signals that have arrived, at the cost of one load.
//!
//! `PyErr_CheckSignals` costs five calls, and the loop has to check after each callback. CPython
//! itself reads one word between bytecodes, its *eval breaker*, which says whether anything waits
//! for the evaluation loop: a signal, a pending call, a request for the GIL, a collection. While it
//! is zero there is no signal. The word has no public name: up to 3.12 it is in the interpreter's
//! state, from 3.13 on in the thread's. `find_breaker` finds it once, because a pending call sets
//! it. If the search has no certain result, CPython is asked each time.
//!
//! Invariants:
//! - only the beginning of the struct is searched; both structs are larger than that.
//! - from 3.13 on, every signal sets the word of the main thread. Before, a signal whose C-level
//!   handler ran in another thread sets it only when the main thread takes the GIL again, as for
//!   CPython's own evaluation loop: a loop that does not release the GIL asks CPython itself from
//!   time to time.

use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::{c_int, c_void};
use std::ptr;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// How many words are searched: less than the size of the thread's state (or of the interpreter's,
/// which has more than 64 KiB).
const SEARCHED: usize = if cfg!(Py_3_13) { 280 } else { 2048 } / size_of::<u32>();
/// The bits of the word that count; from 3.13 on the higher bits hold an unrelated version number.
const EVENTS: u32 = 0xff;
/// Words that a pending call sets. In 3.11 there is a second one behind the breaker, which tells of
/// pending calls alone.
const SET_BY_CALL: usize = if cfg!(Py_3_12) { 1 } else { 2 };
/// Another thread may ask for the GIL just during the search.
const ATTEMPTS: usize = 3;

/// Which word of the struct is the breaker; `usize::MAX` while unknown.
static FOUND: AtomicUsize = AtomicUsize::new(usize::MAX);

static NEVER: AtomicU32 = AtomicU32::new(0);
static ALWAYS: AtomicU32 = AtomicU32::new(1);

/// Where CPython tells a thread that something waits for it.
#[derive(Clone, Copy)]
pub(crate) struct Breaker(&'static AtomicU32);

impl Breaker {
    /// Of a loop that does not run.
    pub(crate) const fn never() -> Self {
        Self(&NEVER)
    }

    /// That of the current thread, which is the only one to use it, as long as it lives.
    pub(crate) fn of_this_thread(py: Python<'_>, is_main: bool) -> Self {
        let index = FOUND.load(Ordering::Relaxed);
        if index >= SEARCHED {
            return Self(if is_main { &ALWAYS } else { &NEVER });
        }
        // SAFETY: the word lies within a struct that lives as long as the thread, which is the only
        // one to use the reference; it is aligned, and CPython changes it atomically.
        Self(unsafe { AtomicU32::from_ptr(state(py).add(index)) })
    }

    /// False if nothing waits.
    #[inline(always)]
    pub(crate) fn is_set(self) -> bool {
        self.0.load(Ordering::Relaxed) & EVENTS != 0
    }

    /// Serves what waits, as CPython does between bytecodes: handlers of signals and pending calls
    /// in the main thread, a collection, and threads that want the GIL. An exception that another
    /// thread sends (`PyThreadState_SetAsyncExc`) is left to the next Python code.
    ///
    /// # Errors
    /// What a handler or a pending call raises.
    #[inline(never)]
    pub(crate) fn serve(self, py: Python<'_>) -> PyResult<()> {
        py.check_signals()?;
        let is_known = !ptr::eq(self.0, &raw const ALWAYS);
        if is_known && self.is_set() {
            make_pending_calls(py)?;
            // Lets another thread have the GIL, if one asks for it.
            py.detach(|| ());
        }
        Ok(())
    }
}

fn make_pending_calls(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached.
    if unsafe { ffi::Py_MakePendingCalls() } == 0 {
        return Ok(());
    }
    Err(PyErr::fetch(py))
}

/// The struct that has the word, for the current thread.
fn state(_py: Python<'_>) -> *mut u32 {
    // SAFETY: the thread is attached.
    #[cfg(Py_3_13)]
    return unsafe { ffi::PyThreadState_Get() }.cast();
    // SAFETY: the thread is attached.
    #[cfg(not(Py_3_13))]
    return unsafe { ffi::PyInterpreterState_Get() }.cast();
}

/// Looks for the breaker, unless it is known. Called at import, and before a loop runs in the main
/// thread: it is not found in others.
///
/// # Errors
/// What the program's own pending calls and signal handlers raise, which run here.
pub(crate) fn find_breaker(py: Python<'_>) -> PyResult<()> {
    for _ in 0..ATTEMPTS {
        if FOUND.load(Ordering::Relaxed) < SEARCHED {
            break;
        }
        if let Some(index) = search(py)? {
            FOUND.store(index, Ordering::Relaxed);
            break;
        }
        py.detach(|| ());
    }
    Ok(())
}

fn search(py: Python<'_>) -> PyResult<Option<usize>> {
    extern "C" fn nothing(_: *mut c_void) -> c_int {
        0
    }
    let before = words(py);
    // SAFETY: may be called at any time; the function lives as long as the process. Where there are
    // too many calls already, nothing changes, and nothing is found.
    let _added = unsafe { ffi::Py_AddPendingCall(Some(nothing), ptr::null_mut()) };
    let during = words(py);
    make_pending_calls(py)?;
    let after = words(py);
    let mut set = (0..SEARCHED).filter(|&index| {
        let [before, during, after] = [before, during, after].map(|words| words[index]);
        before & EVENTS == 0
            && during & EVENTS != 0
            && before & !EVENTS == during & !EVENTS
            && after == before
    });
    let first = set.next();
    Ok(first.filter(|_| set.count() + 1 == SET_BY_CALL))
}

fn words(py: Python<'_>) -> [u32; SEARCHED] {
    let state = state(py);
    // SAFETY: the part that is searched lies within the struct, which lives.
    std::array::from_fn(|index| unsafe { state.add(index).read_volatile() })
}
