//! What the daemon has decided.

use pyo3::prelude::*;
use solon::code::Place;
use solon::wire;

/// The job's plan, and this worker's place in it.
#[pyclass(frozen, module = "solon")]
pub(crate) struct Plan {
    plan: wire::Plan,
    worker: usize,
    place: Place,
}

impl Plan {
    pub(crate) fn new(plan: wire::Plan, worker: usize) -> Plan {
        Plan { plan, worker, place: plan.parameters.place(worker) }
    }

    pub(crate) fn of(&self) -> &wire::Plan {
        &self.plan
    }
}

#[pymethods]
impl Plan {
    #[getter]
    fn dimension(&self) -> usize {
        self.plan.layout.dimension()
    }

    #[getter]
    fn chunks(&self) -> usize {
        self.plan.layout.chunks()
    }

    #[getter]
    fn chunk_width(&self) -> usize {
        self.plan.layout.chunk_width()
    }

    #[getter]
    fn workers(&self) -> usize {
        self.plan.parameters.workers()
    }

    #[getter]
    fn groups(&self) -> usize {
        self.plan.parameters.groups()
    }

    #[getter]
    fn redundancy(&self) -> usize {
        self.plan.parameters.redundancy()
    }

    #[getter]
    fn adversaries(&self) -> usize {
        self.plan.parameters.adversaries()
    }

    #[getter]
    fn stragglers(&self) -> usize {
        self.plan.parameters.stragglers()
    }

    #[getter]
    fn compression(&self) -> usize {
        self.plan.parameters.compression()
    }

    #[getter]
    fn worker(&self) -> usize {
        self.worker
    }

    #[getter]
    fn group(&self) -> usize {
        self.place.group
    }

    #[getter]
    fn row(&self) -> usize {
        self.place.row
    }

    #[getter]
    fn window(&self) -> u32 {
        self.plan.window
    }

    #[getter]
    fn deadline_ms(&self) -> u32 {
        self.plan.deadline_ms
    }

    #[getter]
    fn tolerance(&self) -> f64 {
        self.plan.tolerance
    }

    #[getter]
    fn scale(&self) -> f32 {
        self.plan.scale
    }

    pub(crate) fn __repr__(&self) -> String {
        let p = &self.plan.parameters;
        format!(
            "Plan(dimension={}, chunks={}, groups={}, redundancy={}, adversaries={}, stragglers={}, compression={}, \
             worker={}, group={}, row={}, scale={})",
            self.dimension(),
            self.chunks(),
            p.groups(),
            p.redundancy(),
            p.adversaries(),
            p.stragglers(),
            p.compression(),
            self.worker,
            self.place.group,
            self.place.row,
            self.plan.scale,
        )
    }
}
