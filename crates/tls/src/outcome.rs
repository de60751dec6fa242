//! What calls of OpenSSL come to, and why there may be none: [`Outcome`], [`Failure`],
//! [`Unavailable`]. Plain data, below everything else.

use std::error::Error;
use std::ffi::CString;
use std::fmt;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done, for so many bytes where bytes are counted.
    Done(usize),
    /// More is needed from the wire first.
    WantRead,
    /// The output must drain first. A session's own buffer never does this, the owner's callbacks
    /// might.
    WantWrite,
    /// The peer has closed the connection with a `close_notify`, or by its end where the owner set
    /// `SSL_OP_IGNORE_UNEXPECTED_EOF`.
    CloseNotify,
    /// It failed, and the connection is of no use any more. Why stands in the thread's error queue
    /// and stays there until the next call; with nothing in it, the wire ended without a
    /// `close_notify` (before OpenSSL 3).
    Failed,
}

/// An entry of OpenSSL's error queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The packed number.
    pub code: u64,
    /// Which part of OpenSSL: "SSL routines".
    pub library: String,
    /// What is wrong: "wrong version number".
    pub reason: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.library, self.reason)
    }
}

/// Why this process offers no libssl to work with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unavailable {
    /// The shared object at this path is not loaded.
    NotLoaded(String),
    /// A function is missing: linked statically without its symbols, or no OpenSSL.
    Missing(CString),
    /// Another copy of libssl was found before.
    Another,
    /// OpenSSL had no memory, or no number for a type of BIO.
    Exhausted,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoaded(path) => write!(formatter, "{path} is not loaded"),
            Self::Missing(name) => write!(formatter, "libssl has no {}", name.to_string_lossy()),
            Self::Another => formatter.write_str("another libssl is in use already"),
            Self::Exhausted => formatter.write_str("OpenSSL could not make a BIO"),
        }
    }
}

impl Error for Unavailable {}
