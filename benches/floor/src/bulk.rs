//! Bulk: what a server sends that only sends, and says that only receives.
//!
//! Both are what the load generator expects, see its `bulk.rs`.
//!
//! Cost: one `send` for up to `size` bytes, which are not copied; one receipt for 4 MiB.

use std::rc::Rc;

const MESSAGES: usize = 16;
const HEADER_LEN: usize = 16;
const FILLER_FIRST: u8 = b'!';
const FILLER_COUNT: usize = 94;
const RECEIPT_BYTES: usize = 4 << 20;

/// Numbered messages, again and again, and how much of them one connection was sent.
#[derive(Clone)]
pub(crate) struct Messages {
    size: usize,
    bytes: Rc<[u8]>,
    place: usize,
}

impl Messages {
    /// Make them, of a size that a header fits into.
    pub(crate) fn new(size: usize) -> Option<Self> {
        if size < HEADER_LEN {
            return None;
        }
        let filler = (HEADER_LEN..size).map(|at| FILLER_FIRST + (at % FILLER_COUNT) as u8);
        let filler: Vec<u8> = filler.collect();
        let message =
            |number: usize| [format!("{number:0HEADER_LEN$x}").as_bytes(), &filler].concat();
        Some(Self {
            size,
            bytes: (0..MESSAGES).flat_map(message).collect(),
            place: 0,
        })
    }

    /// What is left of the message that is being sent.
    pub(crate) fn unsent(&self) -> &[u8] {
        let end = self.place - self.place % self.size + self.size;
        &self.bytes[self.place..end]
    }

    pub(crate) fn advance(&mut self, sent: usize) {
        self.place = (self.place + sent) % self.bytes.len();
    }
}

/// How far a connection is from its next receipt.
#[derive(Clone, Default)]
pub(crate) struct Receipts {
    received: usize,
}

impl Receipts {
    /// Count what arrived, which is less than one receipt is for; return the receipt if it is due.
    pub(crate) const fn of(&mut self, received: usize) -> &'static [u8] {
        self.received += received;
        if self.received < RECEIPT_BYTES {
            return b"";
        }
        self.received -= RECEIPT_BYTES;
        b"."
    }
}

#[cfg(test)]
mod tests {
    use super::{Messages, RECEIPT_BYTES, Receipts};

    #[test]
    fn messages_are_numbered_and_start_anew() {
        let mut messages = Messages::new(20).expect("a size");
        let mut stream = Vec::new();
        while stream.len() < 17 * 20 {
            let count = messages.unsent().len().min(7);
            stream.extend_from_slice(&messages.unsent()[..count]);
            messages.advance(count);
        }
        assert_eq!(&stream[..20], b"00000000000000001234");
        assert_eq!(&stream[15 * 20..16 * 20], b"000000000000000f1234");
        assert_eq!(&stream[16 * 20..17 * 20], &stream[..20]);
        assert!(Messages::new(15).is_none());
    }

    #[test]
    fn a_receipt_is_for_so_many_bytes() {
        let mut receipts = Receipts::default();
        assert_eq!(receipts.of(RECEIPT_BYTES - 1), b"");
        assert_eq!(receipts.of(2), b".");
        assert_eq!(receipts.of(RECEIPT_BYTES - 2), b"");
        assert_eq!(receipts.of(1), b".");
    }
}
