//! What the [`Ledger`] looks at when the daemon has nothing left to do in a tick.

use solon::pipeline::{Board, Counter};
use solon::wire::Said;

use super::{Accusation, Ledger, Member, PAIR_OFF, Promise, State};
use crate::oracle::Oracle;
use crate::probes::{Probe, Probes};
use crate::scenario::{Habit, Role};

impl Ledger {
    /// The end of a tick; `alive`: does this session go on?
    pub fn tick_over(
        &mut self,
        board: &Board,
        closed: u64,
        tick: u64,
        alive: impl Fn(u32, u64) -> bool,
        probes: &mut Probes,
    ) {
        let count = |counter| board.counted(counter);
        let before = std::mem::replace(&mut self.before, closed);
        let unasked = count(Counter::RepairsUnasked);
        let certain = unasked == std::mem::replace(&mut self.unasked, unasked);
        for (worker, round, chunk) in std::mem::take(&mut self.fresh) {
            let member = self.members[worker as usize].as_ref().filter(|member| alive(worker, member.session));
            let promise = member.and_then(|member| member.promises.get(&(round, chunk)));
            self.carried_least += promise.map_or(0, |promise| promise.bytes);
        }
        for Accusation { worker, carrier, session, wrong, round } in std::mem::take(&mut self.accused) {
            let here = |it: u32| self.members[it as usize].as_ref().map(|member| member.session);
            let living = here(carrier) == Some(session) && alive(carrier, session);
            let sure = certain && living && here(worker).is_some_and(|session| alive(worker, session));
            if !sure {
                // If it was heard, the pair is off since then, and no longer by the next complaint.
                self.records[carrier as usize].vague.insert(worker);
            } else if !self.records[carrier as usize].vague.contains(&worker) {
                let record = &mut self.records[carrier as usize];
                // A complaint while the pair is off does not make that longer.
                record.sure.entry(worker).or_insert(round);
                if wrong {
                    record.wrong_too.insert(worker);
                }
            }
        }
        let tolerated = self.tolerated();
        for (carrier, record) in self.records.iter().enumerate() {
            let valid = record.sure.iter().filter(|(_, at)| closed < **at + PAIR_OFF);
            let (all, wrong) = valid.fold((0, 0), |(all, wrong), (worker, _)| {
                (all + 1, wrong + usize::from(record.wrong_too.contains(worker)))
            });
            let named = record.bad.is_some_and(|(for_ever, _)| for_ever || wrong <= tolerated);
            if (wrong > tolerated || all > 2 * tolerated) && !named {
                let what = format!("{wrong} workers got wrong chunks from worker {carrier}, {all} wrong or late ones");
                self.found.get_or_insert((Oracle::Unnamed, closed, what));
            }
        }
        let mut lied = std::mem::take(&mut self.lied);
        lied.retain(|(worker, _, said)| !self.was_lucky(*worker, *said, tick));
        let guessed = std::mem::take(&mut self.guessed);
        guessed.into_iter().for_each(|(worker, said)| _ = self.was_lucky(worker, Some(said), tick));
        for (worker, session, _) in lied {
            self.doubtful.insert((worker, session));
            if self.ended.insert((worker, session)) {
                probes.hit(Probe::BadWord);
            }
            if alive(worker, session) {
                self.fail(Oracle::Gate, closed, format!("worker {worker} said what it may not, and goes on"));
            }
        }
        let given_up = std::mem::take(&mut self.given_up);
        for (worker, round, chunk) in given_up.iter().copied() {
            // If most wait it is their carrier's doing.
            let waiting = given_up.iter().filter(|it| (it.1, it.2) == (round, chunk)).count();
            let targets = self.targets.get(&(round, chunk)).copied().unwrap_or(0);
            if waiting > tolerated && 2 * waiting >= targets {
                probes.hit(Probe::MostWait);
                continue;
            }
            if let Some(member) = self.members[worker as usize].as_mut().filter(|_| self.declined.is_empty()) {
                probes.hit(Probe::GaveUp);
                // One carrier that brings half a chunk makes others look silent: it takes more than can be liars.
                let mine = given_up.iter().filter(|it| it.0 == worker);
                let carriers = mine.filter_map(|it| member.promises.get(&(it.1, it.2))?.carrier);
                if carriers.collect::<std::collections::BTreeSet<_>>().len() <= tolerated {
                    probes.hit(Probe::Doubted);
                    continue;
                }
                // Not longer, if it was before.
                let over = member.silent.is_none_or(|at| closed > at + PAIR_OFF);
                member.silent = if over { Some(before) } else { member.silent };
            }
        }
        for (carrier, session, round, chunk) in std::mem::take(&mut self.declined) {
            let waits = |member: &Member| {
                let promise = member.promises.get(&(round, chunk));
                promise.is_some_and(|it| it.state == State::Open && it.carrier == Some(carrier) && it.tick < tick)
            };
            if alive(carrier, session) && self.members.iter().flatten().any(waits) {
                self.fail(Oracle::Stuck, round, format!("worker {carrier} declined chunk {chunk}, and nobody sent it"));
            }
        }
        self.look_for_silence(closed, tick);
        let carried = count(Counter::UpdateBytesCarried);
        if !(self.carried_least..=self.carried_most).contains(&carried) {
            let (least, most) = (self.carried_least, self.carried_most);
            self.fail(Oracle::Counters, closed, format!("{least} to {most} bytes were carried, {carried} counted"));
        }
        let repairs = count(Counter::RepairsLate) + count(Counter::RepairsWrong);
        let sums = [
            ("bytes of updates sent", self.update_bytes, count(Counter::UpdateBytesSent)),
            ("bytes of announcements", self.announce_bytes, count(Counter::AnnounceBytes)),
            ("repairs, at most the chunks that were fetched", repairs.max(self.fetches), self.fetches),
        ];
        for (what, seen, counted) in sums {
            if seen != counted {
                self.fail(Oracle::Counters, closed, format!("{what}: {seen} seen, {counted} counted"));
            }
        }
        let old = closed.saturating_sub(2 * u64::from(self.scenario.job.plan.window) + 4);
        for member in self.members.iter_mut().flatten() {
            member.promises.retain(|(round, _), promise| *round >= old || promise.state == State::Open);
        }
        self.targets.retain(|(round, _), _| *round >= old);
    }

    /// An honest worker answers for everything that is announced to it as long as it may take, at the latest.
    fn look_for_silence(&mut self, closed: u64, tick: u64) {
        let scenario = self.scenario.clone();
        let layout = &scenario.job.plan.layout;
        // As the worker has it: eight times the time of a repair, or 10 MB/s to everybody.
        let all = (scenario.workers() * 4 * layout.chunk(0).len).div_ceil(10_000) as u64;
        let longest = (8 * scenario.repair()).max(all) + scenario.repair() / 8 + 2;
        for (worker, member) in self.members.iter().enumerate() {
            let (Some(member), Role::Honest(Habit::Steady | Habit::Slow)) = (member, scenario.roles[worker]) else {
                continue;
            };
            if scenario.faults[worker].is_some() {
                continue;
            }
            let quality = &scenario.quality[worker];
            let bound = longest + 2 * (quality.base + quality.jitter) + 4;
            let silent = |(_, it): &(&(u64, u32), &Promise)| it.state == State::Open && tick > it.tick + bound;
            if let Some(((round, chunk), promise)) = member.promises.iter().find(silent) {
                let what = format!(
                    "worker {worker} has said nothing of chunk {chunk} of round {round} for {} ticks",
                    tick - promise.tick
                );
                self.found.get_or_insert((Oracle::Stuck, closed, what));
            }
        }
    }

    /// What a worker said of a chunk that was announced to it in this very tick, before it was heard: then it is an answer.
    fn was_lucky(&mut self, worker: u32, said: Option<Said>, tick: u64) -> bool {
        let (Some(Said::Have { round, chunk } | Said::Fetch { round, chunk, .. }), Some(member)) =
            (said, &mut self.members[worker as usize])
        else {
            return false;
        };
        let promise = member.promises.get_mut(&(round, chunk));
        let Some(promise) = promise.filter(|it| it.tick == tick && it.state != State::Had) else { return false };
        member.strays -= 1;
        promise.state = State::Had;
        true
    }
}
