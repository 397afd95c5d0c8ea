//! The oracles of the relay: a second bookkeeping of who was promised which chunk by whom, kept from what workers say and what they are
//! sent, and compared with what the daemon does.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use solon::wire::{HEADER_BYTES, Header, Kind, Said, Why};

use crate::carrying::Carrying;
use crate::fabric::Crossing;
use crate::oracle::Oracle;
use crate::probes::{Probe, Probes};
use crate::scenario::{Habit, Role, Scenario};
use crate::tap::Note;

#[path = "audit.rs"]
mod audit;

/// Rounds for which a pair is off at least after a complaint.
const PAIR_OFF: u64 = 4;
/// Rounds for which a carrier is off at least.
const CARRIER_OFF: u64 = 64;

/// A chunk that a worker waits for, or that it once waited for in this session.
#[derive(Clone, Copy, PartialEq)]
enum State {
    Open,
    Had,
    Fetched,
    /// The daemon sent it of itself.
    Sent,
}

#[derive(Clone, Copy)]
struct Promise {
    /// `None`: its session has ended.
    carrier: Option<u32>,
    bytes: u64,
    state: State,
    tick: u64,
}

/// What is known of a worker's session that was told of the relay.
#[derive(Default)]
struct Member {
    session: u64,
    born: u64,
    linked: BTreeSet<u32>,
    /// No longer linked since this tick.
    parted: BTreeMap<u32, u64>,
    /// It said itself that it is not.
    down: BTreeSet<u32>,
    promises: BTreeMap<(u64, u32), Promise>,
    /// Chunks that the daemon sent it of itself, so that a second word about them is no lie.
    spare: u64,
    strays: u64,
    /// Announced to it, by carrier; and come over links, by who sent them.
    announced: BTreeMap<u32, u64>,
    crossed: BTreeMap<u32, u64>,
    reached: bool,
    /// It did not answer for too long, in this round.
    silent: Option<u64>,
    digests_from: u64,
}

/// What is held against a carrier.
#[derive(Default)]
struct Record {
    complained: BTreeSet<u32>,
    wrong: BTreeSet<u32>,
    /// Beyond doubt: by whom, in which round.
    sure: BTreeMap<u32, u64>,
    wrong_too: BTreeSet<u32>,
    /// Maybe.
    vague: BTreeSet<u32>,
    /// Named bad: for wrong chunks, in which round.
    bad: Option<(bool, u64)>,
}

/// A complaint of this tick.
struct Accusation {
    worker: u32,
    carrier: u32,
    /// The carrier's session.
    session: u64,
    wrong: bool,
    round: u64,
}

/// The second bookkeeping.
pub struct Ledger {
    scenario: Arc<Scenario>,
    members: Vec<Option<Member>>,
    records: Vec<Record>,
    keys: BTreeMap<[u8; 32], (u32, u32)>,
    ordered: BTreeSet<(u64, u64)>,
    update_bytes: u64,
    announce_bytes: u64,
    fetches: u64,
    carried_least: u64,
    carried_most: u64,
    /// Words that said so in this tick, and complaints: heard before or after the daemon acted by itself.
    fresh: Vec<(u32, u64, u32)>,
    /// The first open round before this tick.
    before: u64,
    accused: Vec<Accusation>,
    unasked: u64,
    /// Sessions that said what they may not, and all that may have.
    lied: Vec<(u32, u64, Option<Said>)>,
    /// Answers for what was not announced by then, and that may be right all the same.
    guessed: Vec<(u32, Said)>,
    doubtful: BTreeSet<(u32, u64)>,
    ended: BTreeSet<(u32, u64)>,
    /// Chunks that a carrier has no room for.
    declined: Vec<(u32, u64, u64, u32)>,
    /// Chunks sent unasked in this tick: to whom, of which round, which.
    given_up: Vec<(u32, u64, u32)>,
    /// To how many a chunk was announced.
    targets: BTreeMap<(u64, u32), usize>,
    pub found: Option<(Oracle, u64, String)>,
}

impl Ledger {
    pub fn new(scenario: &Arc<Scenario>) -> Ledger {
        let workers = scenario.workers();
        Ledger {
            scenario: scenario.clone(),
            members: (0..workers).map(|_| None).collect(),
            records: (0..workers).map(|_| Record::default()).collect(),
            keys: BTreeMap::new(),
            ordered: BTreeSet::new(),
            update_bytes: 0,
            announce_bytes: 0,
            fetches: 0,
            carried_least: 0,
            carried_most: 0,
            fresh: Vec::new(),
            before: 0,
            accused: Vec::new(),
            unasked: 0,
            lied: Vec::new(),
            guessed: Vec::new(),
            doubtful: BTreeSet::new(),
            ended: BTreeSet::new(),
            declined: Vec::new(),
            given_up: Vec::new(),
            targets: BTreeMap::new(),
            found: None,
        }
    }

    /// Liars that a job of this shape withstands.
    fn tolerated(&self) -> usize {
        let parameters = &self.scenario.job.plan.parameters;
        parameters.groups() * parameters.adversaries()
    }

    fn fail(&mut self, oracle: Oracle, round: u64, what: String) {
        self.found.get_or_insert((oracle, round, what));
    }

    /// Something was said or sent, while `closed` was the first open round.
    pub fn note(&mut self, note: &Note, closed: u64, tick: u64, probes: &mut Probes) {
        match note {
            Note::Said { worker, session, said } => {
                if self.members[*worker as usize].as_ref().is_some_and(|member| member.session == *session) {
                    self.said(*worker, *said, closed, tick, probes);
                } else {
                    self.doubtful.insert((*worker, *session));
                }
            }
            Note::Sent { worker, session, header, payload } => {
                self.sent(*worker, *session, header, payload, closed, tick, probes);
            }
        }
    }

    fn said(&mut self, worker: u32, said: Said, closed: u64, tick: u64, probes: &mut Probes) {
        let workers = self.members.len() as u32;
        let sessions: Vec<u64> = self.members.iter().map(|it| it.as_ref().map_or(0, |it| it.session)).collect();
        let honest = self.scenario.is_honest(worker as usize);
        let Some(member) = &mut self.members[worker as usize] else { return };
        let session = member.session;
        match said {
            Said::Reach { .. } => {
                let again = std::mem::replace(&mut member.reached, true);
                self.lied.extend(again.then_some((worker, session, None)));
            }
            Said::Linked { peer, .. } if peer >= workers || peer == worker => {
                self.lied.push((worker, session, None));
            }
            Said::Linked { peer, session, up: true } if sessions[peer as usize] == session => {
                member.linked.insert(peer);
                member.down.remove(&peer);
            }
            Said::Linked { peer, session, up: false } if sessions[peer as usize] == session => {
                member.linked.remove(&peer);
                member.parted.insert(peer, tick);
                member.down.insert(peer);
            }
            Said::Have { round, chunk } | Said::Fetch { round, chunk, .. } => {
                let Some(promise) = member.promises.get_mut(&(round, chunk)).filter(|it| it.state == State::Open)
                else {
                    member.strays += 1;
                    // It may be an answer by the time that it is heard.
                    self.fetches += u64::from(matches!(said, Said::Fetch { .. }));
                    let layout = &self.scenario.job.plan.layout;
                    if (chunk as usize) < layout.chunks() {
                        self.carried_most += (HEADER_BYTES + 4 * layout.chunk(chunk as usize).len) as u64;
                    }
                    self.doubtful.insert((worker, session));
                    if member.strays > member.spare {
                        self.lied.push((worker, session, Some(said)));
                    } else {
                        self.guessed.push((worker, said));
                        probes.hit(Probe::StrayAnswer);
                    }
                    return;
                };
                let Said::Fetch { why, .. } = said else {
                    promise.state = State::Had;
                    self.carried_most += promise.bytes;
                    self.fresh.push((worker, round, chunk));
                    return;
                };
                promise.state = State::Fetched;
                self.fetches += 1;
                if honest {
                    probes.hit(match why {
                        Why::Late => Probe::FetchedLate,
                        Why::Wrong => Probe::FetchedWrong,
                        Why::Gone => Probe::FetchedGone,
                    });
                }
                if let Some(carrier) = promise.carrier.filter(|_| why != Why::Gone) {
                    if honest && member.down.contains(&carrier) {
                        let what = format!("worker {worker} complains of worker {carrier}, with which it has no link");
                        return self.fail(Oracle::Framed, closed, what);
                    }
                    let record = &mut self.records[carrier as usize];
                    record.complained.insert(worker);
                    if why == Why::Wrong {
                        record.wrong.insert(worker);
                    }
                    let (wrong, session) = (why == Why::Wrong, sessions[carrier as usize]);
                    self.accused.push(Accusation { worker, carrier, session, wrong, round: closed });
                    if self.scenario.is_honest(carrier as usize) {
                        probes.hit(if honest { Probe::HonestComplaint } else { Probe::FalseComplaint });
                        if honest && why == Why::Wrong {
                            let what = format!("worker {worker} got a wrong chunk from honest worker {carrier}");
                            self.fail(Oracle::Framed, closed, what);
                        }
                    }
                }
            }
            Said::Digest { round, .. } => {
                if round < member.digests_from || round >= closed {
                    self.doubtful.insert((worker, session));
                }
                member.digests_from = member.digests_from.max(round.saturating_add(1));
            }
            Said::Decline { round, chunk } => {
                probes.hit(Probe::Declined);
                if honest {
                    // It gives up a link rather than to decline: so no link holds a slot.
                    self.fail(Oracle::Leak, closed, format!("honest worker {worker} has no slot to carry with"));
                }
                self.declined.push((worker, session, round, chunk));
            }
            _ => {}
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one frame, and when it was sent")]
    fn sent(
        &mut self,
        worker: u32,
        session: u64,
        header: &Header,
        payload: &[u8],
        closed: u64,
        tick: u64,
        probes: &mut Probes,
    ) {
        let bytes = HEADER_BYTES as u64 + u64::from(header.payload_bytes);
        let (round, chunk) = (header.round, header.chunk);
        let window = u64::from(self.scenario.job.plan.window);
        if matches!(header.kind, Kind::Update | Kind::RoundEnd | Kind::Announce) {
            let before = self.given_up.len();
            self.given_up.retain(|(_, old, _)| old + window > round);
            (self.given_up.len()..before).for_each(|_| probes.hit(Probe::Overtaken));
        }
        match header.kind {
            Kind::Relay => {
                self.forget(worker, probes);
                self.members[worker as usize] = Some(Member { session, born: tick, ..Member::default() });
            }
            Kind::Link => {
                let key: [u8; 32] = *payload.first_chunk().expect("the daemon sends whole frames");
                match self.keys.get(&key) {
                    None => _ = self.keys.insert(key, (worker, header.worker)),
                    Some(ends) if *ends == (header.worker, worker) => {
                        // Used up: a third time it is another link's.
                        self.keys.insert(key, (u32::MAX, u32::MAX));
                    }
                    Some(_) => {
                        self.fail(Oracle::Gate, closed, format!("worker {worker} was told a link's key that was used"))
                    }
                }
                if !self.ordered.insert((session, header.round)) {
                    probes.hit(Probe::LinkedAgain);
                }
                for (one, other) in [(worker, header.worker), (header.worker, worker)] {
                    if let Some(member) = &mut self.members[one as usize] {
                        member.linked.remove(&other);
                        member.down.remove(&other);
                    }
                }
            }
            Kind::Carry => self.announce_bytes += bytes,
            Kind::Announce => {
                self.announce_bytes += bytes;
                probes.reached(Probe::Relayed);
                self.announced(worker, header, closed, tick, probes);
            }
            Kind::Update => {
                self.update_bytes += bytes;
                let Some(member) = &mut self.members[worker as usize] else { return };
                let Some(promise) = member.promises.get_mut(&(round, chunk)) else { return };
                if promise.state != State::Fetched {
                    member.spare += 1;
                    self.given_up.push((worker, round, chunk));
                }
                if promise.state == State::Had {
                    // It was sent before what the worker said was heard.
                    self.fresh.retain(|it| *it != (worker, round, chunk));
                    self.carried_most -= promise.bytes;
                }
                if promise.state != State::Fetched {
                    promise.state = State::Sent;
                }
            }
            _ => {}
        }
    }

    fn announced(&mut self, worker: u32, header: &Header, closed: u64, tick: u64, probes: &mut Probes) {
        let (round, chunk, carrier) = (header.round, header.chunk, header.worker);
        let record = &self.records[carrier as usize];
        match record.bad {
            Some((true, _)) => {
                return self.fail(
                    Oracle::Believed,
                    round,
                    format!("worker {carrier} carries, and its chunks were wrong"),
                );
            }
            // What is late is forgiven in the end.
            Some((false, at)) if closed + 1 < at + CARRIER_OFF => {
                return self.fail(
                    Oracle::Believed,
                    round,
                    format!("worker {carrier} carries, and was late in round {at}"),
                );
            }
            Some((false, _)) => probes.reached(Probe::CarriesAgain),
            None => {}
        }
        if self.members[worker as usize].as_ref().is_some_and(|it| it.silent.is_some_and(|at| closed < at + PAIR_OFF)) {
            let what = format!("worker {worker} did not answer, and chunk {chunk} was announced to it");
            return self.fail(Oracle::Believed, round, what);
        }
        match record.sure.get(&worker) {
            Some(at) if closed < at + PAIR_OFF => {
                let what = format!("worker {carrier} carries to worker {worker}, which complained in round {at}");
                return self.fail(Oracle::Believed, round, what);
            }
            Some(_) => {
                probes.hit(Probe::PairAgain);
                self.records[carrier as usize].sure.remove(&worker);
                self.records[carrier as usize].wrong_too.remove(&worker);
            }
            None => {}
        }
        // Of what is said in this tick the daemon may not have heard.
        self.records[carrier as usize].vague.remove(&worker);
        let linked = |one: u32, other: u32| {
            let of = |member: &Member| member.linked.contains(&other) || member.parted.get(&other) == Some(&tick);
            self.members[one as usize].as_ref().is_some_and(of)
        };
        if !linked(worker, carrier) || !linked(carrier, worker) {
            let what = format!("worker {carrier} carries to worker {worker}, and they have no link");
            return self.fail(Oracle::Believed, round, what);
        }
        let layout = &self.scenario.job.plan.layout;
        let bytes = (HEADER_BYTES + 4 * layout.chunk(chunk as usize).len) as u64;
        let promise = Promise { carrier: Some(carrier), bytes, state: State::Open, tick };
        let Some(member) = &mut self.members[worker as usize] else { return };
        *member.announced.entry(carrier).or_default() += 1;
        *self.targets.entry((round, chunk)).or_default() += 1;
        if member.promises.insert((round, chunk), promise).is_some() {
            self.fail(Oracle::Gate, round, format!("chunk {chunk} was announced to worker {worker} twice"));
        }
    }

    /// A chunk crossed a link, or one of its ends ended it.
    pub fn crossed(&mut self, crossing: &Crossing, closed: u64, probes: &mut Probes) {
        let (from, to) = (crossing.from.0, crossing.to.0);
        let steady = |worker: u32| matches!(self.scenario.roles[worker as usize], Role::Honest(habit) if habit != Habit::Freezes);
        let Some(at) = crossing.chunk else {
            probes.hit(Probe::LinkEnded);
            let clogs = |one: u32| self.scenario.carrying[one as usize] == Carrying::Clog;
            if (clogs(from) && steady(to)) || (clogs(to) && steady(from)) {
                probes.hit(Probe::Clogged);
            }
            let holds = |one: u32, other: u32| {
                self.members[one as usize].as_ref().is_some_and(|member| member.linked.contains(&other))
            };
            let fast = self.scenario.between.quality.base + self.scenario.between.quality.jitter <= 3;
            // What they had ends when the daemon orders it anew, and one that is slow may be given up for others.
            if fast && steady(from) && steady(to) && holds(from, to) && holds(to, from) {
                self.fail(Oracle::Thrown, closed, format!("honest workers {from} and {to} ended their link"));
            }
            return;
        };
        let honest = self.scenario.is_honest(to as usize);
        let Some(member) = self.members[to as usize].as_mut().filter(|it| it.session == crossing.to.1 && honest) else {
            return;
        };
        if member.promises.get(&at).is_some_and(|it| it.state == State::Fetched || it.state == State::Sent) {
            probes.hit(Probe::Surplus);
        }
        let crossed = member.crossed.entry(from).or_default();
        *crossed += 1;
        // The one by which it sees that it is more than was announced.
        if *crossed > member.announced.get(&from).copied().unwrap_or(0) + 1 {
            let what = format!("worker {to} took more chunks from worker {from} than were announced");
            self.fail(Oracle::Gate, closed, what);
        }
    }

    /// A carrier was named.
    pub fn named(&mut self, carrier: u32, wrong: bool, closed: u64, tick: u64, probes: &mut Probes) {
        if self.members[carrier as usize].as_ref().is_none_or(|member| member.born == tick) {
            // It left in this tick, and the receiver knew before.
            return;
        }
        let tolerated = self.tolerated();
        let record = &mut self.records[carrier as usize];
        let (of, enough) =
            if wrong { (record.wrong.len(), tolerated) } else { (record.complained.len(), 2 * tolerated) };
        let again = record.bad.replace((wrong, closed)).is_some();
        probes.hit(match (wrong, again) {
            (true, _) => Probe::BadForEver,
            (false, false) => Probe::BadForLong,
            (false, true) => Probe::BadAgain,
        });
        if of <= enough {
            self.fail(
                Oracle::Framed,
                closed,
                format!("worker {carrier} was named bad, and {of} of {enough} complained"),
            );
        }
    }

    /// A worker's session is over.
    pub fn left(&mut self, worker: u32, tick: u64, probes: &mut Probes) {
        // Else it was the one before, which the new one ended.
        if self.members[worker as usize].as_ref().is_some_and(|member| member.born < tick) {
            self.forget(worker, probes);
        }
    }

    fn forget(&mut self, worker: u32, probes: &mut Probes) {
        if self.members[worker as usize].take().is_none() {
            return;
        }
        self.records[worker as usize] = Record::default();
        for record in &mut self.records {
            record.sure.remove(&worker);
            record.wrong_too.remove(&worker);
        }
        let mut held = false;
        for member in self.members.iter_mut().flatten() {
            member.linked.remove(&worker);
            for promise in member.promises.values_mut().filter(|promise| promise.carrier == Some(worker)) {
                promise.carrier = None;
                held |= promise.state == State::Open;
            }
        }
        if held {
            probes.hit(Probe::CarrierLeft);
        }
    }

    /// Sessions that may have been ended for a word.
    pub fn doubtful(&self) -> u64 {
        self.doubtful.len() as u64
    }

    /// Chunks that somebody with a session waits for.
    pub fn open(&self) -> usize {
        let of = |member: &Member| {
            let open = member.promises.iter().filter(|(_, promise)| promise.state == State::Open);
            open.map(|(at, _)| *at).collect::<Vec<_>>()
        };
        self.members.iter().flatten().flat_map(of).collect::<BTreeSet<_>>().len()
    }

    /// A new daemon.
    pub fn restarted(&mut self) {
        *self = Ledger::new(&self.scenario);
    }
}
