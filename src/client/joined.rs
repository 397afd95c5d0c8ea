//! What a worker that comes (back) has missed.

use crate::wire::Resume;

/// How a worker came (back) into a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Joined {
    /// The first round that this session takes part in.
    pub round: u64,
    /// Rounds that were closed since the last one that this worker collected: their updates are gone, so its model must be
    /// restored from another worker's or a checkpoint. 0 for a worker that has missed nothing; `None` if the daemon has
    /// another update for the worker's last round, or counts from an earlier one (it was restarted without its journal).
    pub missed: Option<u64>,
}

impl Joined {
    pub(super) fn after(last: Option<Resume>, daemon: Option<Resume>, round: u64) -> Joined {
        let missed = match last {
            None => Some(0),
            Some(mine) if mine.round >= round => None,
            Some(mine) if daemon.is_some_and(|d| d.round == mine.round && d.digest != mine.digest) => None,
            Some(mine) => Some(round - mine.round - 1),
        };
        Joined { round, missed }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_comes_back_learns_how_many_updates_it_has_missed() {
        let at = |round, digest| Some(Resume { round, digest });
        let missed = |last, daemon, round| Joined::after(last, daemon, round).missed;
        assert_eq!(missed(None, at(9, 1), 10), Some(0));
        assert_eq!(missed(at(9, 1), at(9, 1), 10), Some(0));
        assert_eq!(missed(at(7, 1), at(9, 1), 10), Some(2));
        assert_eq!(missed(at(9, 1), at(9, 2), 10), None, "another update for the same round");
        assert_eq!(missed(at(9, 1), None, 0), None, "a daemon that counts from the beginning");
    }
}
