//! An `SSL*` of somebody else's, and the calls that move bytes through it.
//!
//! Each call empties the thread's error queue first, as OpenSSL asks for, so that what stands there
//! after a failure belongs to it.

use std::ffi::{c_int, c_long, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use super::bio::{self, Wire};
use super::cursor::Cursor;
use crate::library::Library;
use crate::outcome::{Outcome, Unavailable};

const CTRL_MODE: c_int = 33;
const CTRL_SET_READ_AHEAD: c_int = 41;
const CTRL_CLEAR_MODE: c_int = 78;
const MODE_ACCEPT_MOVING_WRITE_BUFFER: c_long = 0x02;
const MODE_AUTO_RETRY: c_long = 0x04;
const MODE_RELEASE_BUFFERS: c_long = 0x10;

const ERROR_WANT_READ: c_int = 2;
const ERROR_WANT_WRITE: c_int = 3;
const ERROR_ZERO_RETURN: c_int = 6;

/// An `SSL*` that its owner keeps alive.
#[derive(Clone, Copy)]
pub struct BorrowedSsl<'a> {
    library: &'static Library,
    ssl: NonNull<c_void>,
    owner: PhantomData<&'a ()>,
}

impl BorrowedSsl<'_> {
    /// Borrows `ssl`.
    ///
    /// # Safety
    /// - `ssl` is an `SSL*` of `library`, and is alive whenever this or a session over it is called
    ///   during the lifetime that is chosen (dropping a session is no call: the `SSL*` may be gone
    ///   by then), and as long as a session exists that was told to keep its buffers.
    /// - The `SSL*`, the session and the moment the `SSL*` is freed are never two threads' at once,
    ///   the owner's own calls included: those run the callbacks of the session's BIO. The GIL
    ///   alone does not ensure that for an `SSL*` that a Python object owns, because CPython
    ///   releases it around `SSL_do_handshake`, `SSL_read`, `SSL_write` and `SSL_shutdown`.
    #[inline]
    pub const unsafe fn borrow_raw(library: &'static Library, ssl: NonNull<c_void>) -> Self {
        Self {
            library,
            ssl,
            owner: PhantomData,
        }
    }

    /// The library it belongs to.
    #[inline]
    pub fn library(self) -> &'static Library {
        self.library
    }

    /// The `SSL_CTX*` that it was made from or switched to, to compare with one that is known.
    pub fn context(self) -> *mut c_void {
        // SAFETY: the `SSL*` is alive, as `borrow_raw` asks for.
        unsafe { (self.library.symbols.functions.ssl_get_ssl_ctx)(self.ssl.as_ptr()) }
    }

    /// Puts BIOs over `wire` in place of those it has, and sets the modes that a session relies on:
    /// a retried write may come from elsewhere in memory, and OpenSSL neither keeps empty buffers
    /// nor reads past the record that it is asked for, which would gain nothing over a buffer and
    /// hide what is left from `unread`.
    pub(crate) fn attach(self, wire: &Rc<Wire>) -> Result<(), Unavailable> {
        let functions = &self.library.symbols.functions;
        let bio = bio::make(self.library.symbols, &self.library.method, wire)?;
        let modes = MODE_ACCEPT_MOVING_WRITE_BUFFER | MODE_AUTO_RETRY | MODE_RELEASE_BUFFERS;
        // SAFETY: the `SSL*` is alive; each of the two setters takes over one of the references.
        unsafe {
            (functions.bio_up_ref)(bio.as_ptr());
            (functions.ssl_set0_rbio)(self.ssl.as_ptr(), bio.as_ptr());
            (functions.ssl_set0_wbio)(self.ssl.as_ptr(), bio.as_ptr());
            (functions.ssl_ctrl)(self.ssl.as_ptr(), CTRL_MODE, modes, ptr::null_mut());
            (functions.ssl_ctrl)(self.ssl.as_ptr(), CTRL_SET_READ_AHEAD, 0, ptr::null_mut());
        }
        Ok(())
    }

    /// Has OpenSSL keep its buffers, until they are freed. Before the handshake: from OpenSSL 3.2
    /// on, each change of keys makes buffers anew, by the mode of that moment.
    pub(crate) fn keep_buffers(self) {
        let control = self.library.symbols.functions.ssl_ctrl;
        let (ssl, mode) = (self.ssl.as_ptr(), MODE_RELEASE_BUFFERS);
        // SAFETY: the `SSL*` is alive; the command takes a number and no pointer.
        unsafe { control(ssl, CTRL_CLEAR_MODE, mode, ptr::null_mut()) };
    }

    /// Frees OpenSSL's buffers, unless there is something in them.
    pub(crate) fn free_buffers(self) {
        // SAFETY: the `SSL*` is alive.
        unsafe { (self.library.symbols.functions.ssl_free_buffers)(self.ssl.as_ptr()) };
    }

    /// Carries the handshake on.
    pub fn handshake(self) -> Outcome {
        self.library.clear_errors();
        // SAFETY: the `SSL*` is alive.
        let result =
            unsafe { (self.library.symbols.functions.ssl_do_handshake)(self.ssl.as_ptr()) };
        if result == 1 {
            Outcome::Done(0)
        } else {
            self.outcome(result)
        }
    }

    /// Reads plaintext, at most a record; see [`Session::read`](crate::Session::read).
    #[inline]
    pub fn read(self, into: &mut Cursor<'_>) -> Outcome {
        let room = into.unfilled();
        if room.is_empty() {
            return Outcome::Done(0);
        }
        self.library.clear_errors();
        let mut count = 0;
        // SAFETY: the `SSL*` is alive, and `room` is as long as is said.
        let result = unsafe {
            let read = self.library.symbols.functions.ssl_read_ex;
            let (start, length) = (room.as_mut_ptr(), room.len());
            read(self.ssl.as_ptr(), start.cast(), length, &raw mut count)
        };
        if result == 1 {
            // SAFETY: OpenSSL wrote `count` bytes to the start of `room`.
            unsafe { into.advance(count) };
            Outcome::Done(count)
        } else {
            self.outcome(result)
        }
    }

    /// Reads plaintext onto the end of `into`, at most `room` bytes.
    #[inline]
    pub fn read_onto(self, into: &mut Vec<u8>, room: usize) -> Outcome {
        into.reserve(room);
        let mut cursor = Cursor::new(&mut into.spare_capacity_mut()[..room]);
        let outcome = self.read(&mut cursor);
        let filled = cursor.filled();
        // SAFETY: so many bytes of the spare capacity are initialised.
        unsafe { into.set_len(into.len() + filled) };
        outcome
    }

    /// Writes plaintext; see [`Session::write`](crate::Session::write).
    #[inline]
    pub fn write(self, plaintext: &[u8]) -> Outcome {
        if plaintext.is_empty() {
            return Outcome::Done(0);
        }
        self.library.clear_errors();
        let mut count = 0;
        // SAFETY: the `SSL*` is alive, and `plaintext` is readable for its length.
        let result = unsafe {
            let write = self.library.symbols.functions.ssl_write_ex;
            write(
                self.ssl.as_ptr(),
                plaintext.as_ptr().cast(),
                plaintext.len(),
                &raw mut count,
            )
        };
        if result == 1 {
            Outcome::Done(count)
        } else {
            self.outcome(result)
        }
    }

    /// Writes a `close_notify` and looks for the peer's; see
    /// [`Session::shutdown`](crate::Session::shutdown).
    pub fn shutdown(self) -> Outcome {
        self.library.clear_errors();
        let shutdown = self.library.symbols.functions.ssl_shutdown;
        // SAFETY: the `SSL*` is alive.
        let mut result = unsafe { shutdown(self.ssl.as_ptr()) };
        if result == 0 {
            // Ours is written, the peer's is still to come: the second call looks for it.
            // SAFETY: as above.
            result = unsafe { shutdown(self.ssl.as_ptr()) };
        }
        match result {
            1 => Outcome::Done(0),
            0 => Outcome::WantRead,
            _ => self.outcome(result),
        }
    }

    /// The number of bytes of plaintext that OpenSSL has ready.
    pub fn pending(self) -> usize {
        // SAFETY: the `SSL*` is alive.
        let count = unsafe { (self.library.symbols.functions.ssl_pending)(self.ssl.as_ptr()) };
        count as usize
    }

    /// `SSL_SENT_SHUTDOWN` and `SSL_RECEIVED_SHUTDOWN`.
    pub(crate) fn shutdown_state(self) -> c_int {
        // SAFETY: the `SSL*` is alive.
        unsafe { (self.library.symbols.functions.ssl_get_shutdown)(self.ssl.as_ptr()) }
    }

    /// What a call that returned `result` instead of 1 came to.
    fn outcome(self, result: c_int) -> Outcome {
        // SAFETY: the `SSL*` is alive, and its last call on this thread returned `result`.
        let error =
            unsafe { (self.library.symbols.functions.ssl_get_error)(self.ssl.as_ptr(), result) };
        match error {
            ERROR_WANT_READ => Outcome::WantRead,
            ERROR_WANT_WRITE => Outcome::WantWrite,
            ERROR_ZERO_RETURN => Outcome::CloseNotify,
            _ => Outcome::Failed,
        }
    }
}

impl fmt::Debug for BorrowedSsl<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("BorrowedSsl")
            .field(&self.ssl)
            .finish()
    }
}
