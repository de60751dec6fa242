//! TLS without I/O: bytes from the network go in, plaintext and bytes for the network come out.
//!
//! The cryptography and the protocol are OpenSSL's. This crate neither links nor ships it: it calls
//! the libssl that the process has loaded already, the one behind Python's `_ssl`, and works on an
//! `SSL*` that somebody else configured and owns. Everything that the owner set up (verification,
//! ALPN, callbacks, session tickets) is in force, and everything that the owner asks the `SSL*`
//! afterwards is answered, because there is only one `SSL*`.
//!
//! | Module | Holds |
//! |---|---|
//! | [`library`] | the functions of the loaded libssl |
//! | [`session`] | a connection: [`Session`] |
//! | [`outcome`] | what calls come to, and why there may be no libssl |
//! | [`outgoing`] | ciphertext on its way to the wire |
//! | `contexts` | contexts of one's own for tests and fuzzing, behind the feature of that name |
//!
//! Nothing here knows Python, sockets or time. `unsafe` stands in `sys/` alone.

#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]

pub mod kept_buffers;
pub mod library;
pub mod outcome;
pub mod outgoing;
pub mod session;
#[expect(unsafe_code, reason = "the one place that calls OpenSSL")]
mod sys;

pub use kept_buffers::KeptBuffers;
pub use library::Library;
pub use outcome::{Failure, Outcome, Unavailable};
pub use outgoing::Outgoing;
pub use session::Session;
pub use sys::borrowed::BorrowedSsl;
pub use sys::cursor::Cursor;

#[cfg(feature = "contexts")]
pub use sys::contexts;
