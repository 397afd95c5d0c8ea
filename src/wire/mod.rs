//! The bytes on the wire: one fixed header, the frames it announces, and the handshake. Drawn in `docs/protocol.md`.
//!
//! Nothing here performs I/O or allocates by a number that a peer sent: every payload has a length that the receiver
//! knows beforehand (the *exact-length rule*), and a frame of another length is a [`Violation`].

mod attach;
mod fingerprint;
mod frame;
mod handshake;
mod messages;
mod relay;
mod report;

pub use attach::{
    ATTACH_BYTES, Area, Endpoint, OFFER_BYTES, TRANSPORT_RDMA, UPDATE_OFFSET, attach_frame, attached_frame,
    offer_frame, read_attach, read_attached, read_offer,
};
pub use fingerprint::{Field, Fields, Fingerprint, Marks};
pub use frame::{Header, HeaderError, Kind, MAGIC, VERSION, header_bytes, header_bytes_of, seal};
pub use handshake::{
    CHALLENGE_BYTES, Credential, HELLO_BYTES, HandshakeError, Hello, Identity, Nonce, WELCOME_BYTES, accept_hello,
    begins_hello, challenge_frame, hello_frame, read_challenge, read_welcome, refusal_frame, refusal_of, welcome_frame,
};
#[cfg(test)]
pub(crate) use messages::sample_plan;
pub use messages::{Plan, PlanError, Refusal, Resume, Rule, Welcome};
pub use relay::{
    GREETED_BYTES, GREETING_BYTES, LINK_FRAME_MAX, LinkEnds, LinkOrder, RELAY_WORKERS_MAX, SHORT_BYTES,
    SHORT_PAYLOAD_MAX, Said, Short, Why, greeting_from, short_payload,
};
pub use report::{REPORT_BYTES, Report, RoundOutcome, UndecodableReason, WorkerSet};

/// Bytes of every frame's header.
pub const HEADER_BYTES: usize = 64;

/// The most workers a job may have: sets of workers have a fixed size on the wire and in reports.
pub const WORKERS_MAX: usize = 1024;

/// The most shards that a worker may have in flight.
pub const CREDITS_MAX: usize = 1 << 16;

/// The most chunks a gradient may be cut into: the daemon keeps a record for each, in every group and round of its history.
pub const CHUNKS_MAX: usize = 1 << 22;

/// What a peer did against the protocol: its session ends, nobody else notices. Numbers only, so that no byte of a
/// peer's choosing reaches a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// The header cannot be read.
    #[error("unreadable header: {0}")]
    Header(#[from] HeaderError),
    /// A frame kind that this side never receives.
    #[error("a frame of kind {0:?} in the wrong direction or phase")]
    Kind(Kind),
    /// A payload of another length than the plan gives.
    #[error("a payload of {found} bytes where the plan has {expected}")]
    Length {
        /// Bytes announced.
        found: u32,
        /// Bytes that the plan gives for this frame.
        expected: u32,
    },
    /// A round outside the window.
    #[error("round {found}, but the window is {first}..{end}")]
    Round {
        /// Round claimed.
        found: u64,
        /// First round in the window.
        first: u64,
        /// One past the last round in the window.
        end: u64,
    },
    /// A chunk that the layout does not have.
    #[error("chunk {found} of {chunks}")]
    Chunk {
        /// Chunk claimed.
        found: u32,
        /// Chunks in the layout.
        chunks: u32,
    },
    /// Another job's number.
    #[error("a frame for another job")]
    Job,
    /// Not the number of this session.
    #[error("a frame of another session")]
    Session,
    /// A frame in another worker's name.
    #[error("a frame in the name of worker {0}")]
    Worker(u32),
    /// More shards than credits.
    #[error("more shards than credits")]
    Credit,
    /// An RDMA completion that an honest peer does not cause: an immediate or an invalidation where none belongs, a message
    /// longer than a slot, a write to a place that does not exist.
    #[error("a message over RDMA that does not belong there (opcode {opcode}, flags {flags}, status {status})")]
    Rdma {
        /// What the NIC says it was, as `ibv_wc_opcode` has it.
        opcode: u32,
        /// Its `ibv_wc_flags`.
        flags: u32,
        /// Its `ibv_wc_status`.
        status: u32,
    },
}

impl Violation {
    /// A word for each kind.
    pub const REASONS: [&'static str; 10] =
        ["header", "kind", "length", "round", "chunk", "job", "session", "worker", "credit", "rdma"];

    /// The place of its word in [`Violation::REASONS`].
    pub fn reason(&self) -> usize {
        match self {
            Violation::Header(_) => 0,
            Violation::Kind(_) => 1,
            Violation::Length { .. } => 2,
            Violation::Round { .. } => 3,
            Violation::Chunk { .. } => 4,
            Violation::Job => 5,
            Violation::Session => 6,
            Violation::Worker(_) => 7,
            Violation::Credit => 8,
            Violation::Rdma { .. } => 9,
        }
    }
}
