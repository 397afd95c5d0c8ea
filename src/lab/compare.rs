//! Weights of a run against those of the honest mean that learned the same: who that is, where its weights are, and how far it is to them.

use std::fs;
use std::path::{Path, PathBuf};

use super::experiment::is_honest_mean;
use super::record::{self, About, NOT_FINITE, Run, Settings};
use super::run::{LabError, Planned};
use crate::demo::model::relative_difference;

/// The weights of an honest mean at all judged steps, beside its directory: for others to be compared with.
pub fn weights_of(directory: &Path) -> PathBuf {
    directory.with_extension("weights")
}

/// Are runs of these settings and this seed compared with that one?
pub fn is_reference(mean: &Settings, mean_seed: u64, of: &Settings, seed: u64) -> bool {
    let learned =
        |s: &Settings| (s.data.clone(), s.hidden, s.activation, s.batch, s.steps, s.judge, s.rate, s.momentum);
    seed == mean_seed && is_honest_mean(mean) && learned(mean) == learned(of)
}

/// The weights of the honest mean that learned with the same batches, rates and momentum, if the experiment has such a run.
///
/// # Errors
/// If a record or the weights cannot be read.
pub fn reference(run: &Planned, out: &Path) -> Result<Option<Vec<u8>>, LabError> {
    let about: About = record::read_json(&out.join(&run.experiment).join("experiment.json"))?;
    for place in about.runs {
        let directory = out.join(&run.experiment).join(place);
        let weights = weights_of(&directory);
        if !weights.exists() {
            continue;
        }
        let Some(there) = Run::read(&directory)? else { continue };
        if is_reference(&there.manifest.settings, there.manifest.seed, &run.settings, run.seed) {
            return fs::read(&weights)
                .map(Some)
                .map_err(|error| LabError::Io { what: format!("cannot read {}", weights.display()), error });
        }
    }
    Ok(None)
}

/// How far weights are from the honest ones, relative to the norm of these; [`NOT_FINITE`] if that is no number.
pub fn difference(weights: &[f32], honest: &[f32]) -> f64 {
    let found = relative_difference(weights, honest);
    if found.is_finite() { found } else { NOT_FINITE }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_that_are_not_finite_are_farther_away_than_all_others() {
        let honest = [3.0, 4.0];
        assert_eq!(difference(&honest, &honest), 0.0);
        let far = difference(&[f32::MAX, f32::MIN], &honest);
        for lost in [[f32::NAN, 4.0], [3.0, f32::INFINITY], [f32::NEG_INFINITY, f32::NAN]] {
            assert_eq!(difference(&lost, &honest), NOT_FINITE);
            assert!(NOT_FINITE > far);
        }
        // As records keep it.
        let text = serde_json::to_string(&NOT_FINITE).unwrap();
        assert_eq!(serde_json::from_str::<f64>(&text).unwrap(), NOT_FINITE);
    }
}
