//! A TLS connection as a state machine without I/O.
//!
//! ```text
//! wire  -> receive_with / receive -> read  -> plaintext
//! plaintext -> write -> to_send -> wire
//! ```
//!
//! Every call makes as much progress as the bytes received so far allow and says how it ended, see
//! [`Outcome`]. Any of them may leave something in [`Session::to_send`], reading too: alerts, and
//! answers to a key update.
//!
//! The `SSL*` stays its owner's, whose own calls on it may stand between any two of a session's, or
//! in [`Session::with_owner`]; they read and write the same buffers.
//!
//! Cost: ciphertext is copied once into OpenSSL's record buffer and once out of it, as a socket BIO
//! of OpenSSL's own would do with a system call each. An idle session holds no buffer but the
//! [`KEPT_CAPACITY`](crate::outgoing::KEPT_CAPACITY) of its output; OpenSSL is told to release its
//! own, except for a few sessions, see [`KeptBuffers`]. Differs from asyncio, where each step goes
//! through a `bytes` object and a `MemoryBIO`.

use std::cell::RefMut;
use std::rc::Rc;

use crate::kept_buffers::{KeptBuffers, Share};
use crate::library::Library;
use crate::outcome::{Failure, Outcome, Unavailable};
use crate::outgoing::Outgoing;
use crate::sys::bio::{self, Wire};
use crate::sys::borrowed::BorrowedSsl;
use crate::sys::cursor::Cursor;

/// The plaintext of one record, at most.
pub const RECORD: usize = 16 * 1024;
/// What a record adds to it: 22 bytes in TLS 1.3, 29 with the ciphers of TLS 1.2 that are in use.
const RECORD_OVERHEAD: usize = 32;
const SENT_SHUTDOWN: i32 = 1;
const RECEIVED_SHUTDOWN: i32 = 2;

/// A TLS connection over buffers.
#[derive(Debug)]
pub struct Session {
    ssl: BorrowedSsl<'static>,
    wire: Rc<Wire>,
    buffers: Option<Share>,
}

impl Session {
    /// Replaces the BIOs of `ssl`; what its old ones held is not carried over. Static, as a session
    /// lives as long as the objects of whoever borrowed it.
    pub fn adopt(ssl: BorrowedSsl<'static>) -> Result<Self, Unavailable> {
        let wire = Wire::new();
        ssl.attach(&wire)?;
        Ok(Self {
            ssl,
            wire,
            buffers: None,
        })
    }

    /// Shares in the buffers of OpenSSL's that are kept between two messages; to be called before
    /// the handshake. From now on the `SSL*` may be called when another session is.
    pub fn keep_buffers(&mut self, kept: &Rc<KeptBuffers>) {
        self.ssl.keep_buffers();
        self.buffers = Some(Share::new(kept, self.ssl));
    }

    /// The library it runs on.
    #[inline]
    pub fn library(&self) -> &'static Library {
        self.ssl.library()
    }

    /// Runs `body` with `ciphertext` at hand to be read; what is left afterwards is kept. Spares
    /// the copy that [`Self::receive`] makes, if `body` reads until [`Outcome::WantRead`].
    #[inline]
    pub fn receive_with<R>(&mut self, ciphertext: &[u8], body: impl FnOnce(&mut Self) -> R) -> R {
        let wire = Rc::clone(&self.wire);
        bio::with_loan(&wire, ciphertext, || body(self))
    }

    /// Adds `ciphertext` to what the wire has brought.
    pub fn receive(&mut self, ciphertext: &[u8]) {
        self.wire.incoming.borrow_mut().push(ciphertext);
    }

    /// The wire has ended: reading past what it has brought finds the end, not a wait.
    pub fn receive_eof(&mut self) {
        self.wire.incoming.borrow_mut().end();
    }

    /// The number of bytes from the wire that OpenSSL has not taken.
    #[inline]
    pub fn unread(&self) -> usize {
        self.wire.incoming.borrow().len()
    }

    /// Whether a read could not yield anything: every byte received went into plaintext that was
    /// read, or waits for the rest of its record. Asking is cheaper than reading in vain.
    #[inline]
    pub fn is_drained(&self) -> bool {
        self.wire.incoming.borrow().is_exhausted() && self.ssl.pending() == 0
    }

    /// The number of bytes of plaintext that OpenSSL has ready, `SSLObject.pending()`.
    pub fn pending(&self) -> usize {
        self.ssl.pending()
    }

    /// Carries the handshake on.
    pub fn handshake(&mut self) -> Outcome {
        let outcome = self.ssl.handshake();
        self.free_buffers();
        outcome
    }

    /// Reads plaintext, at most a record. Runs the handshake first if it is due.
    #[inline]
    pub fn read(&mut self, into: &mut Cursor<'_>) -> Outcome {
        let ssl = self.ssl;
        self.with_buffers(|| ssl.read(into))
    }

    /// Like [`Self::read`], onto the end of `into`, at most `room` bytes.
    #[inline]
    pub fn read_onto(&mut self, into: &mut Vec<u8>, room: usize) -> Outcome {
        let ssl = self.ssl;
        self.with_buffers(|| ssl.read_onto(into, room))
    }

    /// Writes plaintext, all of it unless the owner chose `SSL_MODE_ENABLE_PARTIAL_WRITE`, then a
    /// record. After [`Outcome::WantRead`] the next write must begin with the same bytes.
    #[inline]
    pub fn write(&mut self, plaintext: &[u8]) -> Outcome {
        let records = plaintext.len().div_ceil(RECORD);
        if records > 1 {
            // Once, and not record by record with what is there copied each time.
            let sealed = plaintext.len() + records * RECORD_OVERHEAD;
            self.wire.outgoing.borrow_mut().reserve(sealed);
        }
        let ssl = self.ssl;
        self.with_buffers(|| ssl.write(plaintext))
    }

    /// Frees the buffers that a handshake has left behind: its peer may never go on with it.
    pub fn free_buffers(&mut self) {
        if self.buffers.is_some() {
            self.ssl.free_buffers();
        }
    }

    /// Runs a call of the owner's on the `SSL*`. Other sessions may be used meanwhile.
    pub fn with_owner<R>(&mut self, call: impl FnOnce() -> R) -> R {
        match &self.buffers {
            Some(share) => share.keeping(call),
            None => call(),
        }
    }

    #[inline]
    fn with_buffers<R>(&self, call: impl FnOnce() -> R) -> R {
        match &self.buffers {
            Some(share) => share.using(call),
            None => call(),
        }
    }

    /// Gives memory for the next ciphertext, unless there is some already.
    #[inline]
    pub fn reuse(&mut self, memory: Vec<u8>) {
        self.wire.outgoing.borrow_mut().reuse(memory);
    }

    /// Writes a `close_notify` unless it was, then looks for the peer's: done once both went,
    /// [`Outcome::WantRead`] before. Plaintext that was not read is an error.
    pub fn shutdown(&mut self) -> Outcome {
        self.ssl.shutdown()
    }

    /// Whether a `close_notify` was written.
    pub fn close_notify_sent(&self) -> bool {
        self.ssl.shutdown_state() & SENT_SHUTDOWN != 0
    }

    /// Whether the peer's `close_notify` was read.
    pub fn close_notify_received(&self) -> bool {
        self.ssl.shutdown_state() & RECEIVED_SHUTDOWN != 0
    }

    /// The ciphertext to send. While the result is held, whatever would write more fails: send,
    /// [`Outgoing::advance`] and let go before Python or the session is called.
    #[inline]
    pub fn to_send(&mut self) -> RefMut<'_, Outgoing> {
        self.wire.outgoing.borrow_mut()
    }

    /// The number of bytes in [`Self::to_send`].
    #[inline]
    pub fn unsent(&self) -> usize {
        self.wire.outgoing.borrow().len()
    }

    /// The memory that both buffers hold.
    pub fn capacity(&self) -> usize {
        self.wire.incoming.borrow().capacity() + self.wire.outgoing.borrow().capacity()
    }

    /// The newest entry of the error queue, see [`Library::last_failure`].
    pub fn error(&self) -> Option<Failure> {
        self.library().last_failure()
    }

    /// Empties the error queue.
    pub fn clear_errors(&self) {
        self.library().clear_errors();
    }
}
