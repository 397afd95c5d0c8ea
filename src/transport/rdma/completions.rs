//! How many requests ended how, over all connections of the daemon.

use std::sync::atomic::{AtomicU64, Ordering};

use super::ffi;

/// Counts of completions by their status: one relaxed increment per status and poll.
#[derive(Debug, Default)]
pub struct Completions([AtomicU64; Completions::STATUSES.len()]);

impl Completions {
    /// A word for each status that is counted by itself, and one for all others.
    pub const STATUSES: [&'static str; 6] =
        ["success", "flushed", "retry_exceeded", "receiver_not_ready", "access_refused", "other"];

    /// Counts what a poll has found.
    pub fn count(&self, found: &[ffi::ibv_wc]) {
        let well = found.iter().filter(|completion| completion.status == ffi::IBV_WC_SUCCESS).count();
        if well > 0 {
            self.0[0].fetch_add(well as u64, Ordering::Relaxed);
        }
        if well == found.len() {
            return;
        }
        for completion in found.iter().filter(|completion| completion.status != ffi::IBV_WC_SUCCESS) {
            let place = match completion.status {
                ffi::IBV_WC_WR_FLUSH_ERR => 1,
                ffi::IBV_WC_RETRY_EXC_ERR => 2,
                ffi::IBV_WC_RNR_RETRY_EXC_ERR => 3,
                ffi::IBV_WC_REM_ACCESS_ERR => 4,
                _ => 5,
            };
            self.0[place].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many there were, in the order of [`Completions::STATUSES`].
    pub fn counted(&self) -> [u64; Completions::STATUSES.len()] {
        std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_a_place_and_an_unknown_one_is_another() {
        let completions = Completions::default();
        let of = |status| ffi::ibv_wc { status, ..Default::default() };
        completions.count(&[0, 0, 5, 12, 13, 10, 1, 99].map(of));
        completions.count(&[]);
        assert_eq!(completions.counted(), [2, 1, 1, 1, 1, 2]);
    }
}
