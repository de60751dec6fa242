//! The `SSL*` inside an `ssl.SSLObject`.
//!
//! `_ssl` has no C API, so the pointer is read from the object's memory:
//!
//! ```text
//! _ssl._SSLSocket: PyObject_HEAD, PyObject *Socket, SSL *ssl, PySSLContext *ctx, ...
//! _ssl._SSLContext: PyObject_HEAD, SSL_CTX *ctx, ...
//! ```
//!
//! This layout is verified for each object: the third field must be the context that Python says
//! the object has, and then OpenSSL is asked whether the `SSL*` belongs to the `SSL_CTX*` of that
//! context.

use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{ffi, intern};
use std::ffi::c_void;
use std::ptr::NonNull;
use tls::{BorrowedSsl, Library, Session};

/// The fields of `_ssl._SSLSocket` that are looked at.
#[repr(C)]
struct SslSocket {
    head: ffi::PyObject,
    socket: *mut ffi::PyObject,
    ssl: *mut c_void,
    context: *mut ffi::PyObject,
}

/// The field of `_ssl._SSLContext` that is looked at.
#[repr(C)]
struct SslContext {
    head: ffi::PyObject,
    context: *mut c_void,
}

/// Puts a session over the connection of an `ssl.SSLObject`. It comes with the `_ssl._SSLSocket`
/// that owns the connection, which the caller keeps alive for as long as the session.
///
/// # Errors
/// A text that says which check failed.
pub(crate) fn adopt<'py>(
    library: &'static Library,
    ssl_object: &Bound<'py, PyAny>,
) -> Result<(Session, Bound<'py, PyAny>), String> {
    let py = ssl_object.py();
    let look = || -> PyResult<_> {
        let socket = ssl_object.getattr(intern!(py, "_sslobj"))?;
        let context = socket.getattr(intern!(py, "context"))?;
        Ok((socket, context))
    };
    let (socket, context) = look().map_err(|error| error.to_string())?;
    let ssl = ssl_of(&socket, &context)
        .ok_or_else(|| "an SSLObject does not look as expected inside".to_owned())?;
    // SAFETY: the object names the context that it should, so its layout is the expected one and
    // the field holds its `SSL*`, which is freed with the socket; the caller keeps that alive.
    // One thread at a time: the loop's thread calls sessions, with the GIL, and most methods of the
    // SSLObject hold it too. `do_handshake`, `read`, `write`, `unwrap` and `pending` release it
    // inside OpenSSL. The loop calls them in its own thread, so they cannot overlap with its
    // sessions. A program that calls them in another thread while the loop runs breaks this
    // promise, which nothing here can prevent: CPython's lock for it, where there is one, is not
    // in reach. OpenSSL's behaviour is undefined then, as it is on asyncio without that lock.
    let borrowed = unsafe { BorrowedSsl::borrow_raw(library, ssl) };
    if borrowed.context() != ssl_ctx_of(&context) {
        return Err("an SSLObject does not have the SSL_CTX of its context".to_owned());
    }
    let session = Session::adopt(borrowed).map_err(|reason| reason.to_string())?;
    Ok((session, socket))
}

fn ssl_of(socket: &Bound<'_, PyAny>, context: &Bound<'_, PyAny>) -> Option<NonNull<c_void>> {
    if !reaches::<SslSocket>(&socket.get_type()) || !reaches::<SslContext>(&context.get_type()) {
        return None;
    }
    // SAFETY: the object is alive and at least as large as the struct, whose fields are all words.
    let fields = unsafe { &*socket.as_ptr().cast::<SslSocket>() };
    if fields.context != context.as_ptr() {
        return None;
    }
    NonNull::new(fields.ssl)
}

fn ssl_ctx_of(context: &Bound<'_, PyAny>) -> *mut c_void {
    // SAFETY: `ssl_of` saw that the object is at least as large as the struct.
    unsafe { (*context.as_ptr().cast::<SslContext>()).context }
}

/// True if instances of `class` are at least as large as T.
fn reaches<T>(class: &Bound<'_, PyType>) -> bool {
    // SAFETY: the type is alive, and its size is a plain integer.
    let size = unsafe { (*class.as_type_ptr()).tp_basicsize };
    usize::try_from(size).is_ok_and(|size| size >= size_of::<T>())
}
