//! `RecordMemory`: memory that the TLS connections of one loop take turns in.
//!
//! A message is encrypted into the memory that the last one was sent from, which is in the
//! processor's cache; and OpenSSL keeps its record buffers for the connections that were used last,
//! see [`KeptBuffers`]. Neither belongs to a connection that is idle.

use std::cell::Cell;
use std::rc::Rc;
use tls::KeptBuffers;

/// Memory for larger messages is not worth keeping: most of it would be unused by the next one.
const REUSED_MOST: usize = 4096;

/// What a loop has of it.
#[derive(Default)]
pub(crate) struct RecordMemory {
    kept: Rc<KeptBuffers>,
    sent: Cell<Vec<u8>>,
}

impl RecordMemory {
    pub(crate) const fn kept(&self) -> &Rc<KeptBuffers> {
        &self.kept
    }

    /// Memory for ciphertext; without any, what is made of it allocates.
    pub(crate) fn take(&self) -> Vec<u8> {
        self.sent.take()
    }

    /// Takes ciphertext that is sent, for its memory.
    pub(crate) fn give_back(&self, sent: Vec<u8>) {
        if sent.capacity() <= REUSED_MOST {
            self.sent.set(sent);
        }
    }
}
