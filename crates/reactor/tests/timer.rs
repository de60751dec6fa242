//! The timer heap against a sorted list, and its promises about order, memory and odd floats.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::rc::Rc;

use proptest::collection::vec;
use proptest::prelude::*;
use reactor::timer::TimerHeap;

/// A timer as the loop makes them: shared with the caller, who may cancel it.
#[derive(Debug)]
struct Timer {
    number: usize,
    cancelled: Cell<bool>,
}

/// The list that the heap is compared with: sorted by deadline, equal ones in order of scheduling.
#[derive(Debug, Default)]
struct SortedList(Vec<(f64, Rc<Timer>)>);

impl SortedList {
    fn push(&mut self, deadline: f64, timer: Rc<Timer>) {
        let place = self
            .0
            .partition_point(|(other, _)| !deadline.total_cmp(other).is_lt());
        self.0.insert(place, (deadline, timer));
    }

    fn first(&self) -> Option<(f64, usize)> {
        self.0
            .first()
            .map(|(deadline, timer)| (*deadline, timer.number))
    }
}

#[derive(Clone, Debug)]
enum Step {
    Push(f64),
    Pop,
    PopDue(f64),
    Cancel(prop::sample::Index),
    Compact,
}

/// Few different deadlines, so that equal ones are frequent, in and out of order.
fn deadline() -> impl Strategy<Value = f64> {
    prop_oneof![
        8 => (0_u32..20).prop_map(f64::from),
        3 => 0.0..20.0_f64,
        1 => Just(f64::INFINITY),
        1 => Just(-1.0),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => deadline().prop_map(Step::Push),
        1 => Just(Step::Pop),
        2 => deadline().prop_map(Step::PopDue),
        3 => any::<prop::sample::Index>().prop_map(Step::Cancel),
        1 => Just(Step::Compact),
    ]
}

#[derive(Debug, Default)]
struct Pair {
    heap: TimerHeap<Rc<Timer>>,
    list: SortedList,
    pushed: usize,
    cancelled: usize,
}

impl Pair {
    fn take(&mut self, step: &Step) {
        match step {
            Step::Push(deadline) => {
                let timer = Rc::new(Timer {
                    number: self.pushed,
                    cancelled: Cell::new(false),
                });
                self.pushed += 1;
                self.heap.push(*deadline, Rc::clone(&timer));
                self.list.push(*deadline, timer);
            }
            Step::Pop => {
                let popped = self.heap.pop();
                assert_eq!(
                    popped.as_ref().map(|(at, timer)| (*at, timer.number)),
                    self.list.first()
                );
                self.popped(popped.map(|(_, timer)| timer));
            }
            Step::PopDue(end) => {
                let due = self.list.first().filter(|(deadline, _)| deadline < end);
                let popped = self.heap.pop_due(*end);
                assert_eq!(popped.as_ref().map(|(at, timer)| (*at, timer.number)), due);
                self.popped(popped.map(|(_, timer)| timer));
            }
            Step::Cancel(index) if !self.list.0.is_empty() => {
                let (_, timer) = index.get(&self.list.0);
                if !timer.cancelled.replace(true) {
                    self.heap.note_cancelled();
                    self.cancelled += 1;
                }
            }
            Step::Cancel(_) => {}
            Step::Compact => self.compact(),
        }
    }

    fn popped(&mut self, timer: Option<Rc<Timer>>) {
        if let Some(timer) = timer {
            self.list.0.remove(0);
            if timer.cancelled.get() {
                self.heap.note_cancelled_popped();
                self.cancelled -= 1;
            }
        }
    }

    fn compact(&mut self) {
        let mut dead: Vec<usize> = self
            .heap
            .compact(|timer| !timer.cancelled.get())
            .iter()
            .map(|timer| timer.number)
            .collect();
        dead.sort_unstable();
        let gone = self
            .list
            .0
            .extract_if(.., |(_, timer)| timer.cancelled.get());
        let mut expected: Vec<usize> = gone.map(|(_, timer)| timer.number).collect();
        expected.sort_unstable();
        assert_eq!(dead, expected);
        self.cancelled = 0;
    }

    fn check(&self) {
        assert_eq!(self.heap.len(), self.list.0.len());
        assert_eq!(self.heap.is_empty(), self.list.0.is_empty());
        assert_eq!(self.heap.cancelled(), self.cancelled);
        assert_eq!(
            self.heap.peek().map(|(at, timer)| (at, timer.number)),
            self.list.first()
        );
        let mut inside: Vec<usize> = self.heap.iter().map(|(_, timer)| timer.number).collect();
        let mut expected: Vec<usize> = self.list.0.iter().map(|(_, timer)| timer.number).collect();
        inside.sort_unstable();
        expected.sort_unstable();
        assert_eq!(inside, expected);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_heap_does_what_a_sorted_list_does(steps in vec(step(), 0..300)) {
        let mut pair = Pair::default();
        for step in &steps {
            pair.take(step);
            pair.check();
        }
        while !pair.heap.is_empty() {
            pair.take(&Step::Pop);
        }
        pair.check();
    }

    #[test]
    fn large_heaps_come_out_sorted(deadlines in vec(0.0..1e6_f64, 0..3000)) {
        let mut heap = TimerHeap::new();
        for deadline in &deadlines {
            heap.push(*deadline, ());
        }
        let mut sorted = deadlines;
        sorted.sort_by(f64::total_cmp);
        let popped: Vec<f64> = std::iter::from_fn(|| heap.pop()).map(|(at, ())| at).collect();
        prop_assert_eq!(popped, sorted);
    }
}

#[test]
fn a_timer_whose_deadline_is_the_end_is_not_due() {
    let mut heap = TimerHeap::new();
    heap.push(1.0, 'a');
    assert_eq!(heap.pop_due(1.0), None);
    assert_eq!(heap.pop_due(1.0_f64.next_up()), Some((1.0, 'a')));
    assert_eq!(heap.pop_due(f64::INFINITY), None);
}

#[test]
fn nan_is_last_and_holds_nothing_up() {
    let mut heap = TimerHeap::new();
    for (deadline, name) in [
        (f64::NAN, 'n'),
        (-f64::NAN, 'm'),
        (2.0, 'b'),
        (f64::INFINITY, 'i'),
    ] {
        heap.push(deadline, name);
    }
    heap.push(1.0, 'a');
    assert_eq!(heap.pop_due(f64::NAN), None);
    assert_eq!(heap.pop_due(10.0), Some((1.0, 'a')));
    assert_eq!(heap.pop_due(10.0), Some((2.0, 'b')));
    assert_eq!(heap.pop_due(f64::INFINITY), None);
    let rest: String = std::iter::from_fn(|| heap.pop())
        .map(|(_, name)| name)
        .collect();
    assert_eq!(rest, "inm");
}

#[test]
fn both_zeros_are_one_deadline() {
    let mut heap = TimerHeap::new();
    for (deadline, name) in [(0.0, 'a'), (-0.0, 'b'), (0.0, 'c')] {
        heap.push(deadline, name);
    }
    let order: String = std::iter::from_fn(|| heap.pop())
        .map(|(_, name)| name)
        .collect();
    assert_eq!(order, "abc");
}

#[test]
fn compaction_is_due_by_asyncio_s_rule() {
    let mut heap = TimerHeap::new();
    for number in 0..100 {
        heap.push(1.0, number);
        heap.note_cancelled();
    }
    assert!(
        !heap.needs_compaction(),
        "100 timers are kept whatever they are"
    );
    heap.push(1.0, 100);
    assert!(heap.needs_compaction());
    for number in 101..200 {
        heap.push(1.0, number);
    }
    assert!(!heap.needs_compaction(), "half is not more than half");
    heap.note_cancelled();
    assert!(heap.needs_compaction());
    assert_eq!(heap.compact(|number| *number >= 100).len(), 100);
    assert_eq!((heap.len(), heap.cancelled()), (100, 0));
    assert!(!heap.needs_compaction());
}

#[test]
fn the_dead_are_dropped_by_the_caller() {
    let timer = Rc::new(());
    let mut heap = TimerHeap::new();
    for deadline in [3.0, 1.0, 2.0] {
        heap.push(deadline, Rc::clone(&timer));
    }
    let dead = heap.compact(|_| false);
    assert!(heap.is_empty());
    assert_eq!(Rc::strong_count(&timer), 4);
    drop(dead);
    assert_eq!(Rc::strong_count(&timer), 1);
}

#[test]
fn drain_empties_both_parts() {
    let mut heap = TimerHeap::new();
    for deadline in [3.0, 1.0, 4.0, 1.0, 5.0] {
        heap.push(deadline, deadline.to_bits());
        heap.note_cancelled();
    }
    let mut items = heap.drain();
    items.sort_unstable();
    assert_eq!(items, [1.0, 1.0, 3.0, 4.0, 5.0].map(f64::to_bits));
    assert!(heap.is_empty());
    assert_eq!(heap.cancelled(), 0);
    assert_eq!(heap.pop(), None);
}
