//! What a job's code tolerates, and where each worker stands in it.

use super::rows::ROWS_MAX;

/// The size of a code: how many workers per group, what it corrects, how much it compresses.
///
/// `redundancy = compression + 2 * adversaries + stragglers`, the least for which exact recovery is possible
/// (arXiv 2110.01595, Theorem 1, for `stragglers = 0`; arXiv 2103.01589 for the joint bound).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Parameters {
    groups: usize,
    adversaries: usize,
    stragglers: usize,
    compression: usize,
}

/// Why a set of parameters cannot be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParameterError {
    /// There must be at least one group.
    #[error("groups is 0: a job has at least one group of workers")]
    NoGroup,
    /// Each worker uploads d / compression numbers, so it is at least 1.
    #[error("compression is 0: it is the factor by which uploads shrink, at least 1")]
    NoCompression,
    /// More rows than one group may have.
    #[error(
        "compression {compression} + 2 x adversaries {adversaries} + stragglers {stragglers} needs {redundancy} workers \
         per group; at most {ROWS_MAX} are supported"
    )]
    GroupTooLarge {
        /// r_c asked for.
        compression: usize,
        /// s asked for.
        adversaries: usize,
        /// e asked for.
        stragglers: usize,
        /// The group size that follows.
        redundancy: usize,
    },
}

impl Parameters {
    /// A code for `groups` groups that corrects `adversaries` (s) liars and `stragglers` (e) absentees per group while
    /// each worker uploads `1 / compression` (1 / r_c) of the gradient.
    ///
    /// # Errors
    /// If there is no group, `compression` is 0, or a group would have more than 64 workers.
    pub fn new(
        groups: usize,
        adversaries: usize,
        stragglers: usize,
        compression: usize,
    ) -> Result<Parameters, ParameterError> {
        if groups == 0 {
            return Err(ParameterError::NoGroup);
        }
        if compression == 0 {
            return Err(ParameterError::NoCompression);
        }
        let redundancy = adversaries.saturating_mul(2).saturating_add(stragglers).saturating_add(compression);
        if redundancy > ROWS_MAX {
            return Err(ParameterError::GroupTooLarge { compression, adversaries, stragglers, redundancy });
        }
        Ok(Parameters { groups, adversaries, stragglers, compression })
    }

    /// Number of groups, P / r.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// Liars corrected per group, s.
    pub fn adversaries(&self) -> usize {
        self.adversaries
    }

    /// Absentees tolerated per group beside s liars, e.
    pub fn stragglers(&self) -> usize {
        self.stragglers
    }

    /// The factor r_c by which an upload is smaller than the gradient.
    pub fn compression(&self) -> usize {
        self.compression
    }

    /// Workers per group, r = r_c + 2s + e: each computes the same gradient.
    pub fn redundancy(&self) -> usize {
        self.compression + 2 * self.adversaries + self.stragglers
    }

    /// Workers in the job, P = groups x r.
    pub fn workers(&self) -> usize {
        self.groups * self.redundancy()
    }

    /// Rows that must agree before a word is believed, r_c + s: at most s of them lie, so r_c honest ones fix the code
    /// word and all of them agree with it.
    pub fn agreement(&self) -> usize {
        self.compression + self.adversaries
    }

    /// The group and the row within it of worker `worker` (`0..workers()`): groups are runs of r workers.
    ///
    /// # Panics
    /// If there is no such worker.
    pub fn place(&self, worker: usize) -> Place {
        assert!(worker < self.workers(), "worker {worker} is not one of {}", self.workers());
        Place { group: worker / self.redundancy(), row: worker % self.redundancy() }
    }

    /// The worker at `place`; the inverse of [`Parameters::place`].
    pub fn worker(&self, place: Place) -> usize {
        place.group * self.redundancy() + place.row
    }
}

/// Where a worker stands: its group, and its row in that group's received word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Place {
    /// Index of the group, `0..groups`.
    pub group: usize,
    /// Index of the row in the group, `0..redundancy`.
    pub row: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn place_and_worker_are_inverse() {
        let parameters = Parameters::new(3, 2, 1, 2).unwrap();
        assert_eq!((parameters.redundancy(), parameters.workers(), parameters.agreement()), (7, 21, 4));
        for worker in 0..parameters.workers() {
            assert_eq!(parameters.worker(parameters.place(worker)), worker);
        }
    }

    #[test]
    fn impossible_parameters_name_the_bound_that_fails() {
        assert_eq!(Parameters::new(0, 1, 0, 1), Err(ParameterError::NoGroup));
        assert_eq!(Parameters::new(1, 1, 0, 0), Err(ParameterError::NoCompression));
        let error = Parameters::new(1, 30, 0, 5).unwrap_err();
        assert!(error.to_string().contains("needs 65 workers"), "{error}");
        assert!(Parameters::new(1, usize::MAX, 2, 1).is_err());
    }
}
