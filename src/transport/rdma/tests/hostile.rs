//! Peers that break the rules: their own session ends, and nobody else notices.

use super::*;
use crate::transport::rdma::ffi;
use crate::transport::rdma::immediate::Immediate;

/// Two sessions, of which the first does something; it must end with this, and the other must not notice.
fn ends(does: impl FnOnce(&Rig, &mut Session)) -> Disconnect {
    let rig = Rig::on(fake(), usual(), 2).unwrap();
    let mut bad = rig.session_with(0, rig.control(), |area| area);
    let mut good = rig.session_with(1, rig.control(), |area| area);
    bad.steps(3);
    does(&rig, &mut bad);
    for _ in 0..5 {
        bad.step();
        good.step();
    }
    let end = bad.inbound.end.expect("it ends");
    assert_eq!(carry(&mut good, 0, |_| {}), Ok(()));
    assert!(good.inbound.fell_back.is_empty());
    drop((bad, good));
    rig.check_nothing_is_left();
    end
}

fn violation(does: impl FnOnce(&Rig, &mut Session)) -> Violation {
    match ends(does) {
        Disconnect::Violation(violation) => violation,
        other => panic!("{other:?}"),
    }
}

fn sends(bytes: usize, header: Header) -> Violation {
    violation(|_, session| {
        let mut slot = session.worker.slots.take(0).unwrap();
        slot[..HEADER_BYTES].copy_from_slice(&header_bytes(header, &[]));
        let announced = header.payload_bytes.to_le_bytes();
        slot[8..12].copy_from_slice(&announced);
        session.worker.outbound.send(Outgoing::Owned(slot, bytes)).unwrap();
    })
}

const SHARD: usize = HEADER_BYTES + 400;

#[test]
fn a_frame_that_is_longer_than_a_slot_ends_its_session() {
    let header = Header { payload_bytes: 400, ..Header::new(Kind::Shard) };
    let found = sends(SHARD + 200, header);
    assert!(matches!(found, Violation::Rdma { status, .. } if status == ffi::IBV_WC_LOC_LEN_ERR as u32), "{found}");
}

#[test]
fn a_frame_that_is_shorter_than_a_header_ends_its_session() {
    let found = sends(HEADER_BYTES - 1, Header::new(Kind::Shard));
    assert_eq!(found, Violation::Length { found: 63, expected: 64 });
}

#[test]
fn a_frame_of_another_length_than_it_says_ends_its_session() {
    for announced in [0, 399, 401, u32::MAX] {
        let found = sends(SHARD, Header { payload_bytes: announced, ..Header::new(Kind::Shard) });
        assert_eq!(found, Violation::Length { found: 400, expected: announced });
    }
}

#[test]
fn a_frame_of_another_kind_or_none_ends_its_session() {
    let found = sends(SHARD, Header { payload_bytes: 400, ..Header::new(Kind::Collected) });
    assert_eq!(found, Violation::Kind(Kind::Collected));
    let found = violation(|_, session| {
        let mut slot = session.worker.slots.take(0).unwrap();
        slot[..SHARD].fill(0xaa);
        session.worker.outbound.send(Outgoing::Owned(slot, SHARD)).unwrap();
    });
    assert!(matches!(found, Violation::Header(_)));
}

#[test]
fn a_shard_by_tcp_while_the_link_is_up_has_no_credit() {
    let rig = Rig::new(usual());
    let (daemon, worker) = rig.control();
    // The worker's side of the control connection, kept out of its session's hands.
    let (unused, _) = memory::pair(8);
    let mut session = rig.session_with(0, (daemon, unused), |area| area);
    session.inbound.turn();
    let mut outbound = worker.outbound;
    outbound.send(session.worker.frame(0, 400).unwrap()).unwrap();
    session.inbound.turn();
    assert_eq!(session.inbound.end, Some(Disconnect::Violation(Violation::Credit)));
}

#[test]
fn completions_that_no_shard_causes_end_their_session() {
    let cases = [
        (ffi::IBV_WC_RECV, ffi::IBV_WC_WITH_IMM),
        (ffi::IBV_WC_RECV, ffi::IBV_WC_WITH_INV),
        (ffi::IBV_WC_RECV_RDMA_WITH_IMM, ffi::IBV_WC_WITH_IMM),
        (ffi::IBV_WC_RECV_RDMA_WITH_IMM, 0),
    ];
    for (opcode, wc_flags) in cases {
        let found = violation(|rig, _| {
            let daemon = rig.fake.pair_numbers()[0];
            rig.fake.inject(daemon, ffi::ibv_wc { opcode, wc_flags, ..ffi::ibv_wc::default() });
        });
        assert_eq!(found, Violation::Rdma { opcode: opcode as u32, flags: wc_flags, status: 0 });
    }
}

/// Has the worker's NIC report that something was written, which the daemon did not write.
fn reports(number: u32) -> Disconnect {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(3);
    let worker = rig.fake.pair_numbers()[1];
    rig.fake.inject(
        worker,
        ffi::ibv_wc {
            opcode: ffi::IBV_WC_RECV_RDMA_WITH_IMM,
            wc_flags: ffi::IBV_WC_WITH_IMM,
            imm_data: number.to_be(),
            ..ffi::ibv_wc::default()
        },
    );
    session.worker.turn();
    assert!(session.worker.landing.got.is_empty());
    session.worker.end.expect("it ends")
}

#[test]
fn immediates_that_mean_nothing_end_the_session() {
    for number in [3 << 30, u32::MAX] {
        assert!(matches!(reports(number), Disconnect::Violation(Violation::Rdma { .. })));
    }
    for chunk in [3, (1 << 22) - 1] {
        let found = reports(Immediate::update(0, chunk).number());
        assert_eq!(found, Disconnect::Violation(Violation::Chunk { found: chunk, chunks: 3 }));
    }
    for immediate in [Immediate::update(4, 0), Immediate::update(255, 0)] {
        let found = reports(immediate.number());
        assert!(matches!(found, Disconnect::Violation(Violation::Round { first: 0, end: 4, .. })), "{found}");
    }
    for round in [4, (1 << 30) - 1] {
        let found = reports(Immediate::round_end(round).number());
        assert_eq!(found, Disconnect::Violation(Violation::Round { found: round, first: 0, end: 4 }));
    }
}

#[test]
fn a_send_to_a_worker_ends_the_session() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.steps(3);
    let worker = rig.fake.pair_numbers()[1];
    rig.fake.inject(worker, ffi::ibv_wc { opcode: ffi::IBV_WC_RECV, ..ffi::ibv_wc::default() });
    session.worker.turn();
    assert!(matches!(session.worker.end, Some(Disconnect::Violation(Violation::Rdma { .. }))));
}

#[test]
fn collected_rounds_that_are_absurd_do_no_harm() {
    let rig = Rig::new(usual());
    let mut session = rig.session();
    session.worker.releases = false;
    session.steps(3);
    for round in [2, 1, 0, u64::MAX, 3, u64::MAX - 1, 0] {
        session.worker.control(Header { round, ..Header::new(Kind::Collected) });
        session.steps(2);
    }
    // It has given up its protection, and gets what it asked for, in its own memory.
    for round in [0, 1, 2, 3] {
        [Some(0), Some(1), Some(2), None].into_iter().for_each(|chunk| assert!(session.outbound.send(round, chunk)));
    }
    session.steps(5);
    assert_eq!((session.inbound.end, session.outbound.end, session.worker.end), (None, None, None));
    assert_eq!(session.worker.landing.oldest, Some(4));
    drop(session);
    rig.check_nothing_is_left();
}

#[test]
fn a_flood_of_control_frames_does_not_hold_up_the_others() {
    struct Flood;
    impl Inbound for Flood {
        fn receive(&mut self, _: &mut dyn Landing, _: Instant) -> Result<Option<Header>, Disconnect> {
            thread_local!(static COUNT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });
            COUNT.set(COUNT.get() + 1);
            assert!(COUNT.get() < 10_000, "one call takes no end");
            let header = Header { round: COUNT.get() as u64, ..Header::new(Kind::Collected) };
            Ok(Some(Header { checksum: header.checksum_over(&[]), ..header }))
        }
        fn descriptor(&self) -> Option<std::os::fd::RawFd> {
            Some(0)
        }
        fn close(&mut self) {}
    }
    let rig = Rig::new(Shape { sleeps: true, ..usual() });
    let control = rig.control();
    let flood = Connection { inbound: Box::new(Flood), outbound: control.0.outbound };
    let mut session = rig.session_with(0, (flood, control.1), |area| area);
    session.inbound.turn();
    assert!(session.inbound.inbound.wants_turn(), "the rest is not announced again");
    session.worker.granted = 1;
    session.worker.pump(1);
    session.worker.turn();
    session.inbound.turn();
    assert_eq!(session.inbound.got, [0]);
}

#[test]
fn an_area_that_is_not_the_workers_ends_only_its_own_link() {
    type Change = fn(Area, u32) -> Area;
    let changes: [(&str, Change); 5] = [
        ("another key", |area, _| Area { key: area.key ^ 0x100, ..area }),
        ("the key of another worker", |area, others| Area { key: others, ..area }),
        ("before its memory", |area, _| Area { address: area.address - 4096, ..area }),
        ("behind its memory", |area, _| Area { address: area.address + area.stride * 4, ..area }),
        ("over its end", |area, _| Area { stride: 1 << 40, ..area }),
    ];
    for (name, change) in changes {
        let rig = Rig::on(fake(), usual(), 2).unwrap();
        let mut others = 0;
        let mut good = rig.session_with(1, rig.control(), |area| {
            others = area.key;
            area
        });
        let mut bad = rig.session_with(0, rig.control(), |area| change(area, others));
        assert_eq!(carry(&mut bad, 0, |_| {}), Ok(()), "{name}: it goes on by TCP");
        assert_eq!(bad.inbound.fell_back.len(), 1, "{name}");
        assert_eq!(carry(&mut good, 0, |_| {}), Ok(()), "{name}");
        assert!(good.inbound.fell_back.is_empty(), "{name}");
        drop((bad, good));
        rig.check_nothing_is_left();
    }
}

#[test]
fn a_detach_of_the_peers_with_absurd_numbers_does_no_harm() {
    for (reason, arrived) in [(0, u64::MAX), (u64::MAX, 0), (5, 3), (300, 1 << 40)] {
        let rig = Rig::new(usual());
        let mut session = rig.session();
        session.steps(3);
        session.worker.control(Header { round: reason, argument: arrived, ..Header::new(Kind::Detach) });
        assert_eq!(carry(&mut session, 0, |_| {}), Ok(()));
        session.worker.control(Header { round: reason, argument: arrived, ..Header::new(Kind::Detach) });
        session.steps(3);
        assert_eq!((session.inbound.end, session.worker.end), (None, None));
        assert_eq!((session.inbound.fell_back.len(), session.worker.fell_back.len()), (1, 1));
        drop(session);
        rig.check_nothing_is_left();
    }
}
