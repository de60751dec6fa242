//! pthread_sigmask(3): blocks signals in a thread, except those that a crash raises.

use std::mem::MaybeUninit;
use std::ptr;

/// Raised by what the thread itself does; blocking them would turn a crash report into silence.
const SYNCHRONOUS: [libc::c_int; 6] = [
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
];

/// While it lives, the calling thread and the threads that it starts receive no signal; the started
/// ones stay that way.
#[derive(Debug)]
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        let mut all = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigfillset initialises the set that it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        for signal in SYNCHRONOUS {
            // SAFETY: the set was initialised above, and the signal numbers are valid.
            unsafe { libc::sigdelset(all.as_mut_ptr(), signal) };
        }
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `all` is initialised; the call fills in `before`, and cannot fail with SIG_BLOCK.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), before.as_mut_ptr()) };
        // SAFETY: the call above filled it in.
        let before = unsafe { before.assume_init() };
        Self { before }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: `before` is the mask that this thread had.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut())
        };
    }
}
