//! Aggregation alone: how many times longer byzfl and numpy take than our rules, as `benches/peers/grid --json FILE` writes it.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::blocks::Block;
use super::table::{Cell, Mark, Table};
use super::variants::digits;
use crate::lab::record::{RecordError, read_json};

/// What its part of a page is called.
pub(super) const NAME: &str = "aggregation";
pub(super) const TITLE: &str = "Aggregation alone";

/// Its file, beside the records of experiments.
const FILE: &str = "peers.json";

/// All ratios of one run.
#[derive(Debug, Deserialize)]
pub(super) struct Peers {
    machine: String,
    versions: BTreeMap<String, String>,
    quick: bool,
    ratios: Vec<Ratio>,
}

/// One of our rules against somebody else's, on as many gradients of the same size.
#[derive(Debug, Deserialize)]
struct Ratio {
    ours: String,
    theirs: String,
    workers: usize,
    dimension: usize,
    ours_ms: f64,
    theirs_ms: f64,
    ratio: f64,
}

impl Peers {
    /// What was measured; nothing if it was not.
    ///
    /// # Errors
    /// If the file is there and holds something else.
    pub fn load(records: &Path) -> Result<Option<Peers>, RecordError> {
        let path = records.join(FILE);
        if !path.exists() {
            return Ok(None);
        }
        read_json(&path).map(Some).map_err(|error| match error {
            RecordError::Format { path, why } => {
                RecordError::Format { path, why: format!("not what benches/peers/grid --json writes: {why}") }
            }
            other => other,
        })
    }

    /// What there is to say of it.
    pub fn blocks(&self) -> Vec<Block> {
        let command = format!("benches/peers/grid --json solon-lab/{FILE}\nsolon lab report solon-lab --docs docs");
        let mut blocks = vec![Block::Title(TITLE.into()), Block::Command(command)];
        let versions: Vec<String> = self.versions.iter().map(|(name, version)| format!("{name} {version}")).collect();
        blocks.push(Block::Text(format!(
            "Gradients lie in memory, and nothing is sent: the processor time of theirs over that of ours, medians of one run on one \
             thread ({}; {}). Above 1 ours is faster.",
            self.machine,
            versions.join(", ")
        )));
        if self.quick {
            blocks.push(Block::Lacking("Run with --quick: too short to judge.".into()));
        }
        match self.verdict() {
            Some(verdict) => blocks.extend([Block::Text(verdict), Block::Table(self.table())]),
            None => blocks.push(Block::Lacking("It has no ratios.".into())),
        }
        blocks
    }

    /// The smallest ratio in words, and whether ours are faster everywhere.
    fn verdict(&self) -> Option<String> {
        let least = self.ratios.iter().min_by(|a, b| a.ratio.total_cmp(&b.ratio))?;
        let (all, slower) = (self.ratios.len(), self.ratios.iter().filter(|one| one.ratio < 1.0).count());
        let everywhere = match slower {
            0 => format!("Ours are faster in all {all} comparisons."),
            _ => format!("Ours are slower in {slower} of {all} comparisons, marked ✗."),
        };
        let Ratio { ours, theirs, workers, dimension, ours_ms, theirs_ms, ratio } = least;
        Some(format!(
            "{everywhere} The smallest ratio is {}: {ours} takes {} ms and {theirs} {} ms for {workers} gradients of {} numbers.",
            digits(*ratio),
            digits(*ours_ms),
            digits(*theirs_ms),
            count(*dimension)
        ))
    }

    /// Ours against theirs, by numbers and gradients.
    fn table(&self) -> Table {
        let mut points: Vec<(usize, usize)> = self.ratios.iter().map(|one| (one.dimension, one.workers)).collect();
        points.sort_unstable();
        points.dedup();
        let mut pairs: Vec<(&str, &str)> = Vec::new();
        for one in &self.ratios {
            if !pairs.contains(&(&one.ours, &one.theirs)) {
                pairs.push((&one.ours, &one.theirs));
            }
        }
        let mut table = Table::new(&["ours, against theirs"]);
        table
            .headings
            .extend(points.iter().map(|(dimension, workers)| format!("d = {}, P = {workers}", count(*dimension))));
        for (ours, theirs) in pairs {
            let mut row = vec![Cell::plain(format!("{ours}, against {theirs}"))];
            row.extend(points.iter().map(|&(dimension, workers)| {
                let is_it = |one: &&Ratio| {
                    (one.ours.as_str(), one.theirs.as_str()) == (ours, theirs)
                        && (one.dimension, one.workers) == (dimension, workers)
                };
                match self.ratios.iter().find(is_it) {
                    None => Cell::missing("–"),
                    Some(one) if one.ratio < 1.0 => Cell { text: digits(one.ratio), mark: Mark::Broken },
                    Some(one) => Cell::plain(digits(one.ratio)),
                }
            }));
            table.rows.push(row);
        }
        table
    }
}

/// `1e5`, `1.1e7`; small numbers as they are.
fn count(number: usize) -> String {
    if number < 10_000 { number.to_string() } else { format!("{:e}", number as f64) }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// As `benches/peers/python/grid.py` writes it.
    pub fn written(ratio: f64) -> String {
        format!(
            r#"{{"machine": "a machine", "versions": {{"numpy": "2.1", "byzfl": "0.0.9"}}, "quick": false, "ratios": [
            {{"ours": "Krum, tuned", "theirs": "byzfl Krum", "workers": 15, "dimension": 100000, "ours_ms": 2.0, "theirs_ms": 9.0, "ratio": 4.5}},
            {{"ours": "Krum, tuned", "theirs": "byzfl Krum", "workers": 15, "dimension": 11000000, "ours_ms": 2.0, "theirs_ms": {theirs}, "ratio": {ratio}}},
            {{"ours": "median, tuned", "theirs": "numpy median", "workers": 45, "dimension": 100000, "ours_ms": 1.0, "theirs_ms": 123.4, "ratio": 123.4}}]}}"#,
            theirs = 2.0 * ratio
        )
    }

    fn peers(ratio: f64) -> Peers {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join(FILE), written(ratio)).unwrap();
        Peers::load(directory.path()).unwrap().unwrap()
    }

    #[test]
    fn rows_are_pairs_and_columns_are_sizes() {
        let table = peers(1.25).table();
        assert_eq!(table.headings[1..], ["d = 1e5, P = 15", "d = 1e5, P = 45", "d = 1.1e7, P = 15"]);
        let cells = |row: usize| table.rows[row].iter().map(|cell| cell.text.as_str()).collect::<Vec<_>>();
        assert_eq!(cells(0), ["Krum, tuned, against byzfl Krum", "4.5", "–", "1.25"]);
        assert_eq!(cells(1), ["median, tuned, against numpy median", "–", "123", "–"]);
    }

    #[test]
    fn the_smallest_ratio_is_said_in_words_and_a_slower_one_is_marked() {
        let said = peers(1.25).verdict().unwrap();
        assert!(
            said.contains(
                "faster in all 3 comparisons. The smallest ratio is 1.25: Krum, tuned takes 2 ms and byzfl Krum 2.5 ms"
            ),
            "{said}"
        );
        assert!(said.ends_with("for 15 gradients of 1.1e7 numbers."), "{said}");
        let slower = peers(0.8);
        assert!(slower.verdict().unwrap().starts_with("Ours are slower in 1 of 3 comparisons"));
        assert_eq!(slower.table().rows[0][3], Cell { text: "0.8".into(), mark: Mark::Broken });
    }

    #[test]
    fn no_file_is_nothing_and_another_file_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Peers::load(directory.path()).unwrap().is_none());
        std::fs::write(directory.path().join(FILE), "{}").unwrap();
        let error = Peers::load(directory.path()).unwrap_err().to_string();
        assert!(error.contains("peers.json") && error.contains("benches/peers/grid --json"), "{error}");
    }
}
