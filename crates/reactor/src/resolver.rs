//! Resolver: threads for `getaddrinfo` and `getnameinfo`, which only exist as blocking calls.
//!
//! When a job arrives, an idle thread is woken or a new one started, up to the maximum, unless one
//! is on its way already: that one calls the next if it finds more than one job. So jobs that take
//! long soon have a thread each, and many short ones need few threads and few wake-ups. A thread
//! ends after half a minute without work, or at close. These threads receive no signals. A child of
//! fork(2) has the pool's memory but not its threads: in the child every method does nothing or
//! refuses, and the child makes a pool of its own.
//!
//! Invariants:
//! - a job runs at most once, and never after its ticket's `cancel` returned `true`;
//! - a result is delivered at most once, and never after `cancel` returned `true`;
//! - no lock is held while a job runs, is delivered or is dropped.
//!
//! Cost: two allocations a job, and the stacks of the threads that work.
//! Differs from asyncio: the default executor queues name lookups behind other blocking work.

#![forbid(unsafe_code)]

mod pool;
mod query;

pub use pool::{Job, Resolver, SubmitError, Ticket};
pub use query::{AddrInfo, Hints, ResolveError, getaddrinfo, getnameinfo};
