//! Clock: the monotonic clock that timers are compared with.
//!
//! Reads `CLOCK_MONOTONIC`, the clock of Python's `time.monotonic` on Linux, so that a deadline
//! made in Python and one made here can be compared.
//!
//! Cost: one vDSO call, no system call. Differs from asyncio: none.

#![forbid(unsafe_code)]

use crate::sys;

const NANOSECONDS_PER_SECOND: f64 = 1e9;

/// Nanoseconds of `CLOCK_MONOTONIC` (see clock_gettime(2)).
#[inline]
pub fn now_ns() -> u64 {
    sys::clock::monotonic_ns()
}

/// Seconds of `CLOCK_MONOTONIC`, bit for bit what `time.monotonic()` makes of the same instant.
#[inline]
pub fn now() -> f64 {
    seconds(now_ns())
}

/// Converts nanoseconds of this clock to the float seconds that `time.monotonic()` would return.
///
/// CPython divides whole seconds as integers and everything else as floats. The float division
/// alone gives the same: a whole second is a multiple of 2^9 ns, so below 2^62 ns (146 years) it
/// converts to a float exactly, and an exact quotient is not rounded.
#[inline]
pub fn seconds(ns: u64) -> f64 {
    ns as f64 / NANOSECONDS_PER_SECOND
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_does_not_go_back() {
        let mut last = now_ns();
        for _ in 0..1000 {
            let next = now_ns();
            assert!(next >= last);
            last = next;
        }
    }

    #[test]
    fn seconds_and_nanoseconds_are_one_clock() {
        let before = seconds(now_ns());
        let middle = now();
        let after = seconds(now_ns());
        assert!(before <= middle && middle <= after);
    }

    #[test]
    fn whole_seconds_are_exact() {
        for whole in [
            0_u64,
            1,
            9_007_199,
            9_007_200,
            33_554_433,
            72_057_593,
            4_611_686_018,
        ] {
            assert_eq!(seconds(whole * 1_000_000_000), whole as f64);
        }
    }

    #[test]
    fn fractions_are_rounded_once() {
        assert_eq!(seconds(1), 1e-9);
        assert_eq!(seconds(1_500_000_000), 1.5);
        assert_eq!(seconds(123_456_789_012), 123.456_789_012);
    }
}
