//! The document in words: what people read, on the page and in a terminal.

use super::document::{Liar, Round, State, Status};

/// Liars that are named one by one in [`Status::sentences`].
pub(super) const LIARS: usize = 12;

/// How bad something is that is said of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// Somebody must look.
    Alarm,
    /// Something is missing.
    Warning,
    /// It was so, and is over.
    Past,
    /// All is well.
    Good,
}

impl Status {
    /// In one word: `ready`, `not ready` or `hangs`.
    pub fn word(&self) -> &'static str {
        match (self.alive, self.ready) {
            (false, _) => "hangs",
            (true, false) => "not ready",
            (true, true) => "ready",
        }
    }

    /// What there is to say, the worst first, in plain words: never empty.
    pub fn sentences(&self) -> Vec<(Weight, String)> {
        let mut said: Vec<_> = self.why_not.iter().map(|why| (Weight::Alarm, why.clone())).collect();
        let recent = self.liars.iter().filter(|liar| liar.lately > 0).map(|liar| (Weight::Alarm, self.verdict(liar)));
        let past = self.liars.iter().filter(|liar| liar.lately == 0).map(|liar| (Weight::Past, self.verdict(liar)));
        let failed: Vec<_> = self.rounds.iter().filter(|round| !round.complete).collect();
        if let Some(Round { round, why_not, .. }) = failed.last() {
            let (count, of, why) = (failed.len(), self.rounds.len(), why_not.as_deref().unwrap_or("unknown"));
            said.push((
                Weight::Alarm,
                format!("{count} of the last {of} rounds had no update; the last was round {round}: {why}"),
            ));
        }
        let (liars, more) = (self.liars.len(), self.liars.len().saturating_sub(LIARS));
        said.extend(recent.chain(past).take(LIARS));
        if more > 0 {
            said.push((Weight::Alarm, format!("and {more} more of {liars} workers lied")));
        }
        said.extend(self.notes.iter().map(|note| (Weight::Warning, note.clone())));
        if self.job.rule == "mean" {
            said.push((Weight::Warning, "nobody is checked: job.rule is \"mean\"".into()));
        }
        if said.is_empty() {
            said.push((Weight::Good, "nobody has lied since the start, and every group has workers enough".into()));
        }
        said
    }

    /// What was found about a liar.
    fn verdict(&self, liar: &Liar) -> String {
        let Liar { worker, lies, lately, last_lie_round } = *liar;
        let last = last_lie_round.map_or(String::new(), |round| format!(", last in round {round}"));
        match (lately, self.rounds.len()) {
            (0, rounds) => format!("worker {worker} lied in {lies} rounds{last}; not in the last {rounds}"),
            (lately, rounds) => format!("worker {worker} lied in {lately} of the last {rounds} rounds{last}"),
        }
    }
}

impl Weight {
    /// A character that tells it from the others without colour.
    pub fn mark(self) -> char {
        match self {
            Weight::Alarm => '✗',
            Weight::Warning => '!',
            Weight::Past => '·',
            Weight::Good => '✓',
        }
    }
}

impl State {
    /// All of them.
    pub const ALL: [State; 6] = [State::Ok, State::Late, State::Absent, State::Gone, State::Never, State::Lied];

    /// One word.
    pub fn name(self) -> &'static str {
        match self {
            State::Lied => "lied",
            State::Never => "never",
            State::Gone => "gone",
            State::Absent => "absent",
            State::Late => "late",
            State::Ok => "ok",
        }
    }

    /// A character that tells it from the others without colour.
    pub fn mark(self) -> char {
        match self {
            State::Lied => '✗',
            State::Never => '·',
            State::Gone => '○',
            State::Absent => '–',
            State::Late => '◐',
            State::Ok => '✓',
        }
    }

    /// What it means.
    pub fn meaning(self) -> &'static str {
        match self {
            State::Lied => "lied in one of the last rounds",
            State::Never => "has not come since the start",
            State::Gone => "was there, and has no session now",
            State::Absent => "no shard came before the last round was closed",
            State::Late => "not all shards came before the last round was closed",
            State::Ok => "connected",
        }
    }
}

/// `1.5 ms`, `12 s`, `3 min`, `2 h 10 min`, `4 d 3 h`.
pub fn span(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    let whole = |unit: f64| (seconds / unit).floor();
    match seconds {
        ..0.0995 => format!("{:.1} ms", 1e3 * seconds),
        ..0.9995 => format!("{:.0} ms", 1e3 * seconds),
        ..10.0 => format!("{seconds:.1} s"),
        ..120.0 => format!("{seconds:.0} s"),
        ..3600.0 => format!("{} min", whole(60.0)),
        ..86400.0 => format!("{} h {} min", whole(3600.0), whole(60.0) % 60.0),
        _ => format!("{} d {} h", whole(86400.0), whole(3600.0) % 24.0),
    }
}
