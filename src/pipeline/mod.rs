//! From frames to updates: four stages, each with one kind of input and one kind of output.
//!
//! ```text
//! Frame -> receiver -> Shard -> assembler -> Word -> decoder -> Update -> pusher -> Frame
//! ```
//!
//! A stage's `step` does what can be done now and returns; it never blocks, sleeps or spawns, and after
//! [`Pipeline::new`] nothing on this path allocates (but for the decoder of the [cyclic code](crate::rules::cyclic)). Between stages are bounded lock-free rings. Only credits and counters flow
//! back, over the [`Board`]. A round is a stream of independent chunks, so receiving, decoding and pushing of one round
//! overlap, and memory is bounded by the shards in flight.
//!
//! There may be several decoders (*lanes*); a chunk belongs to the lane `chunk % lanes`, so the result does not depend on how many
//! there are.

mod assembler;
mod board;
mod decoder;
mod job;
mod limits;
mod measured;
mod noise;
mod pusher;
mod reactor;
mod receiver;
mod relay;
mod ring;
mod robust;
mod sabotage;
mod shape;
mod spread;
mod stock;
mod survey;
#[cfg(test)]
mod tests;
mod update;
mod way;

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;

pub use assembler::Assembler;
pub use board::{Board, Counter};
pub use job::{Begin, Job, Relay, Unrelayed};
pub use limits::Limits;
pub use measured::{Distribution, MARGINS, Measure, Measured, RATIOS, SECONDS, WorkerCount};
pub use noise::Noise;
pub use pusher::{Pusher, read_journal};
pub use reactor::{Idle, Pulse, Reactor, ReactorError};
pub use receiver::Receiver;
pub(crate) use ring::ring;
pub use robust::Robust;
pub(crate) use sabotage::planted;
pub use sabotage::{Bug, plant};
pub use shape::Shape;
pub use stock::{Level, Pool, Ring, Stock};

use crate::code::{Precision, ROWS_MAX, Rows};
use crate::memory::{Bell, ClaimError, HugePages, Slab, Slot};
use crate::transport::{Disconnect, Inbound, LinkFailure, Outbound};
use crate::wire::{HEADER_BYTES, Report, Said, UndecodableReason};
use decoder::Exact;
use ring::{Consumer, Producer};
use robust::Combiner;
use survey::Survey;

/// What a stage did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Something: call again soon.
    Busy,
    /// Nothing: wait for a bell, a socket or a timer.
    Idle,
}

impl Progress {
    fn of(busy: bool) -> Progress {
        if busy { Progress::Busy } else { Progress::Idle }
    }
}

/// What a stage is given when it is stepped.
pub struct Context<'a> {
    /// The time.
    pub now: Instant,
    /// Where sockets are registered; `None` in the simulation.
    pub registry: Option<&'a mio::Registry>,
}

/// Which stage of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StageName {
    /// Bytes become checked shards
    Receive,
    /// Shards become words
    Assemble,
    /// Words become updates, and who lied is found
    Decode,
    /// Updates go to the workers
    Push,
}

impl StageName {
    /// Every stage, in the order of the flow.
    pub const ALL: [StageName; 4] = [StageName::Receive, StageName::Assemble, StageName::Decode, StageName::Push];

    /// Its name in the configuration file, and in figures.
    pub fn name(self) -> &'static str {
        match self {
            StageName::Receive => "receive",
            StageName::Assemble => "assemble",
            StageName::Decode => "decode",
            StageName::Push => "push",
        }
    }
}

/// One stage of the pipeline.
pub trait Stage: Send {
    /// Does what can be done now, in bounded time.
    fn step(&mut self, context: &Context<'_>) -> Progress;

    /// The socket registered under `token` is ready.
    fn ready(&mut self, token: usize) {
        let _ = token;
    }

    /// When this stage wants to be stepped even if nothing happens.
    fn timer(&self) -> Option<Instant> {
        None
    }

    /// Which stage it is.
    fn name(&self) -> StageName;
}

/// A frame whose header, length, checksum, job, worker, round and chunk were checked.
#[derive(Debug)]
pub struct Shard {
    worker: u32,
    chunk: u32,
    round: u64,
    slot: Slot,
}

/// The numbers of a shard of `width`: where they arrived, or if they are 16 bits, in the room for them as f32.
fn numbers<'a>(slot: &'a [u8], width: usize, precision: Precision, room: Option<&'a mut Slot>) -> &'a [f32] {
    let bytes = &slot[HEADER_BYTES..HEADER_BYTES + precision.shard_bytes(width)];
    match precision {
        Precision::F32 => bytemuck::cast_slice(bytes),
        Precision::Bf16 | Precision::F16 => {
            let room = room.expect("there is room where shards are 16 bits");
            let wide: &mut [f32] = bytemuck::cast_slice_mut(&mut room[..4 * width]);
            precision.widen(bytes, wide);
            wide
        }
        Precision::Sign => unreachable!("signs are counted, not added"),
    }
}

/// The received word of one (round, group, chunk); rows without a shard are erasures.
#[derive(Debug)]
struct Word {
    round: u64,
    group: u32,
    chunk: u32,
    present: Rows,
    shards: [Option<Slot>; ROWS_MAX],
}

impl Word {
    fn new(round: u64, group: u32, chunk: u32) -> Word {
        Word { round, group, chunk, present: Rows::EMPTY, shards: [const { None }; ROWS_MAX] }
    }

    fn insert(&mut self, row: usize, slot: Slot) {
        self.present.insert(row);
        self.shards[row] = Some(slot);
    }
}

/// What a decoder works with. `wide` are slots for the numbers of one shard more than a chunk has, or none where they come as f32.
struct Work {
    lane: usize,
    lanes: usize,
    board: Arc<Board>,
    updates: Slab,
    wide: Vec<Slot>,
    messages: Consumer<ToDecoder>,
    pusher: Producer<ToPusher>,
}

/// What the assembler sends to a decoder.
#[derive(Debug)]
// A word is as large as its slots' handles; boxing it would allocate on the data path.
#[allow(clippy::large_enum_variant)]
enum ToDecoder {
    /// Enough shards to try.
    Word(Word),
    /// A shard that came after its word went out.
    Further(Shard),
    /// The round's time is up: what is undecided stays so.
    Expired { round: u64 },
    /// A word that never had enough shards.
    Starved { round: u64, group: u32, chunk: u32, reason: UndecodableReason },
}

/// What a decoder sends to the pusher.
#[derive(Debug)]
enum ToPusher {
    /// A decoded chunk: a whole frame in a slot.
    Update { round: u64, chunk: u32, checksum: u32, hash: Option<[u8; 32]>, slot: Slot, len: usize },
    /// The round cannot be decoded.
    Undecodable { round: u64, group: u32, chunk: u32, reason: UndecodableReason },
}

/// What a worker says about links and relayed chunks, on its way from the receiver to the pusher.
#[derive(Debug)]
struct Heard {
    worker: u32,
    session: u64,
    said: Said,
}

/// A worker whose identity was checked, with its connection's halves.
pub struct Admission<H: ?Sized> {
    /// The worker's index.
    pub worker: u32,
    /// The session's number.
    pub session: u64,
    /// The half of the connection.
    pub half: Box<H>,
}

/// What the pipeline tells the rest of the daemon. Lost (and counted) rather than waited for, if nobody listens.
#[derive(Clone, Copy, Debug, PartialEq)]
#[allow(clippy::large_enum_variant)]
pub enum Event {
    /// A worker's session can submit from this round on.
    Joined {
        /// The worker.
        worker: u32,
        /// Its first round.
        round: u64,
    },
    /// A worker's session is over.
    Left {
        /// The worker.
        worker: u32,
        /// Why.
        why: Disconnect,
    },
    /// The RDMA connection of a worker's session ended: the session goes on by TCP.
    FellBack {
        /// The worker.
        worker: u32,
        /// Why.
        why: LinkFailure,
    },
    /// A worker did not take its update for too long: its session was ended.
    NotReading {
        /// The worker.
        worker: u32,
    },
    /// A worker takes no part in the relay.
    Unrelayed {
        /// The worker.
        worker: u32,
        /// Why.
        why: Unrelayed,
    },
    /// Two workers cannot reach each other.
    NoLink {
        /// The one that says so.
        worker: u32,
        /// The other one.
        peer: u32,
    },
    /// Updates go another way from now on, since it is faster.
    Way {
        /// Workers pass them on.
        relayed: bool,
        /// From a round's end until most workers have its update, by the way before.
        before: Duration,
        /// By this one.
        now: Duration,
    },
    /// A worker passed chunks of updates on late, or wrong, by the word of more workers than can lie: it is not asked to any more.
    BadCarrier {
        /// The worker.
        worker: u32,
        /// They were wrong, and not only late: it is not asked before it joins again.
        wrong: bool,
    },
    /// A worker holds another update of a round than was pushed.
    OtherDigest {
        /// The worker.
        worker: u32,
        /// The round.
        round: u64,
    },
    /// A round was closed.
    Closed {
        /// The round.
        round: u64,
        /// What the workers were told.
        report: Report,
        /// From its first shard to its close.
        duration: Duration,
        /// What of it went into what.
        spent: Spent,
    },
}

/// What the time of a closed round went into.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spent {
    /// When its last shard came, as the receiver's turn has it; of a round without any: when it was closed.
    pub last: Instant,
    /// When it was closed: by the clock, not by the turn, which began before what the same reactor decoded in it.
    pub closed: Instant,
    /// For how long decoders told who lies, on all their cores together.
    pub locate: Duration,
    /// For how long they did everything else.
    pub decode: Duration,
}

impl Spent {
    /// Nothing at all, at this time.
    pub fn nothing(at: Instant) -> Spent {
        Spent { last: at, closed: at, locate: Duration::ZERO, decode: Duration::ZERO }
    }
}

/// The stages, and the ends by which the rest of the daemon reaches them.
pub struct Pipeline {
    /// Checks frames.
    pub receiver: Receiver,
    /// Gathers shards into words.
    pub assembler: Assembler,
    /// Finds who lied, and recovers sums; one per lane.
    pub decoders: Vec<Decoder>,
    /// Sends updates and reports.
    pub pusher: Pusher,
    /// How to reach them.
    pub handle: Handle,
}

/// How the rest of the daemon reaches the pipeline.
#[derive(Clone)]
pub struct Handle {
    inbound: Producer<Admission<dyn Inbound>>,
    outbound: Producer<Admission<dyn Outbound>>,
    /// What happened.
    pub events: Arc<ArrayQueue<Event>>,
    /// The counters that all stages share.
    pub board: Arc<Board>,
    /// The slots and rings.
    pub stock: Arc<Stock>,
    bells: Arc<[Arc<Bell>]>,
}

impl Handle {
    /// Asks the pipeline to stop once the round that has begun is closed.
    pub fn request_stop(&self) {
        self.board.request_stop();
        self.wake();
    }

    /// Ends this session of a worker: it computes differently than its group.
    pub fn dismiss(&self, worker: u32, session: u64) {
        self.board.dismiss(worker as usize, session);
        self.wake();
    }

    /// The bells of all reactors.
    pub fn bells(&self) -> Arc<[Arc<Bell>]> {
        self.bells.clone()
    }

    /// Wakes all reactors, so that they look whether they are to end.
    pub fn wake(&self) {
        self.bells.iter().for_each(|bell| bell.ring());
    }

    /// Hands a connection to the pipeline; `false` if too many joined at once.
    pub fn admit(&self, worker: u32, session: u64, connection: crate::transport::Connection) -> bool {
        let crate::transport::Connection { inbound, outbound } = connection;
        // A half that is not taken ends the connection, or the other one would wait for ever.
        let outbound = self.outbound.push(Admission { worker, session, half: outbound });
        let outbound = outbound.map_err(|mut refused| refused.half.close()).is_ok();
        let inbound = self.inbound.push(Admission { worker, session, half: inbound });
        inbound.map_err(|mut refused| refused.half.close()).is_ok() && outbound
    }
}

/// The reactor on which each stage runs, as its bell.
pub struct Bells {
    /// Of the receiver.
    pub receiver: Arc<Bell>,
    /// Of the assembler.
    pub assembler: Arc<Bell>,
    /// Of the decoder of each lane.
    pub decoders: Vec<Arc<Bell>>,
    /// Of the pusher.
    pub pusher: Arc<Bell>,
}

impl Bells {
    /// Bells for `lanes` lanes that wake nobody: for a caller that steps all stages itself.
    pub fn silent(lanes: usize) -> Bells {
        let bell = || Arc::new(Bell::silent());
        Bells { receiver: bell(), assembler: bell(), decoders: (0..lanes).map(|_| bell()).collect(), pusher: bell() }
    }
}

/// Makes updates of the words of one lane.
#[allow(clippy::large_enum_variant)]
pub enum Decoder {
    #[doc(hidden)]
    Exact(Exact),
    #[doc(hidden)]
    Robust(Combiner),
}

impl Decoder {
    fn held(&self) -> usize {
        match self {
            Decoder::Exact(decoder) => decoder.held(),
            Decoder::Robust(decoder) => decoder.held(),
        }
    }
}

impl Stage for Decoder {
    fn step(&mut self, context: &Context<'_>) -> Progress {
        match self {
            Decoder::Exact(decoder) => decoder.step(context),
            Decoder::Robust(decoder) => decoder.step(context),
        }
    }

    fn name(&self) -> StageName {
        StageName::Decode
    }
}

/// The slots of a pipeline.
pub struct Slabs {
    /// Where shards land: each worker's own.
    pub shards: Slab,
    /// Where updates (holder 0) and reports (holder 1) are sent from.
    pub updates: Slab,
    /// Where shards of 16 bits become f32: each decoder's own. None if they are f32.
    pub wide: Option<Slab>,
}

impl Slabs {
    /// All slots of a job, touched from the calling thread.
    ///
    /// # Errors
    /// If there is not so much memory, or no huge pages where they are required.
    pub fn claim(job: &Job, bells: &Bells, huge: HugePages) -> Result<Slabs, ClaimError> {
        Slabs::by(job, bells, |holders, slots, bytes, bells| Slab::claim(holders, slots, bytes, bells, huge))
    }

    fn by<E>(
        job: &Job,
        bells: &Bells,
        claim: impl Fn(usize, usize, usize, Vec<Arc<Bell>>) -> Result<Slab, E>,
    ) -> Result<Slabs, E> {
        let limits = Limits::of(&job.plan, job.updates);
        let workers = job.plan.parameters.workers();
        let shards = claim(workers, limits.credits, limits.shard_slot_bytes, vec![bells.receiver.clone()])?;
        let update_bells = bells.decoders.iter().chain([&bells.pusher]).cloned().collect();
        let updates = claim(2, limits.updates, limits.update_slot_bytes, update_bells)?;
        let wide = match limits.wide_slots(workers) {
            0 => None,
            slots => Some(claim(bells.decoders.len(), slots, limits.wide_slot_bytes, vec![])?),
        };
        Ok(Slabs { shards, updates, wide })
    }
}

impl Pipeline {
    /// Connects the stages, with slots that are not touched yet; the number of lanes is that of the decoders' bells.
    ///
    /// # Panics
    /// If there is no lane, or no memory.
    pub fn new(job: &Job, bells: &Bells) -> Pipeline {
        let claim = |holders, slots, bytes, bells| Ok(Slab::new(holders, slots, bytes, bells));
        let Ok(slabs) = Slabs::by::<std::convert::Infallible>(job, bells, claim);
        Pipeline::with_slabs(job, bells, slabs)
    }

    /// [`Pipeline::new`] with slots that were claimed before, for this job and these bells.
    ///
    /// # Panics
    /// If there is no lane.
    pub fn with_slabs(job: &Job, bells: &Bells, slabs: Slabs) -> Pipeline {
        let lanes = bells.decoders.len();
        assert!(lanes >= 1, "there is a decoder");
        let job = Arc::new(job.clone());
        let limits = Limits::of(&job.plan, job.updates);
        let board = Arc::new(Board::new(&job));
        let Slabs { shards, updates, wide } = slabs;
        let events = Arc::new(ArrayQueue::new(limits.events));

        let (inbound, admitted_in) = ring(limits.admissions, bells.receiver.clone());
        let (outbound, admitted_out) = ring(limits.admissions, bells.pusher.clone());
        let (to_assembler, from_receiver) = ring(limits.shards_ring, bells.assembler.clone());
        let (to_pusher, from_decoders) = ring(limits.updates_ring(lanes), bells.pusher.clone());
        let words = if job.relay.is_some() { limits.words_in_flight(job.plan.parameters.workers()) } else { 0 };
        let (hear, heard) = ring(words, bells.pusher.clone());
        let (mut to_decoders, mut decoders) = (Vec::new(), Vec::new());
        let survey = job.surveys().then(|| Arc::new(Survey::new(&job, limits.history, bells.decoders.clone())));
        for lane in 0..lanes {
            let (to_decoder, messages) = ring(limits.words_ring_of(&job), bells.decoders[lane].clone());
            to_decoders.push(to_decoder);
            let (updates, to_pusher) = (updates.clone(), to_pusher.clone());
            let wide = wide.iter().flat_map(|slab| std::iter::from_fn(|| slab.take(lane))).collect();
            let work = Work { lane, lanes, board: board.clone(), updates, wide, messages, pusher: to_pusher };
            decoders.push(match &job.robust {
                None => Decoder::Exact(Exact::new(&job, work)),
                Some(robust) => Decoder::Robust(Combiner::new(&job, robust, survey.clone(), work)),
            });
        }
        let mut rings = vec![
            (Ring::Inbound, inbound.depth()),
            (Ring::Outbound, outbound.depth()),
            (Ring::Shards, to_assembler.depth()),
            (Ring::Updates, to_pusher.depth()),
            (Ring::Heard, hear.depth()),
        ];
        rings.extend(to_decoders.iter().map(|ring| (Ring::Words, ring.depth())));
        let stock = Arc::new(Stock {
            workers: job.plan.parameters.workers(),
            credits: limits.credits,
            outgoing: limits.updates,
            shards: shards.clone(),
            updates: updates.clone(),
            rings,
            events: events.clone(),
        });
        let receiver = Receiver::new(&job, board.clone(), shards, admitted_in, to_assembler, hear, events.clone());
        let assembler = Assembler::new(&job, board.clone(), from_receiver, to_decoders);
        let wake = [&bells.receiver, &bells.assembler].into_iter().chain(&bells.decoders);
        let wake: Vec<Arc<Bell>> = wake.cloned().collect();
        let all = wake.iter().chain([&bells.pusher]).cloned().collect();
        let inputs = pusher::Inputs { admitted: admitted_out, decoded: from_decoders, heard };
        let pusher = Pusher::new(&job, board.clone(), updates, inputs, wake, events.clone());
        let handle = Handle { inbound, outbound, events, board, stock, bells: all };
        Pipeline { receiver, assembler, decoders, pusher, handle }
    }

    /// Steps every stage once, in the order of the flow: the whole daemon as one function of time.
    pub fn step(&mut self, now: Instant) -> Progress {
        let context = Context { now, registry: None };
        let mut busy = false;
        for stage in self.stages() {
            busy |= stage.step(&context) == Progress::Busy;
        }
        Progress::of(busy)
    }

    /// Words and chunks that some stage keeps now, between stages not counted: 0 when every round that began is over.
    pub fn held(&self) -> usize {
        self.assembler.held() + self.decoders.iter().map(Decoder::held).sum::<usize>()
    }

    fn stages(&mut self) -> impl Iterator<Item = &mut dyn Stage> {
        let first: [&mut dyn Stage; 2] = [&mut self.receiver, &mut self.assembler];
        let decoders = self.decoders.iter_mut().map(|stage| stage as &mut dyn Stage);
        first.into_iter().chain(decoders).chain([&mut self.pusher as &mut dyn Stage])
    }

    /// The earliest time at which a stage wants to be stepped even if nothing happens.
    pub fn timer(&mut self) -> Option<Instant> {
        self.stages().filter_map(|stage| stage.timer()).min()
    }
}
