//! Which worker this process is and where its daemon listens: what the caller says, else what the environment does.

use std::ffi::OsString;
use std::fmt;

use super::worker::JoinOptions;

const ENDPOINT: &str = "SOLON_ENDPOINT";
const JOB: &str = "SOLON_JOB";
const WORKER: &str = "SOLON_WORKER";
const TOKEN: &str = "SOLON_TOKEN";
/// Set together by torchrun. `RANK` alone is set by many, and means many things.
const TORCHRUN: (&str, &str) = ("RANK", "LOCAL_RANK");
const SLURM: &str = "SLURM_PROCID";
const OPEN_MPI: &str = "OMPI_COMM_WORLD_RANK";

/// The variables of a worker's environment that are Solon's own.
pub const VARIABLES: [&str; 4] = [ENDPOINT, JOB, WORKER, TOKEN];

/// The job of a worker that is told of none; the daemon's `job.name` has the same default.
const DEFAULT_JOB: &str = "default";

/// What a caller says itself; the environment is asked for the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// Where solond listens, `host:port`; else `SOLON_ENDPOINT`.
    pub endpoint: Option<String>,
    /// The job's name; else `SOLON_JOB`, else `default`.
    pub job: Option<String>,
    /// This worker's index; else `SOLON_WORKER`, else the rank that torchrun, Slurm or Open MPI gave this process.
    pub worker: Option<u32>,
    /// This worker's token; else `SOLON_TOKEN`, else none.
    pub token: Option<String>,
}

/// What is missing or wrong, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotFound(pub Vec<Problem>);

impl fmt::Display for NotFound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if at == 0 { "" } else { "; and " })?;
        }
        Ok(())
    }
}

impl std::error::Error for NotFound {}

/// One thing that is missing or wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nobody says where the daemon is.
    #[error(
        "where solond listens is not known: no endpoint was given, and SOLON_ENDPOINT is not set (host:port, for example \
         127.0.0.1:7447)"
    )]
    NoEndpoint,
    /// Nobody says which worker this is.
    #[error(
        "which worker this process is is not known. Looked for, in this order: an index given by the caller (none); SOLON_WORKER \
         (not set); RANK together with LOCAL_RANK, as torchrun sets them ({torchrun}); SLURM_PROCID (not set); \
         OMPI_COMM_WORLD_RANK (not set). Give the index, or set SOLON_WORKER"
    )]
    NoWorker {
        /// What there is of torchrun's two.
        torchrun: &'static str,
    },
    /// A variable that is an index holds none.
    #[error("{variable} is {found:?}, expected a worker's index: a number from 0")]
    NotAnIndex {
        /// The variable.
        variable: &'static str,
        /// What it holds.
        found: String,
    },
    /// A variable is no text.
    #[error("{variable} is not UTF-8")]
    NotText {
        /// The variable.
        variable: &'static str,
    },
    /// Two launchers disagree.
    #[error(
        "SLURM_PROCID is {slurm} and OMPI_COMM_WORLD_RANK is {open_mpi}: which of the two is this worker's index cannot be told \
         (mpirun in a batch script of Slurm has both). Set SOLON_WORKER"
    )]
    Ambiguous {
        /// What Slurm says.
        slurm: u32,
        /// What Open MPI says.
        open_mpi: u32,
    },
}

impl JoinOptions {
    /// Options from what the caller gives and, where that says nothing, from the environment of this process.
    ///
    /// # Errors
    /// If endpoint or index are not to be found, or a variable cannot be read; the error lists what was looked for.
    pub fn find(given: Given) -> Result<JoinOptions, NotFound> {
        JoinOptions::find_in(given, &|name| std::env::var_os(name))
    }

    /// [`JoinOptions::find`] in another environment than this process has.
    ///
    /// # Errors
    /// As there.
    pub fn find_in(given: Given, variable: &dyn Fn(&str) -> Option<OsString>) -> Result<JoinOptions, NotFound> {
        let environment = Environment(variable);
        let or = |given: Option<String>, name| given.map_or_else(|| environment.text(name), |given| Ok(Some(given)));
        let endpoint = or(given.endpoint, ENDPOINT).and_then(|endpoint| endpoint.ok_or(Problem::NoEndpoint));
        let worker = given.worker.map_or_else(|| environment.worker(), Ok);
        let (job, token) = (or(given.job, JOB), or(given.token, TOKEN));
        match (endpoint, worker, job, token) {
            (Ok(endpoint), Ok(worker), Ok(job), Ok(token)) => {
                let job = job.unwrap_or_else(|| DEFAULT_JOB.to_owned());
                Ok(JoinOptions { token: token.unwrap_or_default(), ..JoinOptions::new(endpoint, job, worker) })
            }
            (endpoint, worker, job, token) => {
                let problems = [endpoint.err(), worker.err(), job.err(), token.err()];
                Err(NotFound(problems.into_iter().flatten().collect()))
            }
        }
    }
}

struct Environment<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Environment<'_> {
    /// An empty variable is as good as none: that is how shells take one away for a single command.
    fn text(&self, variable: &'static str) -> Result<Option<String>, Problem> {
        match (self.0)(variable).filter(|text| !text.is_empty()).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(text)) => Ok(Some(text)),
            Some(Err(_)) => Err(Problem::NotText { variable }),
        }
    }

    fn index(&self, variable: &'static str) -> Result<Option<u32>, Problem> {
        let Some(found) = self.text(variable)? else { return Ok(None) };
        found.trim().parse().map(Some).map_err(|_| Problem::NotAnIndex { variable, found })
    }

    fn worker(&self) -> Result<u32, Problem> {
        if let Some(worker) = self.index(WORKER)? {
            return Ok(worker);
        }
        let torchrun = match (self.text(TORCHRUN.0)?, self.text(TORCHRUN.1)?) {
            // Whoever torchrun was started by, this process was started by torchrun.
            (Some(_), Some(_)) => match self.index(TORCHRUN.0)? {
                Some(rank) => return Ok(rank),
                None => unreachable!("it is set"),
            },
            (Some(_), None) => "RANK is set, LOCAL_RANK is not",
            (None, Some(_)) => "LOCAL_RANK is set, RANK is not",
            (None, None) => "not set",
        };
        match (self.index(SLURM)?, self.index(OPEN_MPI)?) {
            (Some(slurm), Some(open_mpi)) if slurm != open_mpi => Err(Problem::Ambiguous { slurm, open_mpi }),
            (Some(rank), _) | (None, Some(rank)) => Ok(rank),
            (None, None) => Err(Problem::NoWorker { torchrun }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(given: Given, variables: &[(&str, &str)]) -> Result<JoinOptions, NotFound> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| text.into());
        JoinOptions::find_in(given, &variable)
    }

    fn at_home() -> Given {
        Given { endpoint: Some("here:1".into()), ..Given::default() }
    }

    #[test]
    fn the_index_is_the_callers_else_solons_else_that_of_the_launcher() {
        let all = [
            ("SOLON_WORKER", "1"),
            ("RANK", "2"),
            ("LOCAL_RANK", "0"),
            ("SLURM_PROCID", "3"),
            ("OMPI_COMM_WORLD_RANK", "3"),
        ];
        let worker = |given, variables: &[_]| find(Given { worker: given, ..at_home() }, variables).unwrap().worker;
        assert_eq!(worker(Some(0), &all), 0);
        assert_eq!(worker(None, &all), 1);
        assert_eq!(worker(None, &all[1..]), 2);
        assert_eq!(worker(None, &[("SOLON_WORKER", ""), ("RANK", "2"), ("LOCAL_RANK", "0")]), 2);
        assert_eq!(worker(None, &all[3..]), 3);
        assert_eq!(worker(None, &all[3..4]), 3);
        assert_eq!(worker(None, &all[4..]), 3);
        assert_eq!(worker(None, &[("RANK", "2"), ("SLURM_PROCID", "5")]), 5, "RANK alone is not torchrun's");
        assert_eq!(worker(None, &[("RANK", "junk"), ("SLURM_PROCID", "5")]), 5);
    }

    #[test]
    fn endpoint_job_and_token_are_the_callers_else_solons() {
        let variables = [("SOLON_ENDPOINT", "there:2"), ("SOLON_JOB", "theirs"), ("SOLON_TOKEN", "secret")];
        let found = find(Given { worker: Some(0), ..Given::default() }, &variables).unwrap();
        assert_eq!((&*found.address, &*found.job, &*found.token), ("there:2", "theirs", "secret"));
        let given = Given {
            job: Some("mine".into()),
            token: Some(String::new()),
            worker: Some(0),
            endpoint: Some("here:1".into()),
        };
        let found = find(given, &variables).unwrap();
        assert_eq!((&*found.address, &*found.job, &*found.token), ("here:1", "mine", ""));
        let found = find(Given { worker: Some(0), ..at_home() }, &[]).unwrap();
        assert_eq!((&*found.job, &*found.token), ("default", ""));
    }

    #[test]
    fn where_nothing_says_it_the_error_lists_what_was_looked_for_and_what_was_there() {
        let NotFound(problems) = find(Given::default(), &[]).unwrap_err();
        assert_eq!(problems, [Problem::NoEndpoint, Problem::NoWorker { torchrun: "not set" }]);
        let text = find(at_home(), &[("RANK", "3")]).unwrap_err().to_string();
        for part in [
            "given by the caller",
            "SOLON_WORKER (not set)",
            "torchrun sets them (RANK is set, LOCAL_RANK is not)",
            "SLURM_PROCID (not set)",
            "OMPI_COMM_WORLD_RANK (not set)",
        ] {
            assert!(text.contains(part), "{part} is not in: {text}");
        }
        assert!(!text.contains("endpoint"), "{text}");
    }

    #[test]
    fn what_is_wrong_is_not_passed_over_for_the_next() {
        let problem = |variables: &[_]| find(at_home(), variables).unwrap_err().0;
        let not_an_index = |variable, found: &str| [Problem::NotAnIndex { variable, found: found.into() }];
        assert_eq!(problem(&[("SOLON_WORKER", "-1"), ("SLURM_PROCID", "5")]), not_an_index("SOLON_WORKER", "-1"));
        assert_eq!(problem(&[("RANK", "two"), ("LOCAL_RANK", "0")]), not_an_index("RANK", "two"));
        assert_eq!(problem(&[("SLURM_PROCID", "4294967296")]), not_an_index("SLURM_PROCID", "4294967296"));
        let disagree = [("SLURM_PROCID", "0"), ("OMPI_COMM_WORLD_RANK", "3")];
        assert_eq!(problem(&disagree), [Problem::Ambiguous { slurm: 0, open_mpi: 3 }]);
    }

    #[cfg(unix)]
    #[test]
    fn a_variable_that_is_no_text_is_named() {
        use std::os::unix::ffi::OsStringExt;
        let variable = |name: &str| (name == "SOLON_JOB").then(|| OsString::from_vec(vec![0xff]));
        let found = JoinOptions::find_in(Given { worker: Some(0), ..at_home() }, &variable);
        assert_eq!(found.unwrap_err().0, [Problem::NotText { variable: "SOLON_JOB" }]);
    }
}
