//! Memory that changes after it was checked: the hostile worker overwrites what it has sent while the daemon's side checks it,
//! works, and reads it again. And two bugs planted in the transport, which the same scenarios notice.
#![allow(unsafe_code)]

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use solon::code::Projector;
use solon::memory::Slot;
use solon::transport::rdma::ffi::*;
use solon::transport::rdma::sabotage::{Bug, plant};
use solon::transport::{Connection, Disconnect};
use solon::wire::{HEADER_BYTES, Header, Kind, Violation, seal};

use super::fabric::{CREDITS, Daemon, FRAME, TakeAll, WIDTH};
use super::verbs::{ALL_RIGHTS, End, Memory, Request, words};
use crate::guest::tools::DEVICES;

/// A bug in this thread's connections, until it is dropped.
struct Planted;

impl Planted {
    fn new(bug: Option<Bug>) -> Planted {
        plant(bug);
        Planted
    }
}

impl Drop for Planted {
    fn drop(&mut self) {
        plant(None);
    }
}

fn frame(round: u64) -> Vec<u8> {
    let mut frame = vec![0; FRAME];
    for (at, number) in frame[HEADER_BYTES..].chunks_exact_mut(4).enumerate() {
        number.copy_from_slice(&((round % 1000) as f32 + at as f32).to_le_bytes());
    }
    seal(Header { round, ..Header::new(Kind::Shard) }, &mut frame);
    frame
}

/// The daemon's check, and what it has seen.
struct Check {
    projector: Projector,
    bytes: Vec<u8>,
}

impl Check {
    fn new() -> Check {
        let mut projector = Projector::new(WIDTH, 4);
        projector.draw(&[9; 32], WIDTH);
        Check { projector, bytes: vec![0; FRAME] }
    }

    /// Verifies and projects what stands there; what passed, if it did.
    fn passes(&mut self, words: &[AtomicU32]) -> Option<Vec<u8>> {
        for (bytes, word) in self.bytes.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_ne_bytes());
        }
        let header = Header::parse(self.bytes[..HEADER_BYTES].try_into().expect("a header")).ok()?;
        let numbers: &[f32] = bytemuck::cast_slice(&self.bytes[HEADER_BYTES..]);
        let passes = header.verifies(&self.bytes[HEADER_BYTES..]) && self.projector.project(numbers).is_some();
        passes.then(|| self.bytes.clone())
    }
}

/// Does the decoder read what the check saw?
fn same(words: &[AtomicU32], checked: &[u8]) -> bool {
    let mut now = words.iter().map(|word| word.load(Ordering::Relaxed).to_ne_bytes());
    checked.chunks_exact(4).all(|bytes| now.next().is_some_and(|word| bytes == word))
}

fn slot_words(slot: &Slot) -> &[AtomicU32] {
    // SAFETY: the slot, and with it its memory, outlives the result.
    unsafe { words(slot.address(), FRAME) }
}

#[derive(Debug, Default)]
struct Seen {
    passed: u64,
    refused: u64,
    poisoned: u64,
    overwrites: u64,
}

/// A hostile worker SENDs `rounds` shards and overwrites each as soon as it is posted; the daemon's side checks each shard when it
/// comes, and recovers from it after `held` later ones have come, as a word waits for its last shard. The result says whether every shard came.
fn overwritten(rounds: u64, posted: usize, held: usize) -> (Seen, Result<(), String>) {
    let mut end = End::new(DEVICES[0].name);
    let buffers: Vec<Memory> = (0..CREDITS).map(|_| end.memory(FRAME, IBV_ACCESS_LOCAL_WRITE)).collect();
    let daemon = Daemon::new();
    let (connection, _control) = daemon.connect(&end, 7);
    let Connection { mut inbound, outbound: _outbound } = connection;
    let (granted, over) = (AtomicU64::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let hostile = scope.spawn(|| attack(&end, &buffers, rounds, &granted, &over));
        let (mut seen, mut check) = (Seen::default(), Check::new());
        let mut waiting: VecDeque<(Slot, Option<Vec<u8>>)> = VecDeque::new();
        let recover = |seen: &mut Seen, (slot, checked): (Slot, Option<Vec<u8>>)| match checked {
            None => seen.refused += 1,
            Some(checked) if same(slot_words(&slot), &checked) => seen.passed += 1,
            Some(_) => seen.poisoned += 1,
        };
        let (mut received, mut last) = (0, Instant::now());
        let mut failed = None;
        while received < rounds && failed.is_none() && seen.poisoned == 0 {
            while inbound.posted() < posted
                && let Some(slot) = daemon.shards.take(0)
            {
                if inbound.post(slot).is_err() {
                    failed = Some("a slot cannot be posted".to_owned());
                    break;
                }
            }
            granted.store(received + inbound.posted() as u64, Ordering::Release);
            match inbound.receive(&mut TakeAll, Instant::now()) {
                Ok(Some(_)) => {
                    received += 1;
                    last = Instant::now();
                    let slot = inbound.filled().expect("a filled slot");
                    let checked = check.passes(slot_words(&slot));
                    waiting.push_back((slot, checked));
                    if waiting.len() > held {
                        recover(&mut seen, waiting.pop_front().expect("it is not empty"));
                    }
                }
                Ok(None) if last.elapsed() > Duration::from_secs(5) => {
                    failed = Some(format!("shard {received} never came"));
                }
                Ok(None) => {}
                Err(why) => failed = Some(why.to_string()),
            }
        }
        waiting.drain(..).for_each(|it| recover(&mut seen, it));
        over.store(true, Ordering::Release);
        seen.overwrites = hostile.join().expect("the hostile thread");
        (seen, failed.map_or(Ok(()), Err))
    })
}

fn attack(end: &End, buffers: &[Memory], rounds: u64, granted: &AtomicU64, over: &AtomicBool) -> u64 {
    let (mut sent, mut overwrites) = (0, 0u32);
    let mut buffer = buffers[0];
    while !over.load(Ordering::Acquire) {
        while end.poll().is_some() {}
        if sent < rounds && sent < granted.load(Ordering::Acquire) {
            buffer = buffers[sent as usize % buffers.len()];
            buffer.write(0, &frame(sent));
            end.post(sent, Request::send(Some(buffer.piece(FRAME))));
            if sent % 2 == 1 {
                // Half of them only once they have arrived; the others while the NIC may still be reading.
                end.completion_of(sent, Duration::from_secs(2));
            }
            sent += 1;
        }
        for _ in 0..4 {
            overwrites = overwrites.wrapping_add(1);
            buffer.words[HEADER_BYTES / 4..].iter().for_each(|word| word.store(overwrites, Ordering::Relaxed));
        }
    }
    u64::from(overwrites)
}

#[test]
#[ignore = "runs in the guest"]
fn a_worker_that_overwrites_its_send_buffer_poisons_nothing() {
    let start = Instant::now();
    let (seen, ended) = overwritten(100_000, CREDITS, CREDITS);
    println!("SEND into posted slots: {seen:?} in {:?}", start.elapsed());
    assert_eq!(ended, Ok(()));
    assert_eq!(seen.poisoned, 0);
    assert_eq!(seen.passed + seen.refused, 100_000);
    assert!(seen.passed > 40_000, "most shards had to pass their check for this to mean something");
}

#[test]
#[ignore = "runs in the guest"]
fn a_build_that_decodes_from_remotely_writable_memory_is_poisoned() {
    const TRIES: u64 = 20_000;
    let (mut hostile, mut daemon) = (End::new(DEVICES[0].name), End::new(DEVICES[1].name));
    let place = daemon.memory(FRAME, ALL_RIGHTS);
    let shards: Vec<Memory> = (0..2)
        .map(|round| {
            let memory = hostile.memory(FRAME, IBV_ACCESS_LOCAL_WRITE);
            memory.write(0, &frame(round));
            memory
        })
        .collect();
    daemon.reset();
    hostile.reset();
    (0..64).for_each(|_| daemon.post_receive(0, None));
    daemon.connect(&hostile.endpoint(), 7);
    hostile.connect(&daemon.endpoint(), 7);
    let start = Instant::now();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let write = |opcode, memory: &Memory| Request {
                opcode,
                piece: Some(memory.piece(FRAME)),
                address: place.address(),
                key: place.remote_key,
                number: 0,
            };
            while !over.load(Ordering::Acquire) {
                hostile.post(0, write(IBV_WR_RDMA_WRITE_WITH_IMM, &shards[0]));
                for at in 1..9 {
                    hostile.post(at, write(IBV_WR_RDMA_WRITE, &shards[at as usize % 2]));
                }
                let done = hostile.completion_of(8, Duration::from_secs(5));
                assert_eq!(done.map(|it| it.status), Some(IBV_WC_SUCCESS), "the write is allowed here");
            }
        });
        let (mut seen, mut check) = (Seen::default(), Check::new());
        while seen.poisoned < 3 && seen.passed + seen.refused < TRIES && start.elapsed() < Duration::from_secs(60) {
            let Some(completion) = daemon.poll() else { continue };
            assert_eq!(completion.status, IBV_WC_SUCCESS);
            daemon.post_receive(0, None);
            match check.passes(place.words) {
                None => seen.refused += 1,
                Some(checked) if same(place.words, &checked) => seen.passed += 1,
                Some(_) => seen.poisoned += 1,
            }
        }
        over.store(true, Ordering::Release);
        println!("WRITE into remotely writable memory: {seen:?} in {:?}", start.elapsed());
        assert!(seen.poisoned > 0, "the attack that the daemon withstands is one");
    });
}

#[test]
#[ignore = "runs in the guest"]
fn a_slot_that_is_posted_again_before_it_was_decoded_is_noticed() {
    let run = |bug| {
        let _planted = Planted::new(bug);
        // Half of the receives that the queue has room for, so that the slot that is posted too early finds some.
        overwritten(500, CREDITS / 2, CREDITS)
    };
    let (seen, ended) = run(None);
    println!("without the bug: {seen:?}, {ended:?}");
    assert_eq!((seen.poisoned, ended), (0, Ok(())));
    let (seen, ended) = run(Some(Bug::RepostEarly));
    println!("with RepostEarly: {seen:?}, {ended:?}");
    assert!(seen.poisoned > 0, "a later shard landed in a slot that was checked and not yet recovered from");
}

/// A hostile worker SENDs a shard that is right in every respect, WITH IMMEDIATE; fails if it is taken for a shard.
fn with_immediate() -> Result<(), String> {
    let mut end = End::new(DEVICES[0].name);
    let buffer = end.memory(FRAME, IBV_ACCESS_LOCAL_WRITE);
    buffer.write(0, &frame(0));
    let daemon = Daemon::new();
    let (mut connection, _control) = daemon.connect(&end, 7);
    for _ in 0..CREDITS {
        connection.inbound.post(daemon.slot()).expect("it is posted");
    }
    let send = Request { opcode: IBV_WR_SEND_WITH_IMM, ..Request::send(Some(buffer.piece(FRAME))) };
    end.post(1, send);
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        match connection.inbound.receive(&mut TakeAll, Instant::now()) {
            Ok(None) => {}
            Err(Disconnect::Violation(Violation::Rdma { .. })) => return Ok(()),
            other => return Err(format!("{other:?}")),
        }
    }
    Err("nothing came".into())
}

#[test]
#[ignore = "runs in the guest"]
fn a_completion_that_is_not_checked_is_noticed() {
    let run = |bug| {
        let _planted = Planted::new(bug);
        with_immediate()
    };
    assert_eq!(run(None), Ok(()));
    let planted = run(Some(Bug::AnyCompletion));
    println!("with AnyCompletion: {planted:?}");
    assert!(planted.is_err());
}
