//! oxloop
use pyo3::prelude::*;

#[pymodule(gil_used = true)]
mod _oxloop {
    #[pymodule_export]
    const X: i64 = 1;
}
