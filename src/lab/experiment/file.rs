//! What stands in an experiment file, as it is read: nothing is checked yet but names and units.

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Deserializer, de};
use toml::Spanned;

use super::DataName;
use crate::demo::Activation;
use crate::lab::record::{MomentumAt, Picture, Push, Who};
use crate::plan::{BytesPerSecond, Seconds};

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct File {
    pub title: String,
    #[serde(default)]
    pub text: String,
    pub figures: Vec<Picture>,
    #[serde(default)]
    pub targets: Vec<f64>,
    pub data: DataName,
    pub hidden: usize,
    pub batch: usize,
    pub rate: f32,
    #[serde(default)]
    pub momentum: f32,
    #[serde(default)]
    pub momentum_at: MomentumAt,
    #[serde(default)]
    pub activation: Activation,
    pub steps: u64,
    pub judge: u64,
    pub seeds: Vec<u64>,
    pub workers: usize,
    #[serde(default, deserialize_with = "links")]
    pub links: Vec<f64>,
    #[serde(default)]
    pub push: Push,
    #[serde(default, deserialize_with = "times")]
    pub gradient_times: Vec<f64>,
    #[serde(default)]
    pub rule: BTreeMap<String, Override>,
    pub runs: Vec<Spanned<Runs>>,
}

/// What holds for one rule alone.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Override {
    pub rate: Option<f32>,
    pub momentum: Option<f32>,
    pub momentum_at: Option<MomentumAt>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Runs {
    pub rules: Vec<String>,
    #[serde(default)]
    pub attacks: Vec<String>,
    #[serde(default)]
    pub adversaries: usize,
    #[serde(default)]
    pub stragglers: usize,
    #[serde(default)]
    pub compression: Vec<usize>,
    pub liars: Option<usize>,
    #[serde(default)]
    pub who: Who,
    pub workers: Option<usize>,
    pub hidden: Option<usize>,
    pub rate: Option<f32>,
    pub momentum_at: Option<MomentumAt>,
    pub push: Option<Push>,
    #[serde(default, deserialize_with = "some_links")]
    pub links: Option<Vec<f64>>,
    #[serde(default, deserialize_with = "some_times")]
    pub gradient_times: Option<Vec<f64>>,
}

fn each<'de, D: Deserializer<'de>, E: fmt::Display>(
    from: D,
    read: impl Fn(&str) -> Result<f64, E>,
) -> Result<Vec<f64>, D::Error> {
    let texts: Vec<String> = Deserialize::deserialize(from)?;
    texts.iter().map(|text| read(text).map_err(de::Error::custom)).collect()
}

fn links<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    // "1 Gb/s" reads better than "1Gb/s".
    each(from, |text| BytesPerSecond::parse(&text.replace(' ', "")).map(BytesPerSecond::get))
}

fn times<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<f64>, D::Error> {
    each(from, |text| Seconds::parse(&text.replace(' ', "")).map(Seconds::get))
}

fn some_links<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<f64>>, D::Error> {
    links(from).map(Some)
}

fn some_times<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<f64>>, D::Error> {
    times(from).map(Some)
}
