//! A lookup in the C library's own form, and the lookups that need no waiting.

use super::answer::to_python;
use pyo3::prelude::*;
use reactor::resolver::{self, AddrInfo, Hints, ResolveError};
use std::ffi::{CStr, CString};

/// The arguments of getaddrinfo(3).
pub(super) struct NativeQuestion {
    pub(super) host: Option<CString>,
    pub(super) service: Option<CString>,
    pub(super) hints: Hints,
}

impl NativeQuestion {
    /// The answer, if it needs no name service. Errors are left to the full lookup: without
    /// AI_NUMERICHOST the C library may find a name for what is not a number.
    pub(super) fn answer_now(&self, py: Python<'_>) -> Option<PyResult<Py<PyAny>>> {
        let host = self.host.as_deref().is_none_or(looks_numeric);
        let service = self.service.as_deref().is_none_or(is_number);
        if !host || !service {
            return None;
        }
        let hints = Hints {
            flags: self.hints.flags | libc::AI_NUMERICHOST,
            ..self.hints
        };
        let found =
            resolver::getaddrinfo(self.host.as_deref(), self.service.as_deref(), hints).ok()?;
        Some(to_python(py, &found))
    }

    /// Looks the names up; may block for long.
    pub(super) fn look_up(&self) -> Result<Vec<AddrInfo>, ResolveError> {
        resolver::getaddrinfo(self.host.as_deref(), self.service.as_deref(), self.hints)
    }
}

/// Every numeric form of a host starts with a digit or has a colon.
fn looks_numeric(host: &CStr) -> bool {
    let bytes = host.to_bytes();
    bytes.first().is_some_and(u8::is_ascii_digit) || bytes.contains(&b':')
}

fn is_number(service: &CStr) -> bool {
    service.to_bytes().iter().all(u8::is_ascii_digit)
}
