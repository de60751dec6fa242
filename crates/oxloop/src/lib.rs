//! `oxloop._oxloop`: a drop-in asyncio event loop.
//!
//! The reactor crate makes the system calls; this crate implements asyncio's interface. Where an
//! API of asyncio is: a loop's method in `event_loop/`, in `create/` if it makes a transport or a
//! server, in `sock/`, or in `dns/`; a transport's in `transport/`, a server's in `server/`, TLS in
//! `tls/`. `py/` is the boundary to CPython, the only place with unsafe code.

#![deny(unsafe_code)]

mod address;
mod config;
mod create;
mod dns;
mod error;
mod event_loop;
mod file;
#[expect(
    unsafe_code,
    reason = "the boundary to CPython: see its module documentation"
)]
mod py;
mod server;
mod sock;
mod tls;
mod transport;

use pyo3::pymodule;

#[pymodule(gil_used = true)]
mod _oxloop {
    use crate::event_loop::{self, handle};
    use crate::{dns, py, server, tls, transport};
    use pyo3::prelude::*;

    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python packages use")]
    const __version__: &str = env!("CARGO_PKG_VERSION");

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        let py = module.py();
        // First, before anything is put into a static cell. So the classes are added here: exported
        // ones (`pymodule_export`) are made before this function runs.
        py::interpreter::require_main(py)?;
        // Fails while the interpreter imports `site`; a loop tries again when it is run.
        let _up = py::interpreter::attach_once(py);
        module.add_class::<event_loop::EventLoop>()?;
        module.add_class::<server::Server>()?;
        py::imports::warm(py)?;
        py::context::find_current(py)?;
        py::signals::find_breaker(py)?;
        py::coroutine::create_type(py)?;
        py::socket::look_at_layout(py)?;
        py::file::look_at_layout(py)?;
        handle::create_types(module)?;
        transport::stream::create_type(module)?;
        transport::pipe::create_types(module)?;
        transport::subprocess::create_type(module)?;
        transport::datagram::create_type(module)?;
        tls::create_types(module)?;
        tls::choose(module)?;
        transport::stream_reader::remember_methods(py)?;
        event_loop::add_methods(py)?;
        server::declare(py)?;
        event_loop::sendfile::add_functions(module)?;
        dns::remember_original(py)?;
        event_loop::fork::install(py)
    }
}
