//! How a round ended.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use solon::wire::{self, WorkerSet};

/// What the daemon reports of a round.
#[pyclass(frozen, module = "solon")]
pub(crate) struct Report {
    #[pyo3(get)]
    round: u64,
    /// Of the update: equal for all workers.
    #[pyo3(get)]
    digest: u64,
    #[pyo3(get)]
    residual_ratio: f32,
    #[pyo3(get)]
    received_ratio: f32,
    liars: Vec<usize>,
    late_liars: Vec<usize>,
    absent: Vec<usize>,
    late: Vec<usize>,
}

impl Report {
    pub(crate) fn new(round: u64, report: &wire::Report, workers: usize) -> Report {
        let list = |set: &WorkerSet| set.iter().take_while(|worker| *worker < workers).collect();
        Report {
            round,
            digest: report.digest,
            residual_ratio: report.residual_ratio,
            received_ratio: report.received_ratio,
            liars: list(&report.liars),
            late_liars: list(&report.late_liars),
            absent: list(&report.absent),
            late: list(&report.late),
        }
    }
}

#[pymethods]
impl Report {
    #[getter]
    fn liars<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.liars)
    }

    #[getter]
    fn late_liars<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.late_liars)
    }

    #[getter]
    fn absent<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.absent)
    }

    #[getter]
    fn late<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, &self.late)
    }

    fn __repr__(&self) -> String {
        format!(
            "Report(round={}, liars={:?}, late_liars={:?}, absent={:?}, late={:?}, residual_ratio={:.3})",
            self.round, self.liars, self.late_liars, self.absent, self.late, self.residual_ratio
        )
    }
}
