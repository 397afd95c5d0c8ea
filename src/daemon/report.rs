//! What the pipeline tells, as log lines: at most a few per worker and second.

use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::pipeline::{Event, Spent};
use crate::wire::{Report, RoundOutcome, WorkerSet};

/// Lines about one worker in one second.
const LINES_PER_SECOND: u32 = 10;

/// Writes events to the log.
pub struct Reporter {
    lines: Vec<u32>,
    since: Option<Instant>,
    suppressed: u64,
}

impl Reporter {
    /// A reporter for a job of `workers` workers.
    pub fn new(workers: usize) -> Reporter {
        Reporter { lines: vec![0; workers], since: None, suppressed: 0 }
    }

    fn may_write(&mut self, worker: usize, now: Instant) -> bool {
        if self.since.is_none_or(|since| now.saturating_duration_since(since) >= Duration::from_secs(1)) {
            if self.suppressed > 0 {
                tracing::warn!(lines = self.suppressed, "log lines about workers suppressed");
            }
            self.lines.fill(0);
            self.suppressed = 0;
            self.since = Some(now);
        }
        let Some(lines) = self.lines.get_mut(worker) else { return false };
        *lines += 1;
        self.suppressed += u64::from(*lines > LINES_PER_SECOND);
        *lines <= LINES_PER_SECOND
    }

    /// Writes one event.
    pub fn write(&mut self, event: &Event, now: Instant) {
        match *event {
            Event::Joined { worker, round } => {
                if self.may_write(worker as usize, now) {
                    tracing::info!(worker, round, "worker joined");
                }
            }
            Event::Left { worker, why } => {
                if self.may_write(worker as usize, now) {
                    tracing::info!(worker, why = %why, "worker left");
                }
            }
            Event::FellBack { worker, why } => {
                if self.may_write(worker as usize, now) {
                    tracing::warn!(worker, why = %why, "RDMA connection ended: the session goes on by TCP");
                }
            }
            Event::NotReading { worker } => {
                if self.may_write(worker as usize, now) {
                    tracing::warn!(worker, "worker does not take its update: session ended");
                }
            }
            Event::Unrelayed { worker, why } => {
                if self.may_write(worker as usize, now) {
                    tracing::info!(worker, why = %why, "worker gets every update from here, and passes none on");
                }
            }
            Event::NoLink { worker, peer } => {
                if self.may_write(worker as usize, now) {
                    tracing::info!(
                        worker,
                        peer,
                        "two workers do not reach each other, and get from here what the other one carries: \
                         `solon doctor --peer` between them says why"
                    );
                }
            }
            Event::Way { relayed, before, now } => {
                let (way, other) = if relayed { ("relay", "direct") } else { ("direct", "relay") };
                let ms = |took: std::time::Duration| took.as_secs_f64() * 1e3;
                tracing::info!(
                    way,
                    ms = ms(now),
                    other,
                    other_ms = ms(before),
                    "updates go the faster way: most workers have one so long after its round's end"
                );
            }
            Event::BadCarrier { worker, wrong } => {
                if self.may_write(worker as usize, now) {
                    let what = if wrong { "wrong" } else { "late" };
                    tracing::warn!(
                        worker,
                        what,
                        "bad carrier: worker passes updates on late or wrong, and is not asked to"
                    );
                }
            }
            Event::OtherDigest { worker, round } => {
                if self.may_write(worker as usize, now) {
                    tracing::error!(worker, round, "worker holds another update of this round than was pushed");
                }
            }
            Event::Closed { round, ref report, duration, spent } => self.closed(round, report, duration, spent, now),
        }
    }

    fn closed(&mut self, round: u64, report: &Report, duration: Duration, spent: Spent, now: Instant) {
        for worker in report.liars.iter() {
            if self.may_write(worker, now) {
                tracing::warn!(worker, round, "worker lied: its shard does not fit those of its group");
            }
        }
        for worker in report.late_liars.iter() {
            if self.may_write(worker, now) {
                tracing::warn!(
                    worker,
                    before = round,
                    "worker lied in an earlier round: found when its shard came late"
                );
            }
        }
        let ms = duration.as_secs_f64() * 1e3;
        match report.outcome {
            RoundOutcome::Complete => tracing::debug!(
                round,
                ms,
                last_shard = machine_seconds(spent.last),
                closed = machine_seconds(spent.closed),
                locate_ms = spent.locate.as_secs_f64() * 1e3,
                decode_ms = spent.decode.as_secs_f64() * 1e3,
                residual = f64::from(report.residual_ratio),
                liars = %list(&report.liars),
                absent = %list(&report.absent),
                "round complete"
            ),
            RoundOutcome::Undecodable { group, chunk, reason } => tracing::error!(
                round,
                ms,
                group,
                chunk,
                absent = %list(&report.absent),
                "round undecodable: {reason}"
            ),
        }
    }
}

/// An instant as seconds of the clock that all processes of the machine share, so that others can place it among their own.
fn machine_seconds(at: Instant) -> f64 {
    let (clock, now) = (clock_gettime(ClockId::Monotonic), Instant::now());
    let seconds = clock.tv_sec as f64 + clock.tv_nsec as f64 * 1e-9;
    seconds - now.saturating_duration_since(at).as_secs_f64()
}

/// Indices, for a field of the log.
pub fn list(workers: &WorkerSet) -> String {
    workers.iter().map(|worker| worker.to_string()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_worker_cannot_flood_the_log_nor_silence_another() {
        let mut reporter = Reporter::new(2);
        let now = Instant::now();
        let written = (0..1000).filter(|_| reporter.may_write(0, now)).count();
        assert_eq!(written as u32, LINES_PER_SECOND);
        assert!(reporter.may_write(1, now));
        assert!(reporter.may_write(0, now + Duration::from_secs(1)));
        assert!(!reporter.may_write(7, now), "no such worker");
    }
}
