//! `DataPath`: how application data passes through OpenSSL; chosen once, at import.
//!
//! *direct* calls the libssl that CPython's `_ssl` has loaded, on the `SSL*` inside an
//! `ssl.SSLObject`. A self-check at import tests that this is what it should be. If the check fails
//! (OpenSSL linked statically, another layout of the object), *memorybio* does the same through the
//! `ssl` module. `OXLOOP_TLS=direct` or `memorybio` forces one of them;
//! `oxloop.tls_fallback_reason` says why the path is not *direct*.

use crate::config::{self, TLS_VARIABLE, Tls};
use crate::py::imports;
use crate::py::ssl::SslSession;
use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::sync::OnceLock;
use tls::Library;

/// The path that every new connection takes.
#[derive(Clone, Copy)]
pub(super) enum DataPath {
    Direct(&'static Library),
    MemoryBio,
}

struct Choice {
    path: DataPath,
    /// Why it is not the direct one.
    reason: Option<String>,
}

static CHOSEN: OnceLock<Choice> = OnceLock::new();

impl DataPath {
    pub(super) fn chosen() -> Self {
        let chosen = CHOSEN.get();
        chosen
            .expect("invariant: chosen when the module was imported")
            .path
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Direct(_) => "direct",
            Self::MemoryBio => "memorybio",
        }
    }
}

/// Chooses the path, and tells it as `tls_data_path` and `tls_fallback_reason`.
///
/// # Errors
/// ImportError if the forced path is not possible or does not exist.
pub(crate) fn choose(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let choice = match CHOSEN.get() {
        Some(choice) => choice,
        None => {
            let choice = look(module.py())?;
            CHOSEN.get_or_init(|| choice)
        }
    };
    module.add("tls_data_path", choice.path.name())?;
    module.add("tls_fallback_reason", choice.reason.as_deref())
}

fn look(py: Python<'_>) -> PyResult<Choice> {
    let forced = config::tls()?;
    let reached = match forced {
        Some(Tls::MemoryBio) => Err(format!("{TLS_VARIABLE}=memorybio")),
        Some(Tls::Direct) | None => reach(py),
    };
    match reached {
        Ok(library) => Ok(Choice {
            path: DataPath::Direct(library),
            reason: None,
        }),
        Err(reason) if matches!(forced, Some(Tls::Direct)) => Err(PyImportError::new_err(format!(
            "{TLS_VARIABLE}=direct, but {reason}"
        ))),
        Err(reason) => Ok(Choice {
            path: DataPath::MemoryBio,
            reason: Some(reason),
        }),
    }
}

/// The libssl of the running `_ssl`, if the self-check passes.
fn reach(py: Python<'_>) -> Result<&'static Library, String> {
    let path = extension_path(py).map_err(|error| error.to_string())?;
    let library =
        Library::of_loaded_object(path.as_deref()).map_err(|reason| reason.to_string())?;
    check(py, library)?;
    Ok(library)
}

/// Where the extension module `_ssl` was loaded from; None if it is built into the interpreter.
fn extension_path(py: Python<'_>) -> PyResult<Option<PathBuf>> {
    imports::ssl_extension(py)?
        .getattr_opt("__file__")?
        .map(|file| file.extract())
        .transpose()
}

/// Makes a connection, takes its `SSL*` and checks that OpenSSL accepts it.
fn check(py: Python<'_>, library: &'static Library) -> Result<(), String> {
    let attempt = || -> PyResult<_> {
        let context = imports::ssl_context(py)?.call1((imports::protocol_tls_client(py)?,))?;
        context.setattr("check_hostname", false)?;
        let bio = || imports::memory_bio(py)?.call0();
        context.call_method1("wrap_bio", (bio()?, bio()?))
    };
    let ssl_object = attempt().map_err(|error| error.to_string())?;
    SslSession::adopt(library, &ssl_object).map(drop)
}
