//! The floors: what a round costs if nobody looks at the bytes.
//!
//! One thread takes what workers send into one buffer that stays in the cache, and drops it. As soon as every worker that sends has
//! sent the bytes of a chunk, it pushes the frames of that chunk's update to all of them from another such buffer, with the socket
//! settings of the transport. It never looks at a header and computes no checksum of a payload.
//!
//! - *dropping*: behind the handshake of `solond`, to real workers: they encode, send, check and take the updates, and do not see a
//!   difference. All credits are granted at once. What is missing of a daemon is verifying, locating, decoding and its hand-overs.
//! - *raw*: no handshake, and at the other end [`Sender`], which sends and drops as many bytes without encoding or checking.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use mio::net::TcpStream as PolledStream;
use mio::{Events, Interest, Poll, Token};

use super::{BenchError, JOB};
use crate::code::Precision;
use crate::daemon::config::{Request, load};
use crate::daemon::serve::job_of;
use crate::transport::tcp;
use crate::wire::{
    CHALLENGE_BYTES, Credential, HEADER_BYTES, HELLO_BYTES, Header, Identity, Kind, Plan, REPORT_BYTES, Report,
    RoundOutcome, Welcome, accept_hello, challenge_frame, header_bytes, header_bytes_of, welcome_frame,
};

/// Bytes read at once: the fastest on loopback.
const READ_BYTES: usize = 256 << 10;
/// Frames handed to one vectored write.
const FRAMES_PER_WRITE: usize = 16;
/// Reads, or writes, of one connection before the next has its turn.
const CALLS_PER_TURN: usize = 8;
/// The floor's epoch: any number.
const EPOCH: u64 = 1;
/// Workers that do not come for so long do not come.
const PATIENCE: Duration = Duration::from_secs(60);
/// More credits than any run uses.
const CREDITS: u64 = 1 << 47;

/// Which floor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Side {
    /// To real workers
    Dropping,
    /// To senders of bytes
    Raw,
}

/// The rest of a frame behind its header.
enum Payload {
    /// So many bytes of the constant.
    Constant(usize),
    Report(Box<[u8; REPORT_BYTES]>),
}

/// A frame that is pushed to everybody.
struct Frame {
    header: [u8; HEADER_BYTES],
    payload: Payload,
}

/// All frames of all rounds, made in order, kept until everybody has them.
struct Frames {
    plan: Plan,
    job: u64,
    constant: Vec<u8>,
    /// CRC-32C of a full and of the last chunk of the constant.
    checksums: [u32; 2],
    /// Number of the first frame that is kept.
    first: u64,
    kept: VecDeque<Frame>,
    digest: u64,
}

impl Frames {
    fn new(plan: Plan, job: u64) -> Frames {
        let layout = &plan.layout;
        let number = match plan.update_precision {
            Precision::F32 => 0.5f32.to_le_bytes().to_vec(),
            rounded => {
                let mut half = [0u16];
                rounded.narrow(&[0.5], bytemuck::cast_slice_mut(&mut half));
                half[0].to_le_bytes().to_vec()
            }
        };
        let constant = number.repeat(layout.chunk(0).len);
        let last = plan.update_bytes(layout.chunk(layout.chunks() - 1).len);
        let checksums = [crc_fast::crc32_iscsi(&constant), crc_fast::crc32_iscsi(&constant[..last])];
        Frames { plan, job, constant, checksums, first: 0, kept: VecDeque::new(), digest: 0 }
    }

    fn per_round(&self) -> u64 {
        self.plan.layout.chunks() as u64 + 1
    }

    /// One past the last frame that was made.
    fn end(&self) -> u64 {
        self.first + self.kept.len() as u64
    }

    fn make(&mut self) {
        let (number, chunks) = (self.end(), self.per_round() - 1);
        let (round, chunk) = (number / self.per_round(), number % self.per_round());
        let header = |kind| Header { job: self.job, session: EPOCH, round, ..Header::new(kind) };
        let frame = if chunk < chunks {
            let len = self.plan.update_bytes(self.plan.layout.chunk(chunk as usize).len);
            let checksum = self.checksums[usize::from(chunk + 1 == chunks)];
            let bytes = header_bytes_of(Header { chunk: chunk as u32, ..header(Kind::Update) }, len as u32, checksum);
            let sealed = u32::from_le_bytes(bytes[12..16].try_into().expect("four bytes"));
            self.digest = self.digest.wrapping_add(Report::digest_term(chunk as u32, sealed));
            Frame { header: bytes, payload: Payload::Constant(len) }
        } else {
            let report = Report {
                outcome: RoundOutcome::Complete,
                digest: std::mem::take(&mut self.digest),
                residual_ratio: 0.0,
                received_ratio: 0.0,
                liars: Default::default(),
                late_liars: Default::default(),
                absent: Default::default(),
                late: Default::default(),
            };
            let mut bytes = Box::new([0; REPORT_BYTES]);
            report.write(&mut bytes);
            Frame { header: header_bytes(header(Kind::RoundEnd), &bytes[..]), payload: Payload::Report(bytes) }
        };
        self.kept.push_back(frame);
    }

    fn payload<'a>(&'a self, frame: &'a Frame) -> &'a [u8] {
        match &frame.payload {
            Payload::Constant(len) => &self.constant[..*len],
            Payload::Report(bytes) => &bytes[..],
        }
    }
}

/// Bytes both ways over one connection that never blocks.
struct Flow {
    stream: PolledStream,
    received: u64,
    readable: bool,
    writable: bool,
    over: bool,
}

impl Flow {
    fn new(stream: TcpStream, poll: &Poll, token: usize) -> io::Result<Flow> {
        // Two handles to the same socket, made for the settings that this leaves behind: they are those of the transport.
        drop(tcp::connection(stream.try_clone()?, 1, PATIENCE)?);
        let mut stream = PolledStream::from_std(stream);
        poll.registry().register(&mut stream, Token(token), Interest::READABLE | Interest::WRITABLE)?;
        Ok(Flow { stream, received: 0, readable: true, writable: true, over: false })
    }

    /// Reads and drops what is there, a bounded number of times; true if anything came.
    fn read(&mut self, scrap: &mut [u8]) -> bool {
        let before = self.received;
        for _ in 0..CALLS_PER_TURN {
            if !self.readable || self.over {
                break;
            }
            match self.stream.read(scrap) {
                Ok(0) => self.over = true,
                Ok(bytes) => {
                    self.received += bytes as u64;
                    // What comes after this is announced.
                    self.readable = bytes == scrap.len();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.readable = false,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => self.over = true,
            }
        }
        self.received > before
    }

    /// Writes once; how many bytes left.
    fn write(&mut self, parts: &[IoSlice<'_>]) -> usize {
        match self.stream.write_vectored(parts) {
            Ok(bytes) => return bytes,
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.writable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => self.over = true,
        }
        0
    }

    fn hear(&mut self, event: &mio::event::Event) {
        self.readable |= event.is_readable() || event.is_read_closed();
        self.writable |= event.is_writable();
    }
}

/// What the floor knows of one worker.
struct Peer {
    flow: Flow,
    /// Does it send anything?
    sends: bool,
    /// The frame that it gets next, and how much of it has left.
    frame: u64,
    left: usize,
}

impl Peer {
    fn push(&mut self, frames: &Frames) -> bool {
        let mut moved = false;
        for _ in 0..CALLS_PER_TURN {
            if !self.flow.writable || self.flow.over || self.frame >= frames.end() {
                break;
            }
            let mut parts = [IoSlice::new(&[]); 2 * FRAMES_PER_WRITE];
            let (mut count, mut skip) = (0, self.left);
            for frame in frames.kept.range((self.frame - frames.first) as usize..).take(FRAMES_PER_WRITE) {
                for bytes in [&frame.header[..], frames.payload(frame)] {
                    let from = skip.min(bytes.len());
                    skip -= from;
                    parts[count] = IoSlice::new(&bytes[from..]);
                    count += 1;
                }
            }
            let mut written = self.flow.write(&parts[..count]);
            moved |= written > 0;
            while written > 0 {
                let frame = &frames.kept[(self.frame - frames.first) as usize];
                let missing = HEADER_BYTES + frames.payload(frame).len() - self.left;
                if written < missing {
                    self.left += written;
                    break;
                }
                written -= missing;
                (self.frame, self.left) = (self.frame + 1, 0);
            }
        }
        moved
    }
}

/// Runs a floor until its workers are gone. `flags` are those of a solond for the same job; where it listens is said on standard
/// error, as solond does.
///
/// # Errors
/// If the flags are wrong, workers do not come, or the operating system has no socket for us.
pub fn run(side: Side, absent: usize, flags: &[String]) -> Result<(), BenchError> {
    let arguments = std::iter::once("solond".to_owned()).chain(flags.iter().cloned()).map(Into::into);
    let loaded = match load(arguments, [], &|path| std::fs::read_to_string(path)) {
        Ok(Request::Serve(loaded)) => loaded,
        Ok(Request::Answer(_)) => return Err(BenchError::Options("these flags of solond ask for no job".into())),
        Err(refusal) => return Err(BenchError::Options(refusal.to_string())),
    };
    let plan = job_of(&loaded.config, [0; 32], EPOCH).map_err(|error| BenchError::Options(error.to_string()))?.plan;
    serve(side, absent, plan).map_err(|error| BenchError::Broken(format!("the floor ended: {error}")))
}

fn serve(side: Side, absent: usize, plan: Plan) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    eprintln!("{}", serde_json::json!({ "message": "ready", "address": listener.local_addr()?.to_string() }));
    let (mut poll, workers) = (Poll::new()?, plan.parameters.workers());
    let mut peers = Vec::new();
    while peers.len() < workers {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let worker = match side {
            Side::Dropping => shake_hands(&mut stream, &plan, peers.len() as u64 + 1)?,
            Side::Raw => {
                let mut index = [0; 4];
                stream.read_exact(&mut index)?;
                u32::from_le_bytes(index) as usize % workers
            }
        };
        let sends = plan.parameters.place(worker).row < plan.parameters.redundancy() - absent;
        peers.push(Peer { flow: Flow::new(stream, &poll, peers.len())?, sends, frame: 0, left: 0 });
    }
    let frame = |chunk| (HEADER_BYTES + plan.shard_bytes(plan.layout.chunk(chunk).width)) as u64;
    let (up, up_frame) = ((0..plan.layout.chunks()).map(frame).sum::<u64>(), frame(0));
    let mut frames = Frames::new(plan, Identity::new(JOB, 0).job);
    let (mut events, mut scrap, mut turns) = (Events::with_capacity(256), vec![0; READ_BYTES], 0u64);
    while peers.iter().any(|peer| !peer.flow.over) {
        let mut moved = false;
        for peer in &mut peers {
            moved |= peer.flow.read(&mut scrap);
        }
        let least = peers.iter().filter(|peer| peer.sends).map(|peer| peer.flow.received).min().unwrap_or(0);
        let ready = least / up * frames.per_round() + least % up / up_frame;
        while frames.end() < ready {
            frames.make();
        }
        for peer in &mut peers {
            moved |= peer.push(&frames);
        }
        let slowest = peers.iter().map(|peer| peer.frame).min().unwrap_or(0);
        while frames.first < slowest {
            frames.kept.pop_front();
            frames.first += 1;
        }
        turns += 1;
        if !moved || turns.is_multiple_of(4) {
            poll.poll(&mut events, if moved { Some(Duration::ZERO) } else { None }).or_else(ignore_interrupts)?;
            events.iter().for_each(|event| peers[event.token().0].flow.hear(event));
        }
    }
    Ok(())
}

fn ignore_interrupts(error: io::Error) -> io::Result<()> {
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

/// Lets a worker in as solond would, and grants it all credits there will ever be. Gives its index.
fn shake_hands(stream: &mut TcpStream, plan: &Plan, session: u64) -> io::Result<usize> {
    // It protects nothing: whoever comes may drop bytes here.
    let (challenge, credential) = ([7; 32], Credential::from_token(""));
    let frame: [u8; CHALLENGE_BYTES] = challenge_frame(&challenge);
    stream.write_all(&frame)?;
    let mut bytes = [0; HELLO_BYTES];
    stream.read_exact(&mut bytes)?;
    let job = Identity::new(JOB, 0).job;
    let credentials = vec![credential.clone(); plan.parameters.workers()];
    let hello = accept_hello(&bytes, &challenge, job, &credentials).map_err(io::Error::other)?;
    let worker = hello.identity.worker;
    let welcome = Welcome { plan: *plan, worker, session, epoch: EPOCH, last: None };
    stream.write_all(&welcome_frame(&welcome, &credential, &challenge, &hello.nonce))?;
    let told = |kind, argument| header_bytes(Header { job, session: EPOCH, argument, ..Header::new(kind) }, &[]);
    stream.write_all(&told(Kind::Ready, 0))?;
    stream.write_all(&told(Kind::Credit, CREDITS))?;
    Ok(worker as usize)
}

/// A worker of the raw floor: sends the bytes of shards from one buffer, and drops the bytes of updates.
pub struct Sender {
    poll: Poll,
    events: Events,
    flow: Flow,
    sent: u64,
    /// Bytes that the rounds so far have pushed: more may be here, for who sends nothing does not hold up the next round.
    due: u64,
    out: Vec<u8>,
    scrap: Vec<u8>,
}

impl Sender {
    /// Connects as worker `worker`; `frame` is the length of the longest frame that it sends, in bytes.
    ///
    /// # Errors
    /// If the floor is not there.
    pub fn connect(address: &str, worker: u32, frame: usize) -> io::Result<Sender> {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&worker.to_le_bytes())?;
        let poll = Poll::new()?;
        let flow = Flow::new(stream, &poll, 0)?;
        let events = Events::with_capacity(4);
        Ok(Sender { poll, events, flow, sent: 0, due: 0, out: vec![1; frame], scrap: vec![0; READ_BYTES] })
    }

    /// One round: sends `up` bytes, and takes `down`.
    ///
    /// # Errors
    /// If the floor is gone, or the round does not end in a minute.
    pub fn round(&mut self, up: u64, down: u64) -> io::Result<()> {
        self.due += down;
        let (up, down) = (self.sent + up, self.due);
        let limit = Instant::now() + PATIENCE;
        while self.sent < up || self.flow.received < down {
            let mut moved = self.flow.read(&mut self.scrap);
            for _ in 0..CALLS_PER_TURN {
                if self.sent >= up || !self.flow.writable {
                    break;
                }
                let most = self.out.len().min((up - self.sent) as usize);
                let written = self.flow.write(&[IoSlice::new(&self.out[..most])]);
                self.sent += written as u64;
                moved |= written > 0;
            }
            if self.flow.over {
                return Err(ErrorKind::ConnectionReset.into());
            }
            if !moved {
                if Instant::now() > limit {
                    return Err(ErrorKind::TimedOut.into());
                }
                self.poll.poll(&mut self.events, Some(PATIENCE)).or_else(ignore_interrupts)?;
                self.events.iter().for_each(|event| self.flow.hear(event));
            }
        }
        Ok(())
    }
}
