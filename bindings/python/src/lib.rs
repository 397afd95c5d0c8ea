//! The extension module of the Python package `solon`: the client of the crate `solon`, as Python objects.
//!
//! What users see is in `python/solon`: the exceptions are written there in Python, and made here. Everything that waits does so
//! without the interpreter's lock, and asks some twenty times a second whether a signal has come.

mod buffer;
mod errors;
mod plan;
mod report;
mod sampler;
mod worker;

use pyo3::prelude::*;

/// The module `solon._solon`.
#[pymodule]
fn _solon(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<plan::Plan>()?;
    module.add_class::<report::Report>()?;
    module.add_class::<sampler::Sampler>()?;
    module.add_class::<worker::Worker>()?;
    module.add_function(wrap_pyfunction!(worker::join, module)?)
}
