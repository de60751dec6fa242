//! The engine against itself, against hostile bytes and against OpenSSL's own programs.
//!
//! Needs the system's libssl, or the one that LIBSSL names, and the `openssl` program.

mod chunks;
mod closing;
mod hostile;
mod kept;
mod lifetime;
mod openssl;
mod session;
mod support;
