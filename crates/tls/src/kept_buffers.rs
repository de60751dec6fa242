//! Which sessions keep OpenSSL's record buffers from one message to the next.
//!
//! OpenSSL works on a record in a buffer of some 17 KiB, one for each direction. Freeing both after
//! each record, as Python's contexts do, costs 2.5 % of the time of a message of 1 KiB; keeping
//! them costs 34 KiB for a connection that may be idle. So only the sessions that were used last
//! keep theirs, [`MOST`] of those that share a [`KeptBuffers`].
//!
//! They are in a queue. When it has one too many, the first session that was not used since it was
//! last put at the end loses its buffers; those before it go to the end (the "second chance"
//! algorithm).
//!
//! Cost: two stores a call for a session that has its buffers. A session without buffers takes
//! another's place, which costs as much as freeing the buffers after each record.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fmt;
use std::rc::Rc;

use crate::sys::borrowed::BorrowedSsl;

/// The sessions that keep their buffers: 2 MiB in all.
pub const MOST: usize = 64;

/// The sessions that keep their buffers, of those that share this.
pub struct KeptBuffers {
    most: usize,
    queue: RefCell<VecDeque<Rc<Place>>>,
}

impl Default for KeptBuffers {
    /// For [`MOST`] sessions.
    fn default() -> Self {
        Self::new(MOST)
    }
}

/// What the queue knows of a session.
struct Place {
    ssl: BorrowedSsl<'static>,
    state: Cell<State>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not in the queue, without buffers.
    Out,
    /// In the queue, not used since it stood at the front.
    Unused,
    Used,
    /// A call runs, whose callbacks may use other sessions.
    Running,
    /// The session is gone, and maybe the `SSL*` too.
    Gone,
}

impl KeptBuffers {
    /// For `most` sessions at a time.
    pub fn new(most: usize) -> Self {
        Self {
            most,
            queue: RefCell::default(),
        }
    }

    fn enter(&self, place: &Rc<Place>) {
        let mut queue = self.queue.borrow_mut();
        queue.push_back(Rc::clone(place));
        // Twice around finds one, unless so many calls are nested.
        for _ in 0..2 * queue.len() {
            if queue.len() <= self.most {
                return;
            }
            let Some(first) = queue.pop_front() else {
                return;
            };
            match first.state.get() {
                State::Gone => {}
                State::Out | State::Unused => {
                    first.state.set(State::Out);
                    first.ssl.free_buffers();
                }
                State::Used => {
                    first.state.set(State::Unused);
                    queue.push_back(first);
                }
                State::Running => queue.push_back(first),
            }
        }
    }
}

impl fmt::Debug for KeptBuffers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("KeptBuffers")
            .field("sessions", &self.queue.borrow().len())
            .finish_non_exhaustive()
    }
}

/// A session's share in [`KeptBuffers`].
pub(crate) struct Share {
    kept: Rc<KeptBuffers>,
    place: Rc<Place>,
}

impl Share {
    /// The `SSL*` of the session that gets it is alive until the share is dropped.
    pub(crate) fn new(kept: &Rc<KeptBuffers>, ssl: BorrowedSsl<'static>) -> Self {
        let place = Place {
            ssl,
            state: Cell::new(State::Out),
        };
        Self {
            kept: Rc::clone(kept),
            place: Rc::new(place),
        }
    }

    /// Runs a call that needs the buffers.
    #[inline]
    pub(crate) fn using<R>(&self, call: impl FnOnce() -> R) -> R {
        if self.place.state.replace(State::Running) == State::Out {
            self.kept.enter(&self.place);
        }
        let result = call();
        self.place.state.set(State::Used);
        result
    }

    /// Runs a call of somebody else's on the `SSL*`, during which nobody frees the buffers.
    pub(crate) fn keeping<R>(&self, call: impl FnOnce() -> R) -> R {
        let state = self.place.state.get();
        if state != State::Out {
            self.place.state.set(State::Running);
        }
        let result = call();
        self.place.state.set(state);
        result
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.place.state.set(State::Gone);
    }
}

impl fmt::Debug for Share {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Share").field(&self.kept).finish()
    }
}
