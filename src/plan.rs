//! What a job would tolerate, cost and take, before anything is started.
//!
//! ```text
//! PlanInput ──► plan() ──► PlanReport ──► Display: text for people    ──► config(): a file for solond
//!                  │            └───────► serde: JSON for programs
//!                  └────► Refusal: the bound that fails, and the nearest sizes that work
//! ```
//!
//! **The round.** Every worker computes `r` times what it would compute without redundancy, then uploads; chunks are decoded
//! and pushed as they come, so upload and download run at once, except for the first chunk and the last one. With upload time
//! `u`, download time `d` and `n` chunks that is `max(u, d) + min(u, d) / n`. The daemon sends every worker the whole update, so
//! `d` does not depend on `r_c` and `u <= d`: compression buys nothing unless updates are relayed among the workers (`push.way`). Both
//! are computed. Decoding is left out: it is faster than any link.

mod accuracy;
mod chunking;
mod config;
mod crossover;
mod page;
mod quantity;
mod refusal;
mod render;
#[cfg(test)]
mod tests;
mod uncoded;

pub use accuracy::{Accuracy, Conditioning, is_slow};
pub use chunking::{Chunking, last_level_cache, suggested_width};
pub use crossover::{BreakEven, Crossover, Duel, Faster};
pub use quantity::{BytesPerSecond, QuantityError, Seconds, parse_count};
pub use refusal::{Bound, Refusal};
pub use uncoded::{Uncoded, UncodedInput, plan_uncoded};

use serde::Serialize;

use crate::code::{Family, Form, Layout, Parameters, Precision, ROWS_MAX};
use crate::daemon::settings::{DefaultValue, SETTINGS};
use crate::memory::Slab;
use crate::pipeline::Limits;
use crate::wire::{HEADER_BYTES, Plan, REPORT_BYTES, Rule};

/// How many workers there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Size {
    /// As many in all; they must divide into groups.
    Workers(usize),
    /// As many groups, of as many workers as the code needs.
    Groups(usize),
}

/// What is asked about. Anything can be in it: [`plan`] refuses what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct PlanInput {
    /// Workers or groups.
    pub size: Size,
    /// Liars corrected per group, s.
    pub adversaries: usize,
    /// Silent workers per group beside them, e.
    pub stragglers: usize,
    /// The factor r_c by which uploads shrink.
    pub compression: usize,
    /// How the numbers of an upload stand on the wire.
    pub precision: Precision,
    /// How those of an update do.
    pub update_precision: Precision,
    /// Numbers in the gradient, d.
    pub dimension: usize,
    /// The daemon's link, in each direction.
    pub link: Option<BytesPerSecond>,
    /// What one worker takes to compute its share of the gradient at redundancy 1.
    pub gradient_time: Option<Seconds>,
    /// Numbers per shard of one chunk.
    pub chunk_width: usize,
    /// Last-level cache of the daemon's node, in bytes.
    pub cache: Option<usize>,
    /// Shards in flight per worker.
    pub credits: usize,
    /// Decoded chunks in flight.
    pub updates: usize,
    /// Rounds in flight.
    pub window: usize,
    /// Relative rounding error that is no lie.
    pub tolerance: f64,
}

impl PlanInput {
    /// A job of `size` with a gradient of `dimension` numbers; all else as `solond` has it when nobody sets it.
    pub fn new(size: Size, dimension: usize) -> PlanInput {
        PlanInput {
            size,
            adversaries: default("job.adversaries"),
            stragglers: default("job.stragglers"),
            compression: default("job.compression"),
            precision: Precision::default(),
            update_precision: Precision::default(),
            dimension,
            link: None,
            gradient_time: None,
            chunk_width: default("chunks.width"),
            cache: None,
            credits: default("memory.credits"),
            updates: default("memory.updates"),
            window: default("rounds.window"),
            tolerance: default("verify.tolerance"),
        }
    }

    /// The tolerance that `solond` has for these shards when nobody sets it.
    pub fn usual_tolerance(precision: Precision, compression: usize) -> f64 {
        match precision.is_coarse(compression) {
            true => precision.tolerance(compression),
            false => default("verify.tolerance"),
        }
    }
}

/// The default of a setting that has one.
fn default<T: std::str::FromStr>(name: &str) -> T {
    let setting = SETTINGS.iter().find(|setting| setting.name() == name).expect("the settings that a plan needs exist");
    let DefaultValue::Value(text) = setting.default else { panic!("{name} has a default") };
    text.parse().ok().unwrap_or_else(|| panic!("the default of {name} is a number"))
}

/// The sizes of a code and of the job it serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Code {
    /// P.
    pub workers: usize,
    /// P / r.
    pub groups: usize,
    /// r = r_c + 2s + e: workers per group, and how often each gradient is computed.
    pub redundancy: usize,
    /// s.
    pub adversaries: usize,
    /// e.
    pub stragglers: usize,
    /// r_c.
    pub compression: usize,
    /// Shards that must agree before a chunk is believed, r_c + s.
    pub agreement: usize,
}

impl From<Parameters> for Code {
    fn from(parameters: Parameters) -> Code {
        Code {
            workers: parameters.workers(),
            groups: parameters.groups(),
            redundancy: parameters.redundancy(),
            adversaries: parameters.adversaries(),
            stragglers: parameters.stragglers(),
            compression: parameters.compression(),
            agreement: parameters.agreement(),
        }
    }
}

/// Bytes of one round, headers included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Chunks per gradient.
    pub chunks: u64,
    /// From each worker.
    pub upload_per_worker: u64,
    /// From all workers.
    pub upload: u64,
    /// To each worker.
    pub download_per_worker: u64,
    /// To all workers.
    pub download: u64,
}

/// How long the bytes of a round take at the daemon's link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct WireTime {
    /// The upload of all workers.
    pub upload: Seconds,
    /// The download to all workers, each from the daemon.
    pub download: Seconds,
    /// Both, overlapping chunk by chunk.
    pub both: Seconds,
    /// Both, if the daemon sends the update once and workers pass it on.
    pub both_if_relayed: Seconds,
}

/// How long a round takes.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RoundTime {
    /// Computing gradients, `r` times.
    pub compute: Seconds,
    /// From one update to the next.
    pub total: Seconds,
    /// The same, if updates are relayed.
    pub total_if_relayed: Seconds,
    /// What most of it is.
    pub bottleneck: Bottleneck,
}

/// What a round waits for longest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Bottleneck {
    /// Computing gradients.
    Compute,
    /// Workers' shards on their way to the daemon.
    Upload,
    /// Updates on their way to the workers.
    Download,
}

/// One way to have these workers tolerate this: one value of r_c.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Choice {
    /// Its sizes.
    pub code: Code,
    /// Its bytes.
    pub traffic: Traffic,
    /// Its time on the wire, if the link is known.
    pub wire: Option<WireTime>,
    /// Its rounds, if the time to compute is known too.
    pub round: Option<RoundTime>,
    /// Its conditioning; not measured for large codes that were not asked for.
    pub conditioning: Option<Conditioning>,
}

/// Memory that the daemon takes at its start for what is in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Workers x credits.
    pub shard_slots: usize,
    /// Of each.
    pub shard_slot_bytes: usize,
    /// Of all, and of what lies between those of one worker and the next.
    pub shard_bytes: usize,
    /// Twice what can be decoded and not yet sent to everybody.
    pub update_slots: usize,
    /// Of each.
    pub update_slot_bytes: usize,
    /// Of all, and of what lies between updates and reports.
    pub update_bytes: usize,
    /// Where a decoder has the shards of a chunk as f32, if they come as 16 bits; as much again for every further decoder.
    pub wide_bytes: usize,
    /// All of it.
    pub total: usize,
    /// What counts against RLIMIT_MEMLOCK where there is RDMA: the slots for updates once per worker, beside those for shards.
    pub pinned: usize,
}

/// When compression pays: computing costs `r_c c` for it and the upload takes `C / r_c`.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct RuleOfThumb {
    /// C: time in which the daemon receives one full gradient of every worker.
    pub all_gradients: Seconds,
    /// c: time to compute per unit of redundancy.
    pub unit: Seconds,
    /// Where the sum of both is least, sqrt(C / c).
    pub best: f64,
}

impl RuleOfThumb {
    /// Is the sum less at `compression` than at 1? So it is while `C > r_c c`.
    pub fn pays(&self, compression: usize) -> bool {
        self.all_gradients.get() > compression as f64 * self.unit.get()
    }
}

/// All that can be said of a job beforehand. [`Display`](std::fmt::Display) makes text of it, for terminals from 80 columns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct PlanReport {
    /// What was asked.
    pub input: PlanInput,
    /// First and last worker of each group.
    pub groups: Vec<(usize, usize)>,
    /// Every r_c with which these workers tolerate as much, in rising order.
    pub choices: Vec<Choice>,
    /// Which of them was asked about.
    pub chosen: usize,
    /// Which of them has the shortest rounds, if the times are known.
    pub fastest: Option<usize>,
    /// Which of them has, if updates are relayed.
    pub fastest_if_relayed: Option<usize>,
    /// What chunks take in the daemon's cache.
    pub chunking: Chunking,
    /// What the daemon takes.
    pub memory: Memory,
    /// How far off a result can be.
    pub accuracy: Accuracy,
    /// When compression pays, if the times are known.
    pub rule_of_thumb: Option<RuleOfThumb>,
    /// Against Draco; nothing if the times are not known, or if this is Draco: compression 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub crossover: Option<Crossover>,
    /// A file for `solond`.
    pub config: String,
}

impl PlanReport {
    /// What was asked about.
    pub fn chosen(&self) -> &Choice {
        &self.choices[self.chosen]
    }
}

/// Says what `input` tolerates, costs and takes. Takes up to seconds, for groups near 64 workers with much compression up to a
/// minute: [`is_slow`] says so beforehand.
///
/// # Errors
/// If there can be no such job; with the nearest that can be.
pub fn plan(input: &PlanInput) -> Result<PlanReport, Box<Refusal>> {
    plan_measured(input, &accuracy::measure)
}

/// How long one may measure.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Effort {
    /// As long as it takes.
    Any,
    /// As long as this: in additions and multiplications.
    UpTo(f64),
}

/// `measure` gives the conditioning of a code and what it cost, or nothing if it would have cost too much.
type Measure<'a> = &'a dyn Fn(&Parameters, Effort) -> Option<(Conditioning, f64)>;

fn plan_measured(input: &PlanInput, measure: Measure<'_>) -> Result<PlanReport, Box<Refusal>> {
    let parameters = refusal::check(input)?;
    let (conditioning, _) = measure(&parameters, Effort::Any).expect("any effort is enough");
    // A second or two for all others together.
    let mut effort = 1e8;
    let choices: Vec<Choice> = alternatives(input, &parameters)
        .map(|other| {
            let conditioning = if other == parameters {
                Some(conditioning)
            } else {
                let measured = measure(&other, Effort::UpTo(effort));
                effort -= measured.map_or(0.0, |(_, cost)| cost);
                measured.map(|(conditioning, _)| conditioning)
            };
            choice(input, &other, conditioning)
        })
        .collect();
    let chosen = choices.iter().position(|choice| choice.code == parameters.into()).expect("it is its own alternative");
    let r = parameters.redundancy();
    let mut report = PlanReport {
        input: *input,
        groups: (0..parameters.groups()).map(|group| (group * r, group * r + r - 1)).collect(),
        chosen,
        fastest: least(&choices, |round| round.total),
        fastest_if_relayed: least(&choices, |round| round.total_if_relayed),
        chunking: Chunking::new(
            input.chunk_width,
            parameters.workers(),
            parameters.compression(),
            input.precision,
            input.cache,
        ),
        memory: memory(input, parameters),
        accuracy: Accuracy::of(conditioning, r, input.tolerance, input.precision),
        rule_of_thumb: rule_of_thumb(input, parameters.workers()),
        crossover: crossover::of(input, &parameters),
        config: String::new(),
        choices,
    };
    report.config = config::of(&report);
    Ok(report)
}

/// All codes of as many workers that tolerate as much, `parameters` included, with r_c rising.
fn alternatives(input: &PlanInput, parameters: &Parameters) -> impl Iterator<Item = Parameters> {
    let (workers, s, e) = (parameters.workers(), parameters.adversaries(), parameters.stragglers());
    let codes = (1..=ROWS_MAX).filter_map(move |compression| refusal::code(Size::Workers(workers), s, e, compression));
    codes.filter(|code| refusal::chunks(input, code.compression()).is_ok())
}

fn least(choices: &[Choice], time: impl Fn(&RoundTime) -> Seconds) -> Option<usize> {
    let times: Vec<f64> = choices.iter().filter_map(|choice| choice.round.as_ref()).map(|r| time(r).get()).collect();
    // The first of equals: it takes the fewest computers' time.
    (0..times.len()).min_by(|&a, &b| times[a].total_cmp(&times[b]))
}

fn choice(input: &PlanInput, parameters: &Parameters, conditioning: Option<Conditioning>) -> Choice {
    let traffic = traffic(input, parameters);
    let wire = input.link.map(|link| {
        let (upload, download) = (link.time(traffic.upload), link.time(traffic.download));
        WireTime {
            upload,
            download,
            both: overlapped(upload, download, traffic.chunks),
            both_if_relayed: overlapped(upload, link.time(traffic.download_per_worker), traffic.chunks),
        }
    });
    let round = wire.zip(input.gradient_time).map(|(wire, unit)| {
        let compute = Seconds::of(unit.get() * parameters.redundancy() as f64);
        let parts =
            [(compute, Bottleneck::Compute), (wire.upload, Bottleneck::Upload), (wire.download, Bottleneck::Download)];
        let longest = parts.into_iter().max_by(|(a, _), (b, _)| a.get().total_cmp(&b.get())).expect("three parts");
        RoundTime {
            compute,
            total: Seconds::of(compute.get() + wire.both.get()),
            total_if_relayed: Seconds::of(compute.get() + wire.both_if_relayed.get()),
            bottleneck: longest.1,
        }
    });
    Choice { code: (*parameters).into(), traffic, wire, round, conditioning }
}

/// Two stages, each over all chunks one after the other, the second behind the first by one chunk.
fn overlapped(first: Seconds, second: Seconds, chunks: u64) -> Seconds {
    let (short, long) = (first.get().min(second.get()), first.get().max(second.get()));
    Seconds::of(long + short / chunks as f64)
}

fn layout(input: &PlanInput, compression: usize) -> Layout {
    Layout::new(input.dimension, compression, input.chunk_width)
}

fn traffic(input: &PlanInput, parameters: &Parameters) -> Traffic {
    let layout = layout(input, parameters.compression());
    let (chunks, workers, header) = (layout.chunks() as u64, parameters.workers() as u64, HEADER_BYTES as u64);
    let last = layout.chunk(layout.chunks() - 1);
    let shard_numbers = (chunks - 1) * layout.chunk_width() as u64 + last.width as u64;
    let upload_per_worker = input.precision.shard_bytes(1) as u64 * shard_numbers + chunks * header;
    // The update's chunks, and the report that ends the round.
    let update = input.update_precision.shard_bytes(input.dimension) as u64;
    let download_per_worker = update + (chunks + 1) * header + REPORT_BYTES as u64;
    Traffic {
        chunks,
        upload_per_worker,
        upload: workers * upload_per_worker,
        download_per_worker,
        download: workers * download_per_worker,
    }
}

fn memory(input: &PlanInput, parameters: Parameters) -> Memory {
    let plan = Plan {
        parameters,
        rule: Rule::Solon,
        family: Family::Trigonometric,
        form: Form::Systematic,
        generator_digest: 0,
        layout: layout(input, parameters.compression()),
        precision: input.precision,
        update_precision: input.update_precision,
        gradients: 1,
        window: input.window as u32,
        credits: input.credits as u32,
        deadline_ms: 1,
        tolerance: input.tolerance,
        scale: 1.0,
    };
    let (limits, workers) = (Limits::of(&plan, input.updates), parameters.workers());
    let (shards, updates, wide) = (limits.shard_bytes(workers), limits.update_bytes(), limits.wide_bytes(workers, 1));
    let (shard_slots, update_slots) = (workers * limits.credits, 2 * limits.updates.max(limits.reports));
    Memory {
        shard_slots,
        shard_slot_bytes: Slab::stride(limits.shard_slot_bytes),
        shard_bytes: shards,
        update_slots,
        update_slot_bytes: Slab::stride(limits.update_slot_bytes),
        update_bytes: updates,
        wide_bytes: wide,
        total: shards + updates + wide,
        pinned: shards + workers * updates,
    }
}

fn rule_of_thumb(input: &PlanInput, workers: usize) -> Option<RuleOfThumb> {
    let (link, unit) = input.link.zip(input.gradient_time)?;
    let all_gradients = link.time((input.precision.shard_bytes(input.dimension) * workers) as u64);
    Some(RuleOfThumb { all_gradients, unit, best: (all_gradients.get() / unit.get()).sqrt() })
}
