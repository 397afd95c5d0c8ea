//! What the daemon counts, for Prometheus.
//!
//! Events and counters of the pipeline go in; a page of text comes out. The pipeline itself knows nothing of Prometheus: its counters are
//! read when somebody asks.

pub mod table;

use prometheus::{IntGaugeVec, Opts, Registry, TextEncoder};

use super::config::Config;
use super::serve::Daemon;
use crate::pipeline::Event;

/// All metrics of one daemon.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The metrics of a daemon that was started with this configuration.
    pub fn new(_config: &Config, _daemon: &Daemon) -> Metrics {
        let registry = Registry::new();
        let build = Opts::new("solon_build_info", "The version of the daemon that runs; always 1.");
        let build = IntGaugeVec::new(build, &["version"]).expect("the name and the label are valid");
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        registry.register(Box::new(build)).expect("it is registered once");
        Metrics { registry }
    }

    /// Counts what happened.
    pub fn observe(&self, _event: &Event) {}

    /// All of them, in the text format of Prometheus.
    pub fn text(&self) -> String {
        TextEncoder::new().encode_to_string(&self.registry.gather()).expect("metrics with valid names")
    }
}
