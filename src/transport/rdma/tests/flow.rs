//! What goes over a link that works.

use super::*;
use crate::transport::rdma::ffi;

#[test]
fn shards_and_updates_arrive_whole_and_every_slot_comes_back() {
    let (f32, bf16) = (Precision::F32, Precision::Bf16);
    for (sleeps, precision, update_precision) in
        [(false, f32, f32), (true, f32, f32), (true, bf16, f32), (false, f32, bf16), (true, bf16, bf16)]
    {
        let rig = Rig::new(Shape { sleeps, precision, update_precision, ..usual() });
        let mut session = rig.session();
        // The last chunk is as long as the others.
        assert_eq!(session.worker.shard, precision.shard_bytes(100));
        assert_eq!(carry(&mut session, 0, |_| {}), Ok(()));
        assert!(session.inbound.fell_back.is_empty() && session.worker.fell_back.is_empty());
        let twice = session.worker.landing.got.values().filter(|count| **count > 1).count();
        assert_eq!(twice, 0, "nothing is written twice");
        let slots = session.worker.slots.clone();
        drop(session);
        assert_eq!(slots.free(0), rig.shape.credits + 2);
        rig.check_nothing_is_left();
    }
}

#[test]
fn slots_posted_are_credits_and_come_back_exactly() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(3);
    assert_eq!((session.inbound.inbound.posted(), session.worker.granted), (4, 4));
    let daemon = rig.fake.pair_numbers()[0];
    assert_eq!(rig.fake.posted(daemon), 4);
    session.worker.pump(3);
    session.worker.turn();
    assert_eq!(rig.fake.posted(daemon), 1, "three are filled");
    session.steps(3);
    assert_eq!(session.inbound.got, [0, 1, 2]);
    // Two are still being read: that many fewer are posted, and granted.
    assert_eq!((session.inbound.inbound.posted(), session.worker.granted), (2, 5));
    session.inbound.read(0);
    session.steps(3);
    assert_eq!((rig.fake.posted(daemon), session.worker.granted), (4, 7));
    drop(session);
    rig.check_nothing_is_left();
}

#[test]
fn early_shards_wait_in_their_slots_while_control_frames_get_through() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.inbound.landing.open = 1;
    session.steps(2);
    session.worker.pump(3);
    session.steps(3);
    assert_eq!(session.inbound.got, [0]);
    session.inbound.read(0);
    // An update beyond the window waits for the worker to collect; that it did gets past the early shards.
    for round in 0..5 {
        [Some(0), Some(1), Some(2), None].into_iter().for_each(|chunk| assert!(session.outbound.send(round, chunk)));
    }
    session.steps(6);
    assert_eq!(session.worker.landing.oldest, Some(5));
    assert_eq!(session.inbound.got, [0]);
    // A change to TCP too, and nothing overtakes them.
    session.worker.pump(4);
    rig.fake.link_down("fake1", 1);
    session.worker.pump(4);
    session.steps(10);
    assert_eq!((session.inbound.fell_back.len(), session.worker.fell_back.len()), (1, 1));
    session.worker.pump(5);
    session.steps(5);
    assert_eq!(session.inbound.got, [0]);
    session.inbound.landing.open = u64::MAX;
    session.worker.pump(5);
    session.steps(10);
    assert_eq!(session.inbound.got, [0, 1, 2, 3, 4]);
    session.inbound.landing.open = 5;
    session.worker.pump(6);
    session.steps(3);
    session.worker.control(Header::new(Kind::Leave));
    session.steps(3);
    drop(session);
    rig.check_nothing_is_left();
}

#[test]
fn a_leave_gets_past_early_shards_and_comes_after_those_that_may_come() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.inbound.landing.open = 2;
    session.steps(2);
    session.worker.pump(4);
    session.worker.control(Header::new(Kind::Leave));
    session.worker.turn();
    session.inbound.turn();
    assert_eq!(session.inbound.got, [0, 1]);
    assert_eq!(session.inbound.heard.iter().map(|header| header.kind).collect::<Vec<_>>(), [Kind::Leave]);
    drop(session);
    rig.check_nothing_is_left();
}

#[test]
fn shards_that_had_arrived_come_before_the_end_of_the_connection() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(2);
    session.worker.pump(4);
    session.worker.turn();
    let Session { inbound: mut daemon, outbound, worker } = session;
    drop(worker);
    drop(outbound);
    for _ in 0..3 {
        daemon.turn();
    }
    assert_eq!((daemon.got.as_slice(), daemon.end), ([0, 1, 2, 3].as_slice(), Some(Disconnect::Closed)));
    drop(daemon);
    rig.check_nothing_is_left();
}

#[test]
fn updates_that_were_written_come_before_the_end_of_the_connection() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(2);
    [Some(0), Some(1), Some(2), None].into_iter().for_each(|chunk| assert!(session.outbound.send(0, chunk)));
    session.outbound.turn();
    let Session { inbound, outbound, mut worker } = session;
    drop((inbound, outbound));
    worker.turn();
    assert_eq!((worker.landing.oldest, worker.end), (Some(1), Some(Disconnect::Closed)));
    drop(worker);
    rig.check_nothing_is_left();
}

#[test]
fn a_worker_that_has_no_room_when_the_connection_ends_is_told_so() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(2);
    session.worker.landing.full = true;
    assert!(session.outbound.send(0, Some(0)));
    session.outbound.turn();
    let Session { inbound, outbound, mut worker } = session;
    drop((inbound, outbound));
    worker.turn();
    assert_eq!(worker.end, Some(Disconnect::Closed));
}

/// Updates of more rounds than the window has, to a worker that collects nothing.
fn fills_the_window() -> Result<(), String> {
    let rig = Rig::new(Shape { sleeps: true, ..usual() });
    // Descriptors all over: so that a turn is asked for only where there is something to do.
    let mut session = rig.session_with(0, tcp_pair(), |area| area);
    session.worker.releases = false;
    for round in 0..6 {
        for chunk in [Some(0), Some(1), Some(2), None] {
            assert!(session.outbound.send(round, chunk));
        }
    }
    session.steps(20);
    if let Some(end) = session.worker.end {
        return Err(format!("the worker ends it: {end}"));
    }
    if session.worker.landing.got.len() != 4 * 4 {
        return Err(format!("{} chunks of a window of 16 were written", session.worker.landing.got.len()));
    }
    assert_eq!(session.outbound.outbound.queued(), 8, "the others wait");
    assert!(!session.outbound.outbound.wants_turn(), "until they are told");
    session.worker.outbound.release(1);
    session.worker.turn();
    session.inbound.turn();
    assert!(session.outbound.outbound.wants_turn());
    session.steps(20);
    assert_eq!(session.worker.landing.got.len(), 5 * 4);
    session.worker.outbound.release(2);
    session.steps(20);
    assert_eq!((session.worker.landing.got.len(), session.wrong()), (6 * 4, None));
    Ok(())
}

#[test]
fn updates_are_not_written_before_their_place_is_released_and_go_on_afterwards() {
    assert_eq!(fills_the_window(), Ok(()));
}

#[test]
fn updates_that_are_written_early_are_noticed() {
    plant(Some(Bug::WriteEarly));
    let found = fills_the_window();
    plant(None);
    assert!(found.is_err());
}

/// Many shards, which are read some time after they came, over a link that must hold.
fn is_read_late() -> Result<(), String> {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    carry(&mut session, 0, |_| {})?;
    if session.inbound.fell_back.is_empty() { Ok(()) } else { Err("the link broke".into()) }
}

#[test]
fn slots_are_left_alone_until_they_were_read() {
    assert_eq!(is_read_late(), Ok(()));
}

#[test]
fn a_slot_that_is_posted_again_while_it_is_read_is_noticed() {
    plant(Some(Bug::RepostEarly));
    let found = is_read_late();
    plant(None);
    assert!(found.is_err());
}

#[test]
fn nothing_is_written_before_the_session_is_ready() {
    let rig = Rig::new(usual());
    let memory = WorkerMemory::new(&rig.shape);
    let (mut daemon, mut worker) = rig.connect(0, &memory, rig.control(), |area| area);
    let mut slot = rig.updates.take(0).unwrap();
    let len = HEADER_BYTES + rig.shape.chunk_bytes();
    seal(Header::new(Kind::Update), &mut slot[..len]);
    daemon.outbound.send(Outgoing::Shared(slot.freeze(), len)).unwrap();
    assert!(!daemon.outbound.flush(Instant::now()).unwrap().empty);
    let credit = Header { argument: 3, ..Header::new(Kind::Credit) };
    daemon.outbound.send(Outgoing::Control(header_bytes(credit, &[]))).unwrap();
    daemon.outbound.flush(Instant::now()).unwrap();
    let mut landing = Shards { expected: 0, posted: VecDeque::new(), open: 0 };
    assert_eq!(worker.inbound.receive(&mut landing, Instant::now()), Ok(None), "a credit waits for the ready");
}

#[test]
fn credits_are_merged_and_never_fill_the_queue() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(2);
    assert!(session.outbound.outbound.merges_credits());
    for argument in 5..200 {
        session.outbound.control(Header { argument, ..Header::new(Kind::Credit) });
    }
    assert_eq!(session.outbound.outbound.queued(), 1);
    let before = session.worker.heard.len();
    session.outbound.granted = 199;
    session.steps(2);
    assert_eq!((session.worker.granted, session.worker.heard.len()), (199, before + 1));
}

#[test]
fn a_good_bye_comes_after_all_updates() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(2);
    rig.fake.hold();
    [Some(0), Some(1), Some(2), None].into_iter().for_each(|chunk| assert!(session.outbound.send(0, chunk)));
    session.outbound.control(Header::new(Kind::Closing));
    session.steps(5);
    assert!(!session.worker.heard.contains(&Kind::Closing));
    assert!(session.outbound.outbound.queued() > 0);
    rig.fake.release();
    session.steps(5);
    assert_eq!(session.worker.heard.last(), Some(&Kind::Closing));
    assert_eq!(session.worker.landing.oldest, Some(1));
    assert_eq!(session.outbound.outbound.queued(), 0);
}

#[test]
fn a_half_that_is_dropped_first_leaves_no_memory_to_a_queue_pair_that_uses_it() {
    for order in 0..4 {
        let rig = Rig::new(usual());
        let mut session = rig.session();
        session.steps(2);
        rig.fake.hold();
        session.worker.pump(4);
        [Some(0), Some(1)].into_iter().for_each(|chunk| assert!(session.outbound.send(0, chunk)));
        session.outbound.turn();
        session.worker.turn();
        let [daemon, at_worker] = rig.fake.pair_numbers().try_into().unwrap();
        let Session { inbound, outbound, worker } = session;
        let WorkerSide { inbound: to_worker, outbound: from_worker, slots, landing, .. } = worker;
        let (free, shards, updates) = (slots.free(0), rig.shards.free(0), rig.updates.free(0));
        assert_eq!((free, shards, updates), (2, 0, rig.shape.outbound + 2));
        if order & 1 == 0 {
            drop(inbound);
            assert_eq!(rig.shards.free(0), 0, "the device may still fill them");
            drop(outbound);
        } else {
            assert_eq!(rig.fake.in_flight(daemon), 2);
            drop(outbound);
            // Their slots are for all: they come back at once, from a queue pair that reads nothing any more.
            assert_eq!((rig.fake.in_flight(daemon), rig.updates.free(0)), (0, updates + 2), "it is stopped");
            drop(inbound);
        }
        if order & 2 == 0 {
            drop(to_worker);
            drop(from_worker);
        } else {
            assert!(rig.fake.in_flight(at_worker) > 0);
            drop(from_worker);
            assert_eq!((rig.fake.in_flight(at_worker), slots.free(0)), (0, rig.shape.credits + 2), "it is stopped");
            drop(to_worker);
        }
        assert_eq!(slots.free(0), rig.shape.credits + 2);
        drop(landing);
        rig.check_nothing_is_left();
    }
}

#[test]
fn memory_is_registered_once_whatever_comes_and_goes() {
    let rig = Rig::on(fake(), usual(), 3).unwrap();
    assert_eq!((rig.fake.counts().registrations, rig.fabric().regions()), (6, 6));
    for round in 0..10 {
        let mut sessions: Vec<_> = (0..3).map(|worker| rig.session_with(worker, rig.control(), |area| area)).collect();
        sessions.iter_mut().for_each(|session| session.steps(2));
        assert_eq!(
            rig.fake.counts().registrations - 6 * (round + 1),
            6,
            "what the daemon registered, and two a worker"
        );
        drop(sessions);
        // The next round is not offered more queue pairs than one identity may have.
        eventually(|| rig.fake.counts(), |now| now.pairs == 0 && now.regions == 6);
    }
    rig.check_nothing_is_left();
}

#[test]
fn a_sleeping_side_is_woken_by_what_arrives_and_only_by_that() {
    let rig = Rig::new(Shape { sleeps: true, ..usual() });
    let mut session = rig.session();
    session.steps(5);
    let readable = |descriptor: std::os::fd::RawFd| {
        let mut poll = mio::Poll::new().unwrap();
        let mut source = mio::unix::SourceFd(&descriptor);
        poll.registry().register(&mut source, mio::Token(0), mio::Interest::READABLE).unwrap();
        let mut events = mio::Events::with_capacity(4);
        poll.poll(&mut events, Some(std::time::Duration::ZERO)).unwrap();
        !events.is_empty()
    };
    let descriptor = session.inbound.inbound.completions().unwrap();
    assert!(!readable(descriptor));
    session.worker.pump(1);
    session.worker.turn();
    assert!(readable(descriptor));
    session.inbound.turn();
    assert!(!readable(descriptor));
    let there = session.worker.inbound.completions().unwrap();
    assert!(!readable(there));
    session.outbound.turn();
    session.worker.turn();
    assert!(!readable(there));
    rig.fake.hold();
    assert!(session.outbound.send(0, Some(0)));
    session.outbound.turn();
    let sent = session.outbound.outbound.completions().unwrap();
    assert!(!readable(sent) && !readable(there));
    rig.fake.release();
    assert!(readable(sent) && readable(there));
}

#[test]
#[should_panic(expected = "no completion queue can overrun")]
fn a_completion_queue_is_as_deep_as_its_queue() {
    use crate::transport::rdma::verbs::*;
    let fake = fake();
    let context = Context::open(fake.api(), "fake0").unwrap();
    let domain = ProtectionDomain::new(&context).unwrap();
    let (send, receive) = (CompletionQueue::new(&context, 4).unwrap(), CompletionQueue::new(&context, 3).unwrap());
    let _ = QueuePair::new(&domain, 1, &send, &receive, Depths { send: 4, receive: 4 }, None);
}

#[test]
fn what_completes_without_a_place_for_it_is_noticed_or_planted() {
    let strange = || {
        let rig = Rig::new(usual());
        let mut session = rig.session();
        session.steps(2);
        let daemon = rig.fake.pair_numbers()[0];
        let completion = ffi::ibv_wc {
            opcode: ffi::IBV_WC_RECV,
            wc_flags: ffi::IBV_WC_WITH_INV,
            byte_len: 464,
            ..ffi::ibv_wc::default()
        };
        session.worker.pump(1);
        rig.fake.inject(daemon, completion);
        session.steps(3);
        match session.inbound.end {
            Some(Disconnect::Violation(Violation::Rdma { .. })) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    };
    assert_eq!(strange(), Ok(()));
    plant(Some(Bug::AnyCompletion));
    let found = strange();
    plant(None);
    assert!(found.is_err());
}

#[test]
fn what_is_said_of_a_chunk_waits_for_its_place_and_the_session_changes_to_tcp_in_between() {
    for fails in [false, true] {
        let rig = Rig::new(usual());
        let mut session = rig.session();
        session.worker.releases = false;
        session.steps(2);
        for round in 0..6 {
            for (kind, payload) in [(Kind::Announce, 32), (Kind::Carry, 16)] {
                let word = Short::new(Header { round, job: 5, session: 9, ..Header::new(kind) }, &[7; 32][..payload]);
                session.outbound.outbound.send(Outgoing::Short(word)).unwrap();
            }
        }
        let heard = |session: &Session, kind| session.worker.heard.iter().filter(|heard| **heard == kind).count();
        let both = |session: &Session| [heard(session, Kind::Announce), heard(session, Kind::Carry)];
        session.steps(5);
        assert_eq!(both(&session), [4, 4], "there are four places");
        session.worker.outbound.release(1);
        session.steps(5);
        assert_eq!(both(&session), [5, 5]);
        if fails {
            rig.fake.link_down("fake1", 1);
            session.worker.pump(2);
            session.steps(10);
            assert_eq!(session.worker.fell_back.len(), 1);
        } else {
            session.worker.outbound.release(2);
            session.steps(5);
        }
        assert_eq!(both(&session), [6, 6], "by TCP the worker itself leaves unread what has no place");
        drop(session);
        rig.check_nothing_is_left();
    }
}

#[test]
fn a_chunk_that_is_sent_aside_lands_by_the_workers_own_hand() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(2);
    let mut slot = session.outbound.slab.take(0).unwrap();
    let len = HEADER_BYTES + rig.shape.chunk_bytes();
    slot[HEADER_BYTES..len].fill(sides::pattern(0, 1));
    seal(Header { job: 5, session: 9, chunk: 1, ..Header::new(Kind::Update) }, &mut slot[..len]);
    session.outbound.outbound.send_aside(Outgoing::Shared(slot.freeze(), len)).unwrap();
    session.steps(3);
    assert_eq!(session.worker.landing.got.get(&(0, Some(1))), Some(&1));
    let place = &session.worker.landing.held[0];
    assert!(place.part(UPDATE_OFFSET..UPDATE_OFFSET + 1200).iter().all(|byte| *byte == 0), "nothing was written");
    assert!(session.outbound.outbound.writes());
    drop(session);
    rig.check_nothing_is_left();
}
