//! TimerHeap.

#![forbid(unsafe_code)]
#![expect(missing_docs, reason = "draft")]

/// Deadlines.
#[derive(Debug)]
pub struct TimerHeap<T> {
    entries: Vec<(f64, T)>,
}

impl<T> TimerHeap<T> {
    pub fn new() -> Self {
        todo!()
    }
    pub fn push(&mut self, deadline: f64, item: T) {
        let _ = (deadline, item);
        todo!()
    }
    pub fn peek(&self) -> Option<(f64, &T)> {
        todo!()
    }
    pub fn pop(&mut self) -> Option<(f64, T)> {
        todo!()
    }
    pub fn pop_due(&mut self, end: f64) -> Option<T> {
        let _ = end;
        todo!()
    }
    pub fn len(&self) -> usize {
        self.entries.len()
    }
    pub fn is_empty(&self) -> bool {
        todo!()
    }
    pub fn iter(&self) -> impl Iterator<Item = (f64, &T)> {
        self.entries.iter().map(|e| (e.0, &e.1))
    }
    pub fn note_cancelled(&mut self) {
        todo!()
    }
    /// An entry that was popped had been counted as cancelled.
    pub fn note_cancelled_popped(&mut self) {
        todo!()
    }
    pub fn cancelled(&self) -> usize {
        todo!()
    }
    pub fn needs_compaction(&self) -> bool {
        todo!()
    }
    pub fn compact(&mut self, is_live: impl FnMut(&T) -> bool) -> Vec<T> {
        let _ = is_live;
        todo!()
    }
    pub fn drain(&mut self) -> Vec<T> {
        todo!()
    }
}
