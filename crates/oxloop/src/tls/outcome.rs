//! How encrypting and decrypting ended.

use pyo3::prelude::*;
use pyo3::types::PyBytes;

/// How decrypting what has arrived ended.
pub(super) enum ReadEnd {
    /// More has to arrive first.
    WantsMore,
    /// The peer said that it sends no more.
    CloseNotify,
    /// The buffer that was lent is full, and there is more.
    Full,
    Failed(PyErr),
}

/// Plaintext, and what came after it.
pub(super) struct Decrypted<T> {
    pub(super) plaintext: T,
    pub(super) end: ReadEnd,
}

/// How encrypting ended.
pub(super) enum Encrypted {
    /// So many bytes were taken: all, unless the handshake of a renegotiation comes first.
    Taken(usize),
    Failed(PyErr),
}

/// Ciphertext on its way to the peer.
pub(super) enum Ciphertext {
    Owned(Vec<u8>),
    Bytes(Py<PyBytes>),
}
