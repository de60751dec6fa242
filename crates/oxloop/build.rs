//! Passes the version of the Python that is built for on to the compiler, as `cfg(Py_3_14)` and so
//! on.

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
