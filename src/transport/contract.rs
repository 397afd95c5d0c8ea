//! What every transport promises, as one test that all of them pass.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use super::faulty::{Faults, Faulty};
use super::rdma::tests::{Rig, Shape, WorkerMemory, usual};
use super::{Connection, Disconnect, Inbound, Landing, Outbound, Outgoing, memory, tcp};
use crate::code::Layout;
use crate::memory::{Slab, Slot};
use crate::wire::{HEADER_BYTES, Header, Kind, UPDATE_OFFSET, Violation, header_bytes, seal};

const PAYLOAD: usize = 40_000;
const QUEUE: usize = 8;
const PATIENCE: Duration = Duration::from_secs(10);

/// Two ends, of which `here` sends: frames of this kind, out of the slots of holder 0.
struct Ends {
    here: Connection,
    there: Connection,
    slab: Slab,
    kind: Kind,
    landing: OneSlot,
    /// Slots that are lent to the transport before a frame comes, where it wants that.
    lent: Option<Slab>,
    _rig: Option<Rig>,
}

impl Ends {
    fn new((here, there): (Connection, Connection)) -> Ends {
        let slab = Slab::new(2, QUEUE + 2, HEADER_BYTES + PAYLOAD, Vec::new());
        let landing = landing(&slab, 1);
        Ends { here, there, slab, kind: Kind::Shard, landing, lent: None, _rig: None }
    }

    fn shard(&self, round: u64, fill: u8, payload: usize) -> Option<Outgoing> {
        frame(&self.slab, self.kind, round, fill, payload)
    }

    /// Takes what there is, as this transport wants it: one frame at most.
    fn receive(&mut self) -> Result<Option<Header>, Disconnect> {
        while let Some(slot) = self.lent.as_ref().and_then(|lent| lent.take(0)) {
            self.there.inbound.post(slot).unwrap();
        }
        let received = self.there.inbound.receive(&mut self.landing, Instant::now());
        if let Ok(Some(header)) = received {
            let filled = self.there.inbound.filled();
            assert!(header.payload_bytes == 0 || filled.is_some() == self.lent.is_some());
            self.landing.take(&header, filled);
            if header.kind == Kind::Update {
                self.there.outbound.release(header.round + 1);
                let _ = self.there.outbound.flush(Instant::now());
                // Whoever sends hears of it by the way.
                let _ = self.here.inbound.receive(&mut NoPayload, Instant::now());
            }
        }
        received
    }

    /// Receives until a frame or the end has come, flushing the other side meanwhile.
    fn next(&mut self) -> Result<Option<Header>, Disconnect> {
        for _ in 0..10_000 {
            let _ = self.here.outbound.flush(Instant::now());
            match self.receive() {
                Ok(None) => std::thread::sleep(Duration::from_micros(100)),
                other => return other,
            }
        }
        Ok(None)
    }
}

fn tcp_connections() -> (Connection, Connection) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (here, _) = listener.accept().unwrap();
    (tcp::connection(here, QUEUE, PATIENCE).unwrap(), tcp::connection(there, QUEUE, PATIENCE).unwrap())
}

fn tcp_pair() -> Ends {
    Ends::new(tcp_connections())
}

fn memory_pair() -> Ends {
    Ends::new(memory::pair(QUEUE))
}

fn faultless(connection: Connection) -> Connection {
    let inbound = Faulty::new(connection.inbound, Faults::NONE, 1, PAYLOAD);
    Connection { inbound: Box::new(inbound), outbound: connection.outbound }
}

fn faulty_pair() -> Ends {
    let (here, there) = memory::pair(QUEUE);
    Ends::new((faultless(here), faultless(there)))
}

fn faulty_tcp_pair() -> Ends {
    let (here, there) = tcp_connections();
    Ends::new((faultless(here), faultless(there)))
}

/// One chunk, so that an update and a shard are as long as the payloads here.
fn rdma_ends(control: (Connection, Connection)) -> (Rig, WorkerMemory, (Connection, Connection)) {
    let layout = Layout::new(PAYLOAD / 4, 1, PAYLOAD / 4);
    let rig = Rig::new(Shape { layout, credits: QUEUE, outbound: QUEUE, window: 16, sleeps: true, ..usual() });
    let memory = WorkerMemory::new(&rig.shape);
    let ends = rig.connect(0, &memory, control, |area| area);
    (rig, memory, ends)
}

fn rdma_up(control: (Connection, Connection)) -> Ends {
    let (rig, memory, (daemon, worker)) = rdma_ends(control);
    let (slab, lent) = (memory.slots, Some(rig.shards.clone()));
    let spare = Slab::new(1, 1, HEADER_BYTES + PAYLOAD, Vec::new());
    let landing = landing(&spare, 0);
    let mut ends = Ends { here: worker, there: daemon, slab, kind: Kind::Shard, landing, lent, _rig: Some(rig) };
    assert_eq!(ends.receive(), Ok(None));
    ends
}

fn rdma_down(control: (Connection, Connection)) -> Ends {
    let (rig, memory, (daemon, worker)) = rdma_ends(control);
    let spare = Slab::new(1, 1, HEADER_BYTES + PAYLOAD, Vec::new());
    let places = (0..16).map(|at| memory.places.take(at).unwrap()).collect();
    let landing = OneSlot { places, ..landing(&spare, 0) };
    let slab = rig.updates.clone();
    let mut ends = Ends { here: daemon, there: worker, slab, kind: Kind::Update, landing, lent: None, _rig: Some(rig) };
    ends.here.outbound.send(Outgoing::Control(header_bytes(Header::new(Kind::Ready), &[]))).unwrap();
    assert_eq!(ends.next().unwrap().map(|header| header.kind), Some(Kind::Ready));
    ends
}

fn rdma_up_pair() -> Ends {
    rdma_up(memory::pair(2 * QUEUE))
}

fn rdma_down_pair() -> Ends {
    rdma_down(memory::pair(2 * QUEUE))
}

fn rdma_up_tcp_pair() -> Ends {
    rdma_up(tcp_connections())
}

fn rdma_down_tcp_pair() -> Ends {
    rdma_down(tcp_connections())
}

type Pair = fn() -> Ends;

const TRANSPORTS: [(&str, Pair); 8] = [
    ("tcp", tcp_pair),
    ("memory", memory_pair),
    ("faulty over memory", faulty_pair),
    ("faulty over tcp", faulty_tcp_pair),
    ("rdma beside memory, to the daemon", rdma_up_pair),
    ("rdma beside memory, to a worker", rdma_down_pair),
    ("rdma beside tcp, to the daemon", rdma_up_tcp_pair),
    ("rdma beside tcp, to a worker", rdma_down_tcp_pair),
];

struct NoPayload;

impl Landing for NoPayload {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        Err(Violation::Kind(header.kind))
    }
}

/// Room for one frame at a time.
struct OneSlot {
    slot: Slot,
    expected: u32,
    full: bool,
    /// Where a peer writes to, by round.
    places: Vec<Slot>,
}

impl OneSlot {
    fn check(&self, header: &Header) -> Result<bool, Violation> {
        if header.payload_bytes != self.expected {
            return Err(Violation::Length { found: header.payload_bytes, expected: self.expected });
        }
        Ok(!self.full)
    }

    /// A frame has come; its payload may be in `filled`.
    fn take(&mut self, header: &Header, filled: Option<Slot>) {
        let payload = HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize;
        match filled {
            Some(filled) => self.slot[payload.clone()].copy_from_slice(&filled[payload]),
            None if header.kind == Kind::Update => {
                let place = &self.places[header.round as usize % self.places.len()];
                self.slot[payload].copy_from_slice(place.part(UPDATE_OFFSET..UPDATE_OFFSET + PAYLOAD));
            }
            None => {}
        }
    }
}

impl Landing for OneSlot {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        if !self.check(header)? {
            return Ok(None);
        }
        Ok(Some(&mut self.slot[HEADER_BYTES..HEADER_BYTES + self.expected as usize]))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        let room = self.check(header)?;
        if header.kind == Kind::Update {
            // Only a payload has come. Its checksum says that it stays what it was when it came.
            let place = &self.places[header.round as usize % self.places.len()];
            header.checksum = header.checksum_over(place.part(UPDATE_OFFSET..UPDATE_OFFSET + PAYLOAD));
        }
        Ok(room)
    }
}

fn landing(slab: &Slab, holder: usize) -> OneSlot {
    OneSlot { slot: slab.take(holder).unwrap(), expected: PAYLOAD as u32, full: false, places: Vec::new() }
}

fn slab() -> Slab {
    Slab::new(2, QUEUE + 2, HEADER_BYTES + PAYLOAD, Vec::new())
}

fn shard(slab: &Slab, round: u64, fill: u8, payload: usize) -> Option<Outgoing> {
    frame(slab, Kind::Shard, round, fill, payload)
}

fn frame(slab: &Slab, kind: Kind, round: u64, fill: u8, payload: usize) -> Option<Outgoing> {
    let mut slot = slab.take(0)?;
    slot[HEADER_BYTES..HEADER_BYTES + payload].fill(fill);
    seal(Header { round, ..Header::new(kind) }, &mut slot[..HEADER_BYTES + payload]);
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
        let mut ends = pair();
        let kind = ends.kind;
        let (mut sent, mut received) = (0u64, 0u64);
        while received < 100 {
            while sent < 100 {
                let Some(frame) = ends.shard(sent, sent as u8, PAYLOAD) else { break };
                let control = header_bytes(Header { round: sent, ..Header::new(Kind::Credit) }, &[]);
                if ends.here.outbound.send(frame).is_err() {
                    break;
                }
                sent += 1;
                while ends.here.outbound.send(Outgoing::Control(control)).is_err() {
                    ends.here.outbound.flush(Instant::now()).unwrap();
                    // The queue is full: take one off at the other end.
                    let header = ends.next().unwrap().unwrap();
                    received += u64::from(header.kind == kind);
                }
            }
            let header = ends.next().unwrap().expect(name);
            let payload = &ends.landing.slot[HEADER_BYTES..HEADER_BYTES + header.payload_bytes as usize];
            assert!(header.verifies(payload), "{name}: frame {received}");
            if header.kind == kind {
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
        let mut ends = pair();
        for _ in 0..QUEUE {
            let frame = ends.shard(0, 0, PAYLOAD).unwrap();
            assert!(ends.here.outbound.send(frame).is_ok(), "{name}");
        }
        let frame = ends.shard(9, 9, PAYLOAD).unwrap();
        assert!(ends.here.outbound.send(frame).is_err(), "{name}");
    }
}

#[test]
fn what_was_sent_before_a_close_arrives_and_then_the_close_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let mut ends = pair();
        let frame = ends.shard(5, 1, PAYLOAD).unwrap();
        ends.here.outbound.send(frame).unwrap();
        assert!(ends.here.outbound.flush(Instant::now()).unwrap().empty, "{name}");
        ends.here.outbound.close();
        let header = ends.next().unwrap().expect(name);
        assert_eq!(header.round, 5, "{name}");
        assert_eq!(ends.next(), Err(Disconnect::Closed), "{name}");
        let Ends { here, mut there, .. } = ends;
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
        let mut ends = pair();
        if ends.kind == Kind::Update && ends._rig.is_some() {
            // What is written says no length: it is as long as the layout has it.
            continue;
        }
        let frame = ends.shard(0, 1, PAYLOAD - 4).unwrap();
        ends.here.outbound.send(frame).unwrap();
        let end = ends.next().unwrap_err();
        let found = PAYLOAD as u32 - 4;
        assert_eq!(end, Disconnect::Violation(Violation::Length { found, expected: PAYLOAD as u32 }), "{name}");
    }
}

#[test]
fn a_frame_for_which_there_is_no_room_waits_on_every_transport() {
    for (name, pair) in TRANSPORTS {
        let mut ends = pair();
        ends.landing.full = true;
        let frame = ends.shard(8, 1, PAYLOAD).unwrap();
        ends.here.outbound.send(frame).unwrap();
        for _ in 0..20 {
            ends.here.outbound.flush(Instant::now()).unwrap();
            assert_eq!(ends.receive(), Ok(None), "{name}");
        }
        ends.landing.full = false;
        let header = ends.next().unwrap().expect(name);
        assert!(header.verifies(&ends.landing.slot[HEADER_BYTES..HEADER_BYTES + PAYLOAD]), "{name}");
        assert!(ends.landing.slot[HEADER_BYTES..HEADER_BYTES + PAYLOAD].iter().all(|byte| *byte == 1), "{name}");
    }
}

#[test]
fn half_a_frame_is_no_frame() {
    use std::io::Write;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut there = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let mut here = tcp::connection(listener.accept().unwrap().0, QUEUE, PATIENCE).unwrap();
    let slab = slab();
    let mut landing = landing(&slab, 1);
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
    let end = next(&mut *here.outbound, &mut *here.inbound, &mut landing(&slab, 1));
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
        let mut landing = OneSlot { expected: 100, ..landing(&slab, 1) };
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
