//! The arguments of `getaddrinfo`, as the program gave them and as the C library wants them.

use super::native::NativeQuestion;
use crate::py::object::audit;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyInt, PyString, PyTuple};
use reactor::resolver::Hints;
use std::ffi::CString;

/// The arguments of a `getaddrinfo` call.
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

    /// The form for the C library, or None if an argument needs the socket module's own rules.
    pub(super) fn to_native(&self, py: Python<'_>) -> Option<NativeQuestion> {
        let number = |value: &Py<PyAny>| value.bind(py).extract::<i32>().ok();
        let hints = Hints {
            family: number(&self.family)?,
            socktype: number(&self.kind)?,
            protocol: number(&self.proto)?,
            flags: number(&self.flags)?,
        };
        let given = |text| match text {
            Text::Absent => Some(None),
            Text::Given(text) => Some(Some(text)),
            Text::Odd => None,
        };
        Some(NativeQuestion {
            host: given(host(self.host.bind(py)))?,
            service: given(service(self.port.bind(py)))?,
            hints,
        })
    }

    /// Raises the audit event that the socket module's function raises.
    pub(super) fn audit(&self, py: Python<'_>) -> PyResult<()> {
        let arguments = [
            &self.host,
            &self.port,
            &self.family,
            &self.kind,
            &self.proto,
        ];
        audit(
            c"socket.getaddrinfo",
            arguments.map(|argument| argument.bind_borrowed(py)),
        )
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
                text = format!("{text}, {name}={}", value.bind(py).repr()?);
            }
        }
        Ok(text)
    }
}

/// An argument for the C library.
enum Text {
    Absent,
    Given(CString),
    /// Needs the socket module's own rules.
    Odd,
}

impl Text {
    fn of(bytes: Option<Vec<u8>>) -> Self {
        let text = bytes.and_then(|bytes| CString::new(bytes).ok());
        text.filter(|text| !text.is_empty())
            .map_or(Self::Odd, Self::Given)
    }
}

fn host(host: &Bound<'_, PyAny>) -> Text {
    if host.is_none() {
        return Text::Absent;
    }
    let Ok(text) = host.cast_exact::<PyString>() else {
        return Text::of(bytes(host));
    };
    match text.to_str() {
        Ok(text) if is_short_ascii(text) => Text::of(Some(text.as_bytes().to_vec())),
        _ => {
            let encoded = text.call_method1("encode", ("idna",)).ok();
            Text::of(encoded.and_then(|encoded| bytes(&encoded)))
        }
    }
}

/// True if IDNA encodes the host to itself: it refuses labels that are empty or longer than 63
/// bytes.
fn is_short_ascii(text: &str) -> bool {
    let mut labels = text.strip_suffix('.').unwrap_or(text).split('.');
    text.is_ascii() && labels.all(|label| (1..64).contains(&label.len()))
}

fn service(port: &Bound<'_, PyAny>) -> Text {
    if port.is_none() {
        return Text::Absent;
    }
    if let Ok(number) = port.cast_exact::<PyInt>() {
        let number = number.extract::<u16>().ok();
        return Text::of(number.map(|number| number.to_string().into_bytes()));
    }
    let Ok(text) = port.cast_exact::<PyString>() else {
        return Text::of(bytes(port));
    };
    Text::of(text.to_str().ok().map(|text| text.as_bytes().to_vec()))
}

fn bytes(value: &Bound<'_, PyAny>) -> Option<Vec<u8>> {
    let bytes = value.cast_exact::<PyBytes>().ok()?;
    Some(bytes.as_bytes().to_vec())
}
