//! OpenSSL, loaded at run time: contexts, and sessions without a socket.
//!
//! The libraries are those that the measured interpreter loads, so that the floor and the
//! servers run the same arithmetic; no header and no stub library is needed to build this.
//! A session reads from and writes to memory by a BIO of this module: whatever number of
//! records arrives or leaves takes one `recv` or one `send` of the caller.
//!
//! Invariants:
//! - `WIRE` is null or, while `Session::on_wire` runs, that call's; BIOs have no data of their own.
//! - The libraries are never unloaded: their functions are valid from `Library::open` on.
//!
//! The only file here with unsafe code.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_long, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::ptr;
use std::rc::Rc;
use std::slice;

const FILETYPE_PEM: c_int = 1;
const CTRL_SET_MIN_PROTO_VERSION: c_int = 123;
const OP_CIPHER_SERVER_PREFERENCE: u64 = 1 << 22;
const TLS1_3_VERSION: c_long = 0x0304;
const ERROR_WANT_READ: c_int = 2;
const ERROR_ZERO_RETURN: c_int = 6;
const BIO_TYPE_SOURCE_SINK: c_int = 0x400;
const BIO_CTRL_FLUSH: c_int = 11;
const BIO_FLAGS_READ_RETRY: c_int = 0x01 | 0x08;
const BIO_FLAGS_RETRY_MASK: c_int = 0x0f;

type Opaque = *mut c_void;
type BioRead = extern "C" fn(Opaque, *mut u8, usize, *mut usize) -> c_int;
type BioWrite = extern "C" fn(Opaque, *const u8, usize, *mut usize) -> c_int;
type BioControl = extern "C" fn(Opaque, c_int, c_long, *mut c_void) -> c_long;

/// Declare the functions that are looked up by name, with their C signatures.
macro_rules! library {
    ($($name:ident: fn($($argument:ty),*) $(-> $result:ty)?;)*) => {
        #[expect(non_snake_case, reason = "the functions keep OpenSSL's names")]
        struct Library {
            $($name: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl Library {
            /// Load the files, in which each may need those before it, and find the functions.
            fn open(files: &[String]) -> io::Result<Self> {
                let handles = files.iter().map(|file| load(file)).collect::<io::Result<Vec<_>>>()?;
                Ok(Self {
                    $($name: {
                        let address = find(&handles, concat!(stringify!($name), "\0"))?;
                        // SAFETY: the pointer must be to a function of that type: the signature
                        // is the one that OpenSSL 3 documents for this name.
                        unsafe {
                            std::mem::transmute::<
                                Opaque,
                                unsafe extern "C" fn($($argument),*) $(-> $result)?,
                            >(address)
                        }
                    },)*
                })
            }
        }
    };
}

library! {
    TLS_server_method: fn() -> Opaque;
    SSL_CTX_new: fn(Opaque) -> Opaque;
    SSL_CTX_free: fn(Opaque);
    SSL_CTX_ctrl: fn(Opaque, c_int, c_long, *mut c_void) -> c_long;
    SSL_CTX_set_options: fn(Opaque, u64) -> u64;
    SSL_CTX_use_certificate_chain_file: fn(Opaque, *const c_char) -> c_int;
    SSL_CTX_use_PrivateKey_file: fn(Opaque, *const c_char, c_int) -> c_int;
    SSL_new: fn(Opaque) -> Opaque;
    SSL_free: fn(Opaque);
    SSL_set_bio: fn(Opaque, Opaque, Opaque);
    SSL_set_accept_state: fn(Opaque);
    SSL_read: fn(Opaque, *mut u8, c_int) -> c_int;
    SSL_write: fn(Opaque, *const u8, c_int) -> c_int;
    SSL_has_pending: fn(Opaque) -> c_int;
    SSL_get_error: fn(Opaque, c_int) -> c_int;
    SSL_is_init_finished: fn(Opaque) -> c_int;
    SSL_shutdown: fn(Opaque) -> c_int;
    BIO_meth_new: fn(c_int, *const c_char) -> Opaque;
    BIO_meth_free: fn(Opaque);
    BIO_meth_set_read_ex: fn(Opaque, BioRead) -> c_int;
    BIO_meth_set_write_ex: fn(Opaque, BioWrite) -> c_int;
    BIO_meth_set_ctrl: fn(Opaque, BioControl) -> c_int;
    BIO_new: fn(Opaque) -> Opaque;
    BIO_set_init: fn(Opaque, c_int);
    BIO_set_flags: fn(Opaque, c_int);
    BIO_clear_flags: fn(Opaque, c_int);
    ERR_clear_error: fn();
}

fn load(file: &str) -> io::Result<Opaque> {
    let name = CString::new(file)?;
    // SAFETY: the file name must be a C string that outlives the call: `name` does.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
    if !handle.is_null() {
        return Ok(handle);
    }
    // SAFETY: after a failure dlerror returns a C string, valid until this thread's next dl call.
    let reason = unsafe { CStr::from_ptr(libc::dlerror()) };
    Err(io::Error::other(reason.to_string_lossy().into_owned()))
}

fn find(handles: &[Opaque], name: &'static str) -> io::Result<Opaque> {
    handles
        .iter()
        // SAFETY: the handle must be open and the name end with a null: both are by construction.
        .map(|&handle| unsafe { libc::dlsym(handle, name.as_ptr().cast()) })
        .find(|address| !address.is_null())
        .ok_or_else(|| io::Error::other(format!("no function {}", name.trim_end_matches('\0'))))
}

/// What a session is made from: the library, a TLS 1.3 server context, a BIO method.
struct Shared {
    library: Library,
    context: Opaque,
    method: Opaque,
}

impl Drop for Shared {
    fn drop(&mut self) {
        // SAFETY: both must be owned and unused: sessions keep `Shared` alive by their `Rc`.
        // Null is allowed.
        unsafe {
            (self.library.SSL_CTX_free)(self.context);
            (self.library.BIO_meth_free)(self.method);
        }
    }
}

/// A server's context with its certificate and key.
pub(crate) struct Context(Rc<Shared>);

impl Context {
    pub(crate) fn open(libraries: &[String], certificate: &Path, key: &Path) -> io::Result<Self> {
        let library = Library::open(libraries)?;
        // SAFETY: the method that the context is made for is a static of the library; a type
        // of a source and sink, and a static name, are what BIO_meth_new asks for.
        let (context, method) = unsafe {
            (
                (library.SSL_CTX_new)((library.TLS_server_method)()),
                (library.BIO_meth_new)(BIO_TYPE_SOURCE_SINK, c"wire".as_ptr()),
            )
        };
        let shared = Shared {
            library,
            context,
            method,
        };
        if context.is_null() || method.is_null() {
            return Err(io::Error::other("OpenSSL is out of memory"));
        }
        shared.configure();
        shared.load(certificate, |file| {
            // SAFETY: the context is live, and `file` a C string that outlives the call.
            unsafe { (shared.library.SSL_CTX_use_certificate_chain_file)(context, file) }
        })?;
        shared.load(key, |file| {
            // SAFETY: as above.
            unsafe { (shared.library.SSL_CTX_use_PrivateKey_file)(context, file, FILETYPE_PEM) }
        })?;
        Ok(Self(Rc::new(shared)))
    }

    /// Begin a session that waits for its client's first words.
    pub(crate) fn accept(&self) -> io::Result<Session> {
        let library = &self.0.library;
        // SAFETY: context and method are live; null is checked before it is used.
        let (ssl, bio) = unsafe {
            (
                (library.SSL_new)(self.0.context),
                (library.BIO_new)(self.0.method),
            )
        };
        if ssl.is_null() || bio.is_null() {
            return Err(io::Error::other("OpenSSL is out of memory"));
        }
        // SAFETY: both are live and new; SSL_set_bio takes the one reference to the BIO, which
        // the call allows to be the same in both directions.
        unsafe {
            (library.BIO_set_init)(bio, 1);
            (library.SSL_set_bio)(ssl, bio, bio);
            (library.SSL_set_accept_state)(ssl);
        }
        Ok(Session {
            ssl,
            shared: Rc::clone(&self.0),
        })
    }
}

impl Shared {
    /// Set what Python's `SSLContext` sets, as far as TLS 1.3 notices, but one thing.
    ///
    /// A session keeps its buffers of some 17 KiB each way. Python has them freed whenever
    /// they are empty, which costs a tenth at 1 KiB, and which a floor need not pay.
    fn configure(&self) {
        let (library, context) = (&self.library, self.context);
        let (minimum, none) = (CTRL_SET_MIN_PROTO_VERSION, ptr::null_mut());
        // SAFETY: the context and the method are live; the controls take a number and no
        // pointer; the callbacks have the types that the setters document.
        unsafe {
            (library.SSL_CTX_ctrl)(context, minimum, TLS1_3_VERSION, none);
            (library.SSL_CTX_set_options)(context, OP_CIPHER_SERVER_PREFERENCE);
            (library.BIO_meth_set_read_ex)(self.method, read_wire);
            (library.BIO_meth_set_write_ex)(self.method, write_wire);
            (library.BIO_meth_set_ctrl)(self.method, control_wire);
        }
    }

    fn load(&self, path: &Path, load: impl Fn(*const c_char) -> c_int) -> io::Result<()> {
        let name = CString::new(path.as_os_str().as_bytes())?;
        if load(name.as_ptr()) != 1 {
            let text = format!("OpenSSL does not take {}", path.display());
            return Err(io::Error::other(text));
        }
        Ok(())
    }
}

/// Whether a session goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Status {
    Open,
    Closed,
}

/// What a BIO reads from and writes to during one call of `Session::on_wire`.
struct Wire<'a> {
    library: &'a Library,
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

/// The server's side of one TLS connection.
pub(crate) struct Session {
    ssl: Opaque,
    shared: Rc<Shared>,
}

impl Session {
    /// Take records, give the contents of each to `answer`, and append what it returns to
    /// `output`, encrypted.
    pub(crate) fn exchange(
        &mut self,
        input: &[u8],
        plaintext: &mut [u8],
        output: &mut Vec<u8>,
        mut answer: impl for<'a> FnMut(&'a [u8]) -> &'a [u8],
    ) -> Status {
        let library = &self.shared.library;
        self.on_wire(input, output, |wire| {
            loop {
                // SAFETY: the session is live, and the buffer valid for as many bytes as are named.
                let count = unsafe {
                    (library.SSL_read)(self.ssl, plaintext.as_mut_ptr(), plaintext.len() as c_int)
                };
                if count <= 0 {
                    break self.stopped(count);
                }
                if !self.put(answer(&plaintext[..count as usize])) {
                    break Status::Closed;
                }
                // SAFETY: `wire` is live, and no callback, which would change it, runs now.
                let is_used_up = unsafe { (&raw const (*wire).input).read() }.is_empty();
                // SAFETY: the session is live.
                if is_used_up && unsafe { (library.SSL_has_pending)(self.ssl) } == 0 {
                    break Status::Open;
                }
            }
        })
    }

    /// Append `plaintext` to `output`, encrypted, in as many records as it takes.
    pub(crate) fn write(&mut self, plaintext: &[u8], output: &mut Vec<u8>) -> Status {
        self.on_wire(&[], output, |_| {
            if self.put(plaintext) {
                Status::Open
            } else {
                Status::Closed
            }
        })
    }

    /// Tell whether the handshake is done.
    pub(crate) fn is_established(&self) -> bool {
        // SAFETY: the session is live.
        unsafe { (self.shared.library.SSL_is_init_finished)(self.ssl) == 1 }
    }

    /// Have OpenSSL write; tell whether it took everything, as it does: the BIO never refuses.
    fn put(&self, plaintext: &[u8]) -> bool {
        let library = &self.shared.library;
        let count = plaintext.len() as c_int;
        // SAFETY: the session is live, and the bytes are valid for reads of `count`.
        count == 0 || unsafe { (library.SSL_write)(self.ssl, plaintext.as_ptr(), count) } == count
    }

    /// Run calls of OpenSSL that read from `input` and append to `output`.
    fn on_wire<'a>(
        &'a self,
        input: &'a [u8],
        output: &'a mut Vec<u8>,
        run: impl FnOnce(*mut Wire<'a>) -> Status,
    ) -> Status {
        let mut wire = Wire {
            library: &self.shared.library,
            input,
            output,
        };
        let wire = &raw mut wire;
        // It outlives the calls that use it: the callbacks lose it before this returns.
        set_wire(wire);
        let status = run(wire);
        set_wire(ptr::null_mut());
        status
    }

    /// Tell why a read gave nothing; answer the end of the session with our own.
    fn stopped(&self, result: c_int) -> Status {
        let library = &self.shared.library;
        // SAFETY: the session is live, and `result` that of the last call on it.
        match unsafe { (library.SSL_get_error)(self.ssl, result) } {
            ERROR_WANT_READ => return Status::Open,
            ERROR_ZERO_RETURN => {
                // SAFETY: the session is live, and no fatal error has happened on it.
                unsafe { (library.SSL_shutdown)(self.ssl) };
            }
            _ => {}
        }
        // SAFETY: the error queue is this thread's, and what it says is not needed.
        unsafe { (library.ERR_clear_error)() };
        Status::Closed
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // SAFETY: the session is ours and not used again; it frees its BIO.
        unsafe { (self.shared.library.SSL_free)(self.ssl) };
    }
}

thread_local! {
    /// The wire of the call of `Session::on_wire` that this thread is in, or null.
    static WIRE: Cell<*mut Wire<'static>> = const { Cell::new(ptr::null_mut()) };
}

/// Have the BIO callbacks of this thread use a wire; null takes it from them.
fn set_wire(wire: *mut Wire<'_>) {
    WIRE.set(wire.cast());
}

/// BIO_read: give what was received; when that is used up, say that more may come.
extern "C" fn read_wire(bio: Opaque, bytes: *mut u8, length: usize, count: *mut usize) -> c_int {
    // SAFETY: a wire that is set is live and not borrowed while OpenSSL runs, see `on_wire`.
    let Some(wire) = (unsafe { WIRE.get().as_mut() }) else {
        return 0;
    };
    // SAFETY: the BIO is the one that OpenSSL calls for.
    unsafe { (wire.library.BIO_clear_flags)(bio, BIO_FLAGS_RETRY_MASK) };
    if wire.input.is_empty() {
        // SAFETY: as above.
        unsafe { (wire.library.BIO_set_flags)(bio, BIO_FLAGS_READ_RETRY) };
        return 0;
    }
    let (now, later) = wire.input.split_at(length.min(wire.input.len()));
    // SAFETY: `bytes` must be valid for writes of `now.len()` bytes and apart from them: it is
    // OpenSSL's buffer of `length` bytes. `count` is its place for the number.
    unsafe {
        ptr::copy_nonoverlapping(now.as_ptr(), bytes, now.len());
        *count = now.len();
    }
    wire.input = later;
    1
}

/// BIO_write: take everything.
extern "C" fn write_wire(_: Opaque, bytes: *const u8, length: usize, count: *mut usize) -> c_int {
    // SAFETY: a wire that is set is live and not borrowed while OpenSSL runs, see `on_wire`.
    let Some(wire) = (unsafe { WIRE.get().as_mut() }) else {
        return 0;
    };
    // SAFETY: OpenSSL gives `length` initialised bytes, and a place for the number taken.
    unsafe {
        wire.output
            .extend_from_slice(slice::from_raw_parts(bytes, length));
        *count = length;
    }
    1
}

/// BIO_ctrl: nothing to flush, and no kernel TLS to ask for.
extern "C" fn control_wire(_: Opaque, command: c_int, _: c_long, _: *mut c_void) -> c_long {
    c_long::from(command == BIO_CTRL_FLUSH)
}
