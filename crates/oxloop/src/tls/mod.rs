//! TLS over any transport: what `ssl=` and `start_tls` put between a transport and a protocol.
//!
//! | Part | File |
//! |---|---|
//! | which way data takes through OpenSSL, decided at import | `data_path` |
//! | what `ssl=` and its companions ask for | `options` |
//! | plaintext and ciphertext: the records of one connection | `records`, `direct`, `memory_bio` |
//! | what encrypting and decrypting come to | `outcome` |
//! | plaintext as it comes | `chunks` |
//! | what the transport below calls | `protocol` |
//! | handshake and its timeout | `handshake` |
//! | decrypting, delivering, read flow control | `read` |
//! | encrypting, the backlog, write flow control | `write`, `backlog` |
//! | close_notify, the shutdown timeout, the end | `shutdown` |
//! | what the program sees | `transport` |
//! | the transport below, ours or somebody else's | `lower` |
//!
//! The state machine is that of `asyncio.sslproto`, and so are the order of callbacks, the
//! timeouts, the water marks and the texts. Handshake and shutdown call the program's own
//! `ssl.SSLObject`, so its SSLContext decides everything and its exceptions reach the program; only
//! application data takes a shorter path.
//!
//! Invariants:
//! - no borrow is held while Python code may run. If a session is in use (OpenSSL called back into
//!   Python, and that called us), it is not used again; what could not be written stays in the
//!   backlog.
//! - ciphertext is handed to the transport below as soon as it is made.
//!
//! Cost of a message: one SSL_read into the `bytes` that the protocol gets, one SSL_write, no other
//! Python object. An idle connection keeps no buffer, unless it was among the last to be used.
//!
//! Differs from asyncio: see docs/compatibility.md (what counts as queued).

mod backlog;
mod chunks;
mod data_path;
mod direct;
mod handshake;
mod lower;
mod memory_bio;
pub(crate) mod options;
mod outcome;
mod protocol;
mod read;
mod records;
mod shutdown;
mod transport;
mod write;

pub(crate) use data_path::choose;
pub(crate) use protocol::{HandshakeWaiter, Options, TlsProtocol, TlsThis};
pub(crate) use transport::TlsTransport;

use crate::py::class::{OfNative, Slots, create};
use crate::py::imports;
use crate::py::method::Methods;
use crate::transport::delivery;
use pyo3::prelude::*;
use pyo3::types::PyType;

/// Makes the two types; called once, at import. Python knows them by the names that asyncio's have:
/// programs look for "ssl" in the name of a transport's class, CPython's tests do.
pub(crate) fn create_types(module: &Bound<'_, PyModule>) -> PyResult<()> {
    delivery::register(&protocol::NATIVE);
    let py = module.py();
    let mut methods = Methods::<OfNative<TlsProtocol>>::new();
    protocol::add_methods(&mut methods);
    handshake::add_methods(&mut methods);
    read::add_methods(&mut methods);
    write::add_methods(&mut methods);
    shutdown::add_methods(&mut methods);
    create::<TlsProtocol>(
        py,
        c"oxloop._oxloop.SSLProtocol",
        c"Between a transport and the program's protocol: TLS.",
        imports::buffered_protocol(py)?.cast::<PyType>()?,
        methods,
        Slots::default(),
    )?;
    let mut methods = Methods::<OfNative<TlsTransport>>::new();
    transport::add_methods(&mut methods);
    create::<TlsTransport>(
        py,
        c"oxloop._oxloop.SSLTransport",
        c"A TLS connection, see asyncio.Transport.",
        imports::transport(py)?.cast::<PyType>()?,
        methods,
        Slots::default(),
    )?;
    transport::declare(py)?;
    module.add("SSLTransport", transport::type_object(py))
}
