//! A reliable connection that is made only to see whether it can be: with the verbs, rights and directions of a session, but without
//! a job.
//!
//! ```text
//!  asks    --- SEND into a posted slot ------------------->  serves       as shards go up
//!          <-- RDMA WRITE WITH IMMEDIATE into a place -----               as updates come down
//! ```
//!
//! The two ends may be on one port: then everything but the network is tried.

#![allow(unsafe_code)]

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::error::{LinkFailure, VerbsError};
use super::fabric::{NoRdma, endpoint, look, random_sequence, remote};
use super::ffi::{Api, ibv_wc};
use super::options::Options;
use super::select::Choice;
use super::verbs::{
    Access, CompletionQueue, Depths, Initialised, Operation, Path, Piece, ProtectionDomain, QueuePair, ReceiveHalf,
    Region, SendHalf, SendRequest,
};
use crate::memory::{Slab, Slot};
use crate::wire::{Area, Endpoint};

/// Bytes of a message.
pub const BLOCK_BYTES: usize = 1 << 16;
/// Messages on their way at once, and places for them.
const BLOCKS: usize = 16;
/// In the last message of many, and in its immediate.
const LAST: u8 = 1;

/// Which of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends, and is written to: like a worker.
    Asks,
    /// Receives, and writes: like the daemon.
    Serves,
}

/// Why a trial failed.
#[derive(Debug, thiserror::Error)]
pub enum TrialError {
    /// There is no port, memory, queue or path.
    #[error(transparent)]
    NoRdma(#[from] NoRdma),
    /// The connection broke.
    #[error("the connection of {place} was made, and then {failure}")]
    Failed {
        /// `device:port` of this end.
        place: String,
        /// How.
        failure: LinkFailure,
    },
    /// Neither success nor an error came.
    #[error(
        "the connection of {place} was made, and then nothing was heard of a message for {waited:?}: no success, no error"
    )]
    Silent {
        /// `device:port` of this end.
        place: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// Bytes changed on the way.
    #[error("other bytes came back to {place} than were sent")]
    Wrong {
        /// `device:port` of this end.
        place: String,
    },
}

impl From<VerbsError> for TrialError {
    fn from(error: VerbsError) -> TrialError {
        TrialError::NoRdma(error.into())
    }
}

impl TrialError {
    /// The reason as sessions know it; `None` where the device said nothing.
    pub fn failure(&self) -> Option<LinkFailure> {
        match self {
            TrialError::NoRdma(error) => Some(error.failure),
            TrialError::Failed { failure, .. } => Some(*failure),
            TrialError::Silent { .. } | TrialError::Wrong { .. } => None,
        }
    }
}

/// An end that is not connected yet.
pub struct End {
    pair: QueuePair<Initialised>,
    send: CompletionQueue,
    receive: CompletionQueue,
    regions: [Region; 2],
    slots: [Vec<Slot>; 2],
    path: Path,
    choice: Choice,
    area: Area,
    side: Side,
}

impl End {
    /// An end on the port that the options allow and prefer, with 2 MiB registered.
    ///
    /// # Errors
    /// If there is no usable port, or it does not give what is needed.
    pub fn open(api: &'static Api, options: &Options, near: Option<IpAddr>, side: Side) -> Result<End, TrialError> {
        let (context, choice) = look(api, options, near, BLOCK_BYTES)?;
        let domain = ProtectionDomain::new(&context)?;
        let slabs = [0; 2].map(|_| Slab::new(1, BLOCKS, BLOCK_BYTES, Vec::new()));
        let incoming = if side == Side::Asks { Access::RemoteWrite } else { Access::Receive };
        let regions =
            [Region::new(&domain, &slabs[0], None, Access::Send)?, Region::new(&domain, &slabs[1], None, incoming)?];
        let slots = slabs.map(|slab| std::iter::from_fn(|| slab.take(0)).collect::<Vec<_>>());
        let depths = Depths { send: BLOCKS, receive: 2 * BLOCKS };
        let send = CompletionQueue::new(&context, depths.send)?;
        let receive = CompletionQueue::new(&context, depths.receive)?;
        let path = options.path(&choice, random_sequence()?);
        let pair = QueuePair::new(&domain, choice.port, &send, &receive, depths, None)?;
        let pair = pair.initialise(side == Side::Asks)?;
        let area = Area {
            address: slots[1][0].address().expose_provenance() as u64,
            stride: Slab::stride(BLOCK_BYTES) as u64,
            key: regions[1].remote_key(),
            rounds: BLOCKS as u32,
        };
        Ok(End { pair, send, receive, regions, slots, path, choice, area, side })
    }

    /// The port and address that were taken, and why.
    pub fn choice(&self) -> &Choice {
        &self.choice
    }

    /// This end, for the other one.
    pub fn endpoint(&self) -> Endpoint {
        endpoint(&self.choice, self.pair.number(), self.path.sequence)
    }

    /// Where this end may be written to, if it asks.
    pub fn area(&self) -> Area {
        self.area
    }

    /// Connects it to the other end.
    ///
    /// # Errors
    /// If the device sees no way there.
    pub fn connect(self, there: &Endpoint) -> Result<Joined, TrialError> {
        let End { pair, send, receive, regions, slots, path, choice, side, .. } = self;
        let pair = pair.receive_from(&path, &remote(there, &choice)?)?.connect(&path)?;
        let (sender, receiver) = pair.split(send, receive);
        let keys = [regions[0].local_key(), regions[1].local_key()];
        // They stay registered until the queue pair is gone.
        sender.pair.park(Box::new(regions));
        let [outgoing, incoming] = slots;
        let place = format!("{}:{}", choice.device, choice.port);
        let mut joined = Joined { sender, receiver, outgoing, incoming, keys, side, place, under_way: 0 };
        for at in 0..BLOCKS {
            joined.listen(at)?;
        }
        Ok(joined)
    }
}

/// An end that can send.
pub struct Joined {
    // Before the slots: the device touches them until both halves are gone.
    sender: SendHalf,
    receiver: ReceiveHalf,
    outgoing: Vec<Slot>,
    incoming: Vec<Slot>,
    /// Of the regions in which the two kinds of slots lie.
    keys: [u32; 2],
    side: Side,
    place: String,
    under_way: usize,
}

/// A message that came.
struct Arrived {
    at: usize,
    last: bool,
}

impl Joined {
    /// Posts a receive: into a slot, or for an immediate.
    fn listen(&mut self, at: usize) -> Result<(), TrialError> {
        let address = self.incoming[at].address().expose_provenance() as u64;
        let piece = Piece { address, bytes: BLOCK_BYTES as u32, key: self.keys[1] };
        // SAFETY: the slot is read only between a receive's completion and the next post, and outlives the queue pair.
        Ok(unsafe { self.receiver.post((self.side == Side::Serves).then_some(piece), at as u64) }?)
    }

    /// Hands a slot to the device, to where its side's messages go.
    fn post(&mut self, at: usize, area: Option<&Area>, last: bool) -> Result<(), TrialError> {
        let address = self.outgoing[at].address().expose_provenance() as u64;
        let operation = match area {
            None => Operation::Send,
            Some(area) => {
                let address = area.address.wrapping_add(area.stride.wrapping_mul(at as u64));
                Operation::WriteWithImmediate { address, key: area.key, immediate: u32::from(last) }
            }
        };
        let piece = Some(Piece { address, bytes: BLOCK_BYTES as u32, key: self.keys[0] });
        let request = SendRequest { id: at as u64, piece, operation, signalled: true };
        // SAFETY: the slot is written to only while nothing is under way, and outlives the queue pair.
        unsafe { self.sender.post(&[request]) }?;
        self.under_way += 1;
        Ok(())
    }

    /// Waits until at most so many messages are under way.
    fn drain(&mut self, most: usize, until: Instant) -> Result<(), TrialError> {
        while self.under_way > most {
            next(&mut self.sender.completions, &self.place, until)?;
            self.under_way -= 1;
        }
        Ok(())
    }

    fn arrived(&mut self, until: Instant) -> Result<Arrived, TrialError> {
        let done = next(&mut self.receiver.completions, &self.place, until)?;
        let at = usize::try_from(done.wr_id).unwrap_or(0) % BLOCKS;
        let last = match self.side {
            Side::Asks => u32::from_be(done.imm_data) == u32::from(LAST),
            Side::Serves => self.incoming[at].part(0..1)[0] == LAST,
        };
        Ok(Arrived { at, last })
    }

    /// Sends a block that begins with `first`, has it come back, and compares. The other end has to [`answer`](Joined::answer).
    ///
    /// # Errors
    /// If it does not come back as it was by `until`.
    pub fn echo(&mut self, first: u8, until: Instant) -> Result<(), TrialError> {
        self.ask(first)?;
        self.heard(first, until)
    }

    fn ask(&mut self, first: u8) -> Result<(), TrialError> {
        pattern(&mut self.outgoing[0], first);
        self.post(0, None, false)
    }

    fn heard(&mut self, first: u8, until: Instant) -> Result<(), TrialError> {
        // A failure shows at the own message first.
        self.drain(0, until)?;
        let arrived = self.arrived(until)?;
        self.listen(arrived.at)?;
        let same = is_pattern(self.incoming[0].part(0..BLOCK_BYTES), first);
        if same { Ok(()) } else { Err(TrialError::Wrong { place: self.place.clone() }) }
    }

    /// Takes a block, and writes it back to the first place of `area`.
    ///
    /// # Errors
    /// If none comes by `until`, or it cannot be written back.
    pub fn answer(&mut self, area: &Area, until: Instant) -> Result<(), TrialError> {
        let arrived = self.arrived(until)?;
        let (to, from) = (&mut self.outgoing[0], &self.incoming[arrived.at]);
        to[..BLOCK_BYTES].copy_from_slice(from.part(0..BLOCK_BYTES));
        self.listen(arrived.at)?;
        self.post(0, Some(area), false)?;
        self.drain(0, until)
    }

    /// Sends blocks for so long: into posted slots, or with an `area` to its places.
    ///
    /// # Errors
    /// If the connection breaks, or does not take them by `until`.
    pub fn stream(&mut self, each: Duration, area: Option<&Area>, until: Instant) -> Result<(), TrialError> {
        self.outgoing[..BLOCKS - 1].iter_mut().for_each(|slot| slot[0] = 0);
        self.outgoing[BLOCKS - 1][0] = LAST;
        let started = Instant::now();
        for at in (0..BLOCKS - 1).cycle() {
            // Half of them: as many again are posted by the time that they come.
            self.drain(BLOCKS / 2, until)?;
            if started.elapsed() >= each {
                break;
            }
            self.post(at, area, false)?;
        }
        self.post(BLOCKS - 1, area, true)?;
        self.drain(0, until)
    }

    /// Takes blocks until the last one: how many bytes, and how long from the first one.
    ///
    /// # Errors
    /// If the connection breaks, or the last one has not come by `until`.
    pub fn take(&mut self, until: Instant) -> Result<(u64, Duration), TrialError> {
        let (mut blocks, mut started) = (0, None);
        loop {
            let Arrived { at, last } = self.arrived(until)?;
            let started = *started.get_or_insert_with(Instant::now);
            if last {
                // The first one started the clock: so many as there are pauses between them count.
                return Ok((blocks * BLOCK_BYTES as u64, started.elapsed()));
            }
            blocks += 1;
            self.listen(at)?;
        }
    }
}

/// The next completion, however long that takes within bounds.
fn next(queue: &mut CompletionQueue, place: &str, until: Instant) -> Result<ibv_wc, TrialError> {
    let started = Instant::now();
    // SAFETY: all fields are numbers, for which zeros are valid.
    let mut completion: [ibv_wc; 1] = unsafe { std::mem::zeroed() };
    loop {
        if queue.poll(&mut completion)? > 0 {
            return match completion[0].status {
                0 => Ok(completion[0]),
                status => Err(TrialError::Failed { place: place.into(), failure: LinkFailure::of_status(status) }),
            };
        }
        let waited = started.elapsed();
        if Instant::now() >= until {
            return Err(TrialError::Silent { place: place.into(), waited });
        }
        // The other end may want the same core.
        if waited > Duration::from_millis(1) {
            std::thread::sleep(Duration::from_micros(50));
        } else {
            std::thread::yield_now();
        }
    }
}

fn pattern(block: &mut [u8], first: u8) {
    block[..BLOCK_BYTES].iter_mut().enumerate().for_each(|(at, byte)| *byte = byte_at(at, first));
}

fn is_pattern(block: &[u8], first: u8) -> bool {
    block.iter().enumerate().all(|(at, byte)| *byte == byte_at(at, first))
}

/// Neither zeros nor the same in each page.
fn byte_at(at: usize, first: u8) -> u8 {
    first.wrapping_add((at ^ (at >> 8)) as u8)
}

/// Two ends on one port, connected to each other: seconds for a block to go and come back.
///
/// # Errors
/// If any verb refuses, or nothing comes back in `within`.
pub fn with_itself(
    api: &'static Api,
    options: &Options,
    near: Option<IpAddr>,
    within: Duration,
) -> Result<f64, TrialError> {
    let (asks, serves) = (End::open(api, options, near, Side::Asks)?, End::open(api, options, near, Side::Serves)?);
    let (area, asking, serving) = (asks.area(), asks.endpoint(), serves.endpoint());
    let (mut asks, mut serves) = (asks.connect(&serving)?, serves.connect(&asking)?);
    let started = Instant::now();
    let until = started + within;
    for first in [1, 2] {
        asks.ask(first)?;
        asks.drain(0, until)?;
        serves.answer(&area, until)?;
        asks.heard(first, until)?;
    }
    Ok(started.elapsed().as_secs_f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::super::fake::{Device, Fake};
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn fake(change: impl FnOnce(&mut Device)) -> Fake {
        let mut device = Device::roce("fake0", 1);
        change(&mut device);
        Fake::with(vec![device])
    }

    fn options() -> Options {
        // The provider has no sysfs that would say of what kind its addresses are, so one is named.
        Options { gid_index: Some(0), ..Options::default() }
    }

    fn alone(fake: &Fake, within: Duration) -> Result<f64, TrialError> {
        with_itself(fake.api(), &options(), None, within)
    }

    /// Two ends that are connected, and where the first one may be written to.
    fn pair(fake: &Fake) -> (Joined, Joined, Area) {
        let open = |side| End::open(fake.api(), &options(), None, side).unwrap();
        let (asks, serves) = (open(Side::Asks), open(Side::Serves));
        let (area, asking, serving) = (asks.area(), asks.endpoint(), serves.endpoint());
        (asks.connect(&serving).unwrap(), serves.connect(&asking).unwrap(), area)
    }

    #[test]
    fn a_port_reaches_itself_and_nothing_is_left_behind() {
        let fake = fake(|_| ());
        assert!(alone(&fake, 10 * SECOND).unwrap() > 0.0);
        assert!(fake.counts().is_empty(), "{:?}", fake.counts());
    }

    #[test]
    fn what_goes_wrong_has_the_name_that_sessions_have_for_it() {
        let failure = |fake: &Fake| alone(fake, 10 * SECOND).unwrap_err().failure();
        assert_eq!(failure(&fake(|device| device.memlock = 4096)), Some(LinkFailure::Resources));
        assert_eq!(failure(&Fake::with(Vec::new())), Some(LinkFailure::NoDevice));
        let held = fake(|_| ());
        held.hold();
        assert!(matches!(alone(&held, Duration::from_millis(5)), Err(TrialError::Silent { .. })));
        let until = Instant::now() + 10 * SECOND;
        let cut = fake(|_| ());
        let (mut asks, _serves, _) = pair(&cut);
        cut.link_down("fake0", 1);
        assert_eq!(asks.echo(1, until).unwrap_err().failure(), Some(LinkFailure::Unreachable));
        // Nobody posts receives again: a session waits for that as long as its own deadlines let it, and so does this.
        let deaf = fake(|_| ());
        let (mut asks, _serves, _) = pair(&deaf);
        let soon = Instant::now() + Duration::from_millis(5);
        assert!(matches!(asks.stream(10 * SECOND, None, soon), Err(TrialError::Silent { .. })));
    }

    #[test]
    fn blocks_go_and_come_and_are_counted_until_the_last_one() {
        let fake = fake(|_| ());
        let (mut asks, mut serves, area) = pair(&fake);
        let until = Instant::now() + 10 * SECOND;
        for block in 0..3 {
            let last = block == 2;
            asks.outgoing[block][0] = u8::from(last);
            asks.post(block, None, last).unwrap();
            serves.post(block, Some(&area), last).unwrap();
        }
        for end in [&mut asks, &mut serves] {
            end.drain(0, until).unwrap();
            assert_eq!(end.take(until).unwrap().0, 2 * BLOCK_BYTES as u64);
        }
    }
}
