//! The table of settings of `solond`.
//!
//! A setting `key` of `[section]` has one row here. From the rows come its line in the file, its flag `--section-key`,
//! its environment variable `SOLON_SECTION_KEY`, all help, the example file, the docs page and the checks of its type
//! and range. What several settings must satisfy together is in `config/build.rs`.

use super::config::{Begin, Check, Generator, Idle, Level, LogFormat, Mixed, PushWay, Rule};
use crate::code::Precision;
use crate::memory::HugePages;
use crate::transport::{Transport, rdma};
use clap::ValueEnum;
use clap::builder::PossibleValue;

/// A part of the configuration file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// What stands between the brackets.
    pub name: &'static str,
    /// What its settings are about.
    pub help: &'static str,
}

/// One setting.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The section it stands in.
    pub section: &'static str,
    /// Its key in the section.
    pub key: &'static str,
    /// Which values it takes.
    pub kind: Kind,
    /// What holds when nobody sets it.
    pub default: DefaultValue,
    /// What its number counts; empty where there is nothing to count.
    pub unit: &'static str,
    /// When a change of it is applied.
    pub applied: Applied,
    /// One line: what it is.
    pub help: &'static str,
    /// More: how to choose it.
    pub doc: &'static str,
}

/// The values a setting takes.
#[derive(Clone, Copy, Debug)]
pub enum Kind {
    /// 1 to 64 characters of `[a-z0-9._-]`.
    Name,
    /// A whole number in a range, both ends included.
    Integer {
        /// The least.
        min: u64,
        /// The greatest.
        max: u64,
    },
    /// One of a few whole numbers.
    OneOf(&'static [u64]),
    /// A number that is finite and not 0 as an `f32`.
    Factor,
    /// A number above 0 and below 1, as an `f32` too.
    Fraction,
    /// `true` or `false`.
    Switch,
    /// One of a few words.
    Choice(fn() -> Vec<PossibleValue>),
    /// An IP address and a port.
    Address,
    /// The name of a file or directory.
    Path,
    /// Which stages run on which core.
    Cores,
    /// RDMA devices and ports, as NCCL lists them.
    Devices,
    /// One number above 0 per worker.
    Weights,
}

/// When a change of a setting is applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// When the daemon starts again.
    AtStart,
    /// When it is told to reload its configuration, while it serves.
    OnReload,
}

/// What holds when nobody sets a setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DefaultValue {
    /// This value, written as in the file.
    Value(&'static str),
    /// Nothing; what is meant by that is in its docs. The text is an example, written as in the file.
    Unset(&'static str),
    /// It must be set. The text is an example, written as in the file.
    Required(&'static str),
}

impl Setting {
    /// `section.key`: how messages call it.
    pub fn name(&self) -> String {
        format!("{}.{}", self.section, self.key)
    }

    /// `SOLON_SECTION_KEY`: its environment variable.
    pub fn environment(&self) -> String {
        format!("SOLON_{}_{}", self.section, self.key).to_uppercase()
    }

    /// `section-key`: its flag, without the two dashes.
    pub fn flag(&self) -> String {
        format!("{}-{}", self.section, self.key).replace('_', "-")
    }
}

impl Kind {
    /// The values it takes, in words: `an integer from 1 to 64`.
    pub fn expects(&self) -> String {
        match self {
            Kind::Name => "a name of 1 to 64 characters out of a-z, 0-9, '.', '_' and '-'".into(),
            Kind::Integer { min, max } => format!("an integer from {min} to {max}"),
            Kind::OneOf(numbers) => numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" or "),
            Kind::Factor => "a number other than 0 that fits into 32-bit floating point".into(),
            Kind::Fraction => "a number above 0 and below 1".into(),
            Kind::Switch => "true or false".into(),
            Kind::Choice(values) => {
                let words: Vec<String> = values().iter().map(|value| format!("\"{}\"", value.get_name())).collect();
                words.join(" or ")
            }
            Kind::Address => "an IP address and a port, such as \"0.0.0.0:7447\" or \"[::]:7447\"".into(),
            Kind::Path => "a path".into(),
            Kind::Cores => "\"auto\" or an array with one array of stage names per core".into(),
            Kind::Devices => rdma::DeviceList::EXPECTS.into(),
            Kind::Weights => "an array of numbers above 0, one per worker".into(),
        }
    }
}

fn words<T: ValueEnum>() -> Vec<PossibleValue> {
    T::value_variants().iter().filter_map(T::to_possible_value).collect()
}

/// All sections, in the order of the file.
pub const SECTIONS: &[Section] = &[
    Section { name: "job", help: "What is aggregated, and how many lying and slow workers it withstands." },
    Section { name: "chunks", help: "How the gradient is cut into code words." },
    Section { name: "rounds", help: "How long a round lasts and how many overlap." },
    Section { name: "verify", help: "When shards are held to agree." },
    Section { name: "listen", help: "Where workers connect, and who may." },
    Section { name: "rdma", help: "How shards and updates travel over RDMA; where there is none, none of it matters." },
    Section { name: "push", help: "How updates come to the workers." },
    Section { name: "memory", help: "How much is in flight; all memory is taken at the start." },
    Section { name: "cores", help: "Which stage runs on which core." },
    Section { name: "state", help: "What survives a restart." },
    Section { name: "admin", help: "Where people, probes and Prometheus ask how the daemon is." },
    Section { name: "log", help: "What is written to standard error." },
];

const HOUR_MS: u64 = 3_600_000;

/// A gradient of 4 TiB, or what can be counted in memory; every product of sizes stays far from overflow.
const DIMENSION_MAX: u64 = if usize::BITS > 40 { 1 << 40 } else { 1 << 28 };

/// All settings, section by section in the order of [`SECTIONS`].
pub const SETTINGS: &[Setting] = &[
    Setting {
        section: "job",
        key: "name",
        kind: Kind::Name,
        default: DefaultValue::Value("\"default\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Name of the training job",
        doc: "A worker says which job it wants to join and is refused by a daemon of another one.",
    },
    Setting {
        section: "job",
        key: "rule",
        kind: Kind::Choice(words::<Rule>),
        default: DefaultValue::Value("\"solon\""),
        unit: "",
        applied: Applied::AtStart,
        help: "How the workers' uploads become one update",
        doc: "\"solon\" and \"draco\" need groups of workers that compute the same. With the others each worker computes something else: \
              groups is then the number of workers, each a group of its own, adversaries those of all that may lie, stragglers those of \
              all that may be missing, and compression 1. \"mean\" believes every worker, so that adversaries and stragglers must be 0. The \
              rest guess who is right, and take at most 64 workers; which to choose, and what they cannot do, stands under \"Rules for jobs \
              without redundancy\". \"cyclic\" is for `solon lab`: each worker computes the gradients of 2 x adversaries + 1 workers.",
    },
    Setting {
        section: "job",
        key: "groups",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Value("2"),
        unit: "groups",
        applied: Applied::AtStart,
        help: "Groups of workers; all workers of a group compute the same gradient",
        doc: "The batch is divided among the groups. More groups mean more data per round, not more protection. The job \
              has groups x (compression + 2 x adversaries + stragglers) workers.",
    },
    Setting {
        section: "job",
        key: "adversaries",
        kind: Kind::Integer { min: 0, max: 31 },
        default: DefaultValue::Value("2"),
        unit: "workers per group",
        applied: Applied::AtStart,
        help: "Lying workers per group that are corrected exactly",
        doc: "Each costs two workers per group. With more liars than this in a group its rounds become undecodable.",
    },
    Setting {
        section: "job",
        key: "stragglers",
        kind: Kind::Integer { min: 0, max: 63 },
        default: DefaultValue::Value("0"),
        unit: "workers per group",
        applied: Applied::AtStart,
        help: "Absent or late workers per group that a round does not wait for, beside the liars",
        doc: "Each costs one worker per group. A worker that is absent but not provided for here takes the place of a \
              liar. With a robust rule: workers of the job that may be missing; unless it is set as many as may lie, \
              where the rule's bound allows it, as a liar may be silent.",
    },
    Setting {
        section: "job",
        key: "compression",
        kind: Kind::Integer { min: 1, max: 64 },
        default: DefaultValue::Value("2"),
        unit: "",
        applied: Applied::AtStart,
        help: "Factor by which an upload is smaller than the gradient",
        doc: "Each step costs one worker per group. A group has compression + 2 x adversaries + stragglers workers, at \
              most 64.",
    },
    Setting {
        section: "job",
        key: "workers",
        kind: Kind::Integer { min: 1, max: 65_536 * 64 },
        default: DefaultValue::Unset("12"),
        unit: "workers",
        applied: Applied::AtStart,
        help: "Number of workers, only to be checked against the settings above",
        doc: "When set it must equal groups x (compression + 2 x adversaries + stragglers), so that a job started with \
              another number of processes fails here and not in its first round.",
    },
    Setting {
        section: "job",
        key: "dimension",
        kind: Kind::Integer { min: 1, max: DIMENSION_MAX },
        default: DefaultValue::Required("25557032"),
        unit: "numbers",
        applied: Applied::AtStart,
        help: "Numbers in the gradient: the parameters of the model",
        doc: "Must be the same in every worker; one that submits another number is told by its client library.",
    },
    Setting {
        section: "job",
        key: "scale",
        kind: Kind::Factor,
        default: DefaultValue::Value("1.0"),
        unit: "",
        applied: Applied::AtStart,
        help: "Factor on the update: update = scale x sum over groups",
        doc: "1.0 gives the sum of the groups' gradients; set it to 1 / groups (or 1 / samples, if workers sum over \
              samples) for a mean.",
    },
    Setting {
        section: "job",
        key: "weights",
        kind: Kind::Weights,
        default: DefaultValue::Unset("[1.0, 1.0, 2.0]"),
        unit: "samples",
        applied: Applied::AtStart,
        help: "Samples behind the gradient of each worker, relative to the others'",
        doc: "For rules that compare what workers send (median to geometric-median), where workers send sums over different numbers of \
              samples: update = scale x (sum of weights) x rule(gradient / weight). They are set here, and never heard from workers, or a \
              liar would weigh what it likes. Not set means all the same.",
    },
    Setting {
        section: "job",
        key: "code",
        kind: Kind::Choice(words::<Generator>),
        default: DefaultValue::Value("\"systematic\""),
        unit: "",
        applied: Applied::AtStart,
        help: "The generator matrix that workers encode with",
        doc: "All correct the same number of liars; they differ in speed and rounding.",
    },
    Setting {
        section: "job",
        key: "precision",
        kind: Kind::Choice(words::<Precision>),
        default: DefaultValue::Value("\"f32\""),
        unit: "",
        applied: Applied::AtStart,
        help: "How the numbers of an upload stand on the wire",
        doc: "16 bits halve the upload. Rounding is then a lie's cover: with compression above 1 verify.tolerance is 2.3e-2 \
              (\"bf16\") or 2.9e-3 (\"f16\") unless it is set, times what `solon plan` calls the condition. \"bf16\" has the \
              range of f32. \"f16\" wants scaled gradients: a chunk with numbers near 65504 makes its round undecodable, and \
              numbers below 6e-5 lose digits, which hides lies of 1.8e-7 / rms of the gradient beside the tolerance: scale until \
              the root mean square is well above 1e-4. With compression 1 replicas stay equal bit by bit. \"sign\" is what the rule \
              signum counts, and its default; no other rule takes it.",
    },
    Setting {
        section: "chunks",
        key: "width",
        kind: Kind::Integer { min: 1, max: 1 << 22 },
        default: DefaultValue::Value("16384"),
        unit: "numbers per shard",
        applied: Applied::AtStart,
        help: "Numbers in a worker's shard of one chunk",
        doc: "A chunk is received, checked, decoded and pushed on its own. Wide chunks cost memory and latency, narrow \
              ones cost headers and checks; 64 KiB (16384) keeps a group's shards in the cache.",
    },
    Setting {
        section: "rounds",
        key: "window",
        kind: Kind::Integer { min: 2, max: 8 },
        default: DefaultValue::Value("2"),
        unit: "rounds",
        applied: Applied::AtStart,
        help: "Rounds that may be in flight at once",
        doc: "2 lets fast workers send the next round while the update of the last one is still being pushed. Frames of \
              later rounds are refused.",
    },
    Setting {
        section: "rounds",
        key: "deadline_ms",
        kind: Kind::Integer { min: 1, max: HOUR_MS },
        default: DefaultValue::Value("10000"),
        unit: "ms",
        applied: Applied::AtStart,
        help: "Time from when a round began until it ends, decoded or not",
        doc: "A round begins when adversaries + 1 workers of one group have begun it (so liars alone cannot). What is \
              not decoded by then is undecodable, and the job goes on with the next round.",
    },
    Setting {
        section: "rounds",
        key: "linger_ms",
        kind: Kind::Integer { min: 0, max: HOUR_MS },
        default: DefaultValue::Value("0"),
        unit: "ms",
        applied: Applied::AtStart,
        help: "Time to wait for more shards once compression + adversaries of them have arrived",
        doc: "0 decides at once; with robust rules, which want everybody's, the default is deadline_ms, and krum, multi-krum, bulyan and \
              geometric-median always wait so long. As long as deadline_ms waits for every connected worker: then the last bit of a result \
              does not depend on the order in which shards arrive, and every liar is named. Whoever has kept a chunk waiting for so \
              long is not waited for in the rest of the round, and nobody is once half of deadline_ms is over, so that a worker \
              that hangs costs time and no round.",
    },
    Setting {
        section: "rounds",
        key: "begin_with",
        kind: Kind::Choice(words::<Begin>),
        default: DefaultValue::Value("\"any\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Who must have joined before the first round of the job can begin",
        doc: "With \"any\" a worker that joins while the first rounds are under way has missed updates. With \"all\" no round begins, and \
              no deadline runs, before every worker has joined once; the log says every 10 s who is missing. A worker that never comes \
              keeps the job from beginning. A job that goes on from its journal (state.directory) waits for nobody.",
    },
    Setting {
        section: "verify",
        key: "tolerance",
        kind: Kind::Fraction,
        default: DefaultValue::Value("3.5762787e-7"),
        unit: "relative",
        applied: Applied::AtStart,
        help: "Rounding error that is not held to be a lie, relative to the size of a group's shards",
        doc: "The default is 6 x 2^-24: workers of a group compute bit by bit the same. Raise it if they cannot (GPU \
              kernels that are not deterministic differ by 1e-6 to 2e-3): a lie below the tolerance is not seen. `solon \
              calibrate` finds it from clean rounds of your job. With \
              16 bits per number and compression above 1 it is 6 x 2^-8 (bf16) or 6 x 2^-11 (f16) by default, and at \
              least a third of that.",
    },
    Setting {
        section: "verify",
        key: "projections",
        kind: Kind::Integer { min: 1, max: 8 },
        default: DefaultValue::Value("4"),
        unit: "projections",
        applied: Applied::AtStart,
        help: "Random projections by which shards that do not agree are told apart",
        doc: "An error 100 times the tolerance stays unseen with probability 8e-3, 6e-5, 4e-9 at 1, 2, 4 projections. With \
              16 bits per number and compression above 1 the default is 8.",
    },
    Setting {
        section: "verify",
        key: "check",
        kind: Kind::Choice(words::<Check>),
        default: DefaultValue::Value("\"random\""),
        unit: "",
        applied: Applied::AtStart,
        help: "How it is seen that nobody lies",
        doc: "\"random\" looks at two secret combinations of a group's shards: an error 100 times the tolerance stays unseen \
              with probability 6e-5, a large one about once in 1e12. \"full\" looks at all of them and leaves nothing to \
              chance; it costs (r - r_c) / 2 times as much, and is the default with 16 bits per number and compression above \
              1, where \"random\" would let a large error pass about once in 1e3. With compression 1 the shards' bits are compared in \
              any case.",
    },
    Setting {
        section: "verify",
        key: "mixed",
        kind: Kind::Choice(words::<Mixed>),
        default: DefaultValue::Value("\"warn\""),
        unit: "",
        applied: Applied::AtStart,
        help: "What becomes of a worker that computes differently than others of its group",
        doc: "Workers may say by which framework, version, number of threads, device and type of numbers they compute. Where that \
              differs in a group its workers do not get the same bits, and honest ones are named as liars unless \
              verify.tolerance covers it. \"refuse\" turns away who differs from more than half of its group, and from adversaries + 1 at least, who say the same, so that \
              liars cannot have others turned away.",
    },
    Setting {
        section: "listen",
        key: "address",
        kind: Kind::Address,
        default: DefaultValue::Value("\"127.0.0.1:7447\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Address and port that workers connect to",
        doc: "Any address but a loopback one needs a token_file, or open = true.",
    },
    Setting {
        section: "listen",
        key: "transport",
        kind: Kind::Choice(words::<Transport>),
        default: DefaultValue::Value("\"auto\""),
        unit: "",
        applied: Applied::AtStart,
        help: "How shards and updates travel",
        doc: "With \"auto\" workers that can come by RDMA do, and the others come by TCP. With \"rdma\" only those who come by \
              RDMA are taken, and the daemon does not start without a device. In any case a worker connects by TCP first.",
    },
    Setting {
        section: "listen",
        key: "token_file",
        kind: Kind::Path,
        default: DefaultValue::Unset("\"/etc/solond/tokens\""),
        unit: "",
        applied: Applied::OnReload,
        help: "File with the secret of each worker",
        doc: "One line per worker: its index (from 0) and its token, separated by a space; '#' begins a comment. Others \
              must not be able to read it. When not set, every connection may be any worker.",
    },
    Setting {
        section: "listen",
        key: "open",
        kind: Kind::Switch,
        default: DefaultValue::Value("false"),
        unit: "",
        applied: Applied::AtStart,
        help: "Serve without tokens on an address that is not loopback",
        doc: "Then whoever reaches the port can be all workers at once: only for networks in which everybody is \
              trusted. Contradicts a token_file.",
    },
    Setting {
        section: "listen",
        key: "handshake_ms",
        kind: Kind::Integer { min: 1, max: HOUR_MS },
        default: DefaultValue::Value("2000"),
        unit: "ms",
        applied: Applied::OnReload,
        help: "Time in which a new connection must have said who it is",
        doc: "From when it was accepted, however much arrives meanwhile; then it is closed. A worker that is offered RDMA has 30 \
              times as long to answer, since it registers its memory.",
    },
    Setting {
        section: "listen",
        key: "connections_per_second",
        kind: Kind::Integer { min: 1, max: 1_000_000 },
        default: DefaultValue::Value("200"),
        unit: "connections per second",
        applied: Applied::OnReload,
        help: "New connections that are looked at per second",
        doc: "More are reset at once. At least as many as there are workers lets all join within a second.",
    },
    Setting {
        section: "listen",
        key: "write_deadline_ms",
        kind: Kind::Integer { min: 1, max: HOUR_MS },
        default: DefaultValue::Value("2000"),
        unit: "ms",
        applied: Applied::AtStart,
        help: "Time in which a worker must take what is pushed to it",
        doc: "A worker that reads nothing for so long is disconnected; the others never wait for it.",
    },
    Setting {
        section: "rdma",
        key: "devices",
        kind: Kind::Devices,
        default: DefaultValue::Unset("\"mlx5_0:1,mlx5_1\""),
        unit: "",
        applied: Applied::AtStart,
        help: "The RDMA devices and ports that may be used",
        doc: "In the syntax of NCCL_IB_HCA: names are beginnings of names unless '=' stands before the list, and '^' before \
              it means all but these. When not set, all may be used; `solon rdma devices` shows them.",
    },
    Setting {
        section: "rdma",
        key: "gid_index",
        kind: Kind::Integer { min: 0, max: 255 },
        default: DefaultValue::Unset("3"),
        unit: "",
        applied: Applied::AtStart,
        help: "Which entry of a port's table of addresses is used",
        doc: "When not set it is chosen: RoCE v2 with the address that the control connection has here, then with one that \
              can be routed, IPv4 before IPv6; on InfiniBand 0. Link-local addresses are used only if they are named here.",
    },
    Setting {
        section: "rdma",
        key: "mtu",
        kind: Kind::OneOf(rdma::Options::MTUS),
        default: DefaultValue::Unset("1024"),
        unit: "bytes",
        applied: Applied::AtStart,
        help: "Size of a packet",
        doc: "When not set it is that of the port. Smaller ones help where a switch or the other end has less than the port; \
              larger ones are refused.",
    },
    Setting {
        section: "rdma",
        key: "traffic_class",
        kind: Kind::Integer { min: 0, max: 255 },
        default: DefaultValue::Value("0"),
        unit: "",
        applied: Applied::AtStart,
        help: "Traffic class in every packet",
        doc: "With RoCE v2 the IP header's: four times the DSCP for which the switches are lossless, so 106 for DSCP 26 \
              with ECN.",
    },
    Setting {
        section: "rdma",
        key: "service_level",
        kind: Kind::Integer { min: 0, max: 15 },
        default: DefaultValue::Value("0"),
        unit: "",
        applied: Applied::AtStart,
        help: "Service level of every packet",
        doc: "On InfiniBand it chooses the virtual lane, with RoCE the priority in a VLAN.",
    },
    Setting {
        section: "rdma",
        key: "ack_timeout",
        kind: Kind::Integer { min: 1, max: 31 },
        default: DefaultValue::Value("14"),
        unit: "exponent: 4.096 us x 2^n",
        applied: Applied::AtStart,
        help: "Time without an answer after which a packet is sent again",
        doc: "14 is 67 ms. A lost peer is noticed after about (retries + 1) times as long, up to four times that on some \
              hardware. 0 would wait for ever.",
    },
    Setting {
        section: "rdma",
        key: "retries",
        kind: Kind::Integer { min: 0, max: 6 },
        default: DefaultValue::Value("6"),
        unit: "times",
        applied: Applied::AtStart,
        help: "How often a packet is sent again before the connection is given up",
        doc: "7 is refused, as it means for ever on most hardware.",
    },
    Setting {
        section: "push",
        key: "precision",
        kind: Kind::Choice(words::<Precision>),
        default: DefaultValue::Value("\"f32\""),
        unit: "",
        applied: Applied::AtStart,
        help: "How the numbers of an update stand on the wire",
        doc: "16 bits halve the download. What was decoded in f32 is rounded once, to the nearest, by the daemon: every worker gets the \
              same bits. \"bf16\" has the range of f32 and changes each number by up to 2^-8 of it (0.4 %). \"f16\" changes it by up to \
              2^-11, but numbers below 6e-5 lose digits, those below 3e-8 become 0, and one of 65520 or more makes its round \
              undecodable. Nothing is kept of what rounding took away.",
    },
    Setting {
        section: "push",
        key: "way",
        kind: Kind::Choice(words::<PushWay>),
        default: DefaultValue::Value("\"direct\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Whether workers pass updates on to each other",
        doc: "With \"relay\" the daemon sends each chunk of an update to one worker and its hash to the others, so its link carries \
              an update once and not once per worker. The log says at the start what \"auto\" came to, and why: \"relay\" from 6 \
              workers on where an update has at least twice the bytes of a worker's shards (so with job.compression from 2 on, where \
              both have the same precision), chunks have 4 KiB or more, and workers are on other machines; it then measures, \
              and goes the faster way. With \"auto\" workers by RDMA, and always those that cannot reach each other, are sent \
              everything.",
    },
    Setting {
        section: "push",
        key: "repair_ms",
        kind: Kind::Integer { min: 1, max: 60_000 },
        default: DefaultValue::Value("500"),
        unit: "ms",
        applied: Applied::AtStart,
        help: "A worker that passes nothing on for so long is late: what it owes comes from the daemon",
        doc: "Longer where carriers usually are silent for longer. More than TCP takes to send a lost segment again (200 ms at \
              least) and than a worker sleeps in between, or honest ones are called late; a dead one costs so much time once.",
    },
    Setting {
        section: "memory",
        key: "credits",
        kind: Kind::Integer { min: 2, max: 1024 },
        default: DefaultValue::Value("8"),
        unit: "shards per worker",
        applied: Applied::AtStart,
        help: "Shards that a worker may have in flight",
        doc: "Costs workers x credits x chunks.width x 4 bytes (2 with shards of 16 bits, 16 with \"cyclic\"). Enough to cover the network's \
              round trip: bandwidth x delay / shard size. krum, multi-krum, bulyan and geometric-median look at a whole round before they \
              combine the first chunk: for them as many as there are chunks are added.",
    },
    Setting {
        section: "memory",
        key: "updates",
        kind: Kind::Integer { min: 1, max: 65_536 },
        default: DefaultValue::Value("16"),
        unit: "chunks",
        applied: Applied::AtStart,
        help: "Decoded chunks that may wait to be sent",
        doc: "Each is kept until every worker has it or was disconnected. Costs 2 x updates x compression x chunks.width x \
              4 bytes; never less than what 2 x rounds.window reports need.",
    },
    Setting {
        section: "memory",
        key: "huge_pages",
        kind: Kind::Choice(words::<HugePages>),
        default: DefaultValue::Value("\"auto\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Whether slots lie on pages of 2 MiB",
        doc: "\"auto\" takes reserved ones (vm.nr_hugepages), else transparent ones, else pages of 4 KiB; the log says at the start \
              which, and why. With \"require\" the daemon does not start without.",
    },
    Setting {
        section: "cores",
        key: "map",
        kind: Kind::Cores,
        default: DefaultValue::Value("\"auto\""),
        unit: "",
        applied: Applied::AtStart,
        help: "The stages that each core runs",
        doc: "One array per core, such as [[\"receive\", \"assemble\"], [\"decode\"], [\"push\"]]. receive, assemble \
              and push stand exactly once; decode once or, to run on several cores, once on each of them. \"auto\" \
              chooses by the number of cores.",
    },
    Setting {
        section: "cores",
        key: "pin",
        kind: Kind::Switch,
        default: DefaultValue::Value("true"),
        unit: "",
        applied: Applied::AtStart,
        help: "Keep each thread of the map on a core of its own",
        doc: "false where other programs share the cores.",
    },
    Setting {
        section: "cores",
        key: "idle",
        kind: Kind::Choice(words::<Idle>),
        default: DefaultValue::Value("\"auto\""),
        unit: "",
        applied: Applied::AtStart,
        help: "What a core does while there is nothing to do",
        doc: "\"park\": the core sleeps until something comes; \"adaptive\" looks again for 50 us before; \"auto\" is the latter where \
              there are more cores than two and than the map has. Spinning takes all of its cores, and with few it starves the \
              work it waits for.",
    },
    Setting {
        section: "state",
        key: "directory",
        kind: Kind::Path,
        default: DefaultValue::Unset("\"/var/lib/solond\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Directory for the number and digest of the last closed round",
        doc: "With it a restarted daemon goes on counting where it stopped. When not set, it begins with round 0.",
    },
    Setting {
        section: "admin",
        key: "serve",
        kind: Kind::Switch,
        default: DefaultValue::Value("true"),
        unit: "",
        applied: Applied::AtStart,
        help: "Answer over HTTP: metrics, health, a status page",
        doc: "On a thread of its own. Nothing can be changed there, and no round waits for who asks. Eight connections at a time: \
              for a ninth the oldest is dropped.",
    },
    Setting {
        section: "admin",
        key: "address",
        kind: Kind::Address,
        default: DefaultValue::Value("\"127.0.0.1:7448\""),
        unit: "",
        applied: Applied::AtStart,
        help: "Address and port of metrics, health and the status page",
        doc: "Any address but a loopback one needs open = true. Each daemon on a machine needs a port of its own; with port 0 the \
              system chooses one, which stands in the log.",
    },
    Setting {
        section: "admin",
        key: "open",
        kind: Kind::Switch,
        default: DefaultValue::Value("false"),
        unit: "",
        applied: Applied::AtStart,
        help: "Answer on an address that is not loopback",
        doc: "Then whoever reaches the port may read who lies and who is absent, and the name and size of the job; no gradient \
              and no token.",
    },
    Setting {
        section: "log",
        key: "format",
        kind: Kind::Choice(words::<LogFormat>),
        default: DefaultValue::Value("\"text\""),
        unit: "",
        applied: Applied::AtStart,
        help: "How a line of the log is written",
        doc: "\"json\" has one object per line, for a log collector.",
    },
    Setting {
        section: "log",
        key: "level",
        kind: Kind::Choice(words::<Level>),
        default: DefaultValue::Value("\"info\""),
        unit: "",
        applied: Applied::OnReload,
        help: "The least important lines that are still written",
        doc: "Every level includes those before it; \"debug\" writes a line for every round.",
    },
];

#[cfg(test)]
mod tests;
