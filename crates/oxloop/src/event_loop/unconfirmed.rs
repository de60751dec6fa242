//! Before sleeping, checks that registrations kept from an earlier `sock_recv` still belong to the
//! same file.
//!
//! A registration that is kept between two waits may have ended in the kernel: the descriptor was
//! closed, and its number given to another file. One epoll_ctl(2) tells. Under load the next poll
//! brings the awaited event, which tells as well. So the loop polls first, and checks the remaining
//! registrations only before it sleeps.
//!
//! Invariants:
//! - the loop never sleeps with an unchecked registration, and none stays unchecked for more than
//!   `POLLS_MOST` polls.
//!
//! Cost: at most one epoll_ctl(2) for each wait, and one epoll_wait(2) for each sleep.

use super::source::Source;
use super::{EventLoop, State};
use pyo3::prelude::*;
use reactor::token::Token;

/// The most polls before a registration is checked, whether the loop sleeps or not.
const POLLS_MOST: u32 = 64;
/// From so many registrations on, polling first is worthwhile: a poll costs half as much as a
/// check.
const WORTH_ASKING: usize = 2;

/// The registrations that are not checked yet.
#[derive(Default)]
pub(super) struct Unconfirmed {
    tokens: Vec<Token>,
    polls: u32,
}

/// What has to be done before a poll. To confirm is to check the registrations.
pub(super) enum Plan {
    /// Nothing.
    Poll,
    /// Poll without sleeping; if nothing is ready, confirm.
    Ask,
    /// Confirm.
    Confirm,
}

impl Unconfirmed {
    pub(super) fn note(&mut self, token: Token) {
        self.tokens.push(token);
    }

    /// What has to be done before a poll; `sleeps` if that poll may sleep.
    #[inline]
    pub(super) fn plan(&mut self, sleeps: bool) -> Plan {
        if self.tokens.is_empty() {
            return Plan::Poll;
        }
        self.polls += 1;
        if self.polls >= POLLS_MOST || (sleeps && self.tokens.len() < WORTH_ASKING) {
            return Plan::Confirm;
        }
        if sleeps { Plan::Ask } else { Plan::Poll }
    }
}

/// Makes sure that the kernel has every registration that somebody waits for.
///
/// # Errors
/// As `wake`.
pub(super) fn confirm(this: &Bound<'_, EventLoop>, state: &State) -> PyResult<()> {
    let tokens = {
        let mut unconfirmed = state.kernel.unconfirmed.borrow_mut();
        unconfirmed.polls = 0;
        std::mem::take(&mut unconfirmed.tokens)
    };
    for token in &tokens {
        state.confirm(this.py(), *token)?;
    }
    let mut unconfirmed = state.kernel.unconfirmed.borrow_mut();
    if unconfirmed.tokens.is_empty() {
        // Its memory is for the next ones.
        unconfirmed.tokens = tokens;
        unconfirmed.tokens.clear();
    }
    Ok(())
}

impl State {
    /// Confirms one registration. If the descriptor cannot be watched, its waiters are woken; their
    /// next system call raises the error.
    fn confirm(&self, py: Python<'_>, token: Token) -> PyResult<()> {
        let (fd, interest) = match self.kernel.sources.borrow_mut().get_mut(token) {
            Some(Source::Watch(watch)) => {
                watch.unconfirmed = false;
                if watch.waiters.is_empty() {
                    return Ok(());
                }
                (watch.fd, watch.interest().with(watch.registered))
            }
            _ => return Ok(()),
        };
        match self.rewatch(fd, token, interest, None) {
            Ok(()) => Ok(()),
            Err(lost) => lost.woken(py).map(drop),
        }
    }
}
