//! The engine against itself, against hostile bytes and against OpenSSL's own programs.

mod session;
mod support;
