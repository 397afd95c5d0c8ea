//! What every transport promises, as one test that all of them pass.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::faulty::{Faults, Faulty};
use super::{Connection, Disconnect, Inbound, Landing, Outbound, Outgoing, memory, tcp};
use crate::memory::{Slab, Slot};
use crate::wire::{HEADER_BYTES, Header, Kind, Violation, header_bytes, seal};

const PAYLOAD: usize = 40_000;
const QUEUE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

fn tcp_pair() -> (Connection, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, _) = listener.accept().unwrap();
    (tcp::connection(here, QUEUE, PATIENCE).unwrap(), tcp::connection(there, QUEUE, PATIENCE).unwrap())
}

fn memory_pair() -> (Connection, Connection) {
    memory::pair(QUEUE)
}

fn faultless(connection: Connection) -> Connection {
    let inbound = Faulty::new(connection.inbound, Faults::NONE, 1, PAYLOAD);
    Connection { inbound: Box::new(inbound), outbound: connection.outbound }
}

fn faulty_pair() -> (Connection, Connection) {
    let (here, there) = memory::pair(QUEUE);
    (faultless(here), faultless(there))
}

fn faulty_tcp_pair() -> (Connection, Connection) {
    let (here, there) = tcp_pair();
    (faultless(here), faultless(there))
}

type Pair = fn() -> (Connection, Connection);

const TRANSPORTS: [(&str, Pair); 4] = [
    ("tcp", tcp_pair),
    ("memory", memory_pair),
    ("faulty over memory", faulty_pair),
    ("faulty over tcp", faulty_tcp_pair),
];

struct OneSlot {
    slot: Slot,
    expected: u32,
    full: bool,
}

impl Landing for OneSlot {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if header.payload_bytes != self.expected {
            return Err(Violation::Length { found: header.payload_bytes, expected: self.expected });
        }
        if self.full {
            return Ok(None);
        }
        Ok(Some(&mut self.slot[HEADER_BYTES..HEADER_BYTES + self.expected as usize]))
    }
}

fn landing(slab: &Slab) -> OneSlot {
    OneSlot { slot: slab.take(1).unwrap(), expected: PAYLOAD as u32, full: false }
}

fn slab() -> Slab {
    Slab::new(2, QUEUE + 2, HEADER_BYTES + PAYLOAD, Vec::new())
}

fn shard(slab: &Slab, round: u64, fill: u8, payload: usize) -> Option<Outgoing> {
    let mut slot = slab.take(0)?;
    slot[HEADER_BYTES..HEADER_BYTES + payload].fill(fill);
    seal(Header { round, ..Header::new(Kind::Shard) }, &mut slot[..HEADER_BYTES + payload]);
    Some(Outgoing::Owned(slot, HEADER_BYTES + payload))
}

/// Receives until a frame or the end has come, flushing the other side meanwhile.
fn next(
    from: &mut dyn Outbound,
    to: &mut dyn Inbound,
    landing: &mut dyn Landing,
) -> Result<Option<Header>, Disconnect> {
    for _ in 0..10_000 {
        let _ = from.flush(Instant::now());
        match to.receive(landing, Instant::now()) {
            Ok(None) => std::thread::sleep(Duration::from_micros(100)),
            other => return other,
        }
    }
    Ok(None)
}

#[test]
fn frames_arrive_whole_and_in_order_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let (mut here, mut there) = pair();
        let (slab, mut sent, mut received) = (slab(), 0u64, 0u64);
        let mut landing = landing(&slab);
        while received < 100 {
            while sent < 100 {
                let Some(frame) = shard(&slab, sent, sent as u8, PAYLOAD) else { break };
                let control = header_bytes(Header { round: sent, ..Header::new(Kind::Credit) }, &[]);
                if here.outbound.send(frame).is_err() {
                    break;
                }
                sent += 1;
                while here.outbound.send(Outgoing::Control(control)).is_err() {
                    here.outbound.flush(Instant::now()).unwrap();
                    // The queue is full: take one off at the other end.
                    let header = next(&mut *here.outbound, &mut *there.inbound, &mut landing).unwrap().unwrap();
                    received += u64::from(header.kind == Kind::Shard);
                }
            }
            let header = next(&mut *here.outbound, &mut *there.inbound, &mut landing).unwrap().expect(name);
            let payload = &landing.slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize];
            assert!(header.verifies(payload), "{name}: frame {received}");
            if header.kind == Kind::Shard {
                assert_eq!(header.round, received, "{name}");
                assert!(payload.iter().all(|byte| *byte == received as u8), "{name}");
                received += 1;
            }
        }
    }
}

#[test]
fn a_full_queue_gives_the_frame_back_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let (mut here, _there) = pair();
        let slab = slab();
        for _ in 0..QUEUE {
            assert!(here.outbound.send(shard(&slab, 0, 0, PAYLOAD).unwrap()).is_ok(), "{name}");
        }
        assert!(here.outbound.send(shard(&slab, 9, 9, PAYLOAD).unwrap()).is_err(), "{name}");
    }
}

#[test]
fn what_was_sent_before_a_close_arrives_and_then_the_close_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let (mut here, mut there) = pair();
        let slab = slab();
        let mut landing = landing(&slab);
        here.outbound.send(shard(&slab, 5, 1, PAYLOAD).unwrap()).unwrap();
        assert!(here.outbound.flush(Instant::now()).unwrap().empty, "{name}");
        here.outbound.close();
        let header = next(&mut *here.outbound, &mut *there.inbound, &mut landing).unwrap().expect(name);
        assert_eq!(header.round, 5, "{name}");
        assert_eq!(next(&mut *here.outbound, &mut *there.inbound, &mut landing), Err(Disconnect::Closed), "{name}");
        drop(here);
        let failed = (0..1000).any(|_| {
            let sent = there.outbound.send(Outgoing::Control(header_bytes(Header::new(Kind::Leave), &[])));
            let failed = there.outbound.flush(Instant::now()).is_err();
            drop(sent);
            failed
        });
        assert!(failed, "{name}: sending into a closed connection fails");
    }
}

#[test]
fn a_payload_that_the_landing_does_not_expect_ends_the_connection_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let (mut here, mut there) = pair();
        let slab = slab();
        let mut landing = landing(&slab);
        here.outbound.send(shard(&slab, 0, 1, PAYLOAD - 4).unwrap()).unwrap();
        let end = next(&mut *here.outbound, &mut *there.inbound, &mut landing).unwrap_err();
        let found = PAYLOAD as u32 - 4;
        assert_eq!(end, Disconnect::Violation(Violation::Length { found, expected: PAYLOAD as u32 }), "{name}");
    }
}

#[test]
fn a_frame_for_which_there_is_no_room_waits_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let (mut here, mut there) = pair();
        let slab = slab();
        let mut landing = landing(&slab);
        landing.full = true;
        here.outbound.send(shard(&slab, 8, 1, PAYLOAD).unwrap()).unwrap();
        for _ in 0..20 {
            here.outbound.flush(Instant::now()).unwrap();
            assert_eq!(there.inbound.receive(&mut landing, Instant::now()), Ok(None), "{name}");
        }
        landing.full = false;
        let header = next(&mut *here.outbound, &mut *there.inbound, &mut landing).unwrap().expect(name);
        assert!(header.verifies(&landing.slot[HEADER_BYTES..HEADER_BYTES + PAYLOAD]), "{name}");
    }
}

#[test]
fn half_a_frame_is_no_frame() {
    use std::io::Write;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut here = tcp::connection(listener.accept().unwrap().0, QUEUE, PATIENCE).unwrap();
    let slab = slab();
    let mut landing = landing(&slab);
    let frame = shard(&slab, 3, 3, PAYLOAD).unwrap();
    for part in [0..10, 10..64, 64..1000] {
        there.write_all(&frame.bytes()[part]).unwrap();
        std::thread::sleep(Duration::from_millis(5));
        assert_eq!(here.inbound.receive(&mut landing, Instant::now()), Ok(None));
    }
    drop(there);
    let end = next(&mut *here.outbound, &mut *here.inbound, &mut landing);
    assert_eq!(end, Err(Disconnect::Closed));
}

#[test]
fn bytes_of_another_protocol_end_the_connection() {
    use std::io::Write;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut here = tcp::connection(listener.accept().unwrap().0, QUEUE, PATIENCE).unwrap();
    there.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nUser-Agent: something or other\r\n\r\n").unwrap();
    let slab = slab();
    let end = next(&mut *here.outbound, &mut *here.inbound, &mut landing(&slab));
    assert!(matches!(end, Err(Disconnect::Violation(Violation::Header(_)))), "{end:?}");
}

#[test]
fn a_faulty_transport_does_what_its_seed_says_and_every_fault_happens() {
    let run = |seed| {
        let (mut here, there) = memory::pair(QUEUE);
        let faults = Faults {
            drop: 0.1,
            delay: 0.1,
            delay_max: Duration::from_millis(20),
            duplicate: 0.1,
            reorder: 0.1,
            corrupt: 0.1,
            data_only: false,
        };
        let mut inbound = Faulty::new(there.inbound, faults, seed, PAYLOAD);
        let slab = slab();
        let mut landing = OneSlot { slot: slab.take(1).unwrap(), expected: 100, full: false };
        let (start, mut seen) = (Instant::now(), Vec::new());
        for step in 0..300u64 {
            here.outbound.send(shard(&slab, step, 7, 100).unwrap()).unwrap();
            let now = start + Duration::from_millis(step);
            while let Some(header) = inbound.receive(&mut landing, now).unwrap() {
                seen.push((step, header.round, header.verifies(&landing.slot[HEADER_BYTES..HEADER_BYTES + 100])));
            }
        }
        (seen, inbound.counts())
    };
    let (seen, counts) = run(7);
    assert_eq!((&seen, counts), (&run(7).0, run(7).1));
    assert_ne!(seen, run(8).0);
    let happened = [counts.dropped, counts.delayed, counts.duplicated, counts.reordered, counts.corrupted];
    assert!(happened.iter().all(|count| *count > 5), "{counts:?}");
    assert!(seen.iter().filter(|(_, _, whole)| !whole).count() as u64 >= counts.corrupted);
    assert!(seen.windows(2).any(|two| two[0].1 > two[1].1), "something was overtaken");
}
