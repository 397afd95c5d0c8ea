//! What the daemon counts, for Prometheus.
//!
//! Nothing is counted here. The pipeline keeps relaxed counters and knows nothing of Prometheus; a scrape reads them, row by row of the
//! table, and makes a page of text of them.

mod series;
mod sources;
pub mod table;

use prometheus::TextEncoder;
use prometheus::core::Collector;
use prometheus::process_collector::ProcessCollector;

use super::config::Config;
use super::serve::Daemon;
use series::Series;
use sources::Sources;

/// All metrics of one daemon.
pub struct Metrics {
    sources: Sources,
    process: ProcessCollector,
}

impl Metrics {
    /// The metrics of a daemon that was started with this configuration.
    pub fn new(config: &Config, daemon: &Daemon) -> Metrics {
        Metrics { sources: Sources::new(config, daemon), process: ProcessCollector::for_self() }
    }

    /// All of them, in the text format of Prometheus. Reads counters only: the reactors do not notice.
    pub fn text(&self) -> String {
        let ours = table::metrics().map(|metric| {
            let mut series = Series::new(metric);
            (metric.read)(&self.sources, &mut series);
            series.family()
        });
        let families: Vec<_> = ours.chain(self.process.collect()).collect();
        TextEncoder::new().encode_to_string(&families).expect("every metric has a name and a series")
    }
}
