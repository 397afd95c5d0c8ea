//! What can go wrong for a worker, and who is at fault.

use std::io;
use std::time::Duration;

use super::owner::Forked;
use crate::transport::Disconnect;
use crate::wire::{HandshakeError, Refusal, Report, RoundOutcome, UndecodableReason};

/// Who must act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The caller of this library.
    Caller,
    /// Other workers of the job.
    Workers,
    /// The aggregation daemon, or whoever runs it.
    Aggregator,
    /// The network between.
    Network,
}

/// Why a session with the daemon is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// The connection ended.
    #[error("{0}")]
    Connection(#[from] Disconnect),
    /// The daemon said that it stops.
    #[error("the daemon was stopped in peace")]
    Stopped,
    /// This worker fell so far behind that there was no room for what the daemon sent, and the daemon gave it up.
    #[error("this worker fell more rounds behind than its window has, and the daemon went on without it")]
    FellBehind,
    /// A chunk of an update was damaged on the way.
    #[error("chunk {chunk} of round {round} was damaged on the way")]
    Damaged {
        /// The round.
        round: u64,
        /// The chunk.
        chunk: u32,
    },
    /// The update is not the one that the daemon says it pushed.
    #[error("the update of round {round} is not the one that the daemon pushed (its digest differs)")]
    Digest {
        /// The round.
        round: u64,
    },
}

/// Why a round gave no update.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ClientError {
    /// A buffer has the wrong length.
    #[error("{what} has {found} numbers, the job's gradient has {expected}: check [job] dimension of solond")]
    Length {
        /// Which buffer.
        what: &'static str,
        /// Its length.
        found: usize,
        /// The job's dimension.
        expected: usize,
    },
    /// More rounds in flight than the plan allows, or than the call can serve.
    #[error("{in_flight} rounds are in flight and this call allows {allowed}: wait for the oldest first")]
    WindowFull {
        /// Rounds that are submitted and not collected.
        in_flight: u64,
        /// How many there may be.
        allowed: u64,
    },
    /// The daemon could not decode the round: nothing may be applied.
    #[error("round {round} is undecodable: in group {group}, chunk {chunk}, {reason}")]
    Undecodable {
        /// The round.
        round: u64,
        /// The group whose word failed.
        group: u32,
        /// The chunk.
        chunk: u32,
        /// Why.
        reason: UndecodableReason,
        /// What else the daemon reports of the round.
        report: Box<Report>,
    },
    /// The session ended before the round did.
    #[error("the aggregator was lost in round {round}: {why}")]
    AggregatorLost {
        /// The round that was not finished.
        round: u64,
        /// Why.
        why: Lost,
    },
    /// The round did not end in the time that the caller gave.
    #[error("round {round} has not ended after {waited:?}; it goes on: wait again, or leave")]
    Timeout {
        /// The round.
        round: u64,
        /// How long this call waited.
        waited: Duration,
    },
    /// The caller's [`Interrupt`](super::Interrupt) had the wait given up.
    #[error("the wait for round {round} was interrupted; the round goes on: wait again, or leave")]
    Interrupted {
        /// The round.
        round: u64,
    },
    /// This process was forked from the one that joined.
    #[error(transparent)]
    Forked(#[from] Forked),
}

impl ClientError {
    /// Who must act.
    pub fn fault(&self) -> Fault {
        match self {
            ClientError::Length { .. }
            | ClientError::WindowFull { .. }
            | ClientError::Interrupted { .. }
            | ClientError::Forked(_) => Fault::Caller,
            // A round that does not end waits for workers, or its deadline is longer than the caller's patience.
            ClientError::Undecodable { .. } | ClientError::Timeout { .. } => Fault::Workers,
            ClientError::AggregatorLost { why, .. } => match why {
                Lost::Connection(Disconnect::Violation(_)) | Lost::Stopped | Lost::Digest { .. } => Fault::Aggregator,
                Lost::FellBehind => Fault::Caller,
                Lost::Connection(_) | Lost::Damaged { .. } => Fault::Network,
            },
        }
    }

    pub(super) fn undecodable(round: u64, report: Report) -> Option<ClientError> {
        match report.outcome {
            RoundOutcome::Complete => None,
            RoundOutcome::Undecodable { group, chunk, reason } => {
                Some(ClientError::Undecodable { round, group, chunk, reason, report: Box::new(report) })
            }
        }
    }
}

/// Why a worker could not join.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// Nobody answers at the address.
    #[error("cannot connect to solond at {address}: {error} (is it running, and is this the address it listens on?)")]
    Connect {
        /// The address.
        address: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// The connection ended during the handshake.
    #[error("the handshake with solond at {address} broke off: {error}")]
    Io {
        /// The address.
        address: String,
        /// What the operating system says.
        error: io::Error,
    },
    /// The daemon does not want this worker, or is none.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The two sides would compute with different code matrices.
    #[error(
        "the code matrix of this library is not the daemon's: both must be the same version of solon (digest \
         {found:016x}, the daemon has {expected:016x})"
    )]
    Generator {
        /// Digest here.
        found: u64,
        /// Digest in the plan.
        expected: u64,
    },
    /// The worker wants RDMA and nothing else, and it is not to be had.
    #[error("cannot join solond at {address} by RDMA: {reason}")]
    NoRdma {
        /// The address.
        address: String,
        /// Why.
        reason: String,
    },
    /// The worker computes differently than others of its group, and the daemon is set to refuse that.
    #[error("the daemon refused: {refusal}; here it is {own}")]
    Mixed {
        /// From whom it differs, in what.
        refusal: Refusal,
        /// What this worker says of these fields.
        own: String,
    },
    /// The session ended before it was ready.
    #[error("the session ended before it was ready: {0}")]
    Lost(#[from] Lost),
    /// The operating system gives no event queue, thread or random bytes.
    #[error("cannot set up the worker's side: {0}")]
    Local(io::Error),
    /// This process was forked from the one that joined.
    #[error(transparent)]
    Forked(#[from] Forked),
}

impl JoinError {
    /// Who must act.
    pub fn fault(&self) -> Fault {
        match self {
            JoinError::Lost(Lost::Stopped) => Fault::Aggregator,
            JoinError::Connect { .. } | JoinError::Io { .. } | JoinError::Lost(_) => Fault::Network,
            JoinError::Handshake(HandshakeError::Refused(Refusal::Stopping)) => Fault::Aggregator,
            JoinError::Handshake(HandshakeError::Refused(_)) => Fault::Caller,
            JoinError::Generator { .. }
            | JoinError::Mixed { .. }
            | JoinError::Local(_)
            | JoinError::NoRdma { .. }
            | JoinError::Forked(_) => Fault::Caller,
            JoinError::Handshake(_) => Fault::Network,
        }
    }

    /// Can the same call succeed a little later?
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            JoinError::Connect { .. }
                | JoinError::Io { .. }
                | JoinError::Lost(_)
                | JoinError::Handshake(HandshakeError::Refused(Refusal::TooSoon { .. } | Refusal::Stopping))
        )
    }
}
