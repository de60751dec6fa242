//! The arguments of `getaddrinfo`, as the program gave them and as the C library wants them.

use super::native::NativeQuestion;
use crate::py::imports;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use reactor::resolver::Hints;
use std::ffi::CString;

/// What a program wants to know.
pub(crate) struct Question {
    pub(crate) host: Py<PyAny>,
    pub(crate) port: Py<PyAny>,
    pub(crate) family: Py<PyAny>,
    pub(crate) kind: Py<PyAny>,
    pub(crate) proto: Py<PyAny>,
    pub(crate) flags: Py<PyAny>,
}

impl Question {
    /// In the order of `socket.getaddrinfo`.
    pub(super) fn arguments<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let all = [
            &self.host,
            &self.port,
            &self.family,
            &self.kind,
            &self.proto,
            &self.flags,
        ];
        PyTuple::new(py, all)
    }

    /// The form for the C library, or None if the arguments are not quite ordinary.
    pub(super) fn to_native(&self, py: Python<'_>) -> PyResult<Option<NativeQuestion>> {
        let number = |value: &Py<PyAny>| value.bind(py).extract::<i32>().ok();
        let (Some(family), Some(socktype), Some(protocol)) = (
            number(&self.family),
            number(&self.kind),
            number(&self.proto),
        ) else {
            return Ok(None);
        };
        let (Some(flags), Some(service)) = (number(&self.flags), service(self.port.bind(py)))
        else {
            return Ok(None);
        };
        let Some(host) = host(self.host.bind(py)) else {
            return Ok(None);
        };
        let hints = Hints {
            family,
            socktype,
            protocol,
            flags,
        };
        Ok(Some(NativeQuestion {
            host,
            service,
            hints,
        }))
    }

    /// Tells the audit hooks what the socket module's function tells them.
    pub(super) fn audit(&self, py: Python<'_>) -> PyResult<()> {
        let event = PyString::intern(py, "socket.getaddrinfo");
        let arguments = (
            event,
            &self.host,
            &self.port,
            &self.family,
            &self.kind,
            &self.proto,
        );
        imports::sys(py)?.call_method1("audit", arguments).map(drop)
    }

    /// For the log of debug mode.
    pub(super) fn show(&self, py: Python<'_>) -> PyResult<String> {
        let mut text = format!(
            "{}:{}",
            self.host.bind(py).str()?,
            self.port.bind(py).repr()?
        );
        let others = [
            ("family", &self.family),
            ("type", &self.kind),
            ("proto", &self.proto),
            ("flags", &self.flags),
        ];
        for (name, value) in others {
            if value.bind(py).is_truthy()? {
                text.push_str(&format!(", {name}={}", value.bind(py).repr()?));
            }
        }
        Ok(text)
    }
}

/// `Some(None)` is no host; None leaves the argument to the socket module.
fn host(host: &Bound<'_, PyAny>) -> Option<Option<CString>> {
    if host.is_none() {
        return Some(None);
    }
    let bytes = if let Ok(text) = host.cast_exact::<PyString>() {
        match text.to_str() {
            Ok(text) if text.is_empty() => return None,
            Ok(text) if is_short_ascii(text) => text.as_bytes().to_vec(),
            _ => text
                .call_method1("encode", ("idna",))
                .ok()?
                .extract()
                .ok()?,
        }
    } else {
        host.cast_exact::<PyBytes>().ok()?.as_bytes().to_vec()
    };
    CString::new(bytes).ok().map(Some)
}

/// What IDNA encodes to itself: it refuses labels that are empty or longer than 63 bytes.
fn is_short_ascii(text: &str) -> bool {
    let labels = text.strip_suffix('.').unwrap_or(text).split('.');
    text.is_ascii()
        && labels
            .into_iter()
            .all(|label| (1..64).contains(&label.len()))
}

/// As `host`. Numbers out of range and empty texts have rules of their own.
fn service(port: &Bound<'_, PyAny>) -> Option<Option<CString>> {
    if port.is_none() {
        return Some(None);
    }
    let bytes = if let Ok(number) = port.cast_exact::<PyInt>() {
        number.extract::<u16>().ok()?.to_string().into_bytes()
    } else if let Ok(text) = port.cast_exact::<PyString>() {
        text.to_str().ok()?.as_bytes().to_vec()
    } else {
        port.cast_exact::<PyBytes>().ok()?.as_bytes().to_vec()
    };
    if bytes.is_empty() {
        return None;
    }
    CString::new(bytes).ok().map(Some)
}
