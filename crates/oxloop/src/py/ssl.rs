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

use super::class::{Visit, VisitStopped};
use super::imports;
use super::object::call_method;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use pyo3::{ffi, intern};
use std::cell::{RefCell, RefMut};
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

/// A session over the connection of an `ssl.SSLObject`.
pub(crate) struct SslSession {
    /// Borrowed during each use, and during calls of the object's methods too.
    session: RefCell<Session>,
    /// The `_ssl._SSLSocket` that owns the connection, whatever becomes of the object's reference
    /// to it. Declared behind the session, which must go first.
    socket: Py<PyAny>,
    ssl_object: Py<PyAny>,
}

impl SslSession {
    /// # Errors
    /// A text that says which check failed.
    pub(crate) fn adopt(
        library: &'static Library,
        ssl_object: &Bound<'_, PyAny>,
    ) -> Result<Self, String> {
        let (session, socket) = adopt(library, ssl_object)?;
        Ok(Self {
            session: RefCell::new(session),
            socket: socket.unbind(),
            ssl_object: ssl_object.clone().unbind(),
        })
    }

    /// The session, unless a call is under way: one of the SSLObject, whose callback this is or
    /// which another thread waits in.
    #[inline]
    pub(crate) fn take(&self, _py: Python<'_>) -> Option<RefMut<'_, Session>> {
        self.session.try_borrow_mut().ok()
    }

    /// Calls a method of the SSLObject. CPython lets go of the GIL inside of it, so that other
    /// threads may get here before it returns; they do not get the session.
    ///
    /// # Errors
    /// What the method raises; SSLWantReadError if a call is under way already.
    pub(crate) fn call<'py, const N: usize>(
        &self,
        py: Python<'py>,
        method: &Bound<'py, PyString>,
        arguments: &[&Bound<'py, PyAny>; N],
    ) -> PyResult<Bound<'py, PyAny>> {
        let Some(mut session) = self.take(py) else {
            let error = imports::ssl_want_read_error(py)?.call0()?;
            return Err(PyErr::from_value(error));
        };
        session.with_owner(|| call_method(self.ssl_object.bind(py), method, arguments))
    }

    pub(crate) fn traverse(&self, visit: &Visit<'_>) -> Result<(), VisitStopped> {
        visit.object(&self.socket)?;
        visit.object(&self.ssl_object)
    }
}

fn adopt<'py>(
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
    // the field holds its `SSL*`, which is freed with the socket; `SslSession` keeps that alive.
    // One thread at a time: the session is lent to attached threads alone, and to none while the
    // loop calls the SSLObject, whose `do_handshake`, `read`, `write`, `unwrap` and `pending`
    // release the GIL inside OpenSSL. A program that calls those in another thread while the loop
    // runs breaks this promise, which nothing here can prevent: CPython's lock for it, where there
    // is one, is not in reach. OpenSSL's behaviour is undefined then, as on asyncio without that
    // lock.
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
