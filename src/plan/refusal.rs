//! Jobs that cannot be, and the nearest ones that can.

use std::fmt;

use serde::Serialize;

use super::{Code, PlanInput, Size, layout};
use crate::code::{Parameters, ROWS_MAX};
use crate::daemon::settings::{Kind, SETTINGS};
use crate::wire::{CHUNKS_MAX, WORKERS_MAX};

/// Why there can be no such job.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Refusal {
    /// What does not hold.
    pub bound: Bound,
    /// What was asked for.
    pub input: PlanInput,
    /// The nearest jobs with the same s, e and r_c but another number of workers.
    pub other_workers: Vec<Code>,
    /// The nearest jobs of as many workers (or groups) with another s, e or r_c; the least change first.
    pub other_codes: Vec<Code>,
}

/// What must hold, and does not.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Bound {
    /// A number is outside the range of its setting in `solond`.
    Range {
        /// `section.key`.
        setting: &'static str,
        /// What it is.
        found: usize,
        /// The least.
        min: usize,
        /// The greatest.
        max: usize,
    },
    /// The tolerance is not above 0 and below 1.
    Tolerance(f64),
    /// The tolerance is below what rounding shards changes.
    Rounding {
        /// What it is.
        tolerance: f64,
        /// The least.
        least: f64,
    },
    /// r = r_c + 2s + e is larger than a group can be.
    GroupSize {
        /// r.
        redundancy: usize,
    },
    /// There are more workers than one daemon serves, or none.
    Workers {
        /// P.
        workers: usize,
    },
    /// There are too few workers for one group.
    TooFew {
        /// P.
        workers: usize,
        /// r.
        redundancy: usize,
    },
    /// The workers do not divide into groups.
    Divisible {
        /// P.
        workers: usize,
        /// r.
        redundancy: usize,
    },
    /// There are more chunks than their 32-bit index can count.
    Chunks {
        /// How many there would be.
        chunks: usize,
    },
}

/// The code of a job that can be.
pub(super) fn check(input: &PlanInput) -> Result<Parameters, Box<Refusal>> {
    let refuse = |bound, other_workers, other_codes| {
        let codes = |parameters: Vec<Parameters>| parameters.into_iter().map(Code::from).collect();
        let (other_workers, other_codes) = (codes(other_workers), codes(other_codes));
        Box::new(Refusal { bound, input: *input, other_workers, other_codes })
    };
    for (setting, found) in [
        ("job.adversaries", input.adversaries),
        ("job.stragglers", input.stragglers),
        ("job.compression", input.compression),
        ("job.dimension", input.dimension),
        ("chunks.width", input.chunk_width),
        ("memory.credits", input.credits),
        ("memory.updates", input.updates),
        ("rounds.window", input.window),
    ] {
        let (min, max) = range(setting);
        if !(min..=max).contains(&found) {
            return Err(refuse(Bound::Range { setting, found, min, max }, vec![], vec![]));
        }
    }
    // As solond reads it: what is above 0 only in f64 would be 0 there.
    if !(input.tolerance as f32 > 0.0 && (input.tolerance as f32) < 1.0) {
        return Err(refuse(Bound::Tolerance(input.tolerance), vec![], vec![]));
    }
    let least = input.precision.least_tolerance(input.compression);
    if f64::from(input.tolerance as f32) < least {
        return Err(refuse(Bound::Rounding { tolerance: input.tolerance, least }, vec![], vec![]));
    }
    let (s, e, c) = (input.adversaries, input.stragglers, input.compression);
    let redundancy = c + 2 * s + e;
    let Some(parameters) = code(input.size, s, e, c) else {
        let workers = match input.size {
            Size::Workers(workers) => workers,
            Size::Groups(groups) => groups.saturating_mul(redundancy),
        };
        let bound = if redundancy > ROWS_MAX {
            Bound::GroupSize { redundancy }
        } else if workers == 0 || workers > WORKERS_MAX {
            Bound::Workers { workers }
        } else if workers < redundancy {
            Bound::TooFew { workers, redundancy }
        } else {
            Bound::Divisible { workers, redundancy }
        };
        return Err(refuse(bound, nearest_workers(input, workers), nearest_codes(input)));
    };
    match chunks(input, c) {
        Ok(()) => Ok(parameters),
        Err(chunks) => Err(refuse(Bound::Chunks { chunks }, vec![], nearest_codes(input))),
    }
}

/// The code of a job of this size, if there is one.
pub(super) fn code(size: Size, adversaries: usize, stragglers: usize, compression: usize) -> Option<Parameters> {
    let one = Parameters::new(1, adversaries, stragglers, compression).ok()?;
    let groups = match size {
        Size::Workers(workers) if workers % one.redundancy() == 0 => workers / one.redundancy(),
        Size::Workers(_) => return None,
        Size::Groups(groups) => groups,
    };
    let fits = groups.checked_mul(one.redundancy()).is_some_and(|workers| workers <= WORKERS_MAX);
    if fits { Parameters::new(groups, adversaries, stragglers, compression).ok() } else { None }
}

/// Can the chunks be counted on the wire? If not, how many there would be.
pub(super) fn chunks(input: &PlanInput, compression: usize) -> Result<(), usize> {
    let chunks = layout(input, compression).chunks();
    if chunks <= CHUNKS_MAX as _ { Ok(()) } else { Err(chunks) }
}

pub(super) fn range(name: &str) -> (usize, usize) {
    let setting = SETTINGS.iter().find(|setting| setting.name() == name).expect("the settings that a plan needs exist");
    let Kind::Integer { min, max } = setting.kind else { panic!("{name} is a number") };
    (min as usize, usize::try_from(max).unwrap_or(usize::MAX))
}

/// Jobs of the same code with a little fewer and a little more than `workers`.
fn nearest_workers(input: &PlanInput, workers: usize) -> Vec<Parameters> {
    let (s, e, c) = (input.adversaries, input.stragglers, input.compression);
    let Some(one) = code(Size::Groups(1), s, e, c) else { return vec![] };
    if chunks(input, c).is_err() {
        return vec![];
    }
    let below = workers.min(WORKERS_MAX) / one.redundancy();
    let above = (workers > 0 && workers < WORKERS_MAX || below == 0).then_some(below + 1);
    let groups = (below > 0).then_some(below).into_iter().chain(above);
    groups.filter_map(|groups| code(Size::Groups(groups), s, e, c)).collect()
}

/// Jobs of the same size with another code: the nearest of all, and those where only one of r_c, s and e is another.
fn nearest_codes(input: &PlanInput) -> Vec<Parameters> {
    let (s, e, c) = (input.adversaries, input.stragglers, input.compression);
    let mut possible = Vec::new();
    for compression in 1..=ROWS_MAX {
        for adversaries in 0..=(ROWS_MAX - compression) / 2 {
            let rest = ROWS_MAX - compression - 2 * adversaries;
            possible.extend((0..=rest).filter_map(|stragglers| code(input.size, adversaries, stragglers, compression)));
        }
    }
    possible.retain(|code| chunks(input, code.compression()).is_ok());
    let same = |code: &Parameters| (code.adversaries() == s, code.stragglers() == e, code.compression() == c);
    // Near is what changes groups by few workers. To tolerate less is far; of equally near ones that is best which tolerates more.
    let nearest = |among: &dyn Fn(&Parameters) -> bool| {
        let change = |code: &&Parameters| {
            let less = 8 * s.saturating_sub(code.adversaries()) + 4 * e.saturating_sub(code.stragglers());
            2 * code.adversaries().abs_diff(s) + code.stragglers().abs_diff(e) + code.compression().abs_diff(c) + less
        };
        let key = |code: &&Parameters| (change(code), usize::MAX - code.adversaries(), usize::MAX - code.stragglers());
        possible.iter().filter(|code| among(code)).min_by_key(key).copied()
    };
    let mut found: Vec<Parameters> = Vec::new();
    for code in [
        nearest(&|_| true),
        nearest(&|code| matches!(same(code), (true, true, _))),
        nearest(&|code| matches!(same(code), (_, true, true))),
        nearest(&|code| matches!(same(code), (true, _, true))),
    ] {
        found.extend(code.filter(|code| !found.contains(code)));
    }
    found
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PlanInput { size, adversaries, stragglers, compression, .. } = self.input;
        let sum = format!("compression {compression} + 2 x adversaries {adversaries} + stragglers {stragglers}");
        let asked = match size {
            Size::Workers(_) => String::new(),
            Size::Groups(groups) => format!("{groups} x ({sum}) = "),
        };
        match self.bound {
            Bound::Range { setting, found, min, max } => {
                let key = setting.rsplit('.').next().unwrap_or(setting);
                write!(f, "{key} is {found}: it must be from {min} to {max}")
            }
            Bound::Tolerance(found) => write!(f, "tolerance is {found}: it must be above 0 and below 1"),
            Bound::Rounding { tolerance, least } => write!(
                f,
                "tolerance is {tolerance:e}: with shards of {} and compression {compression} it must be at least {least:e}; leave it \
                 out, or take compression 1 or f32",
                self.input.precision
            ),
            Bound::GroupSize { redundancy } => {
                write!(f, "a group would have {redundancy} workers ({sum}): at most {ROWS_MAX} are possible")
            }
            Bound::Workers { workers: 0 } => write!(f, "there are no workers: a job has from 1 to {WORKERS_MAX}"),
            Bound::Workers { workers } => {
                write!(f, "{asked}{workers} workers are too many: one daemon serves at most {WORKERS_MAX}")
            }
            Bound::TooFew { workers, redundancy } => {
                write!(f, "{workers} {} too few: a group alone has {redundancy} ({sum})", are(workers))
            }
            Bound::Divisible { workers, redundancy } => {
                let over = workers % redundancy;
                write!(
                    f,
                    "{workers} {} not divide into groups of {redundancy} ({sum}): {over} would be left over",
                    dont(workers)
                )
            }
            Bound::Chunks { chunks } => write!(
                f,
                "the gradient would have {chunks} chunks: at most {} can be counted; raise the chunk width",
                CHUNKS_MAX
            ),
        }?;
        if !self.other_workers.is_empty() {
            write!(f, "\nnearest numbers of workers with the same code:")?;
            for code in &self.other_workers {
                write!(f, "\n  {} workers: {}", code.workers, groups(code))?;
            }
        }
        if !self.other_codes.is_empty() {
            match size {
                Size::Workers(workers) => write!(f, "\nnearest codes for {workers} workers:")?,
                Size::Groups(1) => write!(f, "\nnearest codes for one group:")?,
                Size::Groups(groups) => write!(f, "\nnearest codes for {groups} groups:")?,
            }
            for code in &self.other_codes {
                let Code { adversaries, stragglers, compression, .. } = code;
                write!(f, "\n  adversaries {adversaries}, stragglers {stragglers}, compression {compression}: ")?;
                write!(f, "{}{}", groups(code), if *adversaries == 0 { " (corrects no bad worker)" } else { "" })?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

fn are(workers: usize) -> &'static str {
    if workers == 1 { "worker is" } else { "workers are" }
}

fn dont(workers: usize) -> &'static str {
    if workers == 1 { "worker does" } else { "workers do" }
}

/// `3 groups of 5`.
pub(super) fn groups(code: &Code) -> String {
    let plural = if code.groups == 1 { "" } else { "s" };
    format!("{} group{plural} of {}", code.groups, code.redundancy)
}
