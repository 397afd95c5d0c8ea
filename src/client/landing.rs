//! Where the chunks of updates land: in the caller's buffer, or in one of the session's.
//!
//! Where updates travel as 16 bits a chunk lands in the first half of its room. In the caller's buffer it is widened as soon as it
//! is complete and right, while it is in the cache. In a place it stays as it came until the round is collected: whoever may write
//! there may do so twice.

use std::ops::Range;

use super::error::Lost;
use crate::memory::{SharedSlot, Slab, Slot};
use crate::transport::Landing;
use crate::wire::{HEADER_BYTES, Header, Kind, Plan, REPORT_BYTES, Report, RoundOutcome, UPDATE_OFFSET, Violation};

/// What has come of the rounds that are not collected yet.
pub(super) struct Landed {
    plan: Plan,
    job: u64,
    epoch: u64,
    /// The oldest round that is not collected; `None` before the daemon said which is the first.
    pub(super) oldest: Option<u64>,
    /// The rounds before this one are collected, and their places free.
    released: Option<u64>,
    pub(super) rounds: Vec<Round>,
    /// The place of round `t` is the only slot of holder `t % rounds`.
    places: Slab,
    /// Bytes of updates that were copied from one place in memory to another.
    pub(super) copied: u64,
    /// Where frames land that nobody needs any more.
    scrap: Vec<u32>,
    /// The round of a frame that had to wait for room; until that round is here whole.
    pub(super) behind: Option<u64>,
}

pub(super) struct Round {
    /// A report's frame, and the update at [`UPDATE_OFFSET`]; `None` while a caller still reads what was there.
    place: Option<Slot>,
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

/// What has come of a chunk.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Progress {
    /// Not all of it.
    Missing,
    /// All of it, as a frame with this header would have brought it.
    Here(Header),
    /// Its round was collected.
    Past,
}

/// Has the payloads of one receive land, possibly in the caller's buffer.
pub(super) struct Place<'a> {
    landed: &'a mut Landed,
    direct: Option<&'a mut [f32]>,
}

/// Where updates of a job land that no caller waits for: one slot per round of the window, which can be registered once. Pages
/// that are never touched cost nothing.
pub(super) fn places(plan: &Plan) -> Slab {
    Slab::new(plan.window as usize, 1, UPDATE_OFFSET + 4 * plan.layout.dimension(), Vec::new())
}

const REPORT: Range<usize> = HEADER_BYTES..HEADER_BYTES + REPORT_BYTES;

/// The bytes of the numbers `range` of an update in their place, once they are f32.
fn bytes_of(range: &Range<usize>) -> Range<usize> {
    UPDATE_OFFSET + 4 * range.start..UPDATE_OFFSET + 4 * range.end
}

/// The update in a place that was given away.
pub(super) fn update_in(place: &SharedSlot, dimension: usize) -> &[f32] {
    bytemuck::cast_slice(&place[bytes_of(&(0..dimension))])
}

impl Round {
    /// What has landed of the numbers `range`, `count` bytes, as it came.
    fn bytes(&self, range: &Range<usize>, count: usize) -> &[u8] {
        let place = self.place.as_ref().expect("what has landed has a place");
        &place.part(bytes_of(range))[..count]
    }
}

impl Landed {
    pub(super) fn new(plan: Plan, job: u64, epoch: u64, places: Slab) -> Landed {
        let round = |at| Round {
            place: places.take(at),
            chunks: vec![State::Missing; plan.layout.chunks()],
            complete: 0,
            digest: 0,
            end: None,
        };
        let longest = plan.update_bytes(plan.layout.chunk(0).len).max(REPORT_BYTES);
        Landed {
            plan,
            job,
            epoch,
            oldest: None,
            released: None,
            rounds: (0..plan.window as usize).map(round).collect(),
            places,
            copied: 0,
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

    /// The daemon said from which round on this session takes part.
    pub(super) fn begin(&mut self, round: u64) {
        self.oldest = Some(round);
        self.released = Some(round);
    }

    /// Takes back places that callers have finished with; the first round whose place is not free if that has changed.
    pub(super) fn release(&mut self) -> Option<u64> {
        let (oldest, before) = (self.oldest?, self.released?);
        let mut released = before;
        while released < oldest && self.has_place(released) {
            released += 1;
        }
        self.released = Some(released);
        (released > before).then_some(released)
    }

    fn has_place(&mut self, round: u64) -> bool {
        let at = self.slot(round);
        let place = &mut self.rounds[at].place;
        *place = place.take().or_else(|| self.places.take(at));
        place.is_some()
    }

    /// Checks a frame whose payload has landed.
    pub(super) fn take_in(&mut self, header: &Header, direct: Option<&mut [f32]>) -> Result<(), Lost> {
        let Where::Here(slot) = self.find(header.round) else { return Ok(()) };
        let (number, chunk) = (header.round, header.chunk);
        let round = &mut self.rounds[slot];
        if header.kind == Kind::RoundEnd {
            let report: Option<&[u8; REPORT_BYTES]> =
                round.place.as_ref().and_then(|place| place.part(REPORT).try_into().ok());
            let report = report.filter(|report| header.verifies(&report[..])).and_then(Report::read);
            round.end = Some(report.ok_or(Lost::Damaged { round: number, chunk })?);
            self.behind = self.behind.filter(|behind| *behind > number);
            return Ok(());
        }
        let State::Here { direct: into, complete: false } = round.chunks[chunk as usize] else { return Ok(()) };
        let range = self.plan.layout.chunk(chunk as usize).range();
        let count = self.plan.update_bytes(range.len());
        let right = match direct {
            Some(buffer) if into => {
                let target = bytemuck::cast_slice_mut(&mut buffer[range]);
                let right = header.verifies(&target[..count]);
                if right {
                    self.plan.update_precision.widen_in_place(target);
                }
                right
            }
            _ => header.verifies(round.bytes(&range, count)),
        };
        if !right {
            return Err(Lost::Damaged { round: number, chunk });
        }
        round.chunks[chunk as usize] = State::Here { direct: into, complete: true };
        round.complete += 1;
        round.digest = round.digest.wrapping_add(Report::digest_term(chunk, header.checksum));
        Ok(())
    }

    pub(super) fn progress(&self, round: u64, chunk: u32) -> Progress {
        let slot = match self.find(round) {
            Where::Past => return Progress::Past,
            Where::Later => return Progress::Missing,
            Where::Here(slot) => slot,
        };
        let whole = matches!(self.rounds[slot].chunks.get(chunk as usize), Some(State::Here { complete: true, .. }));
        if !whole {
            return Progress::Missing;
        }
        let payload_bytes = self.plan.update_bytes(self.plan.layout.chunk(chunk as usize).len) as u32;
        let (job, session) = (self.job, self.epoch);
        let header = Header { job, session, round, chunk, payload_bytes, ..Header::new(Kind::Update) };
        let checksum = self.payload(&header).map_or(0, |payload| header.checksum_over(payload));
        Progress::Here(Header { checksum, ..header })
    }

    /// A chunk that stands in its place, rather than in a caller's buffer.
    pub(super) fn payload(&self, header: &Header) -> Option<&[u8]> {
        let Where::Here(slot) = self.find(header.round) else { return None };
        let (round, chunk) = (&self.rounds[slot], header.chunk as usize);
        let here = round.chunks.get(chunk) == Some(&State::Here { direct: false, complete: true });
        let range = here.then(|| self.plan.layout.chunk(chunk).range())?;
        round.place.as_ref()?;
        Some(round.bytes(&range, self.plan.update_bytes(range.len())))
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

    /// Has the caller left every place full, so that nothing more could come?
    pub(super) fn is_full(&self) -> bool {
        self.oldest.is_some() && self.rounds.iter().all(|round| round.place.is_none() || round.end.is_some())
    }

    /// Digest of what has come of the oldest round.
    pub(super) fn digest(&self) -> u64 {
        self.current().map_or(0, |round| round.digest)
    }

    /// Copies what landed in our buffer for the oldest round to `update`.
    pub(super) fn fill(&mut self, update: &mut [f32]) {
        let Some(round) = self.current() else { return };
        let mut copied = 0;
        for (index, state) in round.chunks.iter().enumerate() {
            if *state == (State::Here { direct: false, complete: true }) {
                let range = self.plan.layout.chunk(index).range();
                let bytes = round.bytes(&range, self.plan.update_bytes(range.len()));
                self.plan.update_precision.widen(bytes, &mut update[range.clone()]);
                copied += 4 * range.len() as u64;
            }
        }
        self.copied += copied;
    }

    /// Gives away the place of the oldest round, with its update.
    pub(super) fn give(&mut self) -> Option<SharedSlot> {
        let slot = self.slot(self.oldest?);
        let mut place = self.rounds[slot].place.take()?;
        for chunk in 0..self.plan.layout.chunks() {
            self.plan.update_precision.widen_in_place(&mut place[bytes_of(&self.plan.layout.chunk(chunk).range())]);
        }
        Some(place.freeze())
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
        let (layout, precision) = (self.plan.layout, self.plan.update_precision);
        let round = &mut self.rounds[slot];
        for (index, state) in round.chunks.iter_mut().enumerate() {
            if let State::Here { direct: into @ true, complete } = state {
                *into = false;
                let range = layout.chunk(index).range();
                let place = round.place.as_mut().expect("what is landing has a place");
                let (from, to) = (&direct[range.clone()], &mut place[bytes_of(&range)]);
                match *complete {
                    // It was widened, and becomes what it was.
                    true => precision.narrow(from, &mut to[..precision.shard_bytes(range.len())]),
                    false => to.copy_from_slice(bytemuck::cast_slice(from)),
                }
                self.copied += 4 * range.len() as u64;
            }
        }
    }
}

impl Landed {
    /// Checks what can be known of a frame before its payload: the length that it must have, and the numbers that it covers.
    fn check(&self, header: &Header) -> Result<(usize, Range<usize>), Violation> {
        let layout = &self.plan.layout;
        if header.job != self.job {
            return Err(Violation::Job);
        }
        if header.session != self.epoch {
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
                (self.plan.update_bytes(range.len()), range)
            }
            kind => return Err(Violation::Kind(kind)),
        };
        if header.payload_bytes as usize != expected {
            return Err(Violation::Length { found: header.payload_bytes, expected: expected as u32 });
        }
        Ok((expected, range))
    }
}

/// What a relay must know of a place: whether chunks can land that other workers bring.
impl Place<'_> {
    /// Does this frame come from the daemon of this session?
    pub(super) fn check_sender(&self, header: &Header) -> Result<(), Violation> {
        if header.job != self.landed.job {
            return Err(Violation::Job);
        }
        if header.session == self.landed.epoch { Ok(()) } else { Err(Violation::Session) }
    }

    /// Is there room for the chunk that this header is about, or is it of no use any more? If not, the daemon waits.
    pub(super) fn has_room(&mut self, header: &Header) -> Result<bool, Violation> {
        let (found, chunks) = (header.chunk, self.chunks() as u32);
        if found >= chunks {
            return Err(Violation::Chunk { found, chunks });
        }
        let room = match self.landed.find(header.round) {
            Where::Here(_) => self.landed.has_place(header.round),
            Where::Past => true,
            Where::Later => false,
        };
        if !room {
            self.landed.behind = Some(header.round);
        }
        Ok(room)
    }

    /// Which round of the window an update is of, and whether its chunk is here; `None` if it has no room.
    pub(super) fn known(&mut self, header: &Header) -> Result<Option<(usize, bool)>, Violation> {
        self.landed.check(header)?;
        Ok(match self.landed.find(header.round) {
            Where::Here(slot) if self.landed.has_place(header.round) => {
                let state = self.landed.rounds[slot].chunks[header.chunk as usize];
                Some((slot, matches!(state, State::Here { complete: true, .. })))
            }
            _ => None,
        })
    }

    pub(super) fn is_past(&self, round: u64) -> bool {
        matches!(self.landed.find(round), Where::Past)
    }

    /// Chunks per round.
    pub(super) fn chunks(&self) -> usize {
        self.landed.plan.layout.chunks()
    }
}

impl Landing for Place<'_> {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        let landed = &mut *self.landed;
        let (expected, range) = landed.check(header)?;
        let slot = match landed.find(header.round) {
            Where::Here(slot) if landed.has_place(header.round) => slot,
            Where::Past => return Ok(Some(&mut bytemuck::cast_slice_mut(&mut landed.scrap)[..expected])),
            // The caller is so far behind that there is no place for this round: let the daemon wait.
            _ => {
                landed.behind = Some(header.round);
                return Ok(None);
            }
        };
        let round = &mut landed.rounds[slot];
        let place = round.place.as_mut().expect("asked for above");
        if header.kind == Kind::RoundEnd {
            return Ok(Some(&mut place[REPORT]));
        }
        let state = &mut round.chunks[header.chunk as usize];
        let into = match *state {
            State::Here { complete: true, .. } => {
                return Ok(Some(&mut bytemuck::cast_slice_mut(&mut landed.scrap)[..expected]));
            }
            State::Here { direct, .. } => direct,
            State::Missing => self.direct.is_some() && landed.oldest == Some(header.round),
        };
        *state = State::Here { direct: into, complete: false };
        Ok(Some(match &mut self.direct {
            Some(buffer) if into => &mut bytemuck::cast_slice_mut(&mut buffer[range])[..expected],
            _ => &mut place[bytes_of(&range)][..expected],
        }))
    }

    /// The daemon has written to the place of a round. It may not before the round before it in that place is collected, so a
    /// round that has no place is its fault.
    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        let landed = &mut *self.landed;
        let Some(oldest) = landed.oldest else { return Ok(false) };
        let (first, end) = (oldest, oldest + landed.rounds.len() as u64);
        let outside = Violation::Round { found: header.round, first, end };
        let Where::Here(slot) = landed.find(header.round) else { return Err(outside) };
        if !landed.has_place(header.round) {
            return Err(outside);
        }
        let place = landed.rounds[slot].place.as_ref().expect("asked for above");
        if header.kind == Kind::RoundEnd {
            let round = header.round;
            *header = Header::parse(place.part(0..HEADER_BYTES).try_into().expect("a header's length"))?;
            landed.check(header)?;
            if (header.kind, header.round) != (Kind::RoundEnd, round) {
                return Err(outside);
            }
            return Ok(true);
        }
        (header.job, header.session) = (landed.job, landed.epoch);
        let (count, range) = landed.check(header)?;
        // The frame that this would have been over TCP: its checksum is part of the update's digest, by which damage shows.
        header.checksum = header.checksum_over(&place.part(bytes_of(&range))[..count]);
        let round = &mut landed.rounds[slot];
        let state = &mut round.chunks[header.chunk as usize];
        if !matches!(*state, State::Here { complete: true, .. }) {
            *state = State::Here { direct: false, complete: true };
            round.complete += 1;
            round.digest = round.digest.wrapping_add(Report::digest_term(header.chunk, header.checksum));
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::code::Precision;
    use crate::wire::sample_plan;

    #[test]
    fn what_the_daemon_writes_to_a_place_is_widened_on_its_way_out_even_if_it_is_written_twice() {
        for update_precision in Precision::ALL {
            let plan = Plan { update_precision, ..sample_plan() };
            let mut landed = Landed::new(plan, 1, 2, places(&plan));
            let number = |at: usize| (at as f32 / 8.0 - 3.5) % 8.0;
            let wanted: Vec<f32> = (0..plan.layout.dimension()).map(number).collect();
            landed.begin(0);
            let mut digest = 0u64;
            for twice in [false, true] {
                for chunk in 0..plan.layout.chunks() {
                    let range = plan.layout.chunk(chunk).range();
                    let count = plan.update_bytes(range.len());
                    let place = landed.rounds[0].place.as_mut().unwrap();
                    update_precision.narrow(&wanted[range.clone()], &mut place[bytes_of(&range)][..count]);
                    let payload_bytes = count as u32;
                    let mut header = Header { chunk: chunk as u32, payload_bytes, ..Header::new(Kind::Update) };
                    assert_eq!(landed.place_in(None).landed(&mut header), Ok(true));
                    assert!(header.verifies(landed.rounds[0].bytes(&range, count)));
                    if !twice {
                        digest = digest.wrapping_add(Report::digest_term(chunk as u32, header.checksum));
                    }
                }
                assert_eq!((landed.rounds[0].complete, landed.digest()), (plan.layout.chunks(), digest));
            }
            let mut update = vec![f32::NAN; wanted.len()];
            landed.fill(&mut update);
            assert!(update == wanted, "{update_precision}");
            assert_eq!(landed.copied, 4 * wanted.len() as u64);
            let place = landed.give().unwrap();
            assert!(update_in(&place, wanted.len()) == wanted, "{update_precision}");
        }
    }
}
