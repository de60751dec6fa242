//! `start_tls`: TLS over a transport that is open already.

use crate::error::after_cleanup;
use crate::event_loop::EventLoop;
use crate::py::buffer::copy_to_bytes;
use crate::py::class::Ref;
use crate::py::coroutine::{Coroutine, await_python_keeping};
use crate::py::imports;
use crate::py::keywords::Truth;
use crate::tls::options::TlsOptions;
use crate::tls::{HandshakeWaiter, TlsProtocol, TlsThis};
use pyo3::exceptions::PyTypeError;
use pyo3::intern;
use pyo3::prelude::*;

#[pymethods]
impl EventLoop {
    /// Put TLS on a transport; return the transport that the protocol uses from now on.
    #[pyo3(
        signature = (
            transport, protocol, sslcontext, *, server_side=Truth(false), server_hostname=None,
            ssl_handshake_timeout=None, ssl_shutdown_timeout=None
        ),
        text_signature = "($self, transport, protocol, sslcontext, *, server_side=False, \
            server_hostname=None, ssl_handshake_timeout=None, ssl_shutdown_timeout=None)"
    )]
    fn start_tls<'py>(
        slf: &Bound<'py, Self>,
        transport: Py<PyAny>,
        protocol: Py<PyAny>,
        sslcontext: Py<PyAny>,
        server_side: Truth,
        server_hostname: Option<Py<PyAny>>,
        ssl_handshake_timeout: Option<Py<PyAny>>,
        ssl_shutdown_timeout: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let timeouts = [ssl_handshake_timeout, ssl_shutdown_timeout];
        let tls = TlsOptions::new(slf.py(), Some(sslcontext), server_hostname, timeouts);
        Coroutine::method(slf, "EventLoop.start_tls", move |this| async move {
            let (waiter, upgrade) = Python::attach(|py| {
                let (transport, protocol) = (transport.bind(py), protocol.bind(py));
                let (waiter, upgrade) =
                    begin(this.bind(py), transport, protocol, &tls, server_side.0)?;
                let upgrade = upgrade.into_pyobject(py)?.into_any().unbind();
                Ok::<_, PyErr>((waiter, upgrade))
            })?;
            // All of these lead to the waiter.
            drop((transport, protocol));
            let (outcome, upgrade) = await_python_keeping(waiter, upgrade).await;
            Python::attach(|py| {
                let upgrade: Upgrade = upgrade.extract(py)?;
                if let Err(error) = outcome {
                    return Err(after_cleanup(py, error, give_up(py, &upgrade)));
                }
                // A connection that was closed meanwhile has no transport any more: None, as in
                // asyncio.
                let secured = Ref::<TlsProtocol>::from_exact(upgrade.secured.bind(py));
                let app_transport = secured.and_then(|secured| secured.this(py).app_transport());
                Ok(app_transport.map_or_else(
                    || py.None(),
                    |transport| transport.as_object().clone_ref(py),
                ))
            })
        })
    }
}

/// What a call has made, until the handshake is over.
#[derive(FromPyObject, IntoPyObject)]
struct Upgrade {
    #[pyo3(item)]
    transport: Py<PyAny>,
    /// The TLS protocol.
    #[pyo3(item)]
    secured: Py<PyAny>,
    /// The handles of `connection_made` and of `resume_reading`.
    #[pyo3(item)]
    callbacks: [Py<PyAny>; 2],
}

fn give_up(py: Python<'_>, upgrade: &Upgrade) -> PyResult<()> {
    let transport = upgrade.transport.bind(py);
    let closed = transport.call_method0(intern!(py, "close")).map(drop);
    for callback in &upgrade.callbacks {
        callback.bind(py).call_method0(intern!(py, "cancel"))?;
    }
    closed
}

fn begin(
    this: &Bound<'_, EventLoop>,
    transport: &Bound<'_, PyAny>,
    protocol: &Bound<'_, PyAny>,
    tls: &TlsOptions,
    server_side: bool,
) -> PyResult<(Py<PyAny>, Upgrade)> {
    let py = this.py();
    let context = tls.ssl.bind(py);
    if !context.is_instance(imports::ssl_context(py)?)? {
        return Err(PyTypeError::new_err(format!(
            "sslcontext is expected to be an instance of ssl.SSLContext, got {}",
            context.repr()?
        )));
    }
    let compatible = transport
        .getattr("_start_tls_compatible")
        .is_ok_and(|compatible| compatible.is_truthy().unwrap_or(false));
    if !compatible {
        return Err(PyTypeError::new_err(format!(
            "transport {} is not supported by start_tls()",
            transport.repr()?
        )));
    }
    let waiter = this.call_method0(intern!(py, "create_future"))?;
    let secured = tls.protocol(
        this,
        protocol,
        HandshakeWaiter::Future(waiter.clone().unbind()),
        server_side,
        false,
    )?;
    let tls = secured.this(py);
    // Nothing may arrive before the TLS protocol's connection_made was called.
    transport.call_method0("pause_reading")?;
    if server_side {
        move_buffered(protocol, &tls)?;
    }
    tls.inherit_pause(transport);
    transport.call_method1("set_protocol", (secured.as_object(),))?;
    let soon = intern!(py, "call_soon");
    let connection_made = tls.object().getattr("connection_made")?;
    let made = this.call_method1(soon, (connection_made, transport))?;
    let resumed = this.call_method1(soon, (transport.getattr("resume_reading")?,))?;
    let upgrade = Upgrade {
        transport: transport.clone().unbind(),
        secured: secured.as_object().clone_ref(py),
        callbacks: [made.unbind(), resumed.unbind()],
    };
    Ok((waiter.unbind(), upgrade))
}

/// Bytes that the StreamReader has already read are the start of the handshake.
fn move_buffered(protocol: &Bound<'_, PyAny>, tls: &TlsThis<'_, '_>) -> PyResult<()> {
    let py = protocol.py();
    if !protocol.is_instance(imports::stream_reader_protocol(py)?)? {
        return Ok(());
    }
    let Some(reader) = protocol.getattr_opt("_stream_reader")? else {
        return Ok(());
    };
    if reader.is_none() {
        return Ok(());
    }
    let buffer = reader.getattr("_buffer")?;
    if buffer.is_truthy()? {
        tls.feed(copy_to_bytes(&buffer)?.as_bytes())?;
        buffer.call_method0("clear")?;
    }
    Ok(())
}
