//! The pool: a queue, threads that take from it, and tickets to cancel by.

#![forbid(unsafe_code)]

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::Duration;

use crate::sys::signal::SignalsBlocked;

/// As asyncio's default executor has on a small machine.
const THREADS_MIN: usize = 16;
const IDLE_TIME: Duration = Duration::from_secs(30);
const THREAD_NAME: &str = "oxloop-resolver";

/// What a thread of the pool is to do.
pub struct Job(Box<dyn FnOnce(&Ticket) + Send>);

impl Job {
    /// Runs `work` on a thread of the pool and hands its result to `deliver` on the same thread,
    /// unless the ticket was cancelled in between: then the result is dropped and `deliver` is not
    /// called. When `work` panics, `deliver` is dropped without a call.
    pub fn new<R>(
        work: impl FnOnce() -> R + Send + 'static,
        deliver: impl FnOnce(R) + Send + 'static,
    ) -> Self {
        Self(Box::new(move |ticket| {
            let result = work();
            if ticket.finish() {
                deliver(result);
            }
        }))
    }
}

impl From<Box<dyn FnOnce() + Send>> for Job {
    /// A job that delivers its result itself; cancelling it while it runs changes nothing.
    fn from(work: Box<dyn FnOnce() + Send>) -> Self {
        Self(Box::new(move |ticket| {
            work();
            ticket.finish();
        }))
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job").finish_non_exhaustive()
    }
}

#[derive(Debug)]
enum Stage {
    Queued(Job),
    Running,
    Finished,
    Cancelled,
}

/// A submitted job, to cancel it by. Dropping the ticket lets the job go on.
#[derive(Clone, Debug)]
pub struct Ticket(Arc<Mutex<Stage>>);

impl Ticket {
    /// Keeps the job from running, or its result from being delivered. `false`: too late, the
    /// result is or is being delivered (or the ticket was cancelled before).
    #[expect(
        clippy::must_use_candidate,
        reason = "most callers only want it to be over"
    )]
    pub fn cancel(&self) -> bool {
        let before = {
            let mut stage = lock(&self.0);
            if matches!(*stage, Stage::Finished | Stage::Cancelled) {
                return false;
            }
            mem::replace(&mut *stage, Stage::Cancelled)
        };
        // A queued job is dropped here, where no lock is held.
        drop(before);
        true
    }

    /// Whether [`Ticket::cancel`] or the pool's closing came in time.
    pub fn is_cancelled(&self) -> bool {
        matches!(*lock(&self.0), Stage::Cancelled)
    }

    /// Takes the job to run it, unless it was cancelled.
    fn start(&self) -> Option<Job> {
        let mut stage = lock(&self.0);
        match mem::replace(&mut *stage, Stage::Running) {
            Stage::Queued(job) => Some(job),
            other => {
                *stage = other;
                None
            }
        }
    }

    /// Claims the right to deliver. `false`: the ticket was cancelled.
    fn finish(&self) -> bool {
        let mut stage = lock(&self.0);
        let in_time = matches!(*stage, Stage::Running);
        if in_time {
            *stage = Stage::Finished;
        }
        in_time
    }
}

/// Why [`Resolver::submit`] refused a job, which has been dropped.
#[derive(Debug)]
pub enum SubmitError {
    /// The pool is closed, or belongs to the parent process.
    Closed,
    /// There is no thread and none could be started (EAGAIN, see pthread_create(3)).
    Spawn(io::Error),
}

impl fmt::Display for SubmitError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the resolver is closed"),
            Self::Spawn(error) => write!(f, "can't start new thread: {error}"),
        }
    }
}

impl Error for SubmitError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Closed => None,
            Self::Spawn(error) => Some(error),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Ticket>,
    running: Vec<(ThreadId, Ticket)>,
    threads: Vec<JoinHandle<()>>,
    idle: usize,
    /// True if a thread was started or woken that has not looked at the queue yet.
    called: bool,
    closed: bool,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    work: Condvar,
    idle_time: Duration,
    threads_max: usize,
}

/// A pool of threads that make blocking calls.
#[derive(Debug)]
pub struct Resolver {
    shared: Arc<Shared>,
    process: u32,
}

impl Resolver {
    /// A pool of at most `threads_max` threads (at least 16); starts none yet.
    pub fn new(threads_max: usize) -> Self {
        Self::with_idle_time(threads_max, IDLE_TIME)
    }

    fn with_idle_time(threads_max: usize, idle_time: Duration) -> Self {
        let shared = Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            idle_time,
            threads_max: threads_max.max(THREADS_MIN),
        };
        Self {
            shared: Arc::new(shared),
            process: process::id(),
        }
    }

    /// Queues `job` and makes sure that a thread will take it.
    pub fn submit(&self, job: Job) -> Result<Ticket, SubmitError> {
        if self.is_parents() {
            return Err(SubmitError::Closed);
        }
        let ticket = Ticket(Arc::new(Mutex::new(Stage::Queued(job))));
        let mut state = lock(&self.shared.state);
        if state.closed {
            return Err(SubmitError::Closed);
        }
        match self.shared.call(&mut state) {
            Err(error) if state.threads.is_empty() => return Err(SubmitError::Spawn(error)),
            // A thread that exists takes the job when it has time.
            Ok(()) | Err(_) => state.queue.push_back(ticket.clone()),
        }
        drop(state);
        Ok(ticket)
    }

    /// How many threads there are.
    pub fn threads(&self) -> usize {
        if self.is_parents() {
            0
        } else {
            lock(&self.shared.state).threads.len()
        }
    }

    /// Takes no more jobs, drops the queued ones, cancels the running ones (their results are
    /// dropped) and lets the threads end. Returns at once; see [`Resolver::join`].
    pub fn close(&self) {
        if self.is_parents() {
            return;
        }
        let (queue, running) = {
            let mut state = lock(&self.shared.state);
            state.closed = true;
            (mem::take(&mut state.queue), state.running.clone())
        };
        self.shared.work.notify_all();
        for ticket in queue.iter().chain(running.iter().map(|(_, ticket)| ticket)) {
            ticket.cancel();
        }
    }

    /// Closes the pool and waits until its threads have ended, which takes as long as the calls
    /// that they are in. From a job, waits for the other threads only.
    pub fn join(&self) {
        if self.is_parents() {
            return;
        }
        self.close();
        let threads = mem::take(&mut lock(&self.shared.state).threads);
        let this = thread::current().id();
        for thread in threads {
            if thread.thread().id() != this {
                // A panic was reported when it happened.
                drop(thread.join());
            }
        }
    }

    /// Whether this process is a child of the one that made the pool: the threads are not here, and
    /// one of them may have held the lock when the process was copied.
    fn is_parents(&self) -> bool {
        process::id() != self.process
    }
}

impl Drop for Resolver {
    fn drop(&mut self) {
        self.close();
    }
}

impl Shared {
    /// Makes sure that a thread will look at the queue soon: one that was called before, an idle
    /// one or a new one, unless as many as there may be are at work.
    ///
    /// A thread that finds more than one job calls the next: so there are soon as many as there are
    /// jobs that take long, and one or two take all that are short, without being woken for each.
    fn call(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        if state.called {
            return Ok(());
        }
        if state.idle > 0 {
            self.work.notify_one();
        } else if state.threads.len() < self.threads_max {
            state.threads.push(self.spawn()?);
        } else {
            return Ok(());
        }
        state.called = true;
        Ok(())
    }

    fn spawn(self: &Arc<Self>) -> io::Result<JoinHandle<()>> {
        let shared = Arc::clone(self);
        let _blocked = SignalsBlocked::new();
        thread::Builder::new()
            .name(THREAD_NAME.to_owned())
            .spawn(move || shared.serve())
    }

    /// The life of a thread.
    fn serve(self: &Arc<Self>) {
        let this = thread::current().id();
        lock(&self.state).called = false;
        while let Some(ticket) = self.next(this) {
            if let Some(Job(work)) = ticket.start() {
                // The panic hook has told about it; the thread goes on with the next job.
                drop(catch_unwind(AssertUnwindSafe(|| work(&ticket))));
                ticket.finish();
            }
        }
    }

    /// The next job for the thread `this`, which has ended the one before; or `None` when the
    /// thread is to end.
    fn next(self: &Arc<Self>, this: ThreadId) -> Option<Ticket> {
        let mut state = lock(&self.state);
        state.running.retain(|(thread, _)| *thread != this);
        loop {
            if state.closed {
                return None;
            }
            if let Some(ticket) = state.queue.pop_front() {
                state.running.push((this, ticket.clone()));
                if !state.queue.is_empty() {
                    // Without another thread, this one goes on when it has time.
                    let _called = self.call(&mut state);
                }
                return Some(ticket);
            }
            state.idle += 1;
            let waited = self.work.wait_timeout(state, self.idle_time);
            let (woken, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            state.idle -= 1;
            state.called = false;
            if timeout.timed_out() && state.queue.is_empty() && !state.closed {
                // Ends on its own: nobody is going to join it.
                state.threads.retain(|thread| thread.thread().id() != this);
                return None;
            }
        }
    }
}

/// No code that can panic runs under these locks, and what they guard is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use super::*;

    /// Lets the pool's threads go on for a moment.
    fn pause() {
        let (_never, wait) = channel::<()>();
        let waited = wait.recv_timeout(Duration::from_millis(1));
        assert_eq!(waited, Err(RecvTimeoutError::Timeout));
    }

    #[test]
    fn an_idle_thread_is_used_again() {
        let resolver = Resolver::new(16);
        let (sender, receiver) = channel();
        for round in 0..50 {
            let sender = sender.clone();
            let deliver = move |number| sender.send(number).expect("the test is listening");
            resolver
                .submit(Job::new(move || round, deliver))
                .expect("submit");
            assert_eq!(receiver.recv(), Ok(round));
            // The thread that has delivered is on its way to wait again.
            while lock(&resolver.shared.state).idle == 0 {
                pause();
            }
        }
        assert_eq!(resolver.threads(), 1);
    }

    #[test]
    fn no_thread_is_called_while_one_is_on_its_way() {
        let resolver = Resolver::new(16);
        let mut state = lock(&resolver.shared.state);
        for _ in 0..3 {
            resolver.shared.call(&mut state).expect("a thread");
        }
        assert_eq!(state.threads.len(), 1);
        drop(state);
        while lock(&resolver.shared.state).called {
            pause();
        }
        // It waits for a job, and is the one that is called next.
        while lock(&resolver.shared.state).idle == 0 {
            pause();
        }
        let mut state = lock(&resolver.shared.state);
        resolver.shared.call(&mut state).expect("a thread");
        assert!(state.called);
        assert_eq!(state.threads.len(), 1);
    }

    #[test]
    fn threads_without_work_end_and_new_ones_follow() {
        let resolver = Resolver::with_idle_time(16, Duration::from_millis(5));
        for round in 0..3 {
            let (sender, receiver) = channel();
            let deliver = move |number| sender.send(number).expect("the test is listening");
            resolver
                .submit(Job::new(move || round, deliver))
                .expect("submit");
            assert_eq!(receiver.recv(), Ok(round));
            while resolver.threads() > 0 {
                pause();
            }
        }
        let state = lock(&resolver.shared.state);
        assert_eq!(
            (state.idle, state.running.len(), state.queue.len()),
            (0, 0, 0)
        );
    }
}
