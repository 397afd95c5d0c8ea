//! Updates that workers pass on to each other, over links that are queues, with carriers that misbehave.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::client::Carry;
use crate::wire::{HEADER_BYTES, Header, LinkEnds, LinkOrder, header_bytes};

mod chance;
mod parting;

const REPAIR: Duration = Duration::from_millis(20);
const D: usize = 1001;
/// Small random numbers from a seed.
#[derive(Clone)]
struct Chance(u64);

impl Chance {
    fn new(seed: u64) -> Chance {
        Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % end
    }

    fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }
}

/// A cluster whose workers are linked, and what became of it.
struct Mesh {
    cluster: Cluster,
    job: Job,
    /// Orders that the other end has not seen yet.
    orders: Vec<(usize, LinkOrder, LinkEnds)>,
    bad: Vec<(u32, bool)>,
    /// Of all rounds.
    longest: Duration,
    /// Workers that are not driven any more.
    gone: BTreeSet<usize>,
    /// Chance decides who is driven in a turn, where there is any.
    chance: Option<Chance>,
    /// Sessions that have said where they are reached.
    reached: BTreeSet<u64>,
}

fn relayed(parameters: Parameters, relay: bool) -> Job {
    let mut job = job(parameters, D, 25);
    job.updates = 12;
    job.relay = relay.then_some(Relay { repair: REPAIR, auto: false });
    job
}

impl Mesh {
    fn new(job: Job) -> Mesh {
        let cluster = Cluster::new(&job, 2);
        let mut mesh = Mesh {
            cluster,
            job,
            orders: Vec::new(),
            bad: Vec::new(),
            longest: Duration::ZERO,
            gone: BTreeSet::new(),
            chance: None,
            reached: BTreeSet::new(),
        };
        (0..8).for_each(|_| mesh.turn());
        mesh
    }

    fn workers(&self) -> usize {
        self.cluster.sessions.len()
    }

    /// Makes the links that were ordered.
    fn connect(&mut self) {
        for worker in 0..self.workers() {
            let session = &mut self.cluster.sessions[worker];
            while let Some((order, ends)) = session.next_link() {
                self.orders.retain(|(end, old, _)| (*end, old.peer) != (worker, order.peer));
                self.orders.push((worker, order, ends));
            }
        }
        while let Some((a, b)) = self.pair() {
            let (_, order, _) = self.orders.swap_remove(b);
            let (worker, other, _) = self.orders.swap_remove(a);
            let (here, there) = memory::pair(self.cluster.sessions[worker].link_queue());
            self.cluster.sessions[worker].link(other.peer, here);
            self.cluster.sessions[other.peer as usize].link(order.peer, there);
        }
    }

    fn pair(&self) -> Option<(usize, usize)> {
        (0..self.orders.len()).flat_map(|b| (0..b).map(move |a| (a, b))).find(|(a, b)| {
            let ((one, order, _), (other, back, _)) = (&self.orders[*a], &self.orders[*b]);
            order.key == back.key && order.peer as usize == *other && back.peer as usize == *one
        })
    }

    fn turn(&mut self) {
        let cluster = &mut self.cluster;
        cluster.pipeline.step(cluster.now);
        for (worker, session) in cluster.sessions.iter_mut().enumerate() {
            let idle = self.chance.as_mut().is_some_and(|chance| chance.one_in(3));
            if self.gone.contains(&worker) || idle {
                continue;
            }
            session.drive(cluster.now, None).unwrap();
            if session.relays() && self.reached.insert(session.welcome().session) {
                session.reach(None, 1000 + worker as u16);
            }
        }
        cluster.now += Duration::from_micros(200);
        self.connect();
        while let Some(event) = self.cluster.pipeline.handle.events.pop() {
            if let Event::BadCarrier { worker, wrong } = event {
                self.bad.push((worker, wrong));
            }
        }
    }

    /// One round; the update of every worker that is not gone, bit by bit.
    fn round(&mut self, number: u32) -> Vec<u32> {
        let (groups, r) = (self.job.plan.parameters.groups(), self.job.plan.parameters.redundancy());
        let gradients = gradients(groups, D, number);
        let began = self.cluster.now;
        let live: Vec<usize> = (0..self.workers()).filter(|worker| !self.gone.contains(worker)).collect();
        for worker in &live {
            self.cluster.sessions[*worker].begin().unwrap();
        }
        let mut updates: Vec<Option<Vec<u32>>> = vec![None; self.workers()];
        let mut update = vec![0.0; D];
        loop {
            for worker in live.iter().copied().filter(|worker| !self.gone.contains(worker)) {
                let session = &mut self.cluster.sessions[worker];
                if updates[worker].is_some() {
                    continue;
                }
                session.pump(Source::Separate(&gradients[worker / r]), None);
                match session.collect(&mut update) {
                    Some(Ok(_)) => updates[worker] = Some(update.iter().map(|x| x.to_bits()).collect()),
                    Some(Err(error)) => panic!("worker {worker}: {error}"),
                    None => {}
                }
            }
            if live.iter().all(|worker| updates[*worker].is_some() || self.gone.contains(worker)) {
                break;
            }
            self.turn();
            assert!(self.cluster.now - began < self.job.deadline(), "a round does not wait for its deadline");
        }
        self.longest = self.longest.max(self.cluster.now - began);
        let mut updates = updates.into_iter().flatten();
        let first = updates.next().unwrap();
        assert!(updates.all(|other| other == first), "everybody has the same update");
        first
    }

    fn counted(&self, counter: Counter) -> u64 {
        self.cluster.pipeline.handle.board.counted(counter)
    }

    /// Lets what is on its way arrive.
    fn settle(&mut self) {
        (0..50).for_each(|_| self.turn());
    }
}

/// What every worker gets without a relay.
fn direct(job: Job, rounds: u32) -> Vec<Vec<u32>> {
    let mut mesh = Mesh::new(Job { relay: None, ..job });
    (0..rounds).map(|round| mesh.round(round)).collect()
}

/// Rounds with these carriers misbehaving, compared with the direct way.
fn with_carriers(parameters: Parameters, rounds: u32, carry: impl Fn(usize) -> Option<Carry>) -> Mesh {
    with_carriers_of(relayed(parameters, true), rounds, carry)
}

fn with_carriers_of(job: Job, rounds: u32, carry: impl Fn(usize) -> Option<Carry>) -> Mesh {
    let expected = direct(job.clone(), rounds);
    let mut mesh = Mesh::new(job);
    for worker in 0..mesh.workers() {
        if let Some(carry) = carry(worker) {
            mesh.cluster.sessions[worker].set_carry(carry);
        }
    }
    for round in 0..rounds {
        assert!(mesh.round(round) == expected[round as usize], "round {round}: as without a relay");
    }
    mesh.settle();
    assert_eq!(mesh.counted(Counter::DigestMismatches), 0);
    assert_eq!(mesh.counted(Counter::Violations), 0);
    mesh
}

fn parameters(compression: usize) -> Parameters {
    Parameters::new(1, 2, 0, compression).unwrap()
}

#[test]
fn every_byte_of_the_update_leaves_the_daemon_once_and_every_worker_has_the_same() {
    for (parameters, precision) in [parameters(1), parameters(4), Parameters::new(3, 1, 1, 4).unwrap()]
        .into_iter()
        .flat_map(|parameters| [Precision::F32, Precision::Bf16].map(|it| (parameters, it)))
    {
        let rounds = 5;
        let mut job = relayed(parameters, true);
        job.plan.update_precision = precision;
        let mesh = with_carriers_of(job, rounds, |_| None);
        let repairs = [Counter::RepairsLate, Counter::RepairsWrong, Counter::RepairsUnasked, Counter::BadCarriers];
        assert_eq!(repairs.map(|counter| mesh.counted(counter)), [0; 4]);
        let chunks = mesh.job.plan.layout.chunks();
        let update = u64::from(rounds) * (precision.shard_bytes(D) + chunks * HEADER_BYTES) as u64;
        assert_eq!(mesh.counted(Counter::UpdateBytesSent), update, "once");
        assert_eq!(mesh.counted(Counter::UpdateBytesCarried), update * (mesh.workers() as u64 - 1));
        assert!(mesh.bad.is_empty());
    }
}

#[test]
fn nothing_is_relayed_where_nobody_asked_for_it_or_the_worker_is_on_the_daemons_own_machine() {
    let mut local = relayed(parameters(1), true);
    local.relay = Some(Relay { repair: REPAIR, auto: true });
    for job in [relayed(parameters(1), false), local] {
        let mut mesh = Mesh::new(job);
        mesh.round(0);
        assert_eq!(mesh.counted(Counter::AnnounceBytes) + mesh.counted(Counter::UpdateBytesCarried), 0);
    }
}

/// One carrier that treats what it passes on as `carry` says.
fn one(liar: usize, carry: fn(&Header, u32, &mut [u8]) -> usize) -> impl Fn(usize) -> Option<Carry> {
    move |worker| (worker == liar).then(|| Box::new(carry) as Carry)
}

/// Makes a frame whole again after its payload or header was changed, as a liar would.
fn reseal(header: Header, frame: &mut [u8]) {
    let (head, payload) = frame.split_at_mut(HEADER_BYTES);
    head.copy_from_slice(&header_bytes(header, payload));
}

#[test]
fn a_carrier_that_changes_what_it_carries_is_named_and_asked_no_more() {
    for compression in [1, 4] {
        let mesh = with_carriers(
            parameters(compression),
            12,
            one(3, |header, _, frame| {
                frame[HEADER_BYTES] ^= 1;
                reseal(*header, frame);
                1
            }),
        );
        assert_eq!(mesh.bad, [(3, true)]);
        assert_eq!(mesh.counted(Counter::BadCarriers), 1);
        // Each of the others found out once: with the link ended nothing more was asked of it.
        let others = mesh.workers() as u64 - 1;
        assert!((3..=others).contains(&mesh.counted(Counter::RepairsWrong)), "{}", mesh.counted(Counter::RepairsWrong));
    }
}

#[test]
fn a_flipped_bit_anywhere_in_a_frame_costs_a_repair_and_nothing_else() {
    for bit in [0, 37, 8 * 13, 8 * 20, 8 * 24, 8 * 32, 8 * 40, 8 * 44, 8 * 48, 8 * HEADER_BYTES + 5] {
        let carry = move |worker: usize| {
            (worker == 0).then(|| {
                Box::new(move |_: &Header, _: u32, frame: &mut [u8]| {
                    frame[bit / 8] ^= 1 << (bit % 8);
                    1usize
                }) as Carry
            })
        };
        let mesh = with_carriers(parameters(1), 6, carry);
        assert!(mesh.bad.iter().all(|(worker, _)| *worker == 0), "bit {bit}: {:?}", mesh.bad);
    }
}

#[test]
fn a_carrier_that_drops_what_it_carries_is_named_and_no_round_waits_for_long() {
    let mesh = with_carriers(parameters(4), 12, one(5, |_, _, _| 0));
    assert_eq!(mesh.bad, [(5, false)]);
    assert!(mesh.longest < 4 * REPAIR, "{:?}", mesh.longest);
    let once = mesh.counted(Counter::RepairsLate);
    assert!(once > 0 && once <= 8 * mesh.job.updates as u64, "{once}");
}

#[test]
fn a_carrier_that_is_good_to_one_and_bad_to_another_costs_only_repairs() {
    let mesh = with_carriers(
        parameters(4),
        12,
        one(2, |header, peer, frame| {
            if peer < 2 {
                frame[HEADER_BYTES + 1] ^= 0x40;
                reseal(*header, frame);
            }
            1
        }),
    );
    assert!(mesh.bad.is_empty(), "two of its receivers could be liars: {:?}", mesh.bad);
    assert!((2..=12).contains(&mesh.counted(Counter::RepairsWrong)), "{}", mesh.counted(Counter::RepairsWrong));
}

#[test]
fn a_carrier_that_sends_everything_many_times_costs_nobody_else_anything() {
    let mesh = with_carriers(parameters(1), 12, one(1, |_, _, _| 3));
    assert!(mesh.bad.iter().all(|(worker, _)| *worker == 1), "{:?}", mesh.bad);
    assert!(mesh.counted(Counter::UpdateBytesCarried) > 0);
}

#[test]
fn a_carrier_that_sends_other_chunks_than_it_was_given_is_not_believed() {
    for round_too in [false, true] {
        let carry = move |worker: usize| {
            (worker == 4).then(|| {
                Box::new(move |header: &Header, _: u32, frame: &mut [u8]| {
                    let round = header.round + u64::from(round_too);
                    reseal(Header { chunk: header.chunk / 2, round, ..*header }, frame);
                    1usize
                }) as Carry
            })
        };
        let mesh = with_carriers(parameters(1), 12, carry);
        assert!(mesh.bad.iter().all(|(worker, _)| *worker == 4), "{:?}", mesh.bad);
    }
}

#[test]
fn s_liars_that_carry_badly_and_say_that_others_do_name_no_honest_one() {
    // Two of five lie, each about what it gets, by dropping its links: and drop what they carry.
    let expected = direct(relayed(parameters(1), false), 16);
    let mut mesh = Mesh::new(relayed(parameters(1), true));
    for liar in [0, 1] {
        mesh.cluster.sessions[liar].set_carry(Box::new(|_, _, _| 0));
    }
    for round in 0..16 {
        for liar in [0u32, 1] {
            for peer in 0..5 {
                if peer != liar && mesh.cluster.sessions[liar as usize].is_linked(peer) {
                    // Taken for the end of the link by both: the liar then accuses whom it had it with.
                    let (here, _) = memory::pair(1);
                    mesh.cluster.sessions[liar as usize].link(peer, here);
                }
            }
        }
        assert!(mesh.round(round) == expected[round as usize]);
    }
    assert!(mesh.bad.iter().all(|(worker, _)| *worker < 2), "{:?}", mesh.bad);
}

#[test]
fn a_carrier_that_leaves_in_the_middle_of_a_round_holds_nobody_up_and_can_come_back() {
    let expected = direct(relayed(parameters(4), false), 6);
    let mut mesh = Mesh::new(relayed(parameters(4), true));
    mesh.round(0);
    // It has taken chunks to carry, and dies before it is driven again.
    let leaver = Arc::new(AtomicUsize::new(0));
    let counting = leaver.clone();
    mesh.cluster.sessions[7].set_carry(Box::new(move |_, _, _| {
        counting.fetch_add(1, Ordering::Relaxed);
        0
    }));
    let gradient = &gradients(1, D, 1)[0];
    for session in &mut mesh.cluster.sessions {
        session.begin().unwrap();
    }
    let until = mesh.cluster.now + Duration::from_secs(1);
    while leaver.load(Ordering::Relaxed) == 0 {
        assert!(mesh.cluster.now < until);
        for session in &mut mesh.cluster.sessions {
            session.pump(Source::Separate(gradient), None);
        }
        mesh.turn();
    }
    mesh.cluster.sessions[7].hang_up();
    mesh.gone.insert(7);
    let mut update = vec![0.0; D];
    let began = mesh.cluster.now;
    for worker in 0..7 {
        loop {
            match mesh.cluster.sessions[worker].collect(&mut update) {
                Some(ended) => {
                    ended.unwrap();
                    break;
                }
                None => {
                    for session in &mut mesh.cluster.sessions[..7] {
                        session.pump(Source::Separate(gradient), None);
                    }
                    mesh.turn();
                    assert!(mesh.cluster.now < until);
                }
            }
        }
        assert!(update.iter().map(|x| x.to_bits()).eq(expected[1].iter().copied()), "worker {worker}");
    }
    assert!(mesh.cluster.now - began < Duration::from_millis(100), "long before the deadline");
    for round in 2..4 {
        assert!(mesh.round(round) == expected[round as usize]);
    }
    mesh.cluster.sessions[7] = join(&mesh.cluster.pipeline, &mesh.job, 7, 2000);
    mesh.gone.clear();
    mesh.settle();
    assert!((0..7).all(|peer| mesh.cluster.sessions[7].is_linked(peer)));
    let before = mesh.counted(Counter::UpdateBytesSent);
    for round in 4..6 {
        assert!(mesh.round(round) == expected[round as usize]);
    }
    let chunks = mesh.job.plan.layout.chunks();
    assert_eq!(mesh.counted(Counter::UpdateBytesSent) - before, 2 * (4 * D + chunks * HEADER_BYTES) as u64);
    assert!(mesh.bad.is_empty());
}

#[test]
fn a_worker_that_takes_nothing_for_long_is_served_as_without_a_relay_and_holds_nobody_up() {
    let mut job = relayed(parameters(4), true);
    job.updates = 40;
    let mut mesh = Mesh::new(job);
    mesh.round(0);
    // It sleeps: nothing of it is driven.
    mesh.gone.insert(2);
    let expected = mesh.round(1);
    mesh.settle();
    let chunks = mesh.job.plan.layout.chunks() as u64;
    let carried = mesh.counted(Counter::UpdateBytesCarried);
    mesh.cluster.now += mesh.job.write_deadline;
    mesh.settle();
    let asked = mesh.counted(Counter::RepairsUnasked);
    assert!(asked > 0 && asked <= chunks, "{asked}");
    mesh.gone.clear();
    mesh.settle();
    mesh.cluster.sessions[2].skip();
    let mut update = vec![0.0; D];
    mesh.cluster.sessions[2].collect(&mut update).unwrap().unwrap();
    assert!(update.iter().map(|x| x.to_bits()).eq(expected), "what the others have");
    mesh.settle();
    assert_eq!(mesh.counted(Counter::UpdateBytesCarried), carried);
    assert_eq!(mesh.counted(Counter::Violations) + mesh.counted(Counter::DigestMismatches), 0);
    assert_eq!(mesh.bad, [(2, false)], "what it was to carry it did not");
}

#[test]
fn a_carrier_that_withholds_chunks_from_one_does_not_stop_it_while_the_others_run_ahead() {
    const ROUNDS: u32 = 12;
    let mut job = relayed(Parameters::new(1, 1, 1, 4).unwrap(), true);
    // The others need not wait for the slots of a few rounds, nor for the shards of the one that gets too little.
    job.updates = 80;
    let mut mesh = Mesh::new(job);
    mesh.settle();
    mesh.cluster.sessions[3].set_carry(Box::new(|_, peer, _| usize::from(peer != 0)));
    let workers = mesh.workers();
    let gradients: Vec<_> = (0..ROUNDS).map(|round| gradients(1, D, round)).collect();
    let (mut begun, mut done, mut update) = (vec![0; workers], vec![0; workers], vec![0.0; D]);
    let mut updates: Vec<Vec<u32>> = Vec::new();
    let (until, mut ahead) = (mesh.cluster.now + mesh.job.write_deadline, 0);
    while done.iter().any(|done| *done < ROUNDS as usize) {
        for worker in 0..workers {
            let session = &mut mesh.cluster.sessions[worker];
            if worker != 0 && done[worker] < ROUNDS as usize {
                if begun[worker] == done[worker] {
                    session.begin().unwrap();
                    begun[worker] += 1;
                }
                session.pump(Source::Separate(&gradients[done[worker]][0]), None);
            }
            while let Some(ended) = session.collect(&mut update) {
                ended.unwrap();
                let bits: Vec<u32> = update.iter().map(|x| x.to_bits()).collect();
                match updates.get(done[worker]) {
                    Some(update) => assert!(bits == *update, "worker {worker}"),
                    None => updates.push(bits),
                }
                done[worker] += 1;
            }
        }
        ahead = ahead.max(done[1] - done[0]);
        mesh.turn();
        assert!(mesh.cluster.now < until, "{done:?}");
    }
    assert!(ahead >= mesh.job.plan.window as usize, "the others were ahead: {ahead}");
    assert_eq!(mesh.counted(Counter::NotReading) + mesh.counted(Counter::Violations), 0);
    assert!(mesh.bad.is_empty(), "{:?}", mesh.bad);
}

#[test]
fn a_worker_that_answers_for_what_it_was_not_asked_is_shown_the_door() {
    for kind in [crate::wire::Kind::Have, crate::wire::Kind::Fetch, crate::wire::Kind::Linked] {
        let mut mesh = Mesh::new(relayed(parameters(1), true));
        let (here, there) = memory::pair(64);
        assert!(mesh.cluster.pipeline.handle.admit(1, 2900, here));
        mesh.gone.insert(1);
        mesh.settle();
        let mut outbound = there.outbound;
        let (job, session) = (mesh.job.number, 2900);
        let header = Header { job, session, worker: 1, round: 3, chunk: 1, argument: 1, ..Header::new(kind) };
        assert!(outbound.send(Outgoing::Control(header_bytes(header, &[]))).is_ok());
        mesh.settle();
        assert_eq!(mesh.counted(Counter::Violations), 1, "{kind:?}");
        assert_eq!(outbound.flush(mesh.cluster.now), Err(Disconnect::Closed), "{kind:?}");
        mesh.round(0);
    }
}

#[test]
fn a_worker_with_another_update_than_was_pushed_is_an_alarm() {
    let mut mesh = Mesh::new(relayed(parameters(1), true));
    mesh.round(0);
    let (here, there) = memory::pair(64);
    assert!(mesh.cluster.pipeline.handle.admit(1, 2900, here));
    mesh.gone.insert(1);
    let mut outbound = there.outbound;
    let header = Header {
        job: mesh.job.number,
        session: 2900,
        worker: 1,
        argument: 5,
        ..Header::new(crate::wire::Kind::Digest)
    };
    assert!(outbound.send(Outgoing::Control(header_bytes(header, &[]))).is_ok());
    mesh.settle();
    assert_eq!(mesh.counted(Counter::DigestMismatches), 1);
}

#[test]
fn a_worker_that_speaks_of_a_digest_twice_or_too_early_is_shown_the_door() {
    for rounds in [[0, 0], [0, 1], [1, 0]] {
        let mut mesh = Mesh::new(relayed(parameters(1), true));
        mesh.round(0);
        if rounds[0] > 0 {
            mesh.round(1);
        }
        let (here, there) = memory::pair(64);
        assert!(mesh.cluster.pipeline.handle.admit(1, 2900, here));
        mesh.gone.insert(1);
        let mut outbound = there.outbound;
        for round in rounds {
            let kind = crate::wire::Kind::Digest;
            let header = Header { job: mesh.job.number, session: 2900, worker: 1, round, ..Header::new(kind) };
            assert!(outbound.send(Outgoing::Control(header_bytes(header, &[]))).is_ok());
        }
        mesh.settle();
        assert_eq!(mesh.counted(Counter::Violations), 1, "{rounds:?}");
    }
}
