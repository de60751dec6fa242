//! OpenSSL, behind safe functions.
//!
//! Each file wraps one topic, and gives the rest of the crate slices and enums instead of pointers
//! and return codes. All of them rely on two facts: an `SSL*` is alive while it is used, and it and
//! the objects that it owns are used by one thread at a time. The caller that makes a
//! [`borrowed::BorrowedSsl`] promises both.

pub(crate) mod bio;
pub(crate) mod borrowed;
#[cfg(feature = "contexts")]
pub mod contexts;
pub(crate) mod cursor;
pub(crate) mod incoming;
pub(crate) mod symbols;
