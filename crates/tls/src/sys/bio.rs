//! A BIO that reads from and writes to buffers of this crate.
//!
//! One BIO serves an `SSL*` in both directions. The BIO and the session share the [`Wire`] by
//! reference counting, so that either may be freed first; the other one goes on working, without a
//! peer.
//!
//! Like Python's `MemoryBIO`, a read reports "try again" if the buffer is empty, and the end of the
//! stream if the wire has ended as well. A write always succeeds.
//!
//! Invariant: no borrow of a buffer is held across a call that could run another callback. A caller
//! that breaks this, by holding [`Wire::outgoing`] while the `SSL*` is used, gets a failed write,
//! not undefined behaviour.

use std::cell::RefCell;
use std::ffi::{c_char, c_int, c_long, c_void};
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::slice;

use super::incoming::Incoming;
use super::symbols::{Opaque, Symbols};
use crate::outcome::Unavailable;
use crate::outgoing::Outgoing;

const TYPE_SOURCE_SINK: c_int = 0x0400;
const FLAGS_READ: c_int = 0x01;
const FLAGS_SHOULD_RETRY: c_int = 0x08;
const FLAGS_RETRY_ALL: c_int = 0x0f;

const CTRL_EOF: c_int = 2;
const CTRL_GET_CLOSE: c_int = 8;
const CTRL_SET_CLOSE: c_int = 9;
const CTRL_PENDING: c_int = 10;
const CTRL_FLUSH: c_int = 11;
const CTRL_DUP: c_int = 12;
const CTRL_WPENDING: c_int = 13;

/// Both directions of a connection's ciphertext.
#[derive(Debug)]
pub(crate) struct Wire {
    pub(crate) incoming: RefCell<Incoming>,
    pub(crate) outgoing: RefCell<Outgoing>,
}

impl Wire {
    pub(crate) fn new() -> Rc<Self> {
        Rc::new(Self {
            incoming: RefCell::new(Incoming::new()),
            outgoing: RefCell::default(),
        })
    }
}

/// While it lives, the wire reads from bytes of the caller.
#[derive(Debug)]
pub(crate) struct Loan {
    wire: Rc<Wire>,
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.wire.incoming.borrow_mut().end_loan();
    }
}

/// Runs `body` while the wire reads from `bytes`, then copies the bytes that were not read. Inside
/// another loan, the unread bytes of that one are copied first.
pub(crate) fn with_loan<R>(wire: &Rc<Wire>, bytes: &[u8], body: impl FnOnce() -> R) -> R {
    let loan = Loan {
        wire: Rc::clone(wire),
    };
    // SAFETY: `bytes` are borrowed for this call, and `loan`, which ends it, is dropped before the
    // call returns or unwinds; it is never handed out, so that nobody can forget it.
    unsafe { wire.incoming.borrow_mut().lend(bytes) };
    let result = body();
    drop(loan);
    result
}

/// The BIO_METHOD of this crate's BIOs.
pub(crate) struct Method(NonNull<Opaque>);

// SAFETY: a BIO_METHOD is filled in before it gets here and only read afterwards.
unsafe impl Send for Method {}
// SAFETY: as above.
unsafe impl Sync for Method {}

impl Method {
    pub(crate) fn new(symbols: &Symbols) -> Result<Self, Unavailable> {
        let functions = &symbols.functions;
        // SAFETY: plain calls with a constant name; the result is checked.
        let method = unsafe {
            let index = (functions.bio_get_new_index)();
            if index == -1 {
                return Err(Unavailable::Exhausted);
            }
            (functions.bio_meth_new)(index | TYPE_SOURCE_SINK, c"oxloop".as_ptr())
        };
        let method = NonNull::new(method).ok_or(Unavailable::Exhausted)?;
        // SAFETY: `method` is a new BIO_METHOD, and the callbacks have the signatures asked for.
        unsafe {
            (functions.bio_meth_set_write_ex)(method.as_ptr(), write);
            (functions.bio_meth_set_read_ex)(method.as_ptr(), read);
            (functions.bio_meth_set_ctrl)(method.as_ptr(), control);
            (functions.bio_meth_set_destroy)(method.as_ptr(), destroy);
        }
        Ok(Self(method))
    }
}

/// Makes a BIO over a share of `wire`; the caller owns its only reference.
pub(super) fn make(
    symbols: &Symbols,
    method: &Method,
    wire: &Rc<Wire>,
) -> Result<NonNull<Opaque>, Unavailable> {
    let functions = &symbols.functions;
    // SAFETY: the method lives as long as the process.
    let bio = unsafe { (functions.bio_new)(method.0.as_ptr()) };
    let bio = NonNull::new(bio).ok_or(Unavailable::Exhausted)?;
    let share = Rc::into_raw(Rc::clone(wire)).cast_mut().cast();
    // SAFETY: a new BIO of ours, whose destructor gives the share back.
    unsafe { (functions.bio_set_data)(bio.as_ptr(), share) };
    Ok(bio)
}

/// The wire behind a BIO in one of the callbacks below.
///
/// # Safety
/// `bio` is a live BIO of [`Method`]'s, not yet destroyed during `'a`.
#[inline]
unsafe fn wire_of<'a>(bio: *mut Opaque) -> Option<(&'static Symbols, &'a Wire)> {
    let symbols = Symbols::loaded()?;
    // SAFETY: the data of such a BIO is null or the pointer of a share that it owns.
    let wire = unsafe {
        (symbols.functions.bio_get_data)(bio)
            .cast::<Wire>()
            .as_ref()
    }?;
    Some((symbols, wire))
}

unsafe extern "C" fn write(
    bio: *mut Opaque,
    bytes: *const c_char,
    length: usize,
    written: *mut usize,
) -> c_int {
    // SAFETY: OpenSSL calls this for a live BIO of our method.
    let Some((symbols, wire)) = (unsafe { wire_of(bio) }) else {
        return 0;
    };
    // SAFETY: `bio` is live.
    unsafe { (symbols.functions.bio_clear_flags)(bio, FLAGS_RETRY_ALL) };
    let Ok(mut outgoing) = wire.outgoing.try_borrow_mut() else {
        return 0;
    };
    if length != 0 {
        // SAFETY: OpenSSL passes `length` readable bytes.
        outgoing.push(unsafe { slice::from_raw_parts(bytes.cast(), length) });
    }
    // SAFETY: OpenSSL passes a place for the number.
    unsafe { *written = length };
    1
}

unsafe extern "C" fn read(
    bio: *mut Opaque,
    into: *mut c_char,
    capacity: usize,
    count: *mut usize,
) -> c_int {
    // SAFETY: OpenSSL calls this for a live BIO of our method.
    let Some((symbols, wire)) = (unsafe { wire_of(bio) }) else {
        return 0;
    };
    // SAFETY: `bio` is live.
    unsafe { (symbols.functions.bio_clear_flags)(bio, FLAGS_RETRY_ALL) };
    let Ok(mut incoming) = wire.incoming.try_borrow_mut() else {
        return 0;
    };
    // SAFETY: OpenSSL passes room for `capacity` bytes and a place for their number.
    let taken = unsafe {
        let taken = incoming.read_into(into.cast(), capacity);
        *count = taken;
        taken
    };
    if taken != 0 {
        return 1;
    }
    if !incoming.at_end() {
        // SAFETY: `bio` is live.
        unsafe { (symbols.functions.bio_set_flags)(bio, FLAGS_READ | FLAGS_SHOULD_RETRY) };
    }
    0
}

unsafe extern "C" fn control(
    bio: *mut Opaque,
    command: c_int,
    _number: c_long,
    _pointer: *mut c_void,
) -> c_long {
    // SAFETY: OpenSSL calls this for a live BIO of our method.
    let Some((_, wire)) = (unsafe { wire_of(bio) }) else {
        return 0;
    };
    match command {
        CTRL_FLUSH | CTRL_DUP | CTRL_GET_CLOSE | CTRL_SET_CLOSE => 1,
        CTRL_EOF => wire
            .incoming
            .try_borrow()
            .is_ok_and(|incoming| incoming.at_end()) as c_long,
        CTRL_PENDING => wire
            .incoming
            .try_borrow()
            .map_or(0, |incoming| incoming.len() as c_long),
        CTRL_WPENDING => wire
            .outgoing
            .try_borrow()
            .map_or(0, |outgoing| outgoing.len() as c_long),
        _ => 0,
    }
}

unsafe extern "C" fn destroy(bio: *mut Opaque) -> c_int {
    let Some(symbols) = Symbols::loaded() else {
        return 0;
    };
    let functions = &symbols.functions;
    // SAFETY: OpenSSL calls this once for a BIO of our method, when its last reference goes. Its
    // data is the share of the wire that `make` put there, which is taken back here only; the BIO
    // forgets it first.
    unsafe {
        let share = (functions.bio_get_data)(bio).cast::<Wire>();
        if !share.is_null() {
            (functions.bio_set_data)(bio, ptr::null_mut());
            drop(Rc::from_raw(share));
        }
    }
    1
}
