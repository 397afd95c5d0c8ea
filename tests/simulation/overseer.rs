//! The judge's part about the relay: it hands on what was said, sent and carried to the [`Ledger`](crate::ledger::Ledger).

use solon::pipeline::{Board, Event};
use solon::wire::{RoundOutcome, Said};

use super::Judge;
use crate::fabric::Crossing;
use crate::oracle::Oracle;
use crate::probes::Probe;
use crate::tap::Note;

impl Judge {
    /// Something was said or sent that has to do with the relay.
    pub fn noted(&mut self, note: &Note) {
        self.note(|| note.to_string());
        if let Note::Said { worker, session, said: Said::Digest { round, digest } } = note {
            let closed = self.rounds.get(round).and_then(|state| state.closed);
            let pushed = closed.filter(|(_, report)| report.outcome == RoundOutcome::Complete);
            // A daemon knows nothing of the digests of the one before it.
            if *round >= self.born && pushed.is_some_and(|(_, report)| report.digest != *digest) {
                self.false_digests.push((*worker, *session, *round));
            }
        }
        self.ledger.note(note, self.closed, self.tick, &mut self.probes);
    }

    /// What crossed links in this tick, and whether the daemon has acted accordingly; `alive`: does this session go on?
    pub fn relayed(&mut self, crossings: &[Crossing], board: &Board, alive: impl Fn(u32, u64) -> bool) {
        let Judge { ledger, probes, closed, tick, false_digests, .. } = self;
        crossings.iter().for_each(|crossing| ledger.crossed(crossing, *closed, probes));
        let unnoticed = std::mem::take(false_digests).into_iter().find(|(worker, session, _)| alive(*worker, *session));
        if let Some((worker, _, round)) = unnoticed {
            let what = format!("worker {worker} told another digest than was pushed, and nobody noticed");
            ledger.found.get_or_insert((Oracle::Differs, round, what));
        }
        ledger.tick_over(board, *closed, *tick, alive, probes);
        if let Some((oracle, round, what)) = self.ledger.found.take() {
            self.fail(oracle, round, what);
        }
    }

    /// Nothing is queued, and so many slots for updates are taken: those of chunks that somebody waits for.
    pub fn slots(&mut self, taken: usize) {
        let open = self.ledger.open();
        if taken > open {
            let what = format!("{taken} slots of updates are taken, and workers wait for {open} chunks");
            self.fail(Oracle::Leak, self.closed, what);
        }
    }

    /// The daemon has found something about a carrier, or a digest.
    pub(super) fn relay_event(&mut self, event: &Event) {
        match event {
            Event::BadCarrier { worker, wrong } => {
                self.hash.update(b"bad").update(&worker.to_le_bytes());
                self.note(|| format!("worker {worker} is a bad carrier, wrong: {wrong}"));
                self.ledger.named(*worker, *wrong, self.closed, self.tick, &mut self.probes);
            }
            Event::OtherDigest { worker, round } => {
                self.note(|| format!("worker {worker} has another digest of round {round}"));
                self.probes.hit(Probe::FalseDigest);
                self.false_digests.retain(|(teller, _, of)| (teller, of) != (worker, round));
                if self.scenario.is_honest(*worker as usize) {
                    self.fail(Oracle::Differs, *round, format!("worker {worker} holds another update"));
                }
            }
            _ => {}
        }
    }
}
