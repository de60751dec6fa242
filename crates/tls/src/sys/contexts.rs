//! Contexts and connections for tests and fuzzing, which have no Python to make them.
//!
//! A [`Context`] is an `SSL_CTX*` with a new certificate that nobody verifies. An [`Endpoint`] is
//! an `SSL*` with a session over it; either can be freed first.

use std::ffi::{CStr, c_char, c_int, c_long, c_uchar, c_void};
use std::fmt;
use std::mem;
use std::path::Path;
use std::ptr::{self, NonNull};
use std::rc::Rc;

use libloading::os::unix::Library as Object;

use super::borrowed::BorrowedSsl;
use super::symbols::{Opaque, table};
use crate::kept_buffers::KeptBuffers;
use crate::library::Library;
use crate::outcome::Unavailable;
use crate::session::Session;

const ED25519: c_int = 1087;
const MBSTRING_ASC: c_int = 0x1001;
const CTRL_SET_MIN_PROTO_VERSION: c_int = 123;
const CTRL_SET_MAX_PROTO_VERSION: c_int = 124;
const OP_NO_RENEGOTIATION: u64 = 1 << 30;
const KEY_UPDATE_REQUESTED: c_int = 1;
const DAY: c_long = 24 * 60 * 60;

table! {
    Functions {
        tls_method = c"TLS_method": fn() -> *const Opaque;
        ssl_ctx_new = c"SSL_CTX_new": fn(*const Opaque) -> *mut Opaque;
        ssl_ctx_free = c"SSL_CTX_free": fn(*mut Opaque);
        ssl_ctx_ctrl = c"SSL_CTX_ctrl": fn(*mut Opaque, c_int, c_long, *mut c_void) -> c_long;
        ssl_ctx_set_options = c"SSL_CTX_set_options": fn(*mut Opaque, u64) -> u64;
        ssl_ctx_clear_options = c"SSL_CTX_clear_options": fn(*mut Opaque, u64) -> u64;
        ssl_ctx_use_certificate = c"SSL_CTX_use_certificate": fn(*mut Opaque, *mut Opaque) -> c_int;
        ssl_ctx_use_private_key = c"SSL_CTX_use_PrivateKey": fn(*mut Opaque, *mut Opaque) -> c_int;
        ssl_new = c"SSL_new": fn(*mut Opaque) -> *mut Opaque;
        ssl_free = c"SSL_free": fn(*mut Opaque);
        ssl_set_accept_state = c"SSL_set_accept_state": fn(*mut Opaque);
        ssl_set_connect_state = c"SSL_set_connect_state": fn(*mut Opaque);
        ssl_key_update = c"SSL_key_update": fn(*mut Opaque, c_int) -> c_int;
        ssl_renegotiate = c"SSL_renegotiate": fn(*mut Opaque) -> c_int;
        ssl_get_version = c"SSL_get_version": fn(*const Opaque) -> *const c_char;
        evp_pkey_ctx_new_id = c"EVP_PKEY_CTX_new_id": fn(c_int, *mut Opaque) -> *mut Opaque;
        evp_pkey_ctx_free = c"EVP_PKEY_CTX_free": fn(*mut Opaque);
        evp_pkey_keygen_init = c"EVP_PKEY_keygen_init": fn(*mut Opaque) -> c_int;
        evp_pkey_keygen = c"EVP_PKEY_keygen": fn(*mut Opaque, *mut *mut Opaque) -> c_int;
        evp_pkey_free = c"EVP_PKEY_free": fn(*mut Opaque);
        x509_new = c"X509_new": fn() -> *mut Opaque;
        x509_free = c"X509_free": fn(*mut Opaque);
        x509_get_not_before = c"X509_getm_notBefore": fn(*const Opaque) -> *mut Opaque;
        x509_get_not_after = c"X509_getm_notAfter": fn(*const Opaque) -> *mut Opaque;
        x509_gmtime_adj = c"X509_gmtime_adj": fn(*mut Opaque, c_long) -> *mut Opaque;
        x509_set_pubkey = c"X509_set_pubkey": fn(*mut Opaque, *mut Opaque) -> c_int;
        x509_get_subject_name = c"X509_get_subject_name": fn(*const Opaque) -> *mut Opaque;
        x509_set_issuer_name = c"X509_set_issuer_name": fn(*mut Opaque, *const Opaque) -> c_int;
        x509_name_add_entry_by_txt = c"X509_NAME_add_entry_by_txt":
            fn(*mut Opaque, *const c_char, c_int, *const c_uchar, c_int, c_int, c_int) -> c_int;
        x509_sign = c"X509_sign": fn(*mut Opaque, *mut Opaque, *const Opaque) -> c_int;
    }
}

/// Loads the shared object at `path`, for good, and takes it for the library of the process.
pub fn load(path: &Path) -> Result<&'static Library, Unavailable> {
    // SAFETY: loading runs the initialisers of an OpenSSL, which ask for nothing.
    let object = unsafe { Object::new(path) };
    let object = object.map_err(|_| Unavailable::NotLoaded(path.display().to_string()))?;
    let library = Library::of_loaded_object(Some(path));
    mem::forget(object);
    library
}

/// A version of the protocol, as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i32)]
pub enum Version {
    /// TLS 1.2.
    Tls12 = 0x0303,
    /// TLS 1.3.
    Tls13 = 0x0304,
}

/// An `SSL_CTX*` for both sides, with a self-signed certificate for `localhost`.
pub struct Context {
    library: &'static Library,
    functions: Functions,
    context: NonNull<Opaque>,
}

impl Context {
    /// Makes one that speaks `version` only and refuses to renegotiate, as Python's do.
    pub fn new(library: &'static Library, version: Version) -> Result<Self, Unavailable> {
        let functions = Functions::find(&library.symbols.object)?;
        // SAFETY: the method is a constant; the result is checked.
        let context = unsafe { (functions.ssl_ctx_new)((functions.tls_method)()) };
        let context = NonNull::new(context).ok_or(Unavailable::Exhausted)?;
        let this = Self {
            library,
            functions,
            context,
        };
        this.set_version(version);
        this.use_new_certificate()?;
        Ok(this)
    }

    fn set_version(&self, version: Version) {
        let control = self.functions.ssl_ctx_ctrl;
        let version = c_long::from(version as i32);
        // SAFETY: the context is alive as long as `self`; neither command uses the pointer.
        unsafe {
            let context = self.context.as_ptr();
            control(
                context,
                CTRL_SET_MIN_PROTO_VERSION,
                version,
                ptr::null_mut(),
            );
            control(
                context,
                CTRL_SET_MAX_PROTO_VERSION,
                version,
                ptr::null_mut(),
            );
            (self.functions.ssl_ctx_set_options)(context, OP_NO_RENEGOTIATION);
        }
    }

    fn use_new_certificate(&self) -> Result<(), Unavailable> {
        let functions = &self.functions;
        let key = self.new_key()?;
        // SAFETY: the certificate and the key are live and whole; the context counts references of
        // its own, so that ours are given back.
        let accepted = unsafe {
            let certificate = (functions.x509_new)();
            self.fill_in(certificate, key.as_ptr());
            let accepted = (functions.ssl_ctx_use_certificate)(self.context.as_ptr(), certificate)
                == 1
                && (functions.ssl_ctx_use_private_key)(self.context.as_ptr(), key.as_ptr()) == 1;
            (functions.x509_free)(certificate);
            (functions.evp_pkey_free)(key.as_ptr());
            accepted
        };
        if accepted {
            Ok(())
        } else {
            Err(Unavailable::Exhausted)
        }
    }

    fn new_key(&self) -> Result<NonNull<Opaque>, Unavailable> {
        let functions = &self.functions;
        let mut key = ptr::null_mut();
        // SAFETY: the generator is used between its making and its freeing only, and OpenSSL fails
        // each of these calls for a null one.
        unsafe {
            let generator = (functions.evp_pkey_ctx_new_id)(ED25519, ptr::null_mut());
            (functions.evp_pkey_keygen_init)(generator);
            (functions.evp_pkey_keygen)(generator, &raw mut key);
            (functions.evp_pkey_ctx_free)(generator);
        }
        NonNull::new(key).ok_or(Unavailable::Exhausted)
    }

    /// # Safety
    /// Both are live.
    unsafe fn fill_in(&self, certificate: *mut Opaque, key: *mut Opaque) {
        let functions = &self.functions;
        const NAME: &CStr = c"localhost";
        // SAFETY: the certificate and the key are live; the times and the name are the
        // certificate's own parts.
        unsafe {
            (functions.x509_gmtime_adj)((functions.x509_get_not_before)(certificate), -DAY);
            (functions.x509_gmtime_adj)((functions.x509_get_not_after)(certificate), DAY);
            (functions.x509_set_pubkey)(certificate, key);
            let subject = (functions.x509_get_subject_name)(certificate);
            let text = NAME.as_ptr().cast();
            let add = functions.x509_name_add_entry_by_txt;
            add(subject, c"CN".as_ptr(), MBSTRING_ASC, text, -1, -1, 0);
            (functions.x509_set_issuer_name)(certificate, subject);
            (functions.x509_sign)(certificate, key, ptr::null());
        }
    }

    /// Lets those made from now on start a renegotiation, and agree to one.
    pub fn allow_renegotiation(&self) {
        let clear = self.functions.ssl_ctx_clear_options;
        // SAFETY: the context is alive as long as `self`.
        unsafe { clear(self.context.as_ptr(), OP_NO_RENEGOTIATION) };
    }

    /// Makes the accepting side of a connection.
    pub fn server(&self) -> Endpoint<'_> {
        self.endpoint(self.functions.ssl_set_accept_state)
    }

    /// Makes the connecting side of a connection.
    pub fn client(&self) -> Endpoint<'_> {
        self.endpoint(self.functions.ssl_set_connect_state)
    }

    fn endpoint(&self, set_side: unsafe extern "C" fn(*mut Opaque)) -> Endpoint<'_> {
        // SAFETY: the context is alive; the result is checked.
        let ssl = unsafe { (self.functions.ssl_new)(self.context.as_ptr()) };
        let ssl = NonNull::new(ssl).expect("OpenSSL has memory for a connection");
        // SAFETY: a new `SSL*`, which the endpoint frees when it cannot be used any more; it is
        // neither Send nor Sync.
        let borrowed = unsafe {
            set_side(ssl.as_ptr());
            BorrowedSsl::borrow_raw(self.library, ssl)
        };
        let session = Session::adopt(borrowed).expect("OpenSSL has memory for a BIO");
        Endpoint {
            context: self,
            ssl,
            borrowed,
            session: Some(session),
            keeps_buffers: false,
        }
    }

    /// The `SSL_CTX*` itself.
    pub fn as_ptr(&self) -> *mut c_void {
        self.context.as_ptr()
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made by this context and not freed before; OpenSSL counts those that connections
        // hold.
        unsafe { (self.functions.ssl_ctx_free)(self.context.as_ptr()) };
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_tuple("Context")
            .field(&self.context)
            .finish()
    }
}

/// An `SSL*` with a session over it. The session must not be swapped for another endpoint's.
pub struct Endpoint<'a> {
    context: &'a Context,
    ssl: NonNull<Opaque>,
    borrowed: BorrowedSsl<'static>,
    session: Option<Session>,
    keeps_buffers: bool,
}

impl Endpoint<'_> {
    /// The session.
    pub fn session(&mut self) -> &mut Session {
        self.session.as_mut().expect("the session was not dropped")
    }

    /// Has the session share in `kept`.
    pub fn keep_buffers(&mut self, kept: &Rc<KeptBuffers>) {
        self.keeps_buffers = true;
        self.session().keep_buffers(kept);
    }

    /// The `SSL*` as its owner uses it, with or without a session.
    pub fn borrowed(&self) -> BorrowedSsl<'_> {
        self.borrowed
    }

    /// Drops the session before the `SSL*`.
    pub fn drop_session(&mut self) {
        self.session = None;
    }

    /// Puts a new session on the `SSL*`, in place of the old one if there is one still.
    pub fn adopt_again(&mut self) {
        self.session = Some(Session::adopt(self.borrowed).expect("OpenSSL has memory for a BIO"));
    }

    /// Asks for a key update in both directions, to be written with what is written next.
    pub fn update_keys(&self) -> bool {
        let update = self.context.functions.ssl_key_update;
        // SAFETY: the `SSL*` is alive as long as `self`.
        unsafe { update(self.ssl.as_ptr(), KEY_UPDATE_REQUESTED) == 1 }
    }

    /// Asks for a renegotiation, to be written with the next handshake call.
    pub fn renegotiate(&self) -> bool {
        // SAFETY: as above.
        unsafe { (self.context.functions.ssl_renegotiate)(self.ssl.as_ptr()) == 1 }
    }

    /// The version that was agreed on: "TLSv1.3".
    pub fn version(&self) -> String {
        // SAFETY: as above; the result is a constant of OpenSSL's.
        let text =
            unsafe { CStr::from_ptr((self.context.functions.ssl_get_version)(self.ssl.as_ptr())) };
        text.to_string_lossy().into_owned()
    }
}

impl Drop for Endpoint<'_> {
    /// Frees the `SSL*` first: a session that is still there outlives it, unless it keeps buffers.
    fn drop(&mut self) {
        if self.keeps_buffers {
            self.session = None;
        }
        // SAFETY: ours since it was made, and nobody can call it any more: neither its owner nor,
        // as that one is gone, a session that shares `KeptBuffers` with its own.
        unsafe { (self.context.functions.ssl_free)(self.ssl.as_ptr()) };
    }
}

impl fmt::Debug for Endpoint<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Endpoint")
            .field("session", &self.session)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Outcome;

    #[test]
    fn output_that_is_held_fails_the_write_and_nothing_else() {
        let library = load(Path::new("libssl.so.3")).or_else(|_| load(Path::new("libssl.so.1.1")));
        let context = Context::new(library.expect("libssl"), Version::Tls13).expect("a context");
        let mut client = context.client();
        let output = client.session.as_mut().expect("a session").to_send();
        assert_eq!(client.borrowed.handshake(), Outcome::Failed);
        assert!(output.is_empty());
    }
}
