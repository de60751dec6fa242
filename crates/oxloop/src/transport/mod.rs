//! Transports: what connects a descriptor to a protocol.

pub(crate) mod stream;
