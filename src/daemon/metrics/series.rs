//! The series of one metric, as they are collected: labels in, a family of the `prometheus` crate out.

use std::fmt::Display;
use std::time::Duration;

use prometheus::proto;

use super::table::{Kind, Metric, Values};
use crate::pipeline::Distribution;

/// A value of a series.
pub trait Value {
    /// As Prometheus has it: seconds, bytes or a plain number.
    fn number(self) -> f64;
}

macro_rules! plain {
    ($($of:ty)*) => { $(impl Value for $of {
        fn number(self) -> f64 {
            self as f64
        }
    })* };
}
plain!(u64 i64 usize f64 i32);

impl Value for Duration {
    fn number(self) -> f64 {
        self.as_secs_f64()
    }
}

/// The series of one metric.
pub struct Series {
    metric: &'static Metric,
    samples: Vec<proto::Metric>,
}

impl Series {
    /// No series yet.
    pub fn new(metric: &'static Metric) -> Series {
        Series { metric, samples: Vec::new() }
    }

    fn push(&mut self, labels: &[&str], fill: impl FnOnce(&mut proto::Metric)) {
        debug_assert_eq!(labels.len(), self.metric.labels.len(), "{}", self.metric.name);
        let pair = |(label, value): (&super::table::Label, &&str)| {
            let mut pair = proto::LabelPair::default();
            pair.set_name(label.name.into());
            pair.set_value((*value).into());
            pair
        };
        let mut sample = proto::Metric::from_label(self.metric.labels.iter().zip(labels).map(pair).collect());
        fill(&mut sample);
        self.samples.push(sample);
    }

    /// One series, with a value for each label.
    pub fn add(&mut self, labels: &[&str], value: impl Value) {
        let (kind, value) = (self.metric.kind, value.number());
        self.push(labels, |sample| match kind {
            Kind::Counter => {
                let mut counter = proto::Counter::default();
                counter.set_value(value);
                sample.set_counter(counter);
            }
            Kind::Gauge | Kind::Histogram(_) => {
                let mut gauge = proto::Gauge::default();
                gauge.set_value(value);
                sample.set_gauge(gauge);
            }
        });
    }

    /// The words of the only label.
    pub fn words(&self) -> &'static [&'static str] {
        match self.metric.labels {
            [label] => match label.values {
                Values::Words(words) => words,
                _ => &[],
            },
            _ => &[],
        }
    }

    /// A series for each word of the only label, in their order.
    pub fn each<V: Value>(&mut self, values: impl IntoIterator<Item = V>) {
        let mut values = values.into_iter();
        for (word, value) in self.words().iter().zip(values.by_ref()) {
            self.add(&[word], value);
        }
        debug_assert!(values.next().is_none(), "{} has a word for every value", self.metric.name);
    }

    /// A series for each of these indices.
    pub fn indexed<I: Display + Copy, V: Value>(
        &mut self,
        indices: impl IntoIterator<Item = I>,
        value: impl Fn(I) -> V,
    ) {
        indices.into_iter().for_each(|index| self.add(&[&index.to_string()], value(index)));
    }

    /// One series of a histogram.
    pub fn distribution(&mut self, labels: &[&str], of: &Distribution) {
        let mut seen = 0;
        let bucket = |(bound, count): (&f64, &u64)| {
            seen += count;
            let mut bucket = proto::Bucket::default();
            bucket.set_upper_bound(*bound);
            bucket.set_cumulative_count(seen);
            bucket
        };
        let mut histogram = proto::Histogram::default();
        histogram.set_bucket(of.bounds.iter().zip(&of.counts).map(bucket).collect());
        histogram.set_sample_count(of.counts.iter().sum());
        histogram.set_sample_sum(of.sum);
        self.push(labels, |sample| sample.set_histogram(histogram));
    }

    /// All of them, with the metric's name and help.
    pub fn family(self) -> proto::MetricFamily {
        let mut family = proto::MetricFamily::default();
        family.set_name(self.metric.name.into());
        family.set_help(self.metric.help.into());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => proto::MetricType::COUNTER,
            Kind::Gauge => proto::MetricType::GAUGE,
            Kind::Histogram(_) => proto::MetricType::HISTOGRAM,
        });
        family.set_metric(self.samples);
        family
    }
}
