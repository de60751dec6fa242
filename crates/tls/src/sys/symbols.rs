//! The functions of OpenSSL that this crate calls, looked up by name.
//!
//! All of them have had the same signature since OpenSSL 1.1.1. The macros of its headers
//! (`SSL_set_mode`, `BIO_clear_retry_flags`) are written out where they are used.
//!
//! Invariant: the shared object stays open as long as its functions are in use.

use std::ffi::{CStr, c_char, c_int, c_long, c_ulong, c_void};
use std::path::Path;
use std::ptr;
use std::sync::OnceLock;

use libloading::os::unix::Library as Object;

use crate::outcome::{Failure, Unavailable};

/// The functions, once they are found: one table for the process.
static LOADED: OnceLock<Symbols> = OnceLock::new();

/// An `SSL`, a `BIO` and so on: types whose layout is OpenSSL's business.
pub(super) type Opaque = c_void;

pub(super) type BioWrite =
    unsafe extern "C" fn(*mut Opaque, *const c_char, usize, *mut usize) -> c_int;
pub(super) type BioRead =
    unsafe extern "C" fn(*mut Opaque, *mut c_char, usize, *mut usize) -> c_int;
pub(super) type BioControl =
    unsafe extern "C" fn(*mut Opaque, c_int, c_long, *mut c_void) -> c_long;
pub(super) type BioDestroy = unsafe extern "C" fn(*mut Opaque) -> c_int;

/// Declares a table of functions and how it is filled from an object.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $table:ident {
            $($field:ident = $name:literal: fn($($argument:ty),*) $(-> $result:ty)?;)*
        }
    ) => {
        $(#[$meta])*
        pub(super) struct $table {
            $(pub(super) $field: unsafe extern "C" fn($($argument),*) $(-> $result)?,)*
        }

        impl $table {
            pub(super) fn find(
                object: &libloading::os::unix::Library,
            ) -> Result<Self, $crate::outcome::Unavailable> {
                Ok(Self {
                    // SAFETY: the name is that of a function with this signature in every OpenSSL
                    // since 1.1.1.
                    $($field: unsafe { $crate::sys::symbols::look_up(object, $name)? },)*
                })
            }
        }
    };
}
#[cfg(feature = "contexts")]
pub(super) use table;

/// The address of `name`.
///
/// # Safety
/// `T` is the type of a pointer to what `name` is.
pub(super) unsafe fn look_up<T: Copy>(
    object: &Object,
    name: &'static CStr,
) -> Result<T, Unavailable> {
    // SAFETY: as the caller promises.
    let symbol = unsafe { object.get::<T>(name.to_bytes_with_nul()) };
    symbol
        .map(|symbol| *symbol)
        .map_err(|_| Unavailable::Missing(name.to_owned()))
}

table! {
    /// What a session needs.
    Functions {
        bio_get_new_index = c"BIO_get_new_index": fn() -> c_int;
        bio_meth_new = c"BIO_meth_new": fn(c_int, *const c_char) -> *mut Opaque;
        bio_meth_set_write_ex = c"BIO_meth_set_write_ex": fn(*mut Opaque, BioWrite) -> c_int;
        bio_meth_set_read_ex = c"BIO_meth_set_read_ex": fn(*mut Opaque, BioRead) -> c_int;
        bio_meth_set_ctrl = c"BIO_meth_set_ctrl": fn(*mut Opaque, BioControl) -> c_int;
        bio_meth_set_destroy = c"BIO_meth_set_destroy": fn(*mut Opaque, BioDestroy) -> c_int;
        bio_new = c"BIO_new": fn(*const Opaque) -> *mut Opaque;
        bio_up_ref = c"BIO_up_ref": fn(*mut Opaque) -> c_int;
        bio_set_data = c"BIO_set_data": fn(*mut Opaque, *mut c_void);
        bio_get_data = c"BIO_get_data": fn(*mut Opaque) -> *mut c_void;
        bio_set_flags = c"BIO_set_flags": fn(*mut Opaque, c_int);
        bio_clear_flags = c"BIO_clear_flags": fn(*mut Opaque, c_int);
        ssl_set0_rbio = c"SSL_set0_rbio": fn(*mut Opaque, *mut Opaque);
        ssl_set0_wbio = c"SSL_set0_wbio": fn(*mut Opaque, *mut Opaque);
        ssl_get_ssl_ctx = c"SSL_get_SSL_CTX": fn(*const Opaque) -> *mut Opaque;
        ssl_ctrl = c"SSL_ctrl": fn(*mut Opaque, c_int, c_long, *mut c_void) -> c_long;
        ssl_do_handshake = c"SSL_do_handshake": fn(*mut Opaque) -> c_int;
        ssl_read_ex = c"SSL_read_ex": fn(*mut Opaque, *mut c_void, usize, *mut usize) -> c_int;
        ssl_write_ex = c"SSL_write_ex": fn(*mut Opaque, *const c_void, usize, *mut usize) -> c_int;
        ssl_shutdown = c"SSL_shutdown": fn(*mut Opaque) -> c_int;
        ssl_get_shutdown = c"SSL_get_shutdown": fn(*const Opaque) -> c_int;
        ssl_get_error = c"SSL_get_error": fn(*const Opaque, c_int) -> c_int;
        ssl_pending = c"SSL_pending": fn(*const Opaque) -> c_int;
        ssl_free_buffers = c"SSL_free_buffers": fn(*mut Opaque) -> c_int;
        err_peek_error = c"ERR_peek_error": fn() -> c_ulong;
        err_peek_last_error = c"ERR_peek_last_error": fn() -> c_ulong;
        err_clear_error = c"ERR_clear_error": fn();
        err_lib_error_string = c"ERR_lib_error_string": fn(c_ulong) -> *const c_char;
        err_reason_error_string = c"ERR_reason_error_string": fn(c_ulong) -> *const c_char;
        openssl_version = c"OpenSSL_version": fn(c_int) -> *const c_char;
        openssl_version_num = c"OpenSSL_version_num": fn() -> c_ulong;
    }
}

/// The functions with the object they were found in.
pub(crate) struct Symbols {
    pub(super) functions: Functions,
    #[cfg_attr(not(feature = "contexts"), expect(dead_code, reason = "keeps it open"))]
    pub(super) object: Object,
}

impl Symbols {
    /// The functions that are found through the object at `path`. The first ones found are those of
    /// the process; another copy of the library is refused later on.
    pub(crate) fn of_process(path: Option<&Path>) -> Result<&'static Self, Unavailable> {
        let object = open(path)?;
        let mut found = Some(Self {
            functions: Functions::find(&object)?,
            object,
        });
        let loaded = LOADED.get_or_init(|| found.take().expect("invariant: called at most once"));
        match found {
            Some(other) if !loaded.same_library(&other) => Err(Unavailable::Another),
            _ => Ok(loaded),
        }
    }

    /// Those of the process, once they have been found.
    #[inline]
    pub(super) fn loaded() -> Option<&'static Self> {
        LOADED.get()
    }

    /// Whether these are functions of the same copy of the library.
    fn same_library(&self, other: &Self) -> bool {
        ptr::fn_addr_eq(self.functions.ssl_read_ex, other.functions.ssl_read_ex)
            && ptr::fn_addr_eq(self.functions.bio_new, other.functions.bio_new)
    }

    pub(crate) fn version_number(&self) -> u64 {
        // SAFETY: takes nothing and returns a constant.
        unsafe { (self.functions.openssl_version_num)() }
    }

    pub(crate) fn version(&self) -> String {
        const OPENSSL_VERSION: c_int = 0;
        // SAFETY: returns a pointer to a constant string for any number.
        let text = unsafe { (self.functions.openssl_version)(OPENSSL_VERSION) };
        static_text(text)
    }

    pub(crate) fn last_failure(&self) -> Option<Failure> {
        // SAFETY: looks at the error queue of this thread, whatever state it is in.
        let code = unsafe { (self.functions.err_peek_last_error)() };
        if code == 0 {
            return None;
        }
        // SAFETY: both return a pointer to a static string for any code, or null.
        let (library, reason) = unsafe {
            let functions = &self.functions;
            (
                (functions.err_lib_error_string)(code),
                (functions.err_reason_error_string)(code),
            )
        };
        Some(Failure {
            code,
            library: static_text(library),
            reason: static_text(reason),
        })
    }

    /// Clearing visits all 16 entries of the queue; looking whether there is one is cheaper.
    #[inline]
    pub(crate) fn clear_errors(&self) {
        // SAFETY: both work on the error queue of this thread, whatever state it is in.
        unsafe {
            if (self.functions.err_peek_error)() != 0 {
                (self.functions.err_clear_error)();
            }
        }
    }
}

/// Opens an object that is loaded already.
fn open(path: Option<&Path>) -> Result<Object, Unavailable> {
    let Some(path) = path else {
        return Ok(Object::this());
    };
    let flags = libc::RTLD_NOLOAD | libc::RTLD_NOW;
    // SAFETY: an object that is loaded has run its initialisers; this only counts a reference, and
    // fails for one that is not loaded.
    let object = unsafe { Object::open(Some(path), flags) };
    object.map_err(|_| Unavailable::NotLoaded(path.display().to_string()))
}

/// Copies a string constant of the library; empty for null.
fn static_text(text: *const c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: the callers pass what OpenSSL returned as a string constant.
    unsafe { CStr::from_ptr(text) }
        .to_string_lossy()
        .into_owned()
}
