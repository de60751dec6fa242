//! TimerHeap: asyncio's `_scheduled`, the timers ordered by deadline.
//!
//! Ordered by deadline and then by sequence, so that equal deadlines come in the order of
//! scheduling. Most programs make timers in the order in which they will be due (one timeout, used
//! again and again), so the entries are split: a sorted run, to which a later timer is appended and
//! from which the earliest is taken in O(1), and a heap for timers that came out of order.
//!
//! Cancelled timers stay until later: the caller marks its item and calls
//! [`TimerHeap::note_cancelled`], and removes the cancelled ones with [`TimerHeap::compact`] when
//! [`TimerHeap::needs_compaction`] is true.
//!
//! Invariants:
//! - the run is sorted, and the heap property holds in the heap;
//! - no two entries have one sequence, so that the order is total.
//!
//! Cost: 24 bytes a timer with a pointer-sized item. A push is O(1) if its deadline is the latest,
//! else O(log n); a pop is O(1) from the run and O(log n) from the heap; see `benches/timer.rs`.
//! Differs from asyncio: `heapq` gives equal deadlines no order.

#![forbid(unsafe_code)]

mod heap;

use std::collections::VecDeque;
use std::fmt;

use heap::{Entry, QuaternaryHeap};

/// asyncio's `_MIN_SCHEDULED_TIMER_HANDLES`.
const COMPACTION_LEN_MIN: usize = 100;

/// A buffer for fewer timers than this is never given back.
const CAPACITY_KEPT: usize = 256;

/// A buffer for more timers than this is given back when the last timer is popped.
const CAPACITY_KEPT_EMPTY: usize = 4096;

/// Timers in the order of their deadlines, which are seconds on the clock of [`crate::clock`].
pub struct TimerHeap<T> {
    run: VecDeque<Entry<T>>,
    heap: QuaternaryHeap<T>,
    next_sequence: u64,
    cancelled: usize,
}

impl<T> TimerHeap<T> {
    /// Without timers; allocates nothing.
    pub const fn new() -> Self {
        Self {
            run: VecDeque::new(),
            heap: QuaternaryHeap::new(),
            next_sequence: 0,
            cancelled: 0,
        }
    }

    /// Adds a timer. Infinity is never due, and neither is a NaN, which comes after it.
    #[inline]
    pub fn push(&mut self, deadline: f64, item: T) {
        let entry = Entry::new(deadline, self.next_sequence, item);
        self.next_sequence += 1;
        match self.run.back() {
            Some(last) if entry.is_before(last) => self.push_out_of_order(entry),
            _ => self.run.push_back(entry),
        }
    }

    /// A very late timer at the end of the run would send all that follow to the heap. So it is
    /// moved to the heap itself if the new one fits in its place: two timeouts that are used in
    /// turn then make a run of the shorter ones, and a heap of the longer ones that is filled in
    /// order.
    fn push_out_of_order(&mut self, entry: Entry<T>) {
        let fits_before_last = match self.run.iter().rev().nth(1) {
            Some(before_last) => before_last.is_before(&entry),
            None => true,
        };
        let last = if fits_before_last {
            self.run.pop_back()
        } else {
            None
        };
        match last {
            Some(last) => {
                self.run.push_back(entry);
                self.heap.push(last);
            }
            None => self.heap.push(entry),
        }
    }

    /// The earliest timer.
    #[inline]
    pub fn peek(&self) -> Option<(f64, &T)> {
        let entry = match (self.run.front(), self.heap.first()) {
            (Some(run), Some(heap)) if heap.is_before(run) => heap,
            (Some(run), _) => run,
            (None, heap) => heap?,
        };
        Some((entry.deadline(), &entry.item))
    }

    /// Takes out the earliest timer. If it had been counted as cancelled, say so with
    /// [`TimerHeap::note_cancelled_popped`].
    #[inline]
    pub fn pop(&mut self) -> Option<(f64, T)> {
        let entry = if self.heap_is_next() {
            self.heap.pop()
        } else {
            self.run.pop_front()
        }?;
        Some((entry.deadline(), entry.item))
    }

    /// Takes out the earliest timer when its deadline is before `end`. If it had been counted as
    /// cancelled, say so with [`TimerHeap::note_cancelled_popped`].
    #[inline]
    pub fn pop_due(&mut self, end: f64) -> Option<(f64, T)> {
        let (deadline, _) = self.peek()?;
        if deadline < end {
            self.pop_entry().map(|entry| (deadline, entry.item))
        } else {
            None
        }
    }

    #[inline]
    fn pop_entry(&mut self) -> Option<Entry<T>> {
        let entry = if self.heap_is_next() {
            self.heap.pop()
        } else {
            self.run.pop_front()
        };
        if self.is_empty() {
            self.shrink_when_empty();
        }
        entry
    }

    #[inline]
    fn heap_is_next(&self) -> bool {
        match (self.heap.first(), self.run.front()) {
            (Some(heap), Some(run)) => heap.is_before(run),
            (heap, _) => heap.is_some(),
        }
    }

    /// How many timers there are, the cancelled ones among them.
    #[inline]
    pub fn len(&self) -> usize {
        self.run.len() + self.heap.len()
    }

    /// How many of them are not counted as cancelled.
    pub fn live_len(&self) -> usize {
        self.len() - self.cancelled
    }

    /// Whether there is no timer, not even a cancelled one.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All timers, in no particular order. Allocates nothing.
    pub fn iter(&self) -> impl Iterator<Item = (f64, &T)> {
        let entries = self.run.iter().chain(self.heap.iter());
        entries.map(|entry| (entry.deadline(), &entry.item))
    }

    /// The caller has cancelled a timer that is in here.
    #[inline]
    pub const fn note_cancelled(&mut self) {
        self.cancelled += 1;
    }

    /// The caller has popped a timer that had been counted as cancelled.
    #[inline]
    pub const fn note_cancelled_popped(&mut self) {
        self.cancelled = self.cancelled.saturating_sub(1);
    }

    /// How many of the timers are known to be cancelled.
    #[inline]
    pub const fn cancelled(&self) -> usize {
        self.cancelled
    }

    /// asyncio's rule: more than 100 timers, and more than half of them cancelled.
    #[inline]
    pub fn needs_compaction(&self) -> bool {
        let len = self.len();
        len > COMPACTION_LEN_MIN && self.cancelled > len / 2
    }

    /// Removes all timers for which `is_live` is false, in O(n), and gives memory back. Returns the
    /// dead, so that the caller drops them when nothing is borrowed any more: a drop may run code
    /// that comes back here. The others keep their order, and none counts as cancelled any longer.
    pub fn compact(&mut self, mut is_live: impl FnMut(&T) -> bool) -> Vec<T> {
        let mut dead = Vec::with_capacity(self.cancelled.min(self.len()));
        for _ in 0..self.run.len() {
            let Some(entry) = self.run.pop_front() else {
                break;
            };
            if is_live(&entry.item) {
                self.run.push_back(entry);
            } else {
                dead.push(entry.item);
            }
        }
        self.heap.compact(is_live, &mut dead);
        self.cancelled = 0;
        self.shrink();
        dead
    }

    /// Takes out all timers, in no particular order, and gives all memory back.
    pub fn drain(&mut self) -> Vec<T> {
        self.cancelled = 0;
        let run = std::mem::take(&mut self.run);
        run.into_iter()
            .chain(self.heap.take())
            .map(|entry| entry.item)
            .collect()
    }

    /// A burst of timers leaves large buffers behind; freeing them costs less than their pops did.
    fn shrink_when_empty(&mut self) {
        if self.run.capacity().max(self.heap.capacity()) > CAPACITY_KEPT_EMPTY {
            self.shrink();
        }
    }

    fn shrink(&mut self) {
        if let Some(capacity) = excess(self.run.len(), self.run.capacity()) {
            self.run.shrink_to(capacity);
        }
        self.heap.shrink();
    }
}

/// The capacity to shrink to, for a buffer of which less than a quarter is used. What is kept
/// leaves room to double, so that a steady load does not move the entries back and forth.
fn excess(len: usize, capacity: usize) -> Option<usize> {
    (capacity > CAPACITY_KEPT && len < capacity / 4).then(|| (len * 2).max(CAPACITY_KEPT))
}

impl<T> Default for TimerHeap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> fmt::Debug for TimerHeap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimerHeap")
            .field("len", &self.len())
            .field("cancelled", &self.cancelled)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANY: usize = 200_000;

    fn capacity<T>(heap: &TimerHeap<T>) -> usize {
        heap.run.capacity() + heap.heap.capacity()
    }

    fn filled(deadline: impl Fn(usize) -> f64) -> TimerHeap<usize> {
        let mut heap = TimerHeap::new();
        for number in 0..MANY {
            heap.push(deadline(number), number);
        }
        assert!(capacity(&heap) >= MANY);
        heap
    }

    #[test]
    fn an_entry_with_a_pointer_has_24_bytes() {
        assert_eq!(size_of::<Entry<Box<u8>>>(), 24);
    }

    #[test]
    fn timers_armed_in_order_stay_out_of_the_heap() {
        let heap = filled(|number| (number / 10) as f64);
        assert_eq!((heap.run.len(), heap.heap.len()), (MANY, 0));
    }

    #[test]
    fn two_timeouts_keep_the_shorter_ones_out_of_the_heap() {
        let heap = filled(|number| number as f64 + [5.0, 30_000.0][number % 2]);
        assert!(heap.run.len() >= MANY / 2, "{} in the run", heap.run.len());
    }

    #[test]
    fn compaction_gives_memory_back() {
        for deadline in [|number| number as f64, |number| -(number as f64)] {
            let mut heap = filled(deadline);
            let dead = heap.compact(|number| number % 1000 == 0);
            assert_eq!((dead.len(), heap.len()), (MANY - MANY / 1000, MANY / 1000));
            assert!(
                capacity(&heap) <= 4 * CAPACITY_KEPT,
                "{} kept",
                capacity(&heap)
            );
        }
    }

    #[test]
    fn a_burst_that_is_over_gives_memory_back() {
        for deadline in [|number| number as f64, |number| -(number as f64)] {
            let mut heap = filled(deadline);
            while heap.pop_due(f64::MAX).is_some() {}
            assert!(
                capacity(&heap) <= 4 * CAPACITY_KEPT,
                "{} kept",
                capacity(&heap)
            );
        }
    }
}
