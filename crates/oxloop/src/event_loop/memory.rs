//! `Memory`: memory that all connections of a loop use, one at a time.
//!
//! All reads go into one buffer. A TLS message is encrypted into the memory from which the last one
//! was sent, because that is in the processor's cache. OpenSSL keeps its record buffers for the
//! connections that were used last, see [`KeptBuffers`]. So an idle connection owns none of this
//! memory.

use super::State;
use std::cell::Cell;
use std::rc::Rc;
use tls::KeptBuffers;

/// Memory for larger messages is not worth keeping: most of it would be unused by the next one.
const REUSED_MOST: usize = 4096;

/// One read's worth, as asyncio's `max_size`.
const SCRATCH: usize = 256 * 1024;

/// The memory of one loop.
pub(crate) struct Memory {
    /// Where transports read before the size is known, once one has read; shared, since one read
    /// runs at a time.
    pub(super) scratch: Cell<Option<Box<[u8]>>>,
    /// How much the latest `sock_recv` of any socket got.
    pub(crate) last_sock_recv: Cell<usize>,
    pub(super) record_memory: RecordMemory,
}

/// What TLS connections share.
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

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            scratch: Cell::new(None),
            last_sock_recv: Cell::new(0),
            record_memory: RecordMemory::default(),
        }
    }
}

fn new_scratch() -> Box<[u8]> {
    vec![0; SCRATCH].into_boxed_slice()
}

impl State {
    /// Lends the loop's read buffer to `body`. If `body` runs Python code that gets here again,
    /// that call gets another buffer.
    #[inline]
    pub(crate) fn with_scratch<R>(&self, body: impl FnOnce(&mut [u8]) -> R) -> R {
        let scratch = &self.memory.scratch;
        let mut memory = scratch.take().unwrap_or_else(new_scratch);
        let result = body(&mut memory);
        scratch.set(Some(memory));
        result
    }

    #[inline]
    pub(crate) const fn record_memory(&self) -> &RecordMemory {
        &self.memory.record_memory
    }
}
