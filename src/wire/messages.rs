//! What the payloads of the handshake say, and their fixed layouts.

use std::fmt;

use clap::ValueEnum;

use super::fingerprint::Fields;
use super::{CHUNKS_MAX, CREDITS_MAX, WORKERS_MAX};
use crate::code::{Family, Form, Layout, ParameterError, Parameters, Precision, ROWS_MAX};
use crate::rules;

/// Little-endian numbers written one after the other into a fixed buffer.
pub(super) struct Writer<'a> {
    bytes: &'a mut [u8],
    at: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(bytes: &'a mut [u8]) -> Self {
        Writer { bytes, at: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.at..self.at + bytes.len()].copy_from_slice(bytes);
        self.at += bytes.len();
    }

    pub(super) fn finish(self) {
        assert_eq!(self.at, self.bytes.len(), "a fixed layout is filled to the end");
    }
}

/// Little-endian numbers read one after the other from a buffer of known length.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Reader { bytes }
    }

    pub(super) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self.bytes.split_at(N);
        self.bytes = rest;
        head.try_into().expect("split at N")
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.take::<1>()[0]
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.take())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.take())
    }

    pub(super) fn f32(&mut self) -> f32 {
        f32::from_le_bytes(self.take())
    }

    pub(super) fn f64(&mut self) -> f64 {
        f64::from_le_bytes(self.take())
    }
}

/// How a job aggregates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rule {
    /// The real code: verified, corrected, liars named.
    Solon,
    /// Each worker computes something else, and a rule makes one of all: signum with signs of one bit on the wire.
    Uncoded(rules::Rule),
}

impl Rule {
    /// The plain sum of all workers, without any check: for comparison, or where every worker is trusted.
    pub const MEAN: Rule = Rule::Uncoded(rules::Rule::Mean);
    /// Draco's cyclic code.
    pub const CYCLIC: Rule = Rule::Uncoded(rules::Rule::Cyclic);

    /// Every rule. The place of each is its number.
    pub fn all() -> impl Iterator<Item = Rule> {
        std::iter::once(Rule::Solon).chain(rules::Rule::all().map(Rule::Uncoded))
    }

    /// The rule that all workers are combined by, in one word; none where groups are, or nobody asks who is right.
    pub fn robust(self) -> Option<rules::Rule> {
        match self {
            Rule::Solon | Rule::MEAN => None,
            Rule::Uncoded(rule) => Some(rule),
        }
    }

    /// Bytes of a shard of `width` numbers, without its header.
    pub fn shard_bytes(self, precision: Precision, width: usize) -> usize {
        match self {
            // Complex numbers in f64.
            Rule::CYCLIC => 16 * width,
            _ => precision.shard_bytes(width),
        }
    }

    fn number(self) -> u8 {
        Rule::all().position(|rule| rule == self).expect("one of all") as u8
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Rule::Solon => "solon",
            Rule::Uncoded(rule) => rule.name(),
        })
    }
}

/// All that a worker must know to take part in a job. The daemon decides it, workers follow it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plan {
    /// Groups, liars, stragglers, compression.
    pub parameters: Parameters,
    /// How shards are aggregated.
    pub rule: Rule,
    /// The family of the generator.
    pub family: Family,
    /// Systematic or dense generator.
    pub form: Form,
    /// Digest of the generator's coefficients: both sides must have computed the same.
    pub generator_digest: u64,
    /// The cut of the gradient into chunks.
    pub layout: Layout,
    /// How the numbers of shards stand on the wire.
    pub precision: Precision,
    /// How the numbers of updates do.
    pub update_precision: Precision,
    /// Gradients of which each worker sends a combination: 1, but 2 s + 1 for the cyclic code.
    pub gradients: u32,
    /// Rounds that may be in flight at once.
    pub window: u32,
    /// Shards that one worker may have in flight.
    pub credits: u32,
    /// A round's time from its begin to its end, in milliseconds.
    pub deadline_ms: u32,
    /// Relative tolerance of the verification.
    pub tolerance: f64,
    /// update = scale x sum over groups.
    pub scale: f32,
}

/// Bytes of a [`Plan`].
pub(super) const PLAN_BYTES: usize = 72;
/// Those of them that say nothing.
const PLAN_RESERVED: usize = 3;

/// The number that stands for a precision.
fn number_of(precision: Precision) -> u8 {
    match precision {
        Precision::F32 => 0,
        Precision::Bf16 => 1,
        Precision::F16 => 2,
        Precision::Sign => 3,
    }
}

fn precision_of(number: u8, what: &'static str) -> Result<Precision, PlanError> {
    Precision::value_variants().iter().copied().find(|it| number_of(*it) == number).ok_or(PlanError::Range(what))
}

/// Why a plan received cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// The code's parameters are impossible.
    #[error(transparent)]
    Parameters(#[from] ParameterError),
    /// A number outside its range.
    #[error("the plan's {0} is out of range")]
    Range(&'static str),
}

impl Plan {
    pub(super) fn to_bytes(self) -> [u8; PLAN_BYTES] {
        let mut bytes = [0; PLAN_BYTES];
        let mut out = Writer::new(&mut bytes);
        let p = &self.parameters;
        for count in [p.groups(), p.adversaries(), p.stragglers(), p.compression()] {
            out.put(&(count as u32).to_le_bytes());
        }
        out.put(&(self.layout.dimension() as u64).to_le_bytes());
        out.put(&(self.layout.chunk_width() as u32).to_le_bytes());
        out.put(&self.window.to_le_bytes());
        out.put(&self.credits.to_le_bytes());
        out.put(&self.deadline_ms.to_le_bytes());
        out.put(&self.tolerance.to_le_bytes());
        out.put(&self.scale.to_le_bytes());
        let family = match self.family {
            Family::Trigonometric => 0,
            Family::Polynomial => 1,
        };
        let form = match self.form {
            Form::Systematic => 0,
            Form::Dense => 1,
        };
        out.put(&[self.rule.number(), family, form, number_of(self.precision)]);
        out.put(&self.generator_digest.to_le_bytes());
        out.put(&[number_of(self.update_precision)]);
        out.put(&[0; PLAN_RESERVED]);
        out.put(&(self.gradients - 1).to_le_bytes());
        out.finish();
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; PLAN_BYTES]) -> Result<Plan, PlanError> {
        let mut read = Reader::new(bytes);
        let counts: [usize; 4] = std::array::from_fn(|_| read.u32() as usize);
        let parameters = Parameters::new(counts[0], counts[1], counts[2], counts[3])?;
        if counts[0].saturating_mul(parameters.redundancy()) > WORKERS_MAX {
            return Err(PlanError::Range("number of workers"));
        }
        let dimension = usize::try_from(read.u64()).map_err(|_| PlanError::Range("dimension"))?;
        let chunk_width = read.u32() as usize;
        if dimension == 0 || dimension > 1 << 40 {
            return Err(PlanError::Range("dimension"));
        }
        if chunk_width == 0 || chunk_width > 1 << 26 {
            return Err(PlanError::Range("chunk width"));
        }
        let layout = Layout::new(dimension, parameters.compression(), chunk_width);
        if layout.chunks() > CHUNKS_MAX {
            return Err(PlanError::Range("number of chunks"));
        }
        let (window, credits, deadline_ms) = (read.u32(), read.u32(), read.u32());
        if !(1..=64).contains(&window) {
            return Err(PlanError::Range("window"));
        }
        if !(1..=CREDITS_MAX as u32).contains(&credits) {
            return Err(PlanError::Range("credits"));
        }
        let (tolerance, scale) = (read.f64(), read.f32());
        let rule = Rule::all().nth(usize::from(read.u8())).ok_or(PlanError::Range("rule"))?;
        let family = match read.u8() {
            0 => Family::Trigonometric,
            1 => Family::Polynomial,
            _ => return Err(PlanError::Range("code family")),
        };
        let form = match read.u8() {
            0 => Form::Systematic,
            1 => Form::Dense,
            _ => return Err(PlanError::Range("code form")),
        };
        let precision = precision_of(read.u8(), "precision of shards")?;
        if !(tolerance > 0.0 && tolerance < 1.0) {
            return Err(PlanError::Range("tolerance"));
        }
        if !scale.is_finite() || scale == 0.0 {
            return Err(PlanError::Range("scale"));
        }
        let generator_digest = read.u64();
        let update_precision = precision_of(read.u8(), "precision of updates")?;
        if read.take() != [0; PLAN_RESERVED] {
            return Err(PlanError::Range("rest"));
        }
        let gradients = read.u32().saturating_add(1);
        let right = match rule {
            Rule::CYCLIC => {
                // Every worker has its weights to find.
                let alone = parameters.redundancy() == 1 && parameters.workers() <= ROWS_MAX;
                let odd = gradients % 2 == 1 && gradients as usize <= parameters.workers();
                alone && odd && precision == Precision::F32
            }
            _ => gradients == 1,
        };
        if !right {
            return Err(PlanError::Range("number of gradients"));
        }
        Ok(Plan {
            parameters,
            rule,
            family,
            form,
            generator_digest,
            layout,
            precision,
            update_precision,
            gradients,
            window,
            credits,
            deadline_ms,
            tolerance,
            scale,
        })
    }

    /// Bytes of a shard of `width` numbers, without its header.
    pub fn shard_bytes(&self, width: usize) -> usize {
        self.rule.shard_bytes(self.precision, width)
    }

    /// Bytes of a chunk of an update of `len` numbers, without its header.
    pub fn update_bytes(&self, len: usize) -> usize {
        self.update_precision.shard_bytes(len)
    }

    /// BLAKE3 over the plan's bytes: two peers with the same hash follow the same plan.
    pub fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.to_bytes()).as_bytes()
    }
}

/// A closed round and the digest of its update: where somebody stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The last round that was closed.
    pub round: u64,
    /// Digest of that round's update, see [`Report::digest`](super::Report::digest).
    pub digest: u64,
}

/// The daemon's answer to a worker whom it takes in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Welcome {
    /// The plan to follow.
    pub plan: Plan,
    /// The worker's index in the job.
    pub worker: u32,
    /// The number of this session: stands in every frame that the worker sends.
    pub session: u64,
    /// The daemon's epoch: another one after every start of the daemon.
    pub epoch: u64,
    /// The last round that the daemon closed, if it knows one.
    pub last: Option<Resume>,
}

/// Why the daemon does not take a worker in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The daemon serves another job.
    #[error("this daemon serves another job: compare the job name of the worker with [job] name of solond")]
    UnknownJob,
    /// The index is too large.
    #[error("there is no worker {found} in a job of {workers} workers (indices count from 0): set the worker's index")]
    NoSuchWorker {
        /// Index claimed.
        found: u64,
        /// Workers in the job.
        workers: u64,
    },
    /// The proof does not fit the token that the daemon has for this worker.
    #[error(
        "the proof of identity is wrong: the worker's token is not the one in solond's token file for worker {found}"
    )]
    BadProof {
        /// Index claimed.
        found: u64,
    },
    /// The first frame was no hello that can be read.
    #[error("the hello could not be read: is the worker's solon version the same as the daemon's?")]
    Unreadable,
    /// The same worker joined a moment ago.
    #[error("worker {found} joined less than a second ago: wait {wait_ms} ms and try again")]
    TooSoon {
        /// Index claimed.
        found: u64,
        /// Wait this long.
        wait_ms: u64,
    },
    /// The daemon is about to stop.
    #[error("the daemon is stopping")]
    Stopping,
    /// The daemon takes only workers that come by RDMA.
    #[error(
        "this daemon takes workers only by RDMA (listen.transport = \"rdma\"), and worker {found} did not come by it"
    )]
    RdmaOnly {
        /// Index claimed.
        found: u64,
    },
    /// The worker computes differently than enough others of its group, and the daemon is set to refuse that.
    #[error(
        "worker {found} computes differently from worker {other} and others of its group: {fields} differ, and \
         verify.mixed is \"refuse\""
    )]
    Mixed {
        /// Index claimed.
        found: u64,
        /// One of those that it differs from.
        other: u32,
        /// In what.
        fields: Fields,
    },
}

impl Refusal {
    /// A word for each kind.
    pub const REASONS: [&'static str; 8] =
        ["unknown_job", "no_such_worker", "bad_proof", "unreadable", "too_soon", "stopping", "rdma_only", "mixed"];

    /// The place of its word in [`Refusal::REASONS`].
    pub fn reason(self) -> usize {
        self.numbers().0 as usize - 1
    }

    pub(super) fn numbers(self) -> (u64, u64, u64) {
        match self {
            Refusal::UnknownJob => (1, 0, 0),
            Refusal::NoSuchWorker { found, workers } => (2, found, workers),
            Refusal::BadProof { found } => (3, found, 0),
            Refusal::Unreadable => (4, 0, 0),
            Refusal::TooSoon { found, wait_ms } => (5, found, wait_ms),
            Refusal::Stopping => (6, 0, 0),
            Refusal::RdmaOnly { found } => (7, found, 0),
            Refusal::Mixed { found, other, fields } => (8, found, fields.bits() << 32 | u64::from(other)),
        }
    }

    pub(super) fn from_numbers(code: u64, found: u64, other: u64) -> Option<Refusal> {
        Some(match code {
            1 => Refusal::UnknownJob,
            2 => Refusal::NoSuchWorker { found, workers: other },
            3 => Refusal::BadProof { found },
            4 => Refusal::Unreadable,
            5 => Refusal::TooSoon { found, wait_ms: other },
            6 => Refusal::Stopping,
            7 => Refusal::RdmaOnly { found },
            8 => Refusal::Mixed { found, other: other as u32, fields: Fields::from_bits(other >> 32)? },
            _ => return None,
        })
    }
}

#[cfg(test)]
pub(crate) fn sample_plan() -> Plan {
    Plan {
        parameters: Parameters::new(2, 2, 1, 2).unwrap(),
        rule: Rule::Solon,
        family: Family::Trigonometric,
        form: Form::Systematic,
        generator_digest: 77,
        layout: Layout::new(1001, 2, 64),
        precision: Precision::F32,
        update_precision: Precision::F32,
        gradients: 1,
        window: 2,
        credits: 4,
        deadline_ms: 1000,
        tolerance: 1.8e-7,
        scale: 0.5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plan_survives_the_wire_and_its_hash_follows_every_field() {
        let plan = sample_plan();
        assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
        let other = Plan { scale: 0.25, ..plan };
        assert_ne!(plan.hash(), other.hash());
        for precision in Precision::value_variants().iter().copied() {
            for plan in [Plan { precision, ..plan }, Plan { update_precision: precision, ..plan }] {
                assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
            }
        }
        for (at, what) in [
            (55, "precision of shards"),
            (64, "precision of updates"),
            (65, "rest"),
            (67, "rest"),
            (68, "number of gradients"),
        ] {
            let mut bytes = plan.to_bytes();
            bytes[at] = 4;
            assert_eq!(Plan::from_bytes(&bytes), Err(PlanError::Range(what)), "byte {at}");
        }
    }

    #[test]
    fn a_plan_of_the_cyclic_code_survives_the_wire_and_one_that_cannot_be_served_is_refused() {
        let of = |workers, redundant, gradients| Plan {
            parameters: Parameters::new(workers, redundant, 0, 1).unwrap(),
            rule: Rule::CYCLIC,
            layout: Layout::new(1001, 1, 64),
            gradients,
            ..sample_plan()
        };
        let plan = of(11, 0, 5);
        assert_eq!(Plan::from_bytes(&plan.to_bytes()), Ok(plan));
        assert_eq!(plan.shard_bytes(10), 160);
        let rounded = Plan { precision: Precision::Bf16, ..plan };
        // A worker would look for its weights for minutes, or for some that there are not.
        for wrong in [of(11, 0, 4), of(11, 0, 13), of(1024, 0, 341), of(11, 1, 5), rounded] {
            let refused = Err(PlanError::Range("number of gradients"));
            assert_eq!(Plan::from_bytes(&wrong.to_bytes()), refused, "{wrong:?}");
        }
        let other = Plan { gradients: 3, ..sample_plan() };
        assert_eq!(Plan::from_bytes(&other.to_bytes()), Err(PlanError::Range("number of gradients")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_reading_a_plan_panic(bytes in proptest::collection::vec(any::<u8>(), PLAN_BYTES), small in any::<bool>()) {
            let mut bytes: [u8; PLAN_BYTES] = bytes.try_into().unwrap();
            if small { for at in [1, 2, 3, 5, 6, 7, 9, 10, 11, 13, 14, 15] { bytes[at] = 0; } }
            if let Ok(plan) = Plan::from_bytes(&bytes) { prop_assert!(plan.layout.chunks() >= 1); }
        }
    }

    #[test]
    fn refusals_survive_the_wire() {
        for refusal in [
            Refusal::UnknownJob,
            Refusal::NoSuchWorker { found: 12, workers: 12 },
            Refusal::BadProof { found: 1 },
            Refusal::Unreadable,
            Refusal::TooSoon { found: 3, wait_ms: 800 },
            Refusal::Stopping,
            Refusal::RdmaOnly { found: 4 },
            Refusal::Mixed { found: 4, other: 5, fields: Fields::from_bits(17).unwrap() },
        ] {
            let (code, found, other) = refusal.numbers();
            assert_eq!(Refusal::from_numbers(code, found, other), Some(refusal));
        }
        assert_eq!(Refusal::from_numbers(0, 0, 0), None);
        assert_eq!(Refusal::from_numbers(8, 4, 1 << 40), None, "there is no such field");
    }
}
