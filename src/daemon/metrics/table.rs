//! The table of metrics of `solond`.
//!
//! A metric has one row here. From the rows come what a scrape says of it and the docs page; a scrape holds every row and nothing else
//! beside the standard `process_*` metrics. Labels are words of this table or indices that the configuration bounds: nothing that a peer
//! sends becomes one.

use super::series::Series;
use super::sources::Sources;
use crate::pipeline::{Counter, MARGINS, Measure, Pool, RATIOS, Ring, SECONDS, WorkerCount};

/// A group of metrics, for the docs.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// Its heading.
    pub title: &'static str,
    /// How to read them together.
    pub doc: &'static str,
    /// Its metrics.
    pub metrics: &'static [Metric],
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    /// Its name, with its unit.
    pub name: &'static str,
    /// What kind of number it is.
    pub kind: Kind,
    /// What tells its series from each other.
    pub labels: &'static [Label],
    /// What it counts or measures.
    pub unit: &'static str,
    /// One line: what it is.
    pub help: &'static str,
    /// How to read it, and when it is empty or 0.
    pub doc: &'static str,
    /// Where its numbers come from.
    pub(super) read: fn(&Sources, &mut Series),
}

/// What kind of number a metric is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// It only rises while the daemon lives.
    Counter,
    /// It rises and falls.
    Gauge,
    /// Counts of what was at most each of these bounds.
    Histogram(&'static [f64]),
}

/// A label and the values it can have.
#[derive(Clone, Copy, Debug)]
pub struct Label {
    /// Its name.
    pub name: &'static str,
    /// Its values.
    pub values: Values,
}

/// The values that a label can have.
#[derive(Clone, Copy, Debug)]
pub enum Values {
    /// These words.
    Words(&'static [&'static str]),
    /// Indices of workers, from 0.
    Workers,
    /// Indices of groups, from 0.
    Groups,
    /// Indices of reactors, from 0.
    Reactors,
    /// One text that is fixed for the life of the daemon; this says which.
    Fixed(&'static str),
}

const WORKER: Label = Label { name: "worker", values: Values::Workers };
const GROUP: Label = Label { name: "group", values: Values::Groups };
const REACTOR: Label = Label { name: "reactor", values: Values::Reactors };
const TRANSPORT: Label = words("transport", &["tcp", "rdma"]);

const fn words(name: &'static str, words: &'static [&'static str]) -> Label {
    Label { name, values: Values::Words(words) }
}

const fn fixed(name: &'static str, what: &'static str) -> Label {
    Label { name, values: Values::Fixed(what) }
}

/// All metrics, in the order of the docs.
pub const SECTIONS: &[Section] = &[
    Section {
        title: "State",
        doc: "Is the daemon there, and does it go on?",
        metrics: &[
            Metric {
                name: "solon_build_info",
                kind: Kind::Gauge,
                labels: &[fixed("version", "of the daemon"), fixed("arch", "the processor's, such as `x86_64`")],
                unit: "",
                help: "The version of the daemon that runs.",
                doc: "Always 1.",
                read: |_, to| to.add(&[env!("CARGO_PKG_VERSION"), std::env::consts::ARCH], 1),
            },
            Metric {
                name: "solon_ready",
                kind: Kind::Gauge,
                labels: &[],
                unit: "0 or 1",
                help: "Whether workers can join and rounds can begin.",
                doc: "0 from the signal to stop on. It says nothing about workers: see `solon_group_connected_workers`.",
                read: |from, to| to.add(&[], u64::from(!from.board().stop_requested())),
            },
            Metric {
                name: "solon_draining",
                kind: Kind::Gauge,
                labels: &[],
                unit: "0 or 1",
                help: "Whether the daemon was asked to stop and lets the open round end.",
                doc: "",
                read: |from, to| to.add(&[], u64::from(from.board().stop_requested())),
            },
            Metric {
                name: "solon_open_round",
                kind: Kind::Gauge,
                labels: &[],
                unit: "",
                help: "Number of the round that is open.",
                doc: "All before it are closed. With a journal it goes on where the last daemon stopped. One that stands still while workers \
                      are connected: they compute, or too few submit.",
                read: |from, to| to.add(&[], from.board().closed()),
            },
        ],
    },
    Section {
        title: "Job",
        doc: "What was configured, for dashboards and alerts to compute with. None of it changes while the daemon runs.",
        metrics: &[
            Metric {
                name: "solon_job_info",
                kind: Kind::Gauge,
                labels: &[
                    fixed("job", "`job.name`"),
                    words("rule", &["solon", "mean"]),
                    words("precision", &["f32", "bf16", "f16"]),
                    words("update_precision", &["f32", "bf16", "f16"]),
                    words("transport", &["auto", "rdma", "tcp"]),
                    words("push", &["direct", "relay", "auto"]),
                ],
                unit: "",
                help: "What the daemon serves.",
                doc: "Always 1. `push` is `direct` also where `push.way` is `auto` and the job is none to relay.",
                read: |from, to| to.add(&from.job_words(), 1),
            },
            Metric {
                name: "solon_job_workers",
                kind: Kind::Gauge,
                labels: &[],
                unit: "workers",
                help: "Workers of the job.",
                doc: "",
                read: |from, to| to.add(&[], from.parameters().workers()),
            },
            Metric {
                name: "solon_job_groups",
                kind: Kind::Gauge,
                labels: &[],
                unit: "groups",
                help: "Groups of workers.",
                doc: "Workers / groups is r, the size of a group.",
                read: |from, to| to.add(&[], from.parameters().groups()),
            },
            Metric {
                name: "solon_job_adversaries",
                kind: Kind::Gauge,
                labels: &[],
                unit: "workers",
                help: "Liars per group that the code corrects.",
                doc: "",
                read: |from, to| to.add(&[], from.job.shape().adversaries),
            },
            Metric {
                name: "solon_job_stragglers",
                kind: Kind::Gauge,
                labels: &[],
                unit: "workers",
                help: "Absent workers per group that the code makes up for, beside the liars.",
                doc: "",
                read: |from, to| to.add(&[], from.parameters().stragglers()),
            },
            Metric {
                name: "solon_job_compression",
                kind: Kind::Gauge,
                labels: &[],
                unit: "",
                help: "How many times shorter a worker's shards are than its gradient.",
                doc: "",
                read: |from, to| to.add(&[], from.parameters().compression()),
            },
            Metric {
                name: "solon_job_needed_workers",
                kind: Kind::Gauge,
                labels: &[],
                unit: "workers",
                help: "Workers of a group whose shards must agree before a round can be decoded.",
                doc: "`job.compression` + `job.adversaries`. A group with fewer connected workers stops the job.",
                read: |from, to| to.add(&[], from.parameters().agreement()),
            },
            Metric {
                name: "solon_job_dimension",
                kind: Kind::Gauge,
                labels: &[],
                unit: "numbers",
                help: "Length of the gradient.",
                doc: "",
                read: |from, to| to.add(&[], from.job.plan.layout.dimension()),
            },
            Metric {
                name: "solon_job_chunks",
                kind: Kind::Gauge,
                labels: &[],
                unit: "chunks",
                help: "Chunks per round.",
                doc: "",
                read: |from, to| to.add(&[], from.job.plan.layout.chunks()),
            },
            Metric {
                name: "solon_job_window_rounds",
                kind: Kind::Gauge,
                labels: &[],
                unit: "rounds",
                help: "Rounds that can be open at once.",
                doc: "",
                read: |from, to| to.add(&[], u64::from(from.job.plan.window)),
            },
            Metric {
                name: "solon_job_deadline_seconds",
                kind: Kind::Gauge,
                labels: &[],
                unit: "seconds",
                help: "Time that a round has.",
                doc: "",
                read: |from, to| to.add(&[], from.job.deadline()),
            },
            Metric {
                name: "solon_job_linger_seconds",
                kind: Kind::Gauge,
                labels: &[],
                unit: "seconds",
                help: "How long a word waits for more shards once enough have come to decide it.",
                doc: "0: words are decided early, so the slowest workers of a group are absent or late in most rounds, and that is no fault.",
                read: |from, to| to.add(&[], from.job.linger),
            },
            Metric {
                name: "solon_job_tolerance_ratio",
                kind: Kind::Gauge,
                labels: &[],
                unit: "ratio",
                help: "How far honest shards may be apart, relative to the gradient.",
                doc: "`verify.tolerance`.",
                read: |from, to| to.add(&[], from.job.plan.tolerance),
            },
        ],
    },
    Section {
        title: "Rounds",
        doc: "How many, how long, and where the time goes. Phases overlap, so they do not add up to a round: a round is a stream of chunks.",
        metrics: &[
            Metric {
                name: "solon_rounds_total",
                kind: Kind::Counter,
                labels: &[words("outcome", &["complete", "too_few", "disagree", "not_finite", "too_large"])],
                unit: "rounds",
                help: "Rounds that were closed, by how they ended.",
                doc: "All but `complete` are undecodable: nobody gets an update. `too_few`: workers of a group were absent at the deadline; \
                      `disagree`: more lie than the code corrects, or honest ones differ by more than the tolerance; `not_finite`: NaN or \
                      infinity in the gradients; `too_large`: the update does not fit `push.precision`.",
                read: |from, to| {
                    use Counter::{RoundsComplete, RoundsDisagree, RoundsNotFinite, RoundsTooFew, RoundsTooLarge};
                    let outcomes = [RoundsComplete, RoundsTooFew, RoundsDisagree, RoundsNotFinite, RoundsTooLarge];
                    to.each(outcomes.map(|outcome| from.count(outcome)));
                },
            },
            Metric {
                name: "solon_round_seconds",
                kind: Kind::Histogram(SECONDS),
                labels: &[],
                unit: "seconds",
                help: "From the first shard of a round to its close.",
                doc: "Undecodable rounds included: they last a deadline. A round of which no shard came is not counted.",
                read: |from, to| to.distribution(&[], &from.measured(Measure::Round)),
            },
            Metric {
                name: "solon_round_phase_seconds",
                kind: Kind::Histogram(SECONDS),
                labels: &[words("phase", &["receive", "locate", "decode", "push"])],
                unit: "seconds",
                help: "Time of each phase of a round.",
                doc: "`receive`: from its first shard to the last that came before its close; long: workers or network. `decode`: passes over \
                      the shards, which recover the sum and project what locating needs; `locate`: judging who agrees, with the second looks that a \
                      lie costs; both summed over all decoders, so they are work and no span. `push`: from the close until all of the update has left for \
                      more than half of the connected workers, by TCP: the kernel has taken it; by RDMA: it has arrived; with the relay: the daemon's part of it. Only complete rounds are in `push`.",
                read: |from, to| {
                    let phases = [Measure::Receive, Measure::Locate, Measure::Decode, Measure::Push];
                    for (word, phase) in to.words().iter().zip(phases) {
                        to.distribution(&[word], &from.measured(phase));
                    }
                },
            },
            Metric {
                name: "solon_round_collected_seconds",
                kind: Kind::Histogram(SECONDS),
                labels: &[],
                unit: "seconds",
                help: "From a round's close until most workers say that they have its update.",
                doc: "Only where updates can be relayed, else empty: workers say so only there.",
                read: |from, to| to.distribution(&[], &from.measured(Measure::Collected)),
            },
            Metric {
                name: "solon_round_residual_ratio",
                kind: Kind::Histogram(RATIOS),
                labels: &[],
                unit: "ratio to the tolerance",
                help: "Per round, the largest residual of shards that were believed.",
                doc: "Honest workers' noise over the tolerance, between 0 and 1. What nears 1 becomes undecodable rounds and false names: raise \
                      `verify.tolerance`. Empty with `job.rule = \"mean\"`.",
                read: |from, to| to.distribution(&[], &from.measured(Measure::Residual)),
            },
            Metric {
                name: "solon_round_margin_workers",
                kind: Kind::Histogram(MARGINS),
                labels: &[],
                unit: "workers",
                help: "Per round, how many more workers of its weakest group could have failed.",
                doc: "Arrived (with a shard at least) - named as liars - needed, in the group where that is least, at the close; counted as 0 where it is negative. With early decision (`rounds.linger_ms = \
                      0`) a round closes before its slowest shards come, so small values are normal; then look at `solon_group_connected_workers`.",
                read: |from, to| to.distribution(&[], &from.measured(Measure::Margin)),
            },
            Metric {
                name: "solon_liars_named_total",
                kind: Kind::Counter,
                labels: &[words("found", &["in_time", "late"])],
                unit: "names",
                help: "Workers that reports of rounds name as liars.",
                doc: "One per worker and round. `late`: of an earlier round, by a shard that the round had not waited for.",
                read: |from, to| to.each([Counter::LiarsNamed, Counter::LiarsNamedLate].map(|it| from.count(it))),
            },
        ],
    },
    Section {
        title: "Groups",
        doc: "A job stops when one group of workers is too small: these say which.",
        metrics: &[
            Metric {
                name: "solon_group_connected_workers",
                kind: Kind::Gauge,
                labels: &[GROUP],
                unit: "workers",
                help: "Workers of a group that have a session.",
                doc: "Less `solon_job_needed_workers` it is how many more may leave.",
                read: |from, to| to.indexed(from.groups(), |group| from.board().connected(group).count()),
            },
            Metric {
                name: "solon_group_margin_workers",
                kind: Kind::Gauge,
                labels: &[GROUP],
                unit: "workers",
                help: "How many more workers of a group could have been absent in the last closed round.",
                doc: "Arrived (with a shard at least) - named as liars - needed; negative in a group that made its round undecodable. 0 before the first round. See \
                      `solon_round_margin_workers` for early decision.",
                read: |from, to| to.indexed(from.groups(), |group| from.board().measured().margin(group)),
            },
            Metric {
                name: "solon_group_noise_ratio",
                kind: Kind::Gauge,
                labels: &[GROUP],
                unit: "ratio to the tolerance",
                help: "How far apart 99 % of a group's words were at most since the start.",
                doc: "Shards of liars are in it. Rounded up, by a quarter at most. One group far above the others: its workers compute different gradients \
                      (seeds, data, kernels). 0 before its first word.",
                read: |from, to| to.indexed(from.groups(), |group| from.noise(group)),
            },
        ],
    },
    Section {
        title: "Workers",
        doc: "One series per configured worker, whether or not it ever came. A worker's index is the only thing that is said of it.",
        metrics: &[
            Metric {
                name: "solon_worker_info",
                kind: Kind::Gauge,
                labels: &[WORKER, GROUP],
                unit: "",
                help: "Which group a worker belongs to.",
                doc: "Always 1; join on it: `solon_worker_connected * on (worker) group_left (group) solon_worker_info`.",
                read: |from, to| {
                    for worker in from.workers() {
                        let group = from.parameters().place(worker).group;
                        to.add(&[&worker.to_string(), &group.to_string()], 1);
                    }
                },
            },
            Metric {
                name: "solon_worker_connected",
                kind: Kind::Gauge,
                labels: &[WORKER],
                unit: "0 or 1",
                help: "Whether a worker has a session.",
                doc: "",
                read: |from, to| to.indexed(from.workers(), |worker| from.connected(worker)),
            },
            Metric {
                name: "solon_worker_last_seen_timestamp_seconds",
                kind: Kind::Gauge,
                labels: &[WORKER],
                unit: "Unix time",
                help: "When a frame of a worker came last.",
                doc: "0: never since the start.",
                read: |from, to| to.indexed(from.workers(), |worker| from.last_seen(worker)),
            },
            Metric {
                name: "solon_worker_shards_accepted_total",
                kind: Kind::Counter,
                labels: &[WORKER],
                unit: "shards",
                help: "Shards of a worker whose checks passed.",
                doc: "Whether they were true is judged later. An honest worker has `solon_job_chunks` per round.",
                read: |from, to| to.indexed(from.workers(), |worker| from.of_worker(WorkerCount::Accepted, worker)),
            },
            Metric {
                name: "solon_worker_lies_total",
                kind: Kind::Counter,
                labels: &[WORKER],
                unit: "shards",
                help: "Shards of a worker that were proved wrong.",
                doc: "0 for a healthy worker. Once: note it; again: drain the node, test its GPU and memory.",
                read: |from, to| to.indexed(from.workers(), |worker| from.of_worker(WorkerCount::Lies, worker)),
            },
            Metric {
                name: "solon_worker_named_rounds_total",
                kind: Kind::Counter,
                labels: &[WORKER],
                unit: "rounds",
                help: "Rounds whose report names a worker as a liar.",
                doc: "",
                read: |from, to| to.indexed(from.workers(), |worker| from.of_worker(WorkerCount::Named, worker)),
            },
            Metric {
                name: "solon_worker_absent_rounds_total",
                kind: Kind::Counter,
                labels: &[WORKER],
                unit: "rounds",
                help: "Closed rounds of which no shard of a worker had come.",
                doc: "With early decision a slow worker is absent often, and that is no fault.",
                read: |from, to| to.indexed(from.workers(), |worker| from.of_worker(WorkerCount::Absent, worker)),
            },
            Metric {
                name: "solon_worker_late_rounds_total",
                kind: Kind::Counter,
                labels: &[WORKER],
                unit: "rounds",
                help: "Closed rounds of which only a part of a worker's shards had come.",
                doc: "As `solon_worker_absent_rounds_total`.",
                read: |from, to| to.indexed(from.workers(), |worker| from.of_worker(WorkerCount::Late, worker)),
            },
        ],
    },
    Section {
        title: "Words, chunks and shards",
        doc: "A word is what one group sent for one chunk; a chunk is decoded from the words of all groups.",
        metrics: &[
            Metric {
                name: "solon_words_total",
                kind: Kind::Counter,
                labels: &[words("verdict", &["clean", "suspects", "liars"])],
                unit: "words",
                help: "Words that were decided, by what was found.",
                doc: "`liars`: somebody is named; `suspects`: a shard disagrees, but that it is a lie is not proved. For a chunk's words that disagree \
                      until more shards come see `solon_words_disputed_total`.",
                read: |from, to| {
                    let verdicts = [Counter::WordsClean, Counter::WordsSuspect, Counter::WordsLied];
                    to.each(verdicts.map(|verdict| from.count(verdict)));
                },
            },
            Metric {
                name: "solon_words_disputed_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "times",
                help: "How often a word needed more shards than had come.",
                doc: "Lies cost time here: the round waits for shards that it could have done without.",
                read: |from, to| to.add(&[], from.count(Counter::WordsDisputed)),
            },
            Metric {
                name: "solon_chunks_decoded_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "chunks",
                help: "Chunks of updates that were decoded.",
                doc: "`solon_job_chunks` per complete round.",
                read: |from, to| to.add(&[], from.count(Counter::ChunksDecoded)),
            },
            Metric {
                name: "solon_chunks_repeated_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "chunks",
                help: "Chunks that were recovered twice, since other workers agree than in the chunk before.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::ChunksRepeated)),
            },
            Metric {
                name: "solon_shards_accepted_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "shards",
                help: "Shards whose checks passed.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::ShardsAccepted)),
            },
            Metric {
                name: "solon_shards_late_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "shards",
                help: "Accepted shards that came after their word was decided.",
                doc: "They are still checked: a lie is named in a later report. Early decision makes many of them.",
                read: |from, to| to.add(&[], from.count(Counter::ShardsLate)),
            },
            Metric {
                name: "solon_lies_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "shards",
                help: "Shards that were proved wrong.",
                doc: "The sum of `solon_worker_lies_total`.",
                read: |from, to| to.add(&[], from.count(Counter::Lies)),
            },
            Metric {
                name: "solon_suspects_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "shards",
                help: "Shards that do not agree and are not proved to be lies.",
                doc: "Nobody is named for these. Many: the tolerance is close to the noise.",
                read: |from, to| to.add(&[], from.count(Counter::Suspects)),
            },
        ],
    },
    Section {
        title: "Traffic",
        doc: "What comes, what goes, and what was refused.",
        metrics: &[
            Metric {
                name: "solon_bytes_total",
                kind: Kind::Counter,
                labels: &[words("direction", &["received", "sent"]), TRANSPORT],
                unit: "bytes",
                help: "Bytes of frames, headers included, by direction and transport.",
                doc: "Received: shards. Sent: everything. What a session with RDMA says by its TCP connection counts as RDMA.",
                read: |from, to| {
                    use Counter::{BytesReceived, BytesSent, RdmaBytesReceived, RdmaBytesSent};
                    for (direction, tcp, rdma) in
                        [("received", BytesReceived, RdmaBytesReceived), ("sent", BytesSent, RdmaBytesSent)]
                    {
                        to.add(&[direction, "tcp"], from.count(tcp));
                        to.add(&[direction, "rdma"], from.count(rdma));
                    }
                },
            },
            Metric {
                name: "solon_frames_refused_total",
                kind: Kind::Counter,
                labels: &[words(
                    "reason",
                    &[
                        "corrupt",
                        "stale",
                        "duplicate",
                        "header",
                        "kind",
                        "length",
                        "round",
                        "chunk",
                        "job",
                        "session",
                        "worker",
                        "credit",
                        "rdma",
                    ],
                )],
                unit: "frames",
                help: "Frames that were not used, by reason.",
                doc: "`corrupt` (checksum), `stale` (nothing is left to check it against) and `duplicate` are dropped, and the session goes on. All others break the \
                      protocol and end their session: is it the same version of solon? Else treat it as a lie.",
                read: |from, to| {
                    let dropped = [Counter::ShardsCorrupt, Counter::ShardsStale, Counter::ShardsDuplicate];
                    let dropped = dropped.into_iter().map(|reason| from.count(reason));
                    to.each(dropped.chain(from.board().violations()));
                },
            },
            Metric {
                name: "solon_connections_refused_total",
                kind: Kind::Counter,
                labels: &[words(
                    "reason",
                    &[
                        "unknown_job",
                        "no_such_worker",
                        "bad_proof",
                        "unreadable",
                        "too_soon",
                        "stopping",
                        "rdma_only",
                        "mixed",
                        "too_many",
                    ],
                )],
                unit: "connections",
                help: "Connections that were turned away at the handshake, by reason.",
                doc: "See [refusals](protocol.md#refusals). `too_many`: more per second, or at once, than `listen.connections_per_second` and the door allow.",
                read: |from, to| {
                    to.each(from.board().refusals().into_iter().chain([from.count(Counter::ConnectionsTooMany)]));
                },
            },
            Metric {
                name: "solon_sessions_total",
                kind: Kind::Counter,
                labels: &[TRANSPORT],
                unit: "sessions",
                help: "Sessions of workers that began, by transport.",
                doc: "Much more than `solon_job_workers`: workers come and go.",
                read: |from, to| to.each([Counter::TcpSessions, Counter::RdmaSessions].map(|it| from.count(it))),
            },
            Metric {
                name: "solon_sessions_ended_total",
                kind: Kind::Counter,
                labels: &[words("reason", &["closed", "broken", "violation", "rdma", "mixed"])],
                unit: "sessions",
                help: "Sessions that ended, by how the daemon saw it.",
                doc: "`closed`: by the worker, by a newer session of it, or by the daemon that had said why before (`solon_sessions_not_reading_total`). `mixed`: by `verify.mixed = \"refuse\"`.",
                read: |from, to| {
                    use Counter::{SessionsBroken, SessionsClosed, SessionsLostRdma, SessionsMixed, SessionsViolating};
                    let reasons = [SessionsClosed, SessionsBroken, SessionsViolating, SessionsLostRdma, SessionsMixed];
                    to.each(reasons.map(|reason| from.count(reason)));
                },
            },
            Metric {
                name: "solon_sessions_not_reading_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "sessions",
                help: "Sessions that were ended because their worker did not take its updates.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::NotReading)),
            },
            Metric {
                name: "solon_system_calls_total",
                kind: Kind::Counter,
                labels: &[words("call", &["read", "write", "poll", "wake"])],
                unit: "calls",
                help: "System calls of the data path, by kind.",
                doc: "`wake`: one thread of the daemon wakes another.",
                read: |from, to| {
                    let calls = [Counter::ReadCalls, Counter::WriteCalls, Counter::PollCalls];
                    to.each(calls.into_iter().map(|call| from.count(call)).chain([from.wakes()]));
                },
            },
        ],
    },
    Section {
        title: "Slots, credits and rings",
        doc: "What is in use of what there is. All of it is taken at the start and none of it grows: what is full makes its users wait.",
        metrics: &[
            Metric {
                name: "solon_slots",
                kind: Kind::Gauge,
                labels: &[words("pool", &["shards", "updates", "reports"])],
                unit: "slots",
                help: "Slots in use, by pool.",
                doc: "`shards`: those waiting for a frame (credits) and those holding one. `updates` full for long: a worker does not read; raise `memory.updates`.",
                read: |from, to| to.each(Pool::ALL.map(|pool| from.stock().slots(pool).used)),
            },
            Metric {
                name: "solon_slots_capacity",
                kind: Kind::Gauge,
                labels: &[words("pool", &["shards", "updates", "reports"])],
                unit: "slots",
                help: "Slots there are, by pool.",
                doc: "",
                read: |from, to| to.each(Pool::ALL.map(|pool| from.stock().slots(pool).capacity)),
            },
            Metric {
                name: "solon_credits",
                kind: Kind::Gauge,
                labels: &[],
                unit: "shards",
                help: "Shards that the connected workers may send now.",
                doc: "The slots that wait for a frame.",
                read: |from, to| to.add(&[], from.board().measured().credits()),
            },
            Metric {
                name: "solon_credits_capacity",
                kind: Kind::Gauge,
                labels: &[],
                unit: "shards",
                help: "Shards that all workers may send at most before one is decided.",
                doc: "Workers x `memory.credits`.",
                read: |from, to| to.add(&[], from.stock().slots(Pool::Shards).capacity),
            },
            Metric {
                name: "solon_ring_messages",
                kind: Kind::Gauge,
                labels: &[words("ring", &["inbound", "outbound", "shards", "words", "updates", "heard", "events"])],
                unit: "messages",
                help: "Messages waiting in a ring between two stages, or to the log.",
                doc: "`inbound`, `outbound`: sessions that begin; `shards`: to the assembler; `words`: to the decoders, all lanes together; `updates`: to the pusher; \
                      `heard`: what workers say of relayed chunks; `events`: to the log. A ring that is never empty points at the stage that reads it.",
                read: |from, to| to.each(Ring::ALL.map(|ring| from.stock().ring(ring).used)),
            },
            Metric {
                name: "solon_ring_capacity",
                kind: Kind::Gauge,
                labels: &[words("ring", &["inbound", "outbound", "shards", "words", "updates", "heard", "events"])],
                unit: "messages",
                help: "Messages that a ring has room for.",
                doc: "",
                read: |from, to| to.each(Ring::ALL.map(|ring| from.stock().ring(ring).capacity)),
            },
            Metric {
                name: "solon_events_lost_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "events",
                help: "Events that the log missed because they came too fast.",
                doc: "No metric here depends on events.",
                read: |from, to| to.add(&[], from.count(Counter::EventsLost)),
            },
            Metric {
                name: "solon_journal_errors_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "errors",
                help: "How often the journal could not be written.",
                doc: "After a restart rounds would be counted from an older one: mend the disk before.",
                read: |from, to| to.add(&[], from.count(Counter::JournalErrors)),
            },
        ],
    },
    Section {
        title: "Updates and the relay",
        doc: "All but `solon_update_bytes_total{by=\"daemon\"}` stay 0 where updates are not relayed.",
        metrics: &[
            Metric {
                name: "solon_relay_active",
                kind: Kind::Gauge,
                labels: &[],
                unit: "0 or 1",
                help: "Whether updates go out by the relay now.",
                doc: "With `push.way = \"auto\"` it changes as measured.",
                read: |from, to| to.add(&[], u64::from(from.board().relayed())),
            },
            Metric {
                name: "solon_relay_way_changes_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "changes",
                help: "How often updates were given another way because it was faster.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::WayChanges)),
            },
            Metric {
                name: "solon_relay_workers",
                kind: Kind::Gauge,
                labels: &[],
                unit: "workers",
                help: "Connected workers that pass updates on.",
                doc: "",
                read: |from, to| to.add(&[], from.board().relay_workers()),
            },
            Metric {
                name: "solon_update_bytes_total",
                kind: Kind::Counter,
                labels: &[words("by", &["daemon", "workers"])],
                unit: "bytes",
                help: "Bytes of update chunks, by who sent them.",
                doc: "`workers`: passed on to each other, by the word of those who got them. `daemon`: queued for workers, carriers and repairs included.",
                read: |from, to| {
                    to.each([Counter::UpdateBytesSent, Counter::UpdateBytesCarried].map(|by| from.count(by)));
                },
            },
            Metric {
                name: "solon_announce_bytes_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "bytes",
                help: "Bytes by which workers were told what is carried by whom.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::AnnounceBytes)),
            },
            Metric {
                name: "solon_repairs_total",
                kind: Kind::Counter,
                labels: &[words("reason", &["late", "wrong", "unasked"])],
                unit: "chunks",
                help: "Chunks that the daemon sent itself after all, by why.",
                doc: "`late`: the carrier was late or gone; `wrong`: what it brought was wrong; `unasked`: nobody said for too long whether it had come.",
                read: |from, to| {
                    let reasons = [Counter::RepairsLate, Counter::RepairsWrong, Counter::RepairsUnasked];
                    to.each(reasons.map(|reason| from.count(reason)));
                },
            },
            Metric {
                name: "solon_bad_carriers_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "times",
                help: "How often a worker was found to pass updates on late or wrong.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::BadCarriers)),
            },
            Metric {
                name: "solon_links_missing_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "links",
                help: "How often a worker said that it does not reach another one.",
                doc: "`solon doctor --peer` between the two says why.",
                read: |from, to| to.add(&[], from.count(Counter::LinksMissing)),
            },
            Metric {
                name: "solon_digest_mismatches_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "updates",
                help: "Updates that a worker has otherwise than they were pushed.",
                doc: "More than 0: its model is another one. Restore it.",
                read: |from, to| to.add(&[], from.count(Counter::DigestMismatches)),
            },
            Metric {
                name: "solon_mixed_workers_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "workers",
                help: "How often a worker was found to compute differently than its group.",
                doc: "By its own word: framework, version, threads, device or numbers. Their shards may differ by more than the tolerance: \
                      see [mixed groups](#mixed-groups).",
                read: |from, to| to.add(&[], from.count(Counter::MixedWorkers)),
            },
        ],
    },
    Section {
        title: "RDMA",
        doc: "All 0 where workers come by TCP.",
        metrics: &[
            Metric {
                name: "solon_rdma_completions_total",
                kind: Kind::Counter,
                labels: &[words(
                    "status",
                    &["success", "flushed", "retry_exceeded", "receiver_not_ready", "access_refused", "other"],
                )],
                unit: "completions",
                help: "Completions of the daemon's RDMA connections, by status.",
                doc: "`flushed` comes with every connection that ends. `retry_exceeded`: the peer does not answer (link, switch, firewall).",
                read: |from, to| to.each(from.completions()),
            },
            Metric {
                name: "solon_rdma_fallbacks_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "sessions",
                help: "Sessions that went on by TCP after their RDMA connection ended.",
                doc: "Nothing is lost; look at the link.",
                read: |from, to| to.add(&[], from.count(Counter::RdmaFallbacks)),
            },
            Metric {
                name: "solon_rdma_refused_total",
                kind: Kind::Counter,
                labels: &[],
                unit: "sessions",
                help: "Sessions whose worker asked for RDMA and that began by TCP.",
                doc: "The log says why.",
                read: |from, to| to.add(&[], from.count(Counter::RdmaRefused)),
            },
            Metric {
                name: "solon_rdma_regions",
                kind: Kind::Gauge,
                labels: &[],
                unit: "regions",
                help: "Regions of memory registered with RDMA devices.",
                doc: "",
                read: |from, to| to.add(&[], from.count(Counter::RdmaRegions)),
            },
        ],
    },
    Section {
        title: "Cores",
        doc: "A reactor is one thread, on one core if `cores.pin` is set.",
        metrics: &[
            Metric {
                name: "solon_reactor_info",
                kind: Kind::Gauge,
                labels: &[
                    REACTOR,
                    fixed("core", "the core it is to be pinned to, or `none`"),
                    fixed("stages", "names of its stages, with `+` between them"),
                ],
                unit: "",
                help: "Where a reactor runs, and what it does.",
                doc: "Always 1.",
                read: |from, to| from.reactors().for_each(|labels| to.add(&labels.each_ref().map(String::as_str), 1)),
            },
            Metric {
                name: "solon_reactor_busy_seconds_total",
                kind: Kind::Counter,
                labels: &[REACTOR],
                unit: "seconds",
                help: "Time for which a reactor had something to do.",
                doc: "`rate(solon_reactor_busy_seconds_total[1m])` is how busy its core is, from 0 to 1: the one nearest to 1 limits the job. Wall-clock time of steps that \
                      did something: what another process took from the core meanwhile is in it.",
                read: |from, to| to.indexed(0..from.pulses.len(), |at| from.pulses[at].busy()),
            },
            Metric {
                name: "solon_reactor_turns_total",
                kind: Kind::Counter,
                labels: &[REACTOR],
                unit: "turns",
                help: "How often a reactor has looked at its stages.",
                doc: "It rises every second, or the reactor hangs.",
                read: |from, to| to.indexed(0..from.pulses.len(), |at| from.pulses[at].turns()),
            },
            Metric {
                name: "solon_stage_busy_seconds_total",
                kind: Kind::Counter,
                labels: &[words("stage", &["receive", "assemble", "decode", "push"])],
                unit: "seconds",
                help: "Time for which each stage was busy, on all its cores together.",
                doc: "",
                read: |from, to| to.each(from.board().busy_times()),
            },
        ],
    },
];

/// All metrics.
pub fn metrics() -> impl Iterator<Item = &'static Metric> {
    SECTIONS.iter().flat_map(|section| section.metrics)
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram(_) => "histogram",
        }
    }
}

impl Values {
    fn in_words(self) -> String {
        match self {
            Values::Words(words) => words.join(", "),
            Values::Workers => "index of a worker".into(),
            Values::Groups => "index of a group".into(),
            Values::Reactors => "index of a reactor".into(),
            Values::Fixed(what) => what.into(),
        }
    }
}

/// The table as a page of Markdown.
pub fn metrics_markdown() -> String {
    let mut page = String::new();
    for section in SECTIONS {
        page += &format!("### {}\n\n{}\n\n", section.title, section.doc);
        page += "| Metric | Type | Labels | Unit | Meaning |\n|---|---|---|---|---|\n";
        for metric in section.metrics {
            let label = |label: &Label| format!("`{}`: {}", label.name, label.values.in_words());
            let labels = metric.labels.iter().map(label).collect::<Vec<_>>().join("; ");
            let meaning = [metric.help, metric.doc].join(" ");
            let (name, kind, unit) = (metric.name, metric.kind.word(), metric.unit);
            page += &format!("| `{name}` | {kind} | {labels} | {unit} | {} |\n", meaning.trim());
        }
        page.push('\n');
    }
    let bounds = |bounds: &[f64]| bounds.iter().map(f64::to_string).collect::<Vec<_>>().join(", ");
    page += &format!(
        "Bounds of the histograms: seconds {}; ratios {}; workers {}.\n",
        bounds(SECONDS),
        bounds(RATIOS),
        bounds(MARGINS)
    );
    page
}
