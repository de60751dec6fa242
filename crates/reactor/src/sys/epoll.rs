//! epoll(7), with `epoll_pwait2` called by number because C libraries older than the kernel lack
//! it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use libc::{c_int, c_long};

use super::check;

pub(crate) const IN: u32 = libc::EPOLLIN as u32;
pub(crate) const OUT: u32 = libc::EPOLLOUT as u32;
pub(crate) const ERR: u32 = libc::EPOLLERR as u32;
pub(crate) const HUP: u32 = libc::EPOLLHUP as u32;
pub(crate) const RDHUP: u32 = libc::EPOLLRDHUP as u32;

/// Set when the kernel, or a sandbox in front of it, has no `epoll_pwait2`.
static PWAIT2_IS_MISSING: AtomicBool = AtomicBool::new(false);

/// The kernel's own record of an event, filled in place.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct EpollEvent(libc::epoll_event);

impl EpollEvent {
    pub(crate) const EMPTY: Self = Self(libc::epoll_event { events: 0, u64: 0 });

    #[inline]
    pub(crate) const fn bits(self) -> u32 {
        self.0.events
    }

    #[inline]
    pub(crate) const fn data(self) -> u64 {
        self.0.u64
    }
}

pub(crate) fn create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointer.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the call returned a new descriptor, which nothing else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

#[inline]
pub(crate) fn add(epoll: RawFd, fd: RawFd, bits: u32, data: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_ADD, fd, bits, data)
}

#[inline]
pub(crate) fn modify(epoll: RawFd, fd: RawFd, bits: u32, data: u64) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_MOD, fd, bits, data)
}

#[inline]
pub(crate) fn delete(epoll: RawFd, fd: RawFd) -> io::Result<()> {
    control(epoll, libc::EPOLL_CTL_DEL, fd, 0, 0)
}

#[inline]
fn control(epoll: RawFd, operation: c_int, fd: RawFd, bits: u32, data: u64) -> io::Result<()> {
    let mut event = libc::epoll_event {
        events: bits,
        u64: data,
    };
    // SAFETY: `event` is alive during the call and copied by the kernel; bad descriptors are EBADF.
    check(unsafe { libc::epoll_ctl(epoll, operation, fd, &raw mut event) })?;
    Ok(())
}

/// Waits and returns how many of `events` were filled in. EINTR is returned as the error it is.
#[inline]
pub(crate) fn wait(
    epoll: RawFd,
    events: &mut [EpollEvent],
    timeout: Option<Duration>,
    milliseconds_only: bool,
) -> io::Result<usize> {
    match timeout {
        // The plain call copies no timespec, and these two timeouts need none.
        None => wait_milliseconds(epoll, events, -1),
        Some(Duration::ZERO) => wait_milliseconds(epoll, events, 0),
        Some(timeout) if milliseconds_only || PWAIT2_IS_MISSING.load(Ordering::Relaxed) => {
            wait_milliseconds(epoll, events, milliseconds_up(timeout))
        }
        Some(timeout) => wait_precisely(epoll, events, timeout),
    }
}

fn wait_precisely(epoll: RawFd, events: &mut [EpollEvent], timeout: Duration) -> io::Result<usize> {
    match wait_nanoseconds(epoll, events, timeout) {
        // An old kernel answers ENOSYS; older container sandboxes answer EPERM to numbers they do
        // not know, which epoll_pwait2 itself never returns.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            PWAIT2_IS_MISSING.store(true, Ordering::Relaxed);
            wait_milliseconds(epoll, events, milliseconds_up(timeout))
        }
        result => result,
    }
}

#[inline]
fn wait_milliseconds(epoll: RawFd, events: &mut [EpollEvent], timeout: c_int) -> io::Result<usize> {
    let (buffer, room) = raw_buffer(events);
    // SAFETY: `buffer` points to `room` records that are borrowed mutably during the call.
    let ready = check(unsafe { libc::epoll_wait(epoll, buffer, room, timeout) })?;
    Ok(ready as usize)
}

/// struct __kernel_timespec: 64-bit fields on every architecture, unlike libc::timespec.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

fn wait_nanoseconds(
    epoll: RawFd,
    events: &mut [EpollEvent],
    timeout: Duration,
) -> io::Result<usize> {
    let timeout = KernelTimespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: timeout.subsec_nanos().into(),
    };
    let (buffer, room) = raw_buffer(events);
    let no_mask = ptr::null::<libc::sigset_t>();
    // SAFETY: `buffer` points to `room` records that are borrowed mutably during the call,
    // `timeout` is alive during it, and a null signal mask leaves the thread's mask alone.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            c_long::from(epoll),
            buffer,
            c_long::from(room),
            &raw const timeout,
            no_mask,
            0_usize,
        )
    };
    if ready == -1 {
        return Err(io::Error::last_os_error());
    }
    Ok(ready as usize)
}

#[inline]
fn raw_buffer(events: &mut [EpollEvent]) -> (*mut libc::epoll_event, c_int) {
    let room = c_int::try_from(events.len()).unwrap_or(c_int::MAX);
    (events.as_mut_ptr().cast(), room)
}

/// Rounds up, so that a wait is never early, and stops at what the call can express.
fn milliseconds_up(timeout: Duration) -> c_int {
    let milliseconds = timeout.as_nanos().div_ceil(1_000_000);
    c_int::try_from(milliseconds).unwrap_or(c_int::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::poller::{Events, Poller};

    #[test]
    fn milliseconds_are_rounded_up() {
        assert_eq!(milliseconds_up(Duration::from_nanos(1)), 1);
        assert_eq!(milliseconds_up(Duration::from_millis(5)), 5);
        assert_eq!(milliseconds_up(Duration::from_micros(5_001)), 6);
        assert_eq!(milliseconds_up(Duration::MAX), c_int::MAX);
    }

    /// From here on the kernel answers `errno` to this thread's calls of epoll_pwait2.
    fn refuse_epoll_pwait2(errno: u32) {
        let instruction = |code: u32, jt, jf, k| libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        };
        let mut program = [
            instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
            instruction(
                libc::BPF_JMP | libc::BPF_JEQ,
                0,
                1,
                libc::SYS_epoll_pwait2 as u32,
            ),
            instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ERRNO | errno),
            instruction(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW),
        ];
        let filter = libc::sock_fprog {
            len: 4,
            filter: program.as_mut_ptr(),
        };
        // SAFETY: takes no pointer.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }).expect("prctl");
        // SAFETY: the program and the record that names it are alive during the call.
        let installed = unsafe {
            libc::prctl(
                libc::PR_SET_SECCOMP,
                libc::SECCOMP_MODE_FILTER,
                &raw const filter,
            )
        };
        check(installed).expect("a seccomp filter");
    }

    #[test]
    fn a_kernel_without_nanoseconds_is_asked_once_and_never_early() {
        for errno in [libc::ENOSYS, libc::EPERM] {
            let waiting = std::thread::spawn(move || {
                refuse_epoll_pwait2(errno as u32);
                PWAIT2_IS_MISSING.store(false, Ordering::Relaxed);
                let poller = Poller::new().expect("epoll");
                let mut events = Events::new();
                for _ in 0..3 {
                    let start = clock::now_ns();
                    poller
                        .wait(&mut events, Some(Duration::from_micros(1_200)))
                        .expect("a wait");
                    assert_eq!((events.len(), events.interrupted()), (0, false));
                    assert!(clock::now_ns() - start >= 2_000_000);
                    assert!(PWAIT2_IS_MISSING.load(Ordering::Relaxed));
                }
            });
            waiting.join().expect("the waiting thread");
        }
    }

    extern "C" fn ignore(_signal: c_int) {}

    #[test]
    fn a_signal_ends_a_wait_and_says_so() {
        // SAFETY: a sigaction is plain integers and pointers, for which zero is a value.
        let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
        action.sa_sigaction = ignore as *const () as libc::sighandler_t;
        // SAFETY: `action` is alive during the call, and its handler does nothing.
        let installed =
            unsafe { libc::sigaction(libc::SIGUSR1, &raw const action, ptr::null_mut()) };
        check(installed).expect("sigaction");
        for timeout in [None, Some(Duration::from_secs(60))] {
            let (sender, receiver) = std::sync::mpsc::channel();
            let waiting = std::thread::spawn(move || {
                // SAFETY: takes no pointer.
                sender
                    .send(unsafe { libc::pthread_self() })
                    .expect("the test is listening");
                let poller = Poller::new().expect("epoll");
                let mut events = Events::new();
                poller.wait(&mut events, timeout).expect("a wait");
                (events.len(), events.interrupted())
            });
            let thread = receiver.recv().expect("the waiting thread");
            // Signals that arrive before the wait has begun are lost on it, so send some more.
            while !waiting.is_finished() {
                // SAFETY: the thread has not been joined, so its id is valid.
                unsafe { libc::pthread_kill(thread, libc::SIGUSR1) };
                std::thread::yield_now();
            }
            assert_eq!(waiting.join().expect("the waiting thread"), (0, true));
        }
    }
}
