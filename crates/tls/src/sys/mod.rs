//! OpenSSL, behind safe functions.
//!
//! Each file wraps one topic and gives the rest of the crate slices and enums in place of pointers
//! and return codes. Two obligations run through all of them: an `SSL*` is alive while it is used,
//! which whoever makes a [`borrowed::BorrowedSsl`] promises, and an `SSL*` with what hangs on it is
//! used by one thread at a time, which the same promise covers.

pub(crate) mod bio;
pub(crate) mod borrowed;
#[cfg(feature = "contexts")]
pub mod contexts;
pub(crate) mod incoming;
pub(crate) mod symbols;
