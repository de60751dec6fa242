//! The timer heap beside `std`'s binary heap on the patterns that programs make: timers cancelled
//! before they are due, batches due at once, one timeout, two timeouts, and no order at all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use reactor::timer::TimerHeap;

const MANY: u64 = 1_000_000;
const BATCH: u64 = 100_000;
const STEADY: u64 = 10_000;

/// Deadlines without order, the same ones in every run.
fn scattered(count: u64) -> Vec<f64> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as f64 / 1e12
    };
    (0..count).map(|_| next()).collect()
}

/// What a heap needs for the patterns below.
trait Timers: Default {
    fn push(&mut self, deadline: f64, item: u64);
    fn pop(&mut self, end: f64) -> Option<u64>;
}

impl Timers for TimerHeap<u64> {
    fn push(&mut self, deadline: f64, item: u64) {
        Self::push(self, deadline, item);
    }

    fn pop(&mut self, end: f64) -> Option<u64> {
        self.pop_due(end).map(|(_, item)| item)
    }
}

/// The control. Its deadlines are positive floats, whose bits compare as integers.
#[derive(Default)]
struct Binary {
    heap: BinaryHeap<Reverse<(u64, u64, u64)>>,
    sequence: u64,
}

impl Timers for Binary {
    fn push(&mut self, deadline: f64, item: u64) {
        self.heap
            .push(Reverse((deadline.to_bits(), self.sequence, item)));
        self.sequence += 1;
    }

    fn pop(&mut self, end: f64) -> Option<u64> {
        let Reverse((deadline, _, _)) = self.heap.peek()?;
        if *deadline >= end.to_bits() {
            return None;
        }
        self.heap.pop().map(|Reverse((_, _, item))| item)
    }
}

fn filled<H: Timers>(deadlines: &[f64]) -> H {
    let mut heap = H::default();
    for (item, deadline) in deadlines.iter().enumerate() {
        heap.push(*deadline, item as u64);
    }
    heap
}

fn pop_all<H: Timers>(mut heap: H) {
    while let Some(item) = heap.pop(f64::MAX) {
        black_box(item);
    }
}

/// One timer out and one in at every step, with the timeouts taken in turn.
fn steady<H: Timers>(heap: &mut H, now: &mut f64, timeouts: &[f64]) {
    for step in 0..STEADY {
        *now += 0.001;
        while let Some(item) = heap.pop(*now) {
            black_box(item);
        }
        heap.push(*now + timeouts[step as usize % timeouts.len()], step);
    }
}

fn cancelled(c: &mut Criterion) {
    c.bench_function("1M pushed, cancelled, compacted", |b| {
        b.iter(|| {
            let mut heap = TimerHeap::new();
            for item in 0..MANY {
                heap.push(item as f64, item);
                heap.note_cancelled();
            }
            assert!(heap.needs_compaction());
            heap.compact(|item| black_box(*item) > MANY).len()
        });
    });
    let deadlines = scattered(MANY);
    c.bench_function("half of 1M without order compacted", |b| {
        b.iter_batched(
            || filled::<TimerHeap<u64>>(&deadlines),
            |mut heap| (heap.compact(|item| item % 2 == 0).len(), heap),
            BatchSize::PerIteration,
        );
    });
}

fn batches<H: Timers>(c: &mut Criterion, name: &str) {
    for (pattern, deadlines) in [
        ("equal", vec![1.0; BATCH as usize]),
        ("in order", (0..BATCH).map(|item| item as f64).collect()),
        ("without order", scattered(BATCH)),
    ] {
        c.bench_function(&format!("push 100k {pattern}: {name}"), |b| {
            b.iter_with_large_drop(|| filled::<H>(&deadlines));
        });
        c.bench_function(&format!("pop 100k {pattern}: {name}"), |b| {
            b.iter_batched(|| filled::<H>(&deadlines), pop_all, BatchSize::PerIteration);
        });
    }
    let many_timeouts = scattered(997)
        .iter()
        .map(|value| value % 30.0)
        .collect::<Vec<_>>();
    for (pattern, timeouts) in [
        ("one timeout", [10.0].as_slice()),
        ("two timeouts", [5.0, 30.0].as_slice()),
        ("997 timeouts", &many_timeouts),
    ] {
        c.bench_function(&format!("10k steps with {pattern}: {name}"), |b| {
            let mut heap = H::default();
            let mut now = 0.0;
            b.iter(|| steady(&mut heap, &mut now, timeouts));
        });
    }
}

fn compared(c: &mut Criterion) {
    batches::<TimerHeap<u64>>(c, "TimerHeap");
    batches::<Binary>(c, "BinaryHeap");
}

criterion_group! {
    name = timers;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(800));
    targets = cancelled, compared
}
criterion_main!(timers);
