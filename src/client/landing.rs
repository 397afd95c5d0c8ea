//! Where the chunks of updates land: in the caller's buffer, or in one of the session's.

use super::error::Lost;
use crate::transport::Landing;
use crate::wire::{Header, Kind, Plan, REPORT_BYTES, Report, RoundOutcome, Violation};

/// What has come of the rounds that are not collected yet.
pub(super) struct Landed {
    plan: Plan,
    job: u64,
    epoch: u64,
    /// The oldest round that is not collected; `None` before the daemon said which is the first.
    pub(super) oldest: Option<u64>,
    pub(super) rounds: Vec<Round>,
    report: [u8; REPORT_BYTES],
    /// Where frames land that nobody needs any more.
    scrap: Vec<u32>,
    /// The round of a frame that had to wait for room; until that round is here whole.
    pub(super) behind: Option<u64>,
}

pub(super) struct Round {
    update: Vec<f32>,
    pub(super) chunks: Vec<State>,
    complete: usize,
    digest: u64,
    end: Option<Report>,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum State {
    Missing,
    /// Coming or complete, in the caller's buffer or in ours.
    Here {
        direct: bool,
        complete: bool,
    },
}

/// Where a round stands against those that can land.
pub(super) enum Where {
    Past,
    Here(usize),
    Later,
}

/// Has the payloads of one receive land, possibly in the caller's buffer.
pub(super) struct Place<'a> {
    landed: &'a mut Landed,
    direct: Option<&'a mut [f32]>,
}

impl Landed {
    pub(super) fn new(plan: Plan, job: u64, epoch: u64) -> Landed {
        let round = |_| Round {
            // Pages of this that are never touched cost nothing: only what comes while the caller is away lands here.
            update: vec![0.0; plan.layout.dimension()],
            chunks: vec![State::Missing; plan.layout.chunks()],
            complete: 0,
            digest: 0,
            end: None,
        };
        let longest = (4 * plan.layout.chunk(0).len).max(REPORT_BYTES);
        Landed {
            plan,
            job,
            epoch,
            oldest: None,
            rounds: (0..plan.window).map(round).collect(),
            report: [0; REPORT_BYTES],
            scrap: vec![0; longest.div_ceil(4)],
            behind: None,
        }
    }

    pub(super) fn place_in<'a>(&'a mut self, direct: Option<&'a mut [f32]>) -> Place<'a> {
        Place { landed: self, direct }
    }

    fn slot(&self, round: u64) -> usize {
        (round % self.rounds.len() as u64) as usize
    }

    pub(super) fn find(&self, round: u64) -> Where {
        match self.oldest {
            Some(oldest) if round < oldest => Where::Past,
            Some(oldest) if round - oldest < self.rounds.len() as u64 => Where::Here(self.slot(round)),
            _ => Where::Later,
        }
    }

    /// Checks a frame whose payload has landed.
    pub(super) fn take_in(&mut self, header: &Header, direct: Option<&[f32]>) -> Result<(), Lost> {
        let Where::Here(slot) = self.find(header.round) else { return Ok(()) };
        let (number, chunk) = (header.round, header.chunk);
        let round = &mut self.rounds[slot];
        if header.kind == Kind::RoundEnd {
            if !header.verifies(&self.report) {
                return Err(Lost::Damaged { round: number, chunk });
            }
            self.behind = self.behind.filter(|behind| *behind > number);
            round.end = Some(Report::read(&self.report).ok_or(Lost::Damaged { round: number, chunk })?);
            return Ok(());
        }
        let state = &mut round.chunks[chunk as usize];
        let State::Here { direct: into, complete: false } = *state else { return Ok(()) };
        let range = self.plan.layout.chunk(chunk as usize).range();
        let target = match direct {
            Some(buffer) if into => &buffer[range],
            _ => &round.update[range],
        };
        if !header.verifies(bytemuck::cast_slice(target)) {
            return Err(Lost::Damaged { round: number, chunk });
        }
        *state = State::Here { direct: into, complete: true };
        round.complete += 1;
        round.digest = round.digest.wrapping_add(Report::digest_term(chunk, header.checksum));
        Ok(())
    }

    fn current(&self) -> Option<&Round> {
        Some(&self.rounds[self.slot(self.oldest?)])
    }

    /// The report of the oldest round, once all of the round is here.
    pub(super) fn ended(&self) -> Option<Report> {
        let round = self.current()?;
        let whole = round.complete == round.chunks.len();
        round.end.filter(|end| whole || end.outcome != RoundOutcome::Complete)
    }

    /// Digest of what has come of the oldest round.
    pub(super) fn digest(&self) -> u64 {
        self.current().map_or(0, |round| round.digest)
    }

    /// Copies what landed in our buffer for the oldest round to `update`.
    pub(super) fn fill(&self, update: &mut [f32]) {
        let Some(round) = self.current() else { return };
        for (index, state) in round.chunks.iter().enumerate() {
            if *state == (State::Here { direct: false, complete: true }) {
                let range = self.plan.layout.chunk(index).range();
                update[range.clone()].copy_from_slice(&round.update[range]);
            }
        }
    }

    /// The oldest round was collected.
    pub(super) fn advance(&mut self) {
        let Some(oldest) = self.oldest else { return };
        let slot = self.slot(oldest);
        let round = &mut self.rounds[slot];
        round.chunks.fill(State::Missing);
        (round.complete, round.digest, round.end) = (0, 0, None);
        self.oldest = Some(oldest + 1);
    }

    /// Keeps what landed in the caller's buffer for the oldest round, half chunks included.
    pub(super) fn withdraw(&mut self, direct: &[f32]) {
        let Some(oldest) = self.oldest else { return };
        let slot = self.slot(oldest);
        let layout = self.plan.layout;
        let round = &mut self.rounds[slot];
        for (index, state) in round.chunks.iter_mut().enumerate() {
            if let State::Here { direct: into @ true, .. } = state {
                *into = false;
                let range = layout.chunk(index).range();
                round.update[range.clone()].copy_from_slice(&direct[range]);
            }
        }
    }
}

impl Landing for Place<'_> {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        let landed = &mut *self.landed;
        let layout = &landed.plan.layout;
        if header.job != landed.job {
            return Err(Violation::Job);
        }
        if header.session != landed.epoch {
            return Err(Violation::Session);
        }
        let (expected, range) = match header.kind {
            Kind::RoundEnd => (REPORT_BYTES, 0..0),
            Kind::Update => {
                let (found, chunks) = (header.chunk, layout.chunks() as u32);
                if found >= chunks {
                    return Err(Violation::Chunk { found, chunks });
                }
                let range = layout.chunk(found as usize).range();
                (4 * range.len(), range)
            }
            kind => return Err(Violation::Kind(kind)),
        };
        if header.payload_bytes as usize != expected {
            return Err(Violation::Length { found: header.payload_bytes, expected: expected as u32 });
        }
        let place = landed.find(header.round);
        let slot = match place {
            // The caller is so far behind that there is no buffer for this round: let the daemon wait.
            Where::Later => {
                landed.behind = Some(header.round);
                return Ok(None);
            }
            Where::Past => return Ok(Some(&mut bytemuck::cast_slice_mut(&mut landed.scrap)[..expected])),
            Where::Here(slot) => slot,
        };
        if header.kind == Kind::RoundEnd {
            return Ok(Some(&mut landed.report));
        }
        let round = &mut landed.rounds[slot];
        let state = &mut round.chunks[header.chunk as usize];
        let into = match *state {
            State::Here { complete: true, .. } => {
                return Ok(Some(&mut bytemuck::cast_slice_mut(&mut landed.scrap)[..expected]));
            }
            State::Here { direct, .. } => direct,
            State::Missing => self.direct.is_some() && landed.oldest == Some(header.round),
        };
        *state = State::Here { direct: into, complete: false };
        let target = match &mut self.direct {
            Some(buffer) if into => &mut buffer[range],
            _ => &mut round.update[range],
        };
        Ok(Some(bytemuck::cast_slice_mut(target)))
    }
}
