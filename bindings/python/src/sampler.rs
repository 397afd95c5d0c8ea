//! Which samples are used in a step: the same answer as in every other worker, in whatever language.

use pyo3::prelude::*;
use solon::sampler;

use crate::errors::wrong_value;

/// The crate's sampler; `solon.GroupBatchSampler` is what users see.
#[pyclass(module = "solon._solon")]
pub(crate) struct Sampler(sampler::Sampler);

#[pymethods]
impl Sampler {
    #[new]
    fn new(py: Python<'_>, samples: usize, batch: usize, seed: u64) -> PyResult<Sampler> {
        if u32::try_from(samples).is_err() {
            let cause = format!("{samples} samples are more than are counted in 32 bits");
            return Err(wrong_value(py, cause, "sample shards of the data set"));
        }
        let made = sampler::Sampler::new(samples, batch, seed);
        let hint = "a step uses batch_size samples of every group: take fewer, or more data";
        made.map(Sampler).map_err(|error| wrong_value(py, error.to_string(), hint))
    }

    #[getter]
    fn steps_per_epoch(&self) -> u64 {
        self.0.steps_per_epoch()
    }

    fn part(&mut self, py: Python<'_>, step: u64, part: usize, parts: usize) -> PyResult<Vec<u32>> {
        if part >= parts {
            let cause = format!("part {part} is not one of {parts}");
            return Err(wrong_value(py, cause, "parts are counted from 0"));
        }
        Ok(self.0.part(step, part, parts).to_vec())
    }
}
