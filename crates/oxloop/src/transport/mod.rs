//! Transports: what connects a descriptor, or a child process, to a protocol.
//!
//! | asyncio's class | here |
//! |---|---|
//! | BaseTransport | `base`, of all of them |
//! | _FlowControlMixin | `flow_control`, of those that are written to |
//! | _SelectorTransport | `selector`, of those that have a socket |
//! | _SelectorSocketTransport, _SelectorDatagramTransport | `stream`, `datagram` |
//! | _UnixReadPipeTransport, _UnixWritePipeTransport | `pipe` |
//! | BaseSubprocessTransport | `subprocess` |

pub(crate) mod base;
pub(crate) mod datagram;
pub(crate) mod delivery;
pub(crate) mod flow_control;
pub(crate) mod pipe;
pub(crate) mod polled;
mod reading_switch;
mod selector;
pub(crate) mod stream;
pub(crate) mod stream_reader;
pub(crate) mod subprocess;
mod write_queue;

pub(crate) use write_queue::{chunk_of, is_writable_data};
