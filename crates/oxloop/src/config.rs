//! What the environment asks for, read once, when the module is imported.

use pyo3::exceptions::PyImportError;
use pyo3::prelude::*;
use std::env;

/// The variable that forces a data path for TLS: `direct` or `memorybio`.
pub(crate) const TLS_VARIABLE: &str = "OXLOOP_TLS";

/// A data path that is forced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tls {
    Direct,
    MemoryBio,
}

/// The forced data path for TLS, if one is.
///
/// # Errors
/// ImportError for a value that means nothing.
pub(crate) fn tls() -> PyResult<Option<Tls>> {
    let value = env::var_os(TLS_VARIABLE).unwrap_or_default();
    match value.to_str() {
        Some("") => Ok(None),
        Some("direct") => Ok(Some(Tls::Direct)),
        Some("memorybio") => Ok(Some(Tls::MemoryBio)),
        _ => Err(PyImportError::new_err(format!(
            "{TLS_VARIABLE} must be direct or memorybio, not {}",
            value.display()
        ))),
    }
}
