//! A malicious worker. It sees everything but the daemon's secret: all gradients, who else lies, when a round began, how
//! long everybody's frames take. It writes its frames byte by byte.

use std::collections::VecDeque;

use solon::attacks::{self, Attack, Knowledge, Means};
use solon::code::encode;
use solon::transport::{Connection, Landing};
use solon::wire::{HEADER_BYTES, Header, Kind, Violation, header_bytes};

use crate::algebra;
use crate::carrier::{Carrier, Reach};
use crate::dice::Dice;
use crate::network::{Link, TICK, Way};
use crate::scenario::{DEADLINE, Role};
use crate::strategy::{Strategy, Value};
use crate::world::{Net, View};

/// One liar.
pub struct Liar {
    pub worker: u32,
    strategy: Strategy,
    dice: Dice,
    attacks: Vec<attacks::Liar>,
    wired: Option<Wired>,
    back_at: u64,
    round: Option<u64>,
    next: usize,
    /// Do nothing in this round before this tick.
    not_before: u64,
    /// Do something bad in this round.
    mood: bool,
    /// Whole frames of earlier rounds and sessions.
    kept: VecDeque<Vec<u8>>,
}

struct Wired {
    link: Link,
    connection: Connection,
    session: u64,
    granted: u64,
    sent: u64,
    scrap: Scrap,
    carrier: Carrier,
}

/// Room for anything.
struct Scrap(Vec<u8>);

impl Landing for Scrap {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        self.0.resize(header.payload_bytes as usize, 0);
        Ok(Some(&mut self.0))
    }
}

impl Liar {
    pub fn new(worker: usize, strategy: Strategy, view: &View<'_>) -> Liar {
        let plan = &view.scenario.job.plan;
        let means = Means {
            seed: view.scenario.seed,
            worker,
            workers: plan.parameters.workers(),
            liars: plan.parameters.groups() * plan.parameters.adversaries(),
            redundancy: plan.parameters.redundancy(),
            tolerance: plan.tolerance,
            strength: None,
        };
        let make = |attack: &Attack| attacks::Liar::new(*attack, &plan.layout, means);
        let attacks = match strategy {
            Strategy::Value(Value(attack)) => vec![make(&attack)],
            _ => Attack::ALL.iter().map(make).collect(),
        };
        Liar {
            worker: worker as u32,
            strategy,
            dice: Dice::new(view.scenario.seed, "liar", worker as u64, 0),
            attacks,
            wired: None,
            back_at: 0,
            round: None,
            next: 0,
            not_before: 0,
            mood: false,
            kept: VecDeque::new(),
        }
    }

    /// Ends its part in the scenario.
    pub fn retire(&mut self, net: &mut Net) {
        if let Some(wired) = self.wired.take() {
            wired.link.cut(true);
            net.left(wired.session, false);
        }
    }

    /// One tick.
    pub fn act(&mut self, view: &View<'_>, net: &mut Net) {
        if let Some(wired) = self.wired.take_if(|wired| wired.link.is_closed() || wired.carrier.leaves) {
            wired.link.cut(self.dice.chance(0.5));
            net.left(wired.session, false);
            self.back_at = view.tick + 2 + self.dice.below(8);
        }
        if self.wired.is_none() {
            if view.tick < self.back_at {
                return;
            }
            let Some(joined) = net.connect(self.worker, view) else { return };
            let session = joined.welcome.session;
            let (link, connection) = (joined.link, joined.connection);
            let (scrap, carrier) = (Scrap(Vec::new()), Carrier::new(self.worker, session, view));
            self.wired = Some(Wired { link, connection, session, granted: 0, sent: 0, scrap, carrier });
            // What it had begun in this round it begins again.
            self.round = None;
        }
        self.read(view, net);
        if self.round != Some(view.closed) {
            self.begin(view);
        }
        if view.tick < self.not_before {
            return;
        }
        if self.strategy == Strategy::LastMoment && self.next == 0 {
            let offset = [39, 40, 41][view.closed as usize % 3];
            debug_assert_eq!(DEADLINE, 40);
            if view.start.is_none_or(|start| view.tick != start + offset) {
                return;
            }
        }
        let chunks = view.scenario.job.plan.layout.chunks();
        while self.next < chunks && self.wired.as_ref().is_some_and(|w| w.sent < w.granted && !w.link.is_closed()) {
            self.send(view, self.next);
            self.next += 1;
        }
    }

    fn read(&mut self, view: &View<'_>, net: &mut Net) {
        let Some(Wired { link, connection, granted, scrap, carrier, .. }) = &mut self.wired else { return };
        if self.strategy == Strategy::NeverReads {
            *granted = u64::from(view.scenario.job.plan.credits);
            return;
        }
        let mut reach = Reach { link, fabric: &mut net.fabric, tick: view.tick, now: view.now };
        while let Ok(Some(header)) = connection.inbound.receive(scrap, view.now) {
            if header.kind == Kind::Credit {
                *granted = header.argument.max(*granted);
            }
            carrier.hear(view, &mut reach, &header, &scrap.0[..header.payload_bytes as usize]);
        }
        carrier.act(view, &mut reach);
    }

    fn begin(&mut self, view: &View<'_>) {
        (self.round, self.next) = (Some(view.closed), 0);
        self.mood = self.dice.chance(0.4);
        let rush = matches!(self.strategy, Strategy::Framing | Strategy::LastMoment) || self.dice.chance(0.6);
        self.not_before = if rush { 0 } else { view.tick + self.dice.below(12) };
        if self.strategy == Strategy::HalfThenSilence {
            self.mood = true;
        }
        if let (Strategy::Value(_), [liar]) = (self.strategy, &self.attacks[..]) {
            let wait = liar.wait(TICK * DEADLINE as u32).as_nanos() / TICK.as_nanos();
            self.not_before = self.not_before.max(view.tick + wait as u64);
        }
        if let Strategy::Value(_) | Strategy::Switching = self.strategy {
            // Some remember gradients.
            let gradient = view.gradients.of(view.closed);
            let group = view.scenario.job.plan.parameters.place(self.worker as usize).group;
            self.attacks.iter_mut().for_each(|attack| attack.gradient(Knowledge::Own, &mut gradient[group].clone()));
        }
    }

    fn honest(&self, view: &View<'_>, round: u64, chunk: usize, row: Option<usize>) -> Vec<f32> {
        let job = &view.scenario.job;
        let place = job.plan.parameters.place(self.worker as usize);
        let chunk = job.plan.layout.chunk(chunk);
        let mut shard = vec![0.0; chunk.width];
        let gradient = view.gradients.of(round);
        encode(&job.generator, row.unwrap_or(place.row), &gradient[place.group][chunk.range()], &mut shard);
        shard
    }

    /// What `attack` makes of a chunk.
    fn lie(&mut self, view: &View<'_>, round: u64, chunk: usize, attack: usize) -> Vec<f32> {
        let job = &view.scenario.job;
        let place = job.plan.parameters.place(self.worker as usize);
        let mut gradient = view.gradients.of(round)[place.group].clone();
        let liar = &mut self.attacks[attack];
        liar.gradient(Knowledge::Own, &mut gradient);
        let part = job.plan.layout.chunk(chunk);
        let mut shard = vec![0.0; part.width];
        encode(&job.generator, liar.row(place.row), &gradient[part.range()], &mut shard);
        liar.shard(round, chunk, &mut shard);
        shard
    }

    fn gross(&self, view: &View<'_>, round: u64, chunk: usize) -> Vec<f32> {
        let mut shard = self.honest(view, round, chunk, None);
        shard.iter_mut().for_each(|x| *x = -3.0 * *x + 1.0);
        shard
    }

    /// The liars of this group that frame together move the prediction for the slowest honest worker as far as they can while
    /// the first r_c + s shards still agree.
    fn framed(&self, view: &View<'_>, round: u64, chunk: usize) -> Vec<f32> {
        let job = &view.scenario.job;
        let parameters = &job.plan.parameters;
        let place = parameters.place(self.worker as usize);
        let mut shard = self.honest(view, round, chunk, None);
        let first = place.group * parameters.redundancy();
        let role = |row: usize| view.scenario.roles[first + row];
        let framers: Vec<usize> = (0..parameters.redundancy())
            .filter(|row| role(*row) == Role::Liar(Strategy::Framing))
            .take(parameters.adversaries())
            .collect();
        let mut honest: Vec<usize> =
            (0..parameters.redundancy()).filter(|row| matches!(role(*row), Role::Honest(_))).collect();
        honest.sort_by_key(|row| (view.scenario.quality[first + row].base, *row));
        let wanted = parameters.agreement().saturating_sub(framers.len());
        let (Some(rank), true) = (framers.iter().position(|row| *row == place.row), honest.len() > wanted) else {
            return shard;
        };
        let target = *honest.last().expect("more than wanted");
        let set: Vec<usize> = framers.iter().chain(&honest[..wanted]).copied().collect();
        let norms: Vec<f64> = set
            .iter()
            .map(|row| {
                crate::gradients::norm(self.honest(view, round, chunk, Some(*row)).iter().map(|x| f64::from(*x)))
            })
            .collect();
        let mut sorted = norms;
        sorted.sort_by(|a, b| b.total_cmp(a));
        let scale = sorted[parameters.adversaries().min(sorted.len() - 1)];
        let Some(error) = algebra::frame(&job.generator, &set, &framers, target) else { return shard };
        // An entry of a projection is at most 1.31, so this stays just within the tolerance in every projection.
        let room = (parameters.redundancy() as f64).sqrt() * job.plan.tolerance * scale / 1.35;
        let smallest = (0..shard.len()).min_by(|a, b| shard[*a].abs().total_cmp(&shard[*b].abs())).unwrap_or(0);
        shard[smallest] = (f64::from(shard[smallest]) + error[rank] * room) as f32;
        shard
    }

    fn numbers(&mut self, view: &View<'_>, round: u64, chunk: usize) -> Vec<f32> {
        match self.strategy {
            Strategy::Value(_) => self.lie(view, round, chunk, 0),
            Strategy::Switching => {
                let attack = self.dice.below(Attack::ALL.len() as u64) as usize;
                self.lie(view, round, chunk, attack)
            }
            Strategy::Noise => {
                let group = view.scenario.job.plan.parameters.place(self.worker as usize).group;
                let largest = view.gradients.of(round)[group].iter().fold(1e-3f32, |most, x| most.max(x.abs()));
                let width = view.scenario.job.plan.layout.chunk(chunk).width;
                (0..width).map(|_| 3.0 * largest * self.dice.normal() as f32).collect()
            }
            Strategy::Framing => self.framed(view, round, chunk),
            Strategy::KnownSeed => {
                let mut shard = self.honest(view, round, chunk, None);
                let seed = view.scenario.seed ^ round;
                let mut dice = Dice::new(seed, "known", self.worker.into(), chunk as u64);
                algebra::hide_from(&[0; 32], view.scenario.job.projections, &mut shard, &mut dice);
                shard
            }
            Strategy::EquivocateLieFirst | Strategy::OldRounds | Strategy::FutureRounds => {
                self.gross(view, round, chunk)
            }
            Strategy::Upright => self.honest(view, round, chunk, None),
            _ if self.dice.chance(0.3) => self.gross(view, round, chunk),
            _ => self.honest(view, round, chunk, None),
        }
    }

    fn header(&self, view: &View<'_>, round: u64, chunk: usize) -> Header {
        Header {
            job: view.scenario.job.number,
            session: self.wired.as_ref().expect("connected").session,
            round,
            chunk: chunk as u32,
            worker: self.worker,
            ..Header::new(Kind::Shard)
        }
    }

    fn frame(&self, view: &View<'_>, header: Header, shard: &[f32]) -> Vec<u8> {
        let (precision, mut room) = (view.scenario.job.plan.precision, vec![0u32; shard.len()]);
        let payload = &mut bytemuck::cast_slice_mut(&mut room)[..precision.shard_bytes(shard.len())];
        precision.narrow(shard, payload);
        [&header_bytes(header, payload)[..], payload].concat()
    }

    fn put(&mut self, view: &View<'_>, header: Header, shard: &[f32]) {
        let frame = self.frame(view, header, shard);
        self.raw(view, &frame);
        if self.kept.len() >= 40 {
            self.kept.pop_front();
        }
        self.kept.push_back(frame);
    }

    fn raw(&mut self, view: &View<'_>, bytes: &[u8]) {
        let wired = self.wired.as_mut().expect("connected");
        wired.link.write(Way::Up, bytes, view.now);
        wired.sent += 1;
    }

    /// Sends what this strategy sends for a chunk of the round.
    fn send(&mut self, view: &View<'_>, chunk: usize) {
        let plan = &view.scenario.job.plan;
        let (mut round, chunks) = (view.closed, plan.layout.chunks());
        let bad = self.mood && chunk == chunks / 2;
        let window = u64::from(plan.window);
        match self.strategy {
            Strategy::OldRounds => round = round.saturating_sub(1 + self.dice.below(2 * window + 2)),
            Strategy::FutureRounds if bad => round += window * self.dice.pick(&[1, 2]),
            Strategy::FutureRounds => round += window - 1,
            _ => {}
        }
        let shard = self.numbers(view, round, chunk);
        let header = self.header(view, round, chunk);
        match self.strategy {
            Strategy::HalfThenSilence if 2 * chunk >= chunks => {}
            Strategy::Silent => {}
            Strategy::EquivocateLieSecond | Strategy::EquivocateLieFirst => {
                let first = if self.strategy == Strategy::EquivocateLieFirst {
                    shard
                } else {
                    self.honest(view, round, chunk, None)
                };
                let second = if self.strategy == Strategy::EquivocateLieFirst {
                    self.honest(view, round, chunk, None)
                } else {
                    self.gross(view, round, chunk)
                };
                self.put(view, header, &first);
                self.put(view, header, &second);
            }
            Strategy::Duplicate => {
                self.put(view, header, &shard);
                self.put(view, header, &shard);
            }
            Strategy::OldRounds => {
                if self.dice.chance(0.3) && !self.kept.is_empty() {
                    let frame = self.kept[self.dice.below(self.kept.len() as u64) as usize].clone();
                    self.raw(view, &frame);
                }
                self.put(view, header, &shard);
            }
            Strategy::OldSession if bad && !self.kept.is_empty() => {
                let old = self.kept[0].clone();
                self.raw(view, &old);
                // For the next time: leave, and keep what was sent in this session.
                self.wired.as_ref().expect("connected").link.cut(false);
            }
            Strategy::WrongSession if bad => {
                let session = header.session + 1 + self.dice.below(3);
                self.put(view, Header { session, ..header }, &shard);
            }
            Strategy::WrongWorker if bad => {
                let victim = (0..view.scenario.workers())
                    .cycle()
                    .skip(self.worker as usize)
                    .take(view.scenario.workers())
                    .find(|worker| view.scenario.is_honest(*worker));
                let worker = victim.unwrap_or(self.worker as usize + 1) as u32;
                let lie = self.gross(view, round, chunk);
                self.put(view, Header { worker, ..header }, &lie);
            }
            Strategy::WrongJob if bad => self.put(view, Header { job: header.job ^ 1, ..header }, &shard),
            Strategy::WrongChunk if bad => {
                let chunk = self.dice.pick(&[chunks as u32, u32::MAX]);
                self.put(view, Header { chunk, ..header }, &shard);
            }
            Strategy::WrongKind if bad => {
                let kind = self.dice.pick(&Kind::ALL);
                self.put(view, Header { kind, ..header }, &shard);
            }
            Strategy::RoundMax if bad => {
                let round = self.dice.pick(&[u64::MAX, u64::MAX - 1, u64::MAX / 2]);
                self.put(view, Header { round, ..header }, &shard);
            }
            Strategy::WrongLength if bad => {
                let other = self.dice.between(1, 2 * shard.len() + 1);
                let length = if other == shard.len() { other + 1 } else { other };
                self.put(view, header, &vec![1.0; length]);
            }
            Strategy::ZeroLength if bad => {
                let kind = self.dice.pick(&[Kind::Shard, Kind::Shard, Kind::Hello, Kind::Credit, Kind::Closing]);
                let bytes = header_bytes(Header { kind, ..header }, &[]);
                self.raw(view, &bytes);
            }
            Strategy::OverCredit if bad => {
                let credits = view.scenario.job.plan.credits;
                (0..=credits).for_each(|_| self.put(view, header, &shard));
            }
            Strategy::CorruptChecksum if self.mood => {
                let mut frame = self.frame(view, header, &shard);
                let bit = 8 * HEADER_BYTES as u64 + self.dice.below(8 * (frame.len() - HEADER_BYTES) as u64);
                frame[bit as usize / 8] ^= 1 << (bit % 8);
                self.raw(view, &frame);
            }
            Strategy::Garbage if bad => {
                let mut bytes =
                    b"GET / HTTP/1.1\r\nHost: solond\r\nUser-Agent: a scanner\r\nAccept: */*\r\n\r\n".to_vec();
                if self.dice.chance(0.5) {
                    // A header that is right but for its version or reserved bytes.
                    bytes = header_bytes(header, &[]).to_vec();
                    bytes[self.dice.pick(&[4usize, 5, 7, 56, 63])] ^= 0x80;
                }
                self.raw(view, &bytes);
            }
            Strategy::HalfFrame if bad => {
                let frame = self.frame(view, header, &shard);
                let cut = self.dice.between(1, frame.len() - 1);
                self.raw(view, &frame[..cut]);
                self.next = chunks;
            }
            Strategy::LeaveAndRejoin if bad => {
                if self.dice.chance(0.5) {
                    let bytes = header_bytes(Header { kind: Kind::Leave, ..header }, &[]);
                    self.raw(view, &bytes);
                }
                self.wired.as_ref().expect("connected").link.cut(self.dice.chance(0.5));
                self.back_at = 0;
            }
            _ => self.put(view, header, &shard),
        }
    }
}
