//! `Histogram`: how often something took how long.
//!
//! A bucket for each power of two, from a microsecond to a minute. The library `hdrhistogram` finds
//! a bucket in some 30 instructions and allocates; here that are two shifts.

use std::cell::Cell;

/// The first bucket ends at 2^10 ns.
const SHIFT: u32 = 10;
/// What makes a duration of the first bucket its longest.
const FIRST: u64 = (1 << SHIFT) - 1;
/// The last one begins at 2^36 ns, which is 69 s.
pub(super) const BUCKETS: usize = 28;

/// A count that only grows. Written by who holds the GIL.
#[derive(Default)]
pub(crate) struct Counter(Cell<u64>);

impl Counter {
    #[inline(always)]
    pub(crate) fn add(&self, more: u64) {
        self.0.set(self.0.get().wrapping_add(more));
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.get()
    }
}

/// Counts by duration, their sum and the longest, in nanoseconds.
#[derive(Default)]
pub(super) struct Histogram {
    counts: [Counter; BUCKETS],
    sum: Counter,
    longest: Cell<u64>,
}

impl Histogram {
    #[inline]
    pub(super) fn record(&self, ns: u64) {
        let bucket = (ns | FIRST).ilog2() - (SHIFT - 1);
        self.counts[(bucket as usize).min(BUCKETS - 1)].add(1);
        self.sum.add(ns);
        if ns > self.longest.get() {
            self.longest.set(ns);
        }
    }

    pub(super) fn counts(&self) -> [u64; BUCKETS] {
        std::array::from_fn(|bucket| self.counts[bucket].get())
    }

    pub(super) fn sum(&self) -> u64 {
        self.sum.get()
    }

    pub(super) fn longest(&self) -> u64 {
        self.longest.get()
    }
}

/// Where each bucket ends, in nanoseconds; the last has no end.
pub(super) fn bounds() -> [u64; BUCKETS - 1] {
    std::array::from_fn(|bucket| 1 << (SHIFT as usize + bucket))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket_of(ns: u64) -> Option<usize> {
        let histogram = Histogram::default();
        histogram.record(ns);
        histogram.counts().iter().position(|count| *count == 1)
    }

    #[test]
    fn a_duration_is_below_the_end_of_its_bucket() {
        for (bucket, end) in bounds().into_iter().enumerate() {
            assert_eq!(bucket_of(end - 1), Some(bucket));
            assert_eq!(bucket_of(end), Some(bucket + 1));
        }
        assert_eq!(bucket_of(0), Some(0));
        assert_eq!(bucket_of(u64::MAX), Some(BUCKETS - 1));
    }

    #[test]
    fn the_sum_and_the_longest_are_exact() {
        let histogram = Histogram::default();
        for ns in [3, 5_000, 70] {
            histogram.record(ns);
        }
        assert_eq!((histogram.sum(), histogram.longest()), (5_073, 5_000));
        assert_eq!(histogram.counts().iter().sum::<u64>(), 3);
    }
}
