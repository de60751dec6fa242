//! A 4-ary heap of timers: the earliest is at the root, and the four children of `i` start at
//! `4 * i + 1`.
//!
//! Half as deep as a binary heap, and four children of 24 bytes fill one and a half cache lines, so
//! a pop touches fewer lines. The order is total (no two entries have one sequence), so a rebuilt
//! heap gives its entries in the same order as before.

#![forbid(unsafe_code)]

use std::hint::select_unpredictable;

const CHILDREN: usize = 4;
const SIGN: u64 = 1 << 63;

/// One timer: its deadline in a form that compares as an integer, its turn among equals, its item.
#[derive(Debug)]
pub(super) struct Entry<T> {
    key: u64,
    sequence: u64,
    pub(super) item: T,
}

impl<T> Entry<T> {
    #[inline]
    pub(super) fn new(deadline: f64, sequence: u64, item: T) -> Self {
        Self {
            key: key(deadline),
            sequence,
            item,
        }
    }

    #[inline]
    pub(super) fn deadline(&self) -> f64 {
        let mask = (!self.key).cast_signed() >> 63;
        f64::from_bits(self.key ^ (mask.cast_unsigned() | SIGN))
    }

    #[inline]
    pub(super) fn is_before(&self, other: &Self) -> bool {
        self.rank() < other.rank()
    }

    /// One comparison without a branch instead of two with.
    #[inline]
    const fn rank(&self) -> u128 {
        (self.key as u128) << 64 | self.sequence as u128
    }
}

/// Maps floats to integers in the order of `f64::total_cmp`, with both zeros equal and every NaN
/// last.
#[inline]
fn key(deadline: f64) -> u64 {
    // Adding turns -0.0 into 0.0 and leaves all else alone.
    let bits = if deadline.is_nan() {
        f64::NAN.to_bits()
    } else {
        (deadline + 0.0).to_bits()
    };
    let mask = bits.cast_signed() >> 63;
    bits ^ (mask.cast_unsigned() | SIGN)
}

#[derive(Debug)]
pub(super) struct QuaternaryHeap<T> {
    entries: Vec<Entry<T>>,
}

impl<T> QuaternaryHeap<T> {
    pub(super) const fn new() -> Self {
        Self {
            entries: Vec::new(),
        }
    }

    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.entries.len()
    }

    #[inline]
    pub(super) const fn capacity(&self) -> usize {
        self.entries.capacity()
    }

    #[inline]
    pub(super) fn first(&self) -> Option<&Entry<T>> {
        self.entries.first()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Entry<T>> {
        self.entries.iter()
    }

    #[inline]
    pub(super) fn push(&mut self, entry: Entry<T>) {
        let index = self.entries.len();
        self.entries.push(entry);
        self.sift_up(0, index);
    }

    #[inline]
    pub(super) fn pop(&mut self) -> Option<Entry<T>> {
        if self.entries.is_empty() {
            return None;
        }
        let first = self.entries.swap_remove(0);
        self.sift_down(0);
        Some(first)
    }

    /// Takes out all entries for which `is_live` is false, in O(n), and appends their items to
    /// `dead`.
    pub(super) fn compact(&mut self, mut is_live: impl FnMut(&T) -> bool, dead: &mut Vec<T>) {
        let removed = self.entries.extract_if(.., |entry| !is_live(&entry.item));
        dead.extend(removed.map(|entry| entry.item));
        self.rebuild();
    }

    pub(super) fn take(&mut self) -> Vec<Entry<T>> {
        std::mem::take(&mut self.entries)
    }

    /// Gives memory back when most of it is unused; see [`super::excess`].
    pub(super) fn shrink(&mut self) {
        if let Some(capacity) = super::excess(self.entries.len(), self.entries.capacity()) {
            self.entries.shrink_to(capacity);
        }
    }

    fn rebuild(&mut self) {
        let parents = self.entries.len().saturating_sub(1).div_ceil(CHILDREN);
        for index in (0..parents).rev() {
            self.sift_down(index);
        }
    }

    /// Moves the entry down to the bottom without looking at it, then up to its place: a popped
    /// root is replaced by the last entry, which belongs near the bottom nearly always.
    #[inline]
    fn sift_down(&mut self, start: usize) {
        let mut index = start;
        while let Some(child) = self.earliest_child(index) {
            self.entries.swap(index, child);
            index = child;
        }
        self.sift_up(start, index);
    }

    #[inline]
    fn sift_up(&mut self, start: usize, mut index: usize) {
        while index > start {
            let parent = (index - 1) / CHILDREN;
            if !self.entries[index].is_before(&self.entries[parent]) {
                return;
            }
            self.entries.swap(index, parent);
            index = parent;
        }
    }

    /// Chooses among four without a branch, which nothing could predict: that alone makes a pop
    /// three times as fast.
    #[inline]
    fn earliest_child(&self, parent: usize) -> Option<usize> {
        let first = CHILDREN * parent + 1;
        let children = self.entries.get(first..)?;
        let Some(four) = children.first_chunk::<CHILDREN>() else {
            let among_last = children
                .iter()
                .enumerate()
                .min_by_key(|(_, entry)| entry.rank());
            return among_last.map(|(offset, _)| first + offset);
        };
        let [a, b, c, d] = four.each_ref().map(Entry::rank);
        let left = usize::from(b < a);
        let right = 2 + usize::from(d < c);
        Some(first + select_unpredictable(c.min(d) < a.min(b), right, left))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deadlines_survive_and_keep_their_order() {
        let ordered = [
            f64::NEG_INFINITY,
            f64::MIN,
            -1.5,
            -f64::MIN_POSITIVE,
            0.0,
            f64::MIN_POSITIVE,
            1.0,
            1.0 + f64::EPSILON,
            f64::MAX,
            f64::INFINITY,
        ];
        for deadline in ordered {
            assert_eq!(Entry::new(deadline, 0, ()).deadline(), deadline);
        }
        assert!(ordered.windows(2).all(|pair| key(pair[0]) < key(pair[1])));
    }

    #[test]
    fn zeros_are_equal_and_every_nan_is_last() {
        assert_eq!(key(-0.0), key(0.0));
        for nan in [f64::NAN, -f64::NAN] {
            assert!(key(nan) > key(f64::INFINITY));
            assert!(Entry::new(nan, 0, ()).deadline().is_nan());
        }
    }
}
