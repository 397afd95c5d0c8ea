//! Guessed keys and addresses: no WRITE arrives, no READ brings anything back, whatever the guess.

use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use solon::transport::rdma::ffi::*;
use solon::wire::{Header, Kind, seal};

use super::attacker::Attacker;
use super::fabric::{CREDITS, Daemon, FRAME, SLOTS, TakeAll, WORKERS};
use super::job::{HONEST, Solond, while_the_honest_work};
use super::verbs::{ALL_RIGHTS, End, IBV_WR_ATOMIC_FETCH_AND_ADD, Memory, Request};
use crate::guest::tools::DEVICES;

/// What the attacker's memory holds before a READ, and after it.
const NOTHING_READ: u32 = 0x5a5a_5a5a;
/// What the daemon's slots hold, before and after.
const UNTOUCHED: u8 = 0xa5;
const REFUSED: [i32; 2] = [IBV_WC_REM_INV_REQ_ERR, IBV_WC_REM_ACCESS_ERR];

/// A forged operation on 64 bytes (an atomic on 8).
fn probe(memory: &Memory, opcode: i32, key: u32, address: u64) -> Request {
    let bytes = if opcode == IBV_WR_ATOMIC_FETCH_AND_ADD { 8 } else { 64 };
    Request { opcode, piece: Some(memory.piece(bytes)), address, key, number: 0 }
}

/// The index of a region is what all but the last eight bits of its key are: rxe counts them, and rolls the last eight.
fn index_of_a_new_region() -> u32 {
    let mut end = End::new(DEVICES[1].name);
    end.memory(64, ALL_RIGHTS).local_key >> 8
}

/// The probes: every key that a region of the daemon can have, for reading, writing and counting in its own slots, in the other
/// worker's and in those of updates; then anything.
fn probes(daemon: &Daemon, indices: std::ops::Range<u32>, count: usize) -> Vec<(i32, u32, u64)> {
    let address = |pointer: *const u8| pointer.expose_provenance() as u64;
    let own = address(daemon.shards.holder_region(0).0);
    let other = address(daemon.shards.holder_region(1).0);
    let updates = address(daemon.updates.region().0);
    let targets = [
        (IBV_WR_RDMA_WRITE, own),
        (IBV_WR_RDMA_READ, own),
        (IBV_WR_RDMA_WRITE, updates),
        (IBV_WR_RDMA_READ, updates),
        (IBV_WR_RDMA_WRITE, other),
        (IBV_WR_RDMA_READ, other),
        (IBV_WR_ATOMIC_FETCH_AND_ADD, own),
    ];
    let keys = indices.flat_map(|index| (0..256).map(move |variant| (index << 8) | variant));
    let mut probes: Vec<_> = keys.flat_map(|key| targets.map(|(opcode, address)| (opcode, key, address))).collect();
    println!(
        "{} probes are the sweep of {} regions, {} are random",
        probes.len(),
        probes.len() / 7 / 256,
        count - probes.len()
    );
    let mut random = ChaCha8Rng::seed_from_u64(24);
    while probes.len() < count {
        let near = [own, other, updates, 0, u64::MAX][random.next_u32() as usize % 5];
        let address = near.wrapping_add(random.next_u64() >> [64 - 12, 40, 20, 1][random.next_u32() as usize % 4]);
        let opcode = if random.next_u32() % 2 == 0 { IBV_WR_RDMA_WRITE } else { IBV_WR_RDMA_READ };
        probes.push((opcode, random.next_u32(), address));
    }
    probes
}

fn fill(daemon: &Daemon) {
    for slab in [&daemon.shards, &daemon.updates] {
        let slots: Vec<_> = (0..WORKERS)
            .flat_map(|holder| std::iter::repeat_with(move || slab.take(holder)).map_while(|it| it))
            .collect();
        assert_eq!(slots.len(), WORKERS * SLOTS);
        slots.into_iter().for_each(|mut slot| slot.fill(UNTOUCHED));
    }
}

fn untouched(daemon: &Daemon) -> bool {
    [&daemon.shards, &daemon.updates].into_iter().all(|slab| {
        // Those of the last queue pair come back when it is destroyed, which is done elsewhere.
        let until = Instant::now() + Duration::from_secs(10);
        while (0..WORKERS).any(|holder| slab.free(holder) < SLOTS) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        let slots: Vec<_> = (0..WORKERS)
            .flat_map(|holder| std::iter::repeat_with(move || slab.take(holder)).map_while(|it| it))
            .collect();
        assert_eq!(slots.len(), WORKERS * SLOTS, "every slot came back");
        slots.iter().all(|slot| slot.iter().all(|byte| *byte == UNTOUCHED))
    })
}

#[test]
#[ignore = "runs in the guest"]
fn ten_thousand_forged_keys_and_addresses_reach_no_memory() {
    const PROBES: usize = 10_000;
    let mut hostile = End::new(DEVICES[0].name);
    let memory = hostile.memory(64, IBV_ACCESS_LOCAL_WRITE);
    the_same_operations_reach_memory_that_allows_them(&hostile, &memory);

    let before = index_of_a_new_region();
    let daemon = Daemon::new();
    let after = index_of_a_new_region();
    assert_eq!(after - before, 2 * WORKERS as u32 + 1, "the daemon's regions are those between");
    fill(&daemon);
    let start = Instant::now();
    let (mut refused, mut slowest) = ([0; 2], Duration::ZERO);
    for (opcode, key, address) in probes(&daemon, before + 1..after, PROBES) {
        let began = Instant::now();
        let (mut connection, _control) = daemon.connect(&hostile, 7);
        for _ in 0..CREDITS {
            connection.inbound.post(daemon.slot()).expect("it is posted");
        }
        memory.fill(NOTHING_READ);
        hostile.post(1, probe(&memory, opcode, key, address));
        let completion = hostile.completion_of(1, Duration::from_secs(5)).expect("an answer");
        let at = REFUSED.iter().position(|status| *status == completion.status);
        refused[at.unwrap_or_else(|| panic!("{opcode} {key:#x} {address:#x}: {completion:?}"))] += 1;
        assert!(memory.holds_only(NOTHING_READ), "{opcode} {key:#x} {address:#x} brought something back");
        slowest = slowest.max(began.elapsed());
    }
    let took = start.elapsed();
    println!(
        "{PROBES} probes in {took:?}: status 9 {} times, status 10 {} times; the slowest took {slowest:?}",
        refused[0], refused[1]
    );
    assert!(untouched(&daemon), "no byte of the daemon's memory has changed");
}

#[test]
#[ignore = "runs in the guest"]
fn no_region_of_the_daemons_can_be_invalidated_by_a_worker() {
    let mut hostile = End::new(DEVICES[0].name);
    let memory = hostile.memory(FRAME, IBV_ACCESS_LOCAL_WRITE);
    let before = index_of_a_new_region();
    let daemon = Daemon::new();
    let after = index_of_a_new_region();
    assert_eq!(after - before, 2 * WORKERS as u32 + 1, "the daemon's regions are those between");
    let connect = || {
        let (mut connection, control) = daemon.connect(&hostile, 7);
        connection.inbound.post(daemon.slot()).expect("it is posted");
        (connection, control)
    };
    let (start, mut probes) = (Instant::now(), 0);
    for number in (before + 1) << 8..after << 8 {
        let (mut connection, _control) = connect();
        hostile.post(1, Request { opcode: IBV_WR_SEND_WITH_INV, number, ..Request::send(None) });
        hostile.completion_of(1, Duration::from_secs(5)).expect("an answer");
        let received = connection.inbound.receive(&mut TakeAll, Instant::now());
        assert!(!matches!(received, Ok(Some(_))), "key {number:#x} was taken for a shard");
        probes += 1;
    }
    println!("{probes} invalidations in {:?}", start.elapsed());
    // The region that shards land in takes one.
    let (mut connection, _control) = connect();
    let mut frame = vec![0; FRAME];
    seal(Header::new(Kind::Shard), &mut frame);
    memory.write(0, &frame);
    hostile.post(1, Request::send(Some(memory.piece(FRAME))));
    assert_eq!(hostile.completion_of(1, Duration::from_secs(5)).map(|it| it.status), Some(IBV_WC_SUCCESS));
    let start = Instant::now();
    loop {
        match connection.inbound.receive(&mut TakeAll, Instant::now()) {
            Ok(Some(_)) => break,
            Ok(None) => assert!(start.elapsed() < Duration::from_secs(5), "the shard did not arrive"),
            Err(why) => panic!("{why}"),
        }
    }
}

/// Else the test would show nothing.
fn the_same_operations_reach_memory_that_allows_them(hostile: &End, memory: &Memory) {
    let mut open = End::new(DEVICES[1].name);
    let place = open.memory(64, ALL_RIGHTS);
    open.reset();
    hostile.reset();
    open.connect(&hostile.endpoint(), 7);
    hostile.connect(&open.endpoint(), 7);
    let run = |opcode| {
        hostile.post(1, probe(memory, opcode, place.remote_key, place.address()));
        hostile.completion_of(1, Duration::from_secs(5)).expect("an answer").status
    };
    memory.fill(NOTHING_READ);
    assert_eq!(run(IBV_WR_RDMA_WRITE), IBV_WC_SUCCESS);
    assert!(place.holds_only(NOTHING_READ));
    place.fill(1);
    assert_eq!(run(IBV_WR_RDMA_READ), IBV_WC_SUCCESS);
    assert!(memory.holds_only(1));
    assert_eq!(run(IBV_WR_ATOMIC_FETCH_AND_ADD), IBV_WC_SUCCESS);
    assert!(!place.holds_only(1));
}

/// soft-RoCE asks the queue pair's rights before it looks at a key, so the probes above never reach the second guard: a region that is
/// registered as the daemon's are has no remote key, whatever the queue pair allows.
#[test]
#[ignore = "runs in the guest"]
fn a_region_without_remote_rights_is_refused_even_where_the_queue_pair_allows_all() {
    let (mut hostile, mut open) = (End::new(DEVICES[0].name), End::new(DEVICES[1].name));
    let memory = hostile.memory(64, IBV_ACCESS_LOCAL_WRITE);
    let place = open.memory(64, IBV_ACCESS_LOCAL_WRITE);
    place.fill(1);
    for variant in 0..256 {
        for opcode in [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ, IBV_WR_ATOMIC_FETCH_AND_ADD] {
            open.reset();
            hostile.reset();
            open.connect(&hostile.endpoint(), 7);
            hostile.connect(&open.endpoint(), 7);
            memory.fill(NOTHING_READ);
            let key = (place.local_key & !0xff) | variant;
            hostile.post(1, probe(&memory, opcode, key, place.address()));
            let completion = hostile.completion_of(1, Duration::from_secs(5)).expect("an answer");
            assert_eq!(completion.status, IBV_WC_REM_ACCESS_ERR, "{opcode} {key:#x}: {completion:?}");
            assert!(memory.holds_only(NOTHING_READ));
        }
    }
    assert!(place.holds_only(1));
}

/// The start addresses of what a process has claimed and may write.
fn writable(process: u32) -> Vec<u64> {
    let maps = std::fs::read_to_string(format!("/proc/{process}/maps")).expect("the daemon's memory map");
    let writable = maps.lines().filter(|line| line.contains(" rw-p ") && line.contains(" 00:00 0"));
    writable.filter_map(|line| u64::from_str_radix(line.split('-').next()?, 16).ok()).collect()
}

#[test]
#[ignore = "runs in the guest"]
fn forged_keys_and_addresses_end_only_the_forgers_link_with_solond() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("tokens");
    let token = |worker: usize| format!("secret-secret-secret-{worker}");
    let tokens: String = (0..HONEST + 2).map(|worker| format!("{worker} {}\n", token(worker))).collect();
    std::fs::write(&path, tokens).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let before = index_of_a_new_region();
    let mut solond = Solond::start(&["--listen-token-file", path.to_str().unwrap()]);
    let regions = index_of_a_new_region() - before - 1;
    assert_eq!(regions as usize, 2 * (HONEST + 2), "two regions per worker");
    let addresses = writable(solond.process());
    assert!(addresses.len() > 3, "{addresses:x?}");
    let rounds = while_the_honest_work(&mut solond, Duration::from_millis(2), token, |solond| {
        let mut random = ChaCha8Rng::seed_from_u64(25);
        for at in 0..24 {
            let worker = HONEST + at % 2;
            let attacker = Attacker::join(&solond.address, worker as u32, &token(worker), 7);
            attacker.memory.fill(NOTHING_READ);
            let opcode = [IBV_WR_RDMA_WRITE, IBV_WR_RDMA_READ][at / 2 % 2];
            let index = before + 1 + random.next_u32() % regions;
            let key = (index << 8) | (random.next_u32() % 256);
            let address =
                addresses[random.next_u32() as usize % addresses.len()] + 64 * u64::from(random.next_u32() % 64);
            attacker.end.post(1, probe(&attacker.memory, opcode, key, address));
            let completion = attacker.end.completion_of(1, Duration::from_secs(5)).expect("an answer");
            assert!(REFUSED.contains(&completion.status), "{completion:?}");
            assert!(attacker.memory.holds_only(NOTHING_READ));
            let named = format!("\"worker\":{worker}");
            solond.wait_for(&["RDMA connection ended", &named]);
            drop(attacker);
            solond.wait_for(&["worker left", &named]);
        }
    });
    println!("24 forged operations on solond, {} mappings, while the honest ran {rounds} rounds", addresses.len());
}
