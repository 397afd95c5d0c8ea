//! A link that fails in the middle of things: nothing is lost, and the session goes on by TCP, or says why it does not.

use rustix::io::Errno;

use super::*;
use crate::transport::rdma::fake::{Element, Verb};
use crate::transport::rdma::ffi;

/// Something that happens to a link. Gets the numbers of the daemon's and the worker's queue pairs.
type Cause = fn(&Rig, &mut Session, [u32; 2]);

/// A send that ends with this status, though others may still arrive.
fn send_fails(rig: &Rig, pair: u32, status: i32) {
    rig.fake.inject(pair, ffi::ibv_wc { status, opcode: ffi::IBV_WC_SEND, ..ffi::ibv_wc::default() });
}

/// By name: what happens, and what a side says about it that felt it first.
const CAUSES: [(&str, Cause, &[LinkFailure]); 13] = [
    (
        "the daemon's link goes down",
        |rig, _, _| rig.fake.link_down("fake0", 1),
        &[LinkFailure::Unreachable, LinkFailure::Broken],
    ),
    (
        "the worker's link goes down",
        |rig, _, _| rig.fake.link_down("fake1", 1),
        &[LinkFailure::Unreachable, LinkFailure::Broken],
    ),
    (
        "the worker's device is removed",
        |rig, _, _| rig.fake.remove_device("fake1"),
        &[LinkFailure::Broken, LinkFailure::DeviceLost, LinkFailure::Unreachable],
    ),
    (
        "the daemon's device is removed",
        |rig, _, _| {
            rig.fake.remove_device("fake0");
            rig.fabric().events();
        },
        &[LinkFailure::DeviceLost],
    ),
    (
        "the daemon's device has a fatal error",
        |rig, _, _| {
            rig.fake.raise("fake0", ffi::IBV_EVENT_DEVICE_FATAL, Element::Device);
            rig.fabric().events();
        },
        &[LinkFailure::DeviceLost],
    ),
    (
        "the daemon's queue pair breaks",
        |rig, _, [daemon, _]| {
            rig.fake.raise("fake0", ffi::IBV_EVENT_QP_FATAL, Element::Pair(daemon));
            rig.fabric().events();
        },
        &[LinkFailure::Broken],
    ),
    (
        "a completion queue overruns",
        |rig, _, [daemon, _]| {
            rig.fake.raise("fake0", ffi::IBV_EVENT_CQ_ERR, Element::ReceiveQueue(daemon));
            rig.fabric().events();
        },
        &[LinkFailure::Broken],
    ),
    (
        "the worker is not receiving",
        |rig, _, [daemon, _]| send_fails(rig, daemon, ffi::IBV_WC_RNR_RETRY_EXC_ERR),
        &[LinkFailure::NotReceiving],
    ),
    (
        "the daemon is not receiving",
        |rig, _, [_, worker]| send_fails(rig, worker, ffi::IBV_WC_RNR_RETRY_EXC_ERR),
        &[LinkFailure::NotReceiving],
    ),
    (
        "the worker refuses access",
        |rig, _, [daemon, _]| send_fails(rig, daemon, ffi::IBV_WC_REM_ACCESS_ERR),
        &[LinkFailure::AccessRefused],
    ),
    ("a send is not taken", |rig, _, _| rig.fake.fail_next(Verb::PostSend, Errno::NOMEM), &[LinkFailure::Broken]),
    ("a receive is not taken", |rig, _, _| rig.fake.fail_next(Verb::PostRecv, Errno::NOMEM), &[LinkFailure::Broken]),
    ("the worker gives it up, and so does the daemon", both_give_up, &[LinkFailure::Unreachable, LinkFailure::Broken]),
];

fn both_give_up(rig: &Rig, _: &mut Session, [daemon, worker]: [u32; 2]) {
    send_fails(rig, daemon, ffi::IBV_WC_RETRY_EXC_ERR);
    send_fails(rig, worker, ffi::IBV_WC_RETRY_EXC_ERR);
}

#[test]
fn a_link_that_fails_in_the_middle_loses_nothing_whatever_the_cause() {
    for (name, cause, reasons) in CAUSES {
        for when in [0, 1, 2, 3, 5, 8] {
            for (hold, by_tcp) in [(false, false), (true, false), (false, true)] {
                let rig = Rig::new(usual());
                let control = if by_tcp { tcp_pair() } else { rig.control() };
                let mut session = rig.session_with(0, control, |area| area);
                let pairs: [u32; 2] = rig.fake.pair_numbers().try_into().unwrap();
                let what = format!("{name}, after {when} turns, hold {hold}, tcp {by_tcp}");
                let result = carry(&mut session, when, |session| {
                    // Some are in the network when it happens.
                    rig.fake.hold();
                    session.worker.pump(SHARDS);
                    session.worker.turn();
                    session.outbound.turn();
                    if !hold {
                        rig.fake.release();
                    }
                    cause(&rig, session, pairs);
                    if hold {
                        session.worker.turn();
                        rig.fake.release();
                    }
                });
                assert_eq!(result, Ok(()), "{what}");
                let (here, there) = (&session.inbound.fell_back, &session.worker.fell_back);
                assert_eq!((here.len(), there.len()), (1, 1), "{what}");
                // The other side may have felt it in its own way before it was told.
                let felt = |why| reasons.contains(why) || [LinkFailure::Unreachable, LinkFailure::Broken].contains(why);
                let named = reasons.contains(&here[0]) || reasons.contains(&there[0]);
                assert!(named && felt(&here[0]) && felt(&there[0]), "{what}: {here:?} {there:?}");
                let slots = session.worker.slots.clone();
                drop(session);
                assert_eq!(slots.free(0), rig.shape.credits + 2, "{what}");
                rig.check_nothing_is_left();
            }
        }
    }
}

/// Has no room for what came over the link, but for what comes by TCP.
struct OnlyByTcp<'a>(&'a mut Shards);

impl Landing for OnlyByTcp<'_> {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        self.0.place(header)
    }

    fn landed(&mut self, _: &mut Header) -> Result<bool, Violation> {
        Ok(false)
    }
}

#[test]
fn shards_by_tcp_wait_for_older_ones_and_for_the_slots_that_come_back() {
    for slots_first in [false, true] {
        let rig = Rig::new(usual());
        let mut session = rig.session_with(0, tcp_pair(), |area| area);
        session.inbound.landing.open = 1;
        session.steps(3);
        session.worker.pump(4);
        session.steps(2);
        session.inbound.read(0);
        session.steps(3);
        assert_eq!((session.inbound.got.as_slice(), session.worker.granted), ([0].as_slice(), 5));
        // The fifth is in the network when the daemon gives the link up.
        rig.fake.hold();
        session.worker.pump(5);
        session.worker.turn();
        let daemon = rig.fake.pair_numbers()[0];
        rig.fake.raise("fake0", ffi::IBV_EVENT_QP_FATAL, Element::Pair(daemon));
        rig.fabric().events();
        session.outbound.turn();
        let DaemonIn { inbound, landing, .. } = &mut session.inbound;
        assert_eq!(inbound.receive(landing, Instant::now()), Ok(None));
        assert_eq!(inbound.fell_back(), Some(LinkFailure::Broken));
        // The others are quick: the shard is there before this half has its next turn.
        for _ in 0..5 {
            session.outbound.turn();
            session.worker.turn();
        }
        assert_eq!(session.worker.outbound.queued(), 0);
        session.inbound.landing.open = u64::MAX;
        if slots_first {
            session.inbound.post();
            assert_eq!(session.inbound.landing.posted.len(), 1);
            let mut landing = OnlyByTcp(&mut session.inbound.landing);
            assert_eq!(session.inbound.inbound.receive(&mut landing, Instant::now()), Ok(None), "it overtakes none");
        }
        let DaemonIn { inbound, landing, got, held, .. } = &mut session.inbound;
        for round in 1..4 {
            let header = inbound.receive(landing, Instant::now()).unwrap().expect("it had arrived");
            assert_eq!(header.round, round);
            held.push_back((inbound.filled().unwrap(), header));
            got.push(round);
        }
        if !slots_first {
            assert_eq!(inbound.receive(landing, Instant::now()), Ok(None), "there is no slot yet");
            assert!(inbound.wants_turn(), "it is not announced again");
        }
        session.steps(3);
        assert_eq!((session.inbound.got.as_slice(), session.inbound.end), ([0, 1, 2, 3, 4].as_slice(), None));
        assert_eq!(session.wrong(), None);
        drop(session);
        rig.check_nothing_is_left();
    }
}

/// Gives halves their turns as reactors do: when a descriptor has announced something (once), or they ask for it.
struct Announced {
    poll: mio::Poll,
    events: mio::Events,
    /// The daemon's receiving and sending half, and the worker.
    ready: [bool; 3],
    sent: u64,
}

impl Announced {
    fn new(session: &Session) -> Announced {
        let poll = mio::Poll::new().unwrap();
        let (read, write) = (mio::Interest::READABLE, mio::Interest::WRITABLE);
        let (inbound, outbound) = (&session.inbound.inbound, &session.outbound.outbound);
        let (there, back) = (&session.worker.inbound, &session.worker.outbound);
        let sources = [
            (inbound.descriptor(), read, 0),
            (inbound.completions(), read, 0),
            (outbound.descriptor(), write, 1),
            (outbound.completions(), read, 1),
            (there.descriptor(), read, 2),
            (there.completions(), read, 2),
            (back.descriptor(), write, 2),
            (back.completions(), read, 2),
        ];
        for (descriptor, interest, token) in sources {
            let descriptor = descriptor.expect("this transport has descriptors");
            poll.registry().register(&mut mio::unix::SourceFd(&descriptor), mio::Token(token), interest).unwrap();
        }
        Announced { poll, events: mio::Events::with_capacity(16), ready: [true; 3], sent: 0 }
    }

    fn step(&mut self, session: &mut Session) {
        self.poll.poll(&mut self.events, Some(Duration::ZERO)).unwrap();
        self.events.iter().for_each(|event| self.ready[event.token().0] = true);
        // Slots are posted and credits told at every step.
        session.inbound.post();
        session.outbound.tell();
        let inbound = &session.inbound.inbound;
        if self.ready[0] || inbound.wants_turn() {
            let before = session.inbound.got.len();
            session.inbound.turn();
            // Eight at a time: there may be more.
            self.ready[0] = session.inbound.got.len() == before + 8 || session.inbound.inbound.wants_turn();
        }
        let outbound = &session.outbound.outbound;
        if (outbound.queued() > 0 || outbound.wants_turn()) && (self.ready[1] || outbound.wants_turn()) {
            session.outbound.turn();
            let outbound = &session.outbound.outbound;
            self.ready[1] = outbound.queued() == 0 || outbound.wants_turn();
        }
        let asks = session.worker.inbound.wants_turn() || session.worker.outbound.wants_turn();
        // Whoever queues something flushes it.
        let queued = std::mem::replace(&mut self.sent, session.worker.sent) != session.worker.sent;
        if self.ready[2] || asks || queued {
            self.ready[2] = false;
            session.worker.turn();
        }
    }
}

#[test]
fn nobody_sleeps_through_a_change_to_tcp() {
    for (name, cause, _) in CAUSES {
        for when in [0, 1, 2, 5, 8] {
            let rig = Rig::new(Shape { sleeps: true, ..usual() });
            let mut session = rig.session_with(0, tcp_pair(), |area| area);
            let pairs: [u32; 2] = rig.fake.pair_numbers().try_into().unwrap();
            let mut announced = Announced::new(&session);
            let result = carry_by(
                &mut session,
                when,
                |session| announced.step(session),
                |session| {
                    cause(&rig, session, pairs);
                },
            );
            assert_eq!(result, Ok(()), "{name}, after {when} turns");
            assert_eq!(session.inbound.fell_back.len(), 1, "{name}, after {when} turns");
            drop(session);
            rig.check_nothing_is_left();
        }
    }
}

#[test]
fn without_leave_to_fall_back_the_session_ends_and_says_why() {
    for order in 0..2 {
        let rig = Rig::new(Shape { fall_back: false, ..usual() });
        let mut session = rig.session();
        session.steps(3);
        rig.fake.hold();
        session.worker.pump(2);
        assert!(session.outbound.send(0, Some(0)));
        session.outbound.turn();
        session.worker.turn();
        rig.fake.link_down("fake0", 1);
        // Whichever half notices first.
        for _ in 0..3 {
            if order == 0 {
                session.inbound.turn();
                session.outbound.turn();
            } else {
                session.outbound.turn();
                session.inbound.turn();
            }
        }
        session.worker.turn();
        session.worker.turn();
        let ends = [session.inbound.end, session.worker.end];
        assert!(matches!(ends[0], Some(Disconnect::Rdma(_))), "{order}: {ends:?}");
        assert!(matches!(ends[1], Some(Disconnect::Rdma(_) | Disconnect::Closed)), "{order}: {ends:?}");
        drop(session);
        rig.check_nothing_is_left();
    }
}

#[test]
fn a_worker_without_leave_to_fall_back_ends_the_session_and_says_why() {
    let rig = Rig::new(Shape { fall_back: false, ..usual() });
    let mut session = rig.session();
    session.steps(3);
    let [_, worker] = rig.fake.pair_numbers().try_into().unwrap();
    rig.fake.hold();
    session.worker.pump(2);
    session.worker.turn();
    send_fails(&rig, worker, ffi::IBV_WC_RNR_RETRY_EXC_ERR);
    session.worker.turn();
    assert_eq!(session.worker.end, Some(Disconnect::Rdma(LinkFailure::NotReceiving)));
}

#[test]
fn halves_that_are_dropped_while_the_link_fails_leave_nothing_behind() {
    for order in 0..8 {
        let rig = Rig::new(usual());
        let mut session = rig.session();
        session.steps(3);
        rig.fake.hold();
        session.worker.pump(4);
        [Some(0), Some(1)].into_iter().for_each(|chunk| assert!(session.outbound.send(0, chunk)));
        session.outbound.turn();
        session.worker.turn();
        let slots = session.worker.slots.clone();
        let [daemon, worker_pair] = rig.fake.pair_numbers().try_into().unwrap();
        both_give_up(&rig, &mut session, [daemon, worker_pair]);
        let _ = session.outbound.outbound.flush(Instant::now());
        let _ = session.worker.outbound.flush(Instant::now());
        if order & 4 != 0 {
            session.inbound.turn();
        }
        let Session { inbound, outbound, worker } = session;
        if order & 1 == 0 {
            drop(inbound);
            drop(outbound);
        } else {
            drop(outbound);
            // Their slots are for all: they come back at once, from a queue pair that reads nothing any more.
            assert_eq!(rig.fake.in_flight(daemon), 0, "the queue pair is stopped");
            drop(inbound);
        }
        let WorkerSide { inbound, outbound, landing, .. } = worker;
        if order & 2 == 0 {
            drop(inbound);
            drop(outbound);
        } else {
            drop(outbound);
            assert_eq!(rig.fake.in_flight(worker_pair), 0, "the queue pair is stopped");
            drop(inbound);
        }
        drop(landing);
        assert_eq!(slots.free(0), rig.shape.credits + 2);
        rig.check_nothing_is_left();
    }
}

/// A network that fails while three threads drive a session: the daemon's halves and the worker.
fn race(seed: u64) {
    let rig = Rig::new(usual());
    let control = if seed.is_multiple_of(3) { tcp_pair() } else { rig.control() };
    let session = rig.session_with(0, control, |area| area);
    let deadline = Instant::now() + Duration::from_secs(20);
    let done = std::sync::atomic::AtomicUsize::new(0);
    let Session { mut inbound, mut outbound, mut worker } = session;
    let over = |session: &str| {
        assert!(Instant::now() < deadline, "{session} hangs with seed {seed}");
        done.load(Ordering::SeqCst) == 3
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut counted = false;
            while !over("receiving") {
                inbound.turn();
                assert_eq!(inbound.end, None, "seed {seed}");
                if !counted && inbound.got.len() as u64 == SHARDS {
                    counted = true;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::yield_now();
            }
        });
        scope.spawn(|| {
            let all = (0..ROUNDS).flat_map(|round| [Some(0), Some(1), Some(2), None].map(|chunk| (round, chunk)));
            let mut all = all.peekable();
            let mut counted = false;
            while !over("sending") {
                while all.peek().is_some_and(|(round, chunk)| outbound.send(*round, *chunk)) {
                    all.next();
                }
                outbound.turn();
                assert_eq!(outbound.end, None, "seed {seed}");
                if !counted && all.peek().is_none() && outbound.outbound.queued() == 0 {
                    counted = true;
                    done.fetch_add(1, Ordering::SeqCst);
                }
                std::thread::yield_now();
            }
        });
        let when = seed % 41;
        let (mut counted, mut happened) = (false, false);
        while !over("the worker") {
            if !happened && worker.sent >= when {
                happened = true;
                match seed % 5 {
                    0 => rig.fake.link_down("fake0", 1),
                    1 => rig.fake.fail_next(Verb::PostSend, Errno::NOMEM),
                    2 => rig.fake.fail_next(Verb::PostRecv, Errno::NOMEM),
                    3 => rig.fake.remove_device("fake1"),
                    _ => {
                        let daemon = rig.fake.pair_numbers()[0];
                        rig.fake.raise("fake0", ffi::IBV_EVENT_QP_FATAL, Element::Pair(daemon));
                        rig.fabric().events();
                    }
                }
            }
            worker.pump(SHARDS);
            worker.turn();
            assert_eq!(worker.end, None, "seed {seed}");
            if !counted && worker.landing.oldest == Some(ROUNDS) && worker.sent == SHARDS {
                counted = true;
                done.fetch_add(1, Ordering::SeqCst);
            }
            std::thread::yield_now();
        }
    });
    let mut session = Session { inbound, outbound, worker };
    // Where nothing went over the link afterwards, nobody has noticed yet.
    session.steps(20);
    assert_eq!(check(&mut session), Ok(()), "seed {seed}");
    let slots = session.worker.slots.clone();
    drop(session);
    assert_eq!(slots.free(0), rig.shape.credits + 2);
    rig.check_nothing_is_left();
}

#[test]
fn halves_on_threads_of_their_own_change_to_tcp_together() {
    (0..120).for_each(race);
}
