//! The methods of the loop that make transports and servers, one file per group.
//!
//! | asyncio's method | file |
//! |---|---|
//! | create_connection, create_unix_connection | `connection`, `attempts`, `happy_eyeballs` |
//! | connect_accepted_socket | `transport` |
//! | create_server, create_unix_server | `server`, `unix_server`, and the room `server` |
//! | start_tls | `start_tls`; every `ssl=` is in `tls::options` |
//! | create_datagram_endpoint | `datagram_endpoint`, and `transport/datagram/` |
//! | connect_read_pipe, connect_write_pipe | `pipes`, and `transport/pipe/` |
//! | subprocess_exec, subprocess_shell | `subprocess`, and `transport/subprocess/` |
//!
//! Each is a coroutine. It checks its arguments, resolves names, makes a socket, and passes it to a
//! transport (`transport::open_transport`) or to a `Server`. If a step fails, everything made so
//! far is closed, and asyncio's exception is raised.

mod attempts;
mod connection;
mod datagram_endpoint;
mod happy_eyeballs;
mod pipes;
mod server;
mod start_tls;
mod subprocess;
mod transport;
mod unix_server;
