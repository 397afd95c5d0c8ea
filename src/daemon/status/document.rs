//! The fields of the document: what they are, in which units. `docs/operations.md` has them for who reads the JSON.

use serde::{Deserialize, Serialize};

/// Of the document.
pub const VERSION: u32 = 1;

/// How the daemon is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// [`VERSION`].
    pub version: u32,
    /// Version of the program.
    pub solond: String,
    /// Does every reactor turn?
    pub alive: bool,
    /// Can workers connect?
    pub ready: bool,
    /// Why it is not alive, or not ready.
    pub why_not: Vec<String>,
    /// What keeps rounds from being decoded although the daemon is ready.
    pub notes: Vec<String>,
    /// Since the start.
    pub uptime_seconds: f64,
    /// Where workers connect.
    pub address: String,
    /// The RDMA port, or why there is none.
    pub rdma: String,
    /// How updates are sent: `relay`, or `direct` with the reason.
    pub push: String,
    /// The job.
    pub job: Job,
    /// The first round that is not closed.
    pub next_round: u64,
    /// Who was found to lie since the start.
    pub liars: Vec<Liar>,
    /// Each group with its workers.
    pub groups: Vec<Group>,
    /// The last rounds, the oldest first.
    pub rounds: Vec<Round>,
    /// Counts since the start.
    pub totals: Totals,
}

/// What is aggregated.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// `job.name`.
    pub name: String,
    /// `job.rule`.
    pub rule: String,
    /// Workers in all.
    pub workers: usize,
    /// Groups.
    pub groups: usize,
    /// Workers in a group, r.
    pub redundancy: usize,
    /// Liars per group that are corrected, s.
    pub adversaries: usize,
    /// Absentees per group beside them, e.
    pub stragglers: usize,
    /// Factor by which uploads are smaller, r_c.
    pub compression: usize,
    /// Numbers in the gradient.
    pub dimension: usize,
    /// Chunks that it is cut into.
    pub chunks: usize,
    /// `rounds.deadline_ms`, in seconds.
    pub deadline_seconds: f64,
}

/// A worker that lied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Liar {
    /// Which.
    pub worker: usize,
    /// Rounds in which it lied, since the start.
    pub lies: u64,
    /// How many of [`Status::rounds`] these are.
    pub lately: usize,
    /// The last of them.
    pub last_lie_round: Option<u64>,
}

/// A group.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Group {
    /// Which.
    pub group: usize,
    /// Workers that have a session.
    pub connected: usize,
    /// Workers that must agree in each round, r_c + s.
    pub needed: usize,
    /// All of them.
    pub workers: Vec<Worker>,
}

/// A worker's state: the first that holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It lied in one of the last rounds.
    Lied,
    /// It has not come since the start.
    Never,
    /// It was there, and has no session now.
    Gone,
    /// No shard of it came before the last round was closed.
    Absent,
    /// Not all of its shards came before the last round was closed.
    Late,
    /// Connected.
    Ok,
}

/// A worker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Which.
    pub worker: usize,
    /// Its state.
    pub state: State,
    /// Has it a session?
    pub connected: bool,
    /// Why its session ended, if it did.
    pub left: Option<String>,
    /// Since a shard of it was part of a round, or it joined.
    pub seen_seconds_ago: Option<f64>,
    /// Shards of it whose checks passed.
    pub shards: u64,
    /// Rounds in which it lied.
    pub lies: u64,
    /// The last of them.
    pub last_lie_round: Option<u64>,
    /// Rounds closed without a shard of it.
    pub absences: u64,
    /// Rounds closed with some of its shards only.
    pub late: u64,
    /// It passes updates on late or wrong.
    pub bad_carrier: bool,
}

/// A closed round.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Round {
    /// Which.
    pub round: u64,
    /// Had it an update?
    pub complete: bool,
    /// Why not.
    pub why_not: Option<String>,
    /// From its first shard to its close.
    pub seconds: f64,
    /// Since its close.
    pub seconds_ago: f64,
    /// Of what was decoded: the largest residual over the tolerance.
    pub residual: f64,
    /// The same before anything was corrected.
    pub received: f64,
    /// Who was named for it.
    pub liars: Vec<usize>,
    /// Who was named for an earlier one while it was open.
    pub late_liars: Vec<usize>,
    /// Of whom no shard came in time.
    pub absent: Vec<usize>,
    /// Of whom not all shards came in time.
    pub late: Vec<usize>,
}

/// Counts since the start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Rounds with an update.
    pub rounds_complete: u64,
    /// Rounds without.
    pub rounds_undecodable: u64,
    /// Shards that were proved wrong.
    pub lies: u64,
    /// Shards whose checks passed.
    pub shards_accepted: u64,
    /// Shards with a wrong checksum.
    pub shards_corrupt: u64,
    /// Sessions ended because their worker broke the protocol.
    pub violations: u64,
    /// Sessions that began over RDMA.
    pub rdma_sessions: u64,
    /// Bytes of shards.
    pub bytes_received: u64,
    /// Bytes sent to workers.
    pub bytes_sent: u64,
}

impl Status {
    /// Every worker, in order.
    pub fn workers(&self) -> impl Iterator<Item = &Worker> {
        self.groups.iter().flat_map(|group| &group.workers)
    }
}
