//! Clean rounds of a job in, the tolerance that it needs out.
//!
//! A daemon with a tolerance so wide that only what is no noise at all stands out serves the job as any other; how far apart the shards of each
//! group were is the noise. The tolerance that is suggested is a few times the most of it, and never less than the default.

use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use toml_edit as toml;

use super::config::{Config, Rule};
use super::run::serve_until;
use super::serve::{Daemon, ServeError};
use crate::pipeline::Counter;

/// Shards farther apart than this part of their size are named even now: that is no noise.
pub const WIDE: f32 = 0.25;
/// The tolerance over the most noise that was seen.
pub const MARGIN: f64 = 4.0;

/// The noise of one group.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Group {
    /// Which group.
    pub group: usize,
    /// Words (chunks of rounds) that were looked at.
    pub words: u64,
    /// How far apart half of them were at most, relative to the size of a shard.
    pub half: f64,
    /// How far apart all of them were at most. Both are rounded up, by a quarter at most.
    pub most: f64,
}

/// What was found out.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Calibration {
    /// Rounds with an update.
    pub rounds: u64,
    /// Rounds without.
    pub undecodable: u64,
    /// Shards that were farther off than [`WIDE`].
    pub lies: u64,
    /// Each group.
    pub groups: Vec<Group>,
    /// The tolerance that the configuration has.
    pub configured: f32,
    /// The one that is suggested.
    pub suggested: f32,
}

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum CalibrateError {
    /// The job checks nothing.
    #[error(
        "job.rule is \"mean\", which compares no shards: there is no tolerance to find; expected \"solon\" or \"draco\""
    )]
    Mean,
    /// The daemon could not serve.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// Nothing was seen of a group.
    #[error(
        "no word of group {group} was decided in {rounds} rounds: let the job run for longer, with all of its workers"
    )]
    NoWords {
        /// The group.
        group: usize,
        /// Rounds with an update.
        rounds: u64,
    },
}

/// Serves until so many rounds have had an update, or a signal comes. `look` is called a few times per second.
///
/// # Errors
/// If the job checks nothing, cannot be served, or nothing is seen of a group.
pub fn calibrate(config: &Config, rounds: u64, mut look: impl FnMut(&Daemon)) -> Result<Calibration, CalibrateError> {
    if !matches!(config.job.rule, Rule::Solon | Rule::Draco) {
        return Err(CalibrateError::Mean);
    }
    let mut wide = config.clone();
    wide.verify.tolerance = WIDE;
    // Who asks there asks about the job, not about its calibration.
    wide.admin = None;
    let handle = serve_until(&wide, |daemon| {
        look(daemon);
        daemon.handle().board.counted(Counter::RoundsComplete) >= rounds
    })?;
    let board = &handle.board;
    let complete = board.counted(Counter::RoundsComplete);
    let group = |group| {
        let noise = board.noise(group);
        let part = |part| Some(noise.quantile(part)? * f64::from(WIDE));
        let (Some(half), Some(most)) = (part(0.5), part(1.0)) else {
            return Err(CalibrateError::NoWords { group, rounds: complete });
        };
        Ok(Group { group, words: noise.words(), half, most })
    };
    let groups = (0..config.job.parameters.groups()).map(group).collect::<Result<Vec<_>, _>>()?;
    let least = config.job.precision.tolerance(config.job.parameters.compression());
    Ok(Calibration {
        rounds: complete,
        undecodable: board.counted(Counter::RoundsUndecodable),
        lies: board.counted(Counter::Lies),
        suggested: suggested(groups.iter().map(|group| group.most), least),
        groups,
        configured: config.verify.tolerance,
    })
}

/// A few times the most noise, rounded up to two digits; at least the tolerance for workers without any.
fn suggested(most: impl Iterator<Item = f64>, least: f64) -> f32 {
    let wanted = MARGIN * most.fold(0.0, f64::max);
    if wanted <= least {
        return least as f32;
    }
    let digit = 10f64.powi(wanted.log10().floor() as i32 - 1);
    ((wanted / digit).ceil() * digit).min(0.99) as f32
}

/// Writes `verify.tolerance` to a configuration file; all else in it stays as it is. The file is replaced in one piece.
///
/// # Errors
/// If it cannot be read or replaced, or is no TOML.
pub fn write_tolerance(path: &Path, tolerance: f32) -> io::Result<()> {
    let text = std::fs::read_to_string(path)?;
    let mut document: toml::DocumentMut =
        text.parse().map_err(|error: toml::TomlError| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))?;
    // As a person would write it: the shortest decimal that is this f32.
    let value: toml::Value = format!("{tolerance:e}").parse().map_err(io::Error::other)?;
    let verify = document.entry("verify").or_insert_with(toml::table);
    let verify = verify.as_table_like_mut().ok_or_else(|| io::Error::other("verify is not a table"))?;
    match verify.get_mut("tolerance").and_then(toml::Item::as_value_mut) {
        // With the comment that stands behind it.
        Some(old) => {
            let decor = old.decor().clone();
            *old = value;
            *old.decor_mut() = decor;
        }
        None => {
            verify.insert("tolerance", toml::Item::Value(value));
        }
    }
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(document.to_string().as_bytes())?;
    file.as_file().set_permissions(std::fs::metadata(path)?.permissions())?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_suggestion_is_a_few_times_the_most_and_never_below_the_default() {
        assert_eq!(suggested([1e-6, 3.1e-5].into_iter(), 3.6e-7), 1.3e-4);
        assert_eq!(suggested([1e-9].into_iter(), 3.6e-7), 3.6e-7);
        assert_eq!(suggested([0.9].into_iter(), 3.6e-7), 0.99);
        assert_eq!(suggested(std::iter::empty(), 3.6e-7), 3.6e-7);
        assert!((suggested([2.5e-5].into_iter(), 1e-7) - 1e-4).abs() < 1.1e-5);
    }

    #[test]
    fn a_file_keeps_everything_but_the_tolerance_with_or_without_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("solond.toml");
        for (before, after) in [
            (
                "# mine\n[verify]\ntolerance = 1e-6 # by hand\ncheck = \"full\"\n[job]\ndimension = 10\n",
                "# mine\n[verify]\ntolerance = 1.3e-4 # by hand\ncheck = \"full\"\n[job]\ndimension = 10\n",
            ),
            ("[job] # x\ndimension = 10\n", "[job] # x\ndimension = 10\n\n[verify]\ntolerance = 1.3e-4\n"),
        ] {
            std::fs::write(&path, before).unwrap();
            write_tolerance(&path, 1.3e-4).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), after);
        }
        std::fs::write(&path, "verify = 3").unwrap();
        assert!(write_tolerance(&path, 0.1).is_err());
        assert!(write_tolerance(&directory.path().join("none.toml"), 0.1).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "verify = 3", "nothing is lost");
    }
}
