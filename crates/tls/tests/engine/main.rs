//! The engine against itself, against hostile bytes and against OpenSSL's own programs.
//!
//! Needs the system's libssl, and the `openssl` program beside it.

mod chunks;
mod closing;
mod hostile;
mod lifetime;
mod openssl;
mod session;
mod support;
