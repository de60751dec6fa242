//! Clocks: monotonic time, and the CPU time of another process.
//!
//! The only file here with unsafe code.

use std::io;

use rustix::time::{ClockId, clock_gettime};

const NANOSECONDS: u64 = 1_000_000_000;

/// Nanoseconds of the monotonic clock.
pub(crate) fn monotonic() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    now.tv_sec as u64 * NANOSECONDS + now.tv_nsec as u64
}

/// The CPU clock of a process, all its threads together.
///
/// Reading it costs the process nothing. The kernel brings the time of a thread
/// that runs just now up to date at each tick, so a reading may be a tick old.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CpuClock(libc::clockid_t);

impl CpuClock {
    pub(crate) fn of_process(pid: i32) -> io::Result<Self> {
        let mut clock = 0;
        // SAFETY: the second argument must be valid for one write: `clock` is ours.
        let error = unsafe { libc::clock_getcpuclockid(pid, &raw mut clock) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        Ok(Self(clock))
    }

    /// CPU nanoseconds that the process has used so far.
    pub(crate) fn read(self) -> io::Result<u64> {
        let mut time = libc::timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        // SAFETY: the second argument must be valid for one write: `time` is ours.
        let result = unsafe { libc::clock_gettime(self.0, &raw mut time) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(time.tv_sec as u64 * NANOSECONDS + time.tv_nsec as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::{CpuClock, monotonic};

    #[test]
    fn a_cpu_clock_runs_while_its_process_works() {
        let clock = CpuClock::of_process(std::process::id() as i32).expect("our own clock");
        let before = clock.read().expect("a reading");
        let start = monotonic();
        while clock.read().expect("a reading") < before + 1_000_000 {
            assert!(
                monotonic() < start + 60_000_000_000,
                "the clock stands still"
            );
        }
    }

    #[test]
    fn no_clock_without_a_process() {
        let beyond_pid_max = (1 << 22) + 1;
        let error = CpuClock::of_process(beyond_pid_max).expect_err("no such process");
        assert_eq!(error.raw_os_error(), Some(libc::ESRCH));
    }
}
