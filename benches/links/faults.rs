//! Rounds with bad carriers: what the first one takes, what those after it take, and whether every update is the one of the direct way.
//!
//! For the updates every shard is waited for, so that the same rows make them. The times are those of solond as it is by default: a carrier
//! that floods the others also sends its own shards late, which is no matter of the relay.

use std::collections::HashMap;
use std::fmt;

use serde::Serialize;
use solon::bench::figures::{Cell, Figure, Table};
use solon::bench::goals::{Bound, Goals};

use crate::carriers::Bad;
use crate::cluster::{Cluster, Linger, Round, Way};
use crate::{Failure, Setting, goal};

/// The bad ones: as many as can be liars. Their shards are parity, so that a recovery without them, if they leave, gives the same bits.
const WORKERS: [usize; Setting::LIARS] = [4, 10];
/// Rounds that are compared; carriers are bad in all but the first.
const COMPARED: usize = 4;
/// Rounds that are timed: beside one that does not count, clean ones, and those after the first bad one.
const CLEAN: usize = 3;
const LATER: usize = 8;

/// One kind of bad carriers.
#[derive(Serialize)]
pub struct Row {
    pub bad: Bad,
    pub clean: Figure,
    pub first: f64,
    /// Of the rounds after the first.
    pub later: Vec<f64>,
    /// Updates that differ from those of the direct way, of so many.
    pub different: usize,
    pub updates: usize,
    /// What the daemon counted.
    pub pushed: serde_json::Value,
}

/// All of them.
#[derive(Serialize)]
pub struct Faults(Vec<Row>);

/// So many rounds of a cluster whose carriers are bad after `clean` of them.
fn rounds(
    setting: &Setting,
    (way, linger): (Way, Linger),
    bad: Option<(Bad, usize)>,
    count: usize,
) -> Result<(Vec<Round>, serde_json::Value), Failure> {
    let mut cluster = Cluster::start(&setting.network, &setting.job(Setting::COMPRESSION, way, linger))?;
    let mut rounds = Vec::new();
    for at in 0..count {
        if let Some((bad, _)) = bad.filter(|(_, clean)| *clean == at) {
            cluster.spoil(&WORKERS, bad);
        }
        let round = cluster.round()?;
        if round.updates.iter().any(|update| *update != round.updates[0]) {
            return Err(Failure(format!("two workers have different updates in round {}", round.round)));
        }
        rounds.push(round);
    }
    Ok((rounds, cluster.pushed()?))
}

fn row(setting: &Setting, bad: Bad, direct: &HashMap<u64, String>) -> Result<Row, Failure> {
    let all = (Way::Relay, Linger::All);
    let (held, _) = rounds(setting, all, Some((bad, 1)), direct.len())?;
    let other = |round: &&Round, update: &&String| direct.get(&round.round) != Some(*update);
    let different = held.iter().map(|round| round.updates.iter().filter(|update| other(&round, update)).count()).sum();
    let as_usual = (Way::Relay, Linger::None);
    let (timed, pushed) = rounds(setting, as_usual, Some((bad, CLEAN + 1)), CLEAN + LATER + 2)?;
    let seconds = |rounds: &[Round]| rounds.iter().map(|round| round.seconds).collect::<Vec<_>>();
    Ok(Row {
        bad,
        clean: Figure::new(seconds(&timed[1..=CLEAN])),
        first: timed[CLEAN + 1].seconds,
        later: seconds(&timed[CLEAN + 2..]),
        different,
        updates: held.iter().map(|round| round.updates.len()).sum(),
        pushed,
    })
}

/// Measures all kinds.
pub fn measure(setting: &Setting) -> Result<Faults, Failure> {
    setting.network.shape(0)?;
    eprintln!("links: the direct way's updates");
    let (direct, _) = rounds(setting, (Way::Direct, Linger::All), None, COMPARED)?;
    let direct = direct.into_iter().map(|round| (round.round, round.updates[0].clone())).collect();
    setting.network.shape(setting.bytes_per_second())?;
    let mut rows = Vec::new();
    for bad in Bad::ALL {
        let row = row(setting, bad, &direct)?;
        eprintln!(
            "links: {}: clean {}, then {:.2} {:.2?}; {}",
            bad.name(),
            row.clean,
            row.first,
            row.later,
            row.pushed
        );
        rows.push(row);
    }
    Ok(Faults(rows))
}

impl Row {
    /// The first bad round over a clean one, and the median and the most of those after it.
    fn over(&self) -> [f64; 3] {
        let (clean, later) = (self.clean.median(), Figure::new(self.later.clone()));
        [self.first, later.median(), later.spread().1].map(|seconds| seconds / clean)
    }
}

impl Faults {
    pub fn goals(&self) -> Goals {
        let rows = |row: &Row| {
            let (name, [first, later, _]) = (row.bad.name(), row.over());
            let kind = |what: &str| format!("{name}: {what}");
            [
                goal("B1", kind("updates that differ from the direct way's"), Bound::AtMost(0.0), row.different as f64),
                goal("B2", kind("first bad round / clean"), Bound::AtMost(1.5), first),
                goal("B3", kind("later rounds / clean"), Bound::AtMost(1.1), later),
            ]
        };
        Goals(self.0.iter().flat_map(rows).collect())
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = [
            "carriers",
            "clean s",
            "first bad",
            "later, median",
            "later, most",
            "late",
            "wrong",
            "named",
            "same updates",
        ];
        let title = format!("{} bad carriers of {}: rounds over clean ones", WORKERS.len(), Setting::WORKERS);
        let mut table = Table::new(title, &columns);
        for row in &self.0 {
            let counted = |name: &str| Cell::Text(row.pushed[name].to_string());
            let ratios = row.over().map(Cell::Number);
            let cells = [Cell::Text(row.bad.name()), Cell::Figure(row.clean.clone())].into_iter().chain(ratios);
            let counts = ["late", "wrong", "bad_carriers"].map(counted);
            let same = Cell::Text(format!("{} of {}", row.updates - row.different, row.updates));
            table.push(cells.chain(counts).chain([same]).collect());
        }
        writeln!(f, "{table}")
    }
}
