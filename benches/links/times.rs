//! Rounds over r_c, both ways, what is predicted for them, and the ring.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use solon::bench::figures::{Cell, Figure, Table};
use solon::bench::goals::{Bound, Goals};
use solon::plan::plan;

use crate::cluster::{Cluster, Linger, Round, Way};
use crate::{Failure, Setting, goal, ring};

/// Seconds that the rounds of one row may take; there are at least one and at most so many.
const SECONDS: f64 = 30.0;
const ROUNDS: f64 = 9.0;
/// Of the rows that goals are about.
const ROUNDS_OF_GOALS: f64 = 3.0;

/// One way with one r_c.
#[derive(Serialize)]
pub struct Row {
    pub compression: usize,
    pub way: Way,
    pub seconds: Figure,
    pub predicted: f64,
    /// Bytes through the daemon's interface per round, over those of an update.
    pub sent: Figure,
    pub received: Figure,
    /// Processor seconds of all processes.
    pub cpu: Figure,
}

/// gloo's ring.
#[derive(Serialize)]
pub struct Ring {
    pub seconds: Figure,
    /// Bytes that leave one worker's interface, over those of the tensor.
    pub sent: Figure,
}

/// All of it.
#[derive(Serialize)]
pub struct Times {
    /// Relayed, on links that nothing slows.
    pub unshaped: Row,
    pub rows: Vec<Row>,
    pub ring: Option<Ring>,
    /// Per r_c: seconds as `solon plan` has them, direct and relayed.
    pub predicted: Vec<(usize, f64, f64)>,
}

fn row(setting: &Setting, compression: usize, way: Way, predicted: f64, rounds: &[Round]) -> Row {
    let update = 4.0 * setting.dimension as f64;
    let figure = |value: &dyn Fn(&Round) -> f64| Figure::new(rounds.iter().map(value).collect());
    Row {
        compression,
        way,
        seconds: figure(&|round| round.seconds),
        predicted,
        sent: figure(&|round| round.bytes.sent / update),
        received: figure(&|round| round.bytes.received / update),
        cpu: figure(&|round| round.cpu),
    }
}

/// Starts a cluster, runs a round that does not count, and `count` that do.
fn rounds(setting: &Setting, compression: usize, way: Way, count: usize) -> Result<Vec<Round>, Failure> {
    let mut cluster = Cluster::start(&setting.network, &setting.job(compression, way, Linger::All))?;
    cluster.round()?;
    let rounds = (0..count).map(|_| cluster.round()).collect::<Result<Vec<_>, _>>()?;
    match rounds.iter().find(|round| round.updates.iter().any(|update| *update != round.updates[0])) {
        Some(round) => Err(Failure(format!("two workers have different updates in round {}", round.round))),
        None => {
            eprintln!("links: {}", cluster.pushed()?);
            Ok(rounds)
        }
    }
}

/// Measures all.
pub fn measure(setting: &Setting, python: Option<&Path>) -> Result<Times, Failure> {
    let most = Setting::WORKERS - 2 * Setting::LIARS;
    let mut predicted = Vec::new();
    for compression in 1..=most {
        let report = plan(&setting.plan(compression)).map_err(|refusal| Failure(refusal.to_string()))?;
        let wire = report.chosen().wire.expect("a link was given");
        predicted.push((compression, wire.both.get(), wire.both_if_relayed.get()));
    }
    eprintln!("links: unshaped");
    setting.network.shape(0)?;
    let unshaped = rounds(setting, Setting::COMPRESSION, Way::Relay, 5)?;
    let unshaped = row(setting, Setting::COMPRESSION, Way::Relay, 0.0, &unshaped);
    setting.network.shape(setting.bytes_per_second())?;
    let mut ring = None;
    if let Some(python) = python {
        eprintln!("links: gloo's ring");
        let calls = if setting.quick { 2 } else { ROUNDS as usize };
        let (seconds, sent) = ring::measure(&setting.network, python, Setting::WORKERS, setting.dimension, calls)?;
        let update = 4.0 * setting.dimension as f64;
        let sent = sent.into_iter().map(|bytes| bytes / update).collect();
        ring = Some(Ring { seconds: Figure::new(seconds), sent: Figure::new(sent) });
    }
    let (direct, relayed): (&[usize], &[usize]) = match setting.quick {
        true => (&[1], &[1, Setting::COMPRESSION]),
        false => (&[1, 3, Setting::COMPRESSION], &[1, 2, 3, 5, 8, Setting::COMPRESSION, 11]),
    };
    let ways = [(Way::Relay, relayed), (Way::Direct, direct)];
    let mut rows = Vec::new();
    for (way, compression) in ways.into_iter().flat_map(|(way, all)| all.iter().map(move |it| (way, *it))) {
        if !setting.compression.is_empty() && !setting.compression.contains(&(compression as u8)) {
            continue;
        }
        let (_, alone, together) = predicted[compression - 1];
        let seconds = if way == Way::Direct { alone } else { together };
        let least = if compression == 1 { ROUNDS_OF_GOALS } else { 1.0 };
        let count = if setting.quick { 2 } else { (SECONDS / seconds).clamp(least, ROUNDS) as usize };
        eprintln!("links: {}, r_c = {compression}: {} rounds of some {seconds:.1} s", way.name(), count + 1);
        rows.push(row(setting, compression, way, seconds, &rounds(setting, compression, way, count)?));
    }
    Ok(Times { unshaped, rows, ring, predicted })
}

impl Times {
    fn seconds(&self, compression: usize, way: Way) -> f64 {
        let mut rows = self.rows.iter().filter(|row| (row.compression, row.way) == (compression, way));
        rows.next().map_or(f64::NAN, |row| row.seconds.median())
    }

    pub fn goals(&self) -> Goals {
        let relayed = self.seconds(Setting::COMPRESSION, Way::Relay);
        let direct = self.seconds(1, Way::Direct) / relayed;
        let what = format!("round with r_c = 1, direct / with r_c = {}, relayed", Setting::COMPRESSION);
        let mut goals = vec![goal("A1", what, Bound::AtLeast(5.0), direct)];
        if let Some(ring) = &self.ring {
            let what = format!("round with r_c = {}, relayed / gloo's ring all-reduce", Setting::COMPRESSION);
            goals.push(goal("A2", what, Bound::AtMost(1.5), relayed / ring.seconds.median()));
        }
        Goals(goals)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns = ["what", "round s", "predicted s", "daemon sends, updates", "gets, updates", "CPU s of all"];
        let mut table = Table::new("Rounds over r_c: median (least to most)", &columns);
        let shaped = self.rows.iter().map(|row| (row, ""));
        for (row, more) in [(&self.unshaped, ", links not shaped")].into_iter().chain(shaped) {
            table.push(vec![
                Cell::Text(format!("{}, r_c = {}{more}", row.way.name(), row.compression)),
                Cell::Figure(row.seconds.clone()),
                if more.is_empty() { Cell::Number(row.predicted) } else { Cell::Nothing },
                Cell::Figure(row.sent.clone()),
                Cell::Figure(row.received.clone()),
                Cell::Figure(row.cpu.clone()),
            ]);
        }
        if let Some(Ring { seconds, sent }) = &self.ring {
            table.push(vec![
                Cell::Text("gloo's ring (a worker's bytes)".into()),
                Cell::Figure(seconds.clone()),
                Cell::Nothing,
                Cell::Figure(sent.clone()),
                Cell::Nothing,
                Cell::Nothing,
            ]);
        }
        writeln!(f, "{table}")
    }
}
