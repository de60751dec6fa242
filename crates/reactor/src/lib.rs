//! What the kernel does for an event loop: readiness, wake-ups, timers, sockets, name resolution.
//!
//! This crate does not depend on Python. It owns descriptors, system calls and their errors; the
//! extension module builds asyncio's behaviour on it, and decides in which order things run.
//!
//! | Module | Holds |
//! |---|---|
//! | [`clock`] | the monotonic clock, equal to Python's `time.monotonic` |
//! | [`token`] | the identity of a registration: slab index and generation |
//! | [`poller`] | readiness of descriptors (epoll, level-triggered) |
//! | [`busy_poll`] | asking the poller for a while before waiting |
//! | [`notifier`] | waking a waiting poller from another thread |
//! | [`timer`] | deadlines, earliest first |
//! | [`addr`] | socket addresses and their kernel form |
//! | [`socket`] | non-blocking socket and pipe calls |
//! | [`datagram`] | datagrams with their addresses, and runs of them in one call |
//! | [`mod@file`] | the few questions and calls about files |
//! | [`resolver`] | threads for `getaddrinfo` and `getnameinfo` |
//!
//! Errors are `std::io::Error`s made from the raw errno, so that the number survives up to Python's
//! `OSError.errno`. `unsafe` stands in `sys/` alone.

#![deny(unsafe_code)]
#![warn(missing_docs, missing_debug_implementations)]

pub mod addr;
pub mod busy_poll;
pub mod clock;
pub mod datagram;
pub mod file;
pub mod notifier;
pub mod poller;
pub mod resolver;
pub mod socket;
#[expect(unsafe_code, reason = "the one place that calls the C library")]
mod sys;
pub mod timer;
pub mod token;
