//! A session over RDMA allocates nothing from its first round on. What the provider in memory allocates is not counted.

#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout as MemoryLayout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::time::Instant;

use solon::code::{Family, Form, Layout, Parameters, Precision};
use solon::memory::{Slab, Slot};
use solon::transport::rdma::fake::{Device, Fake, is_working};
use solon::transport::rdma::{Attachment, Fabric, Memory, Needs, Options};
use solon::transport::{Landing, Outgoing, memory};
use solon::wire::{
    HEADER_BYTES, Header, Kind, Plan, REPORT_BYTES, Rule, UPDATE_OFFSET, Violation, Welcome, header_bytes, seal,
};

struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

fn note() {
    if !is_working() {
        COUNT.set(COUNT.get() + 1);
    }
}

// SAFETY: defers to the system's allocator; const-initialised thread locals of plain numbers do not allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: MemoryLayout) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: MemoryLayout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: MemoryLayout, size: usize) -> *mut u8 {
        note();
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn the_counter_counts() {
    let before = COUNT.get();
    drop(std::hint::black_box(Box::new(1)));
    assert_eq!(COUNT.get() - before, 1);
}

const CREDITS: usize = 4;
const OUTBOUND: usize = 16;
const WINDOW: u32 = 4;
const WIDTH: usize = 100;
const CHUNKS: u32 = 3;

struct Takes {
    places: Vec<Slot>,
    updates: u64,
}

impl Landing for Takes {
    fn place(&mut self, header: &Header) -> Result<Option<&mut [u8]>, Violation> {
        Err(Violation::Kind(header.kind))
    }

    fn landed(&mut self, header: &mut Header) -> Result<bool, Violation> {
        if let Some(place) = self.places.get((header.round % u64::from(WINDOW)) as usize) {
            let written = place.part(UPDATE_OFFSET..UPDATE_OFFSET + 4 * WIDTH);
            assert!(header.kind == Kind::RoundEnd || written.iter().all(|byte| *byte == header.round as u8));
            self.updates += 1;
        }
        Ok(true)
    }
}

#[test]
fn shards_updates_and_credits_over_rdma_allocate_nothing() {
    let layout = Layout::new(WIDTH * CHUNKS as usize, 1, WIDTH);
    let plan = Plan {
        parameters: Parameters::new(1, 0, 1, 1).unwrap(),
        rule: Rule::Solon,
        family: Family::Trigonometric,
        form: Form::Systematic,
        generator_digest: 0,
        layout,
        precision: Precision::F32,
        update_precision: Precision::F32,
        gradients: 1,
        window: WINDOW,
        credits: CREDITS as u32,
        deadline_ms: 1000,
        tolerance: 1e-3,
        scale: 1.0,
    };
    for sleeps in [false, true] {
        let fake = Fake::with(vec![Device::roce("fake0", 1), Device::roce("fake1", 2)]);
        let on = |device: &str| Options { devices: device.parse().unwrap(), gid_index: Some(0), ..Options::default() };
        let shards = Slab::new(1, CREDITS, HEADER_BYTES + 4 * WIDTH, Vec::new());
        let updates = Slab::new(1, OUTBOUND, HEADER_BYTES + (4 * WIDTH).max(REPORT_BYTES), Vec::new());
        let needs = Needs { workers: 1, credits: CREDITS, outbound: OUTBOUND, layout, sleeps, fall_back: true };
        let fabric = Fabric::open(fake.api(), &on("fake0"), None, needs, &shards, &updates, Arc::new([])).unwrap();
        let slots = Slab::new(1, CREDITS, HEADER_BYTES + 4 * WIDTH, Vec::new());
        let places = Slab::new(WINDOW as usize, 1, UPDATE_OFFSET + 4 * layout.dimension(), Vec::new());
        let offer = fabric.offer(0).unwrap();
        let memory = Memory { shards: &slots, places: &places };
        let attachment = Attachment::new(fake.api(), &on("fake1"), None, memory, &plan, &offer.endpoint()).unwrap();
        let (control, peer) = memory::pair(OUTBOUND);
        let daemon = fabric.connect(offer, &attachment.endpoint(), attachment.area(), control);
        let Ok(mut daemon) = daemon else { panic!("it connects") };
        let welcome = Welcome { plan, worker: 0, session: 7, epoch: 9, last: None };
        let mut worker = attachment.connect(peer, &welcome, 5, true);
        let mut here = Takes { places: Vec::new(), updates: 0 };
        let mut there = Takes { places: (0..WINDOW as usize).map(|at| places.take(at).unwrap()).collect(), updates: 0 };
        let now = Instant::now();
        let ready = header_bytes(Header::new(Kind::Ready), &[]);
        daemon.outbound.send(Outgoing::Control(ready)).unwrap();
        let mut received = 0;
        let mut before = 0;
        for round in 0..200u64 {
            if round == 2 {
                before = COUNT.get();
            }
            while let Some(slot) = shards.take(0) {
                daemon.inbound.post(slot).unwrap();
            }
            let credit = Header { argument: received + CREDITS as u64, ..Header::new(Kind::Credit) };
            daemon.outbound.send(Outgoing::Control(header_bytes(credit, &[]))).unwrap();
            for _ in 0..CREDITS {
                let Some(mut slot) = slots.take(0) else { break };
                let len = HEADER_BYTES + 4 * WIDTH;
                seal(Header { round, ..Header::new(Kind::Shard) }, &mut slot[..len]);
                worker.outbound.send(Outgoing::Owned(slot, len)).unwrap();
            }
            for chunk in 0..=CHUNKS {
                let mut slot = updates.take(0).unwrap();
                let (kind, bytes) =
                    if chunk == CHUNKS { (Kind::RoundEnd, REPORT_BYTES) } else { (Kind::Update, 4 * WIDTH) };
                let chunk = chunk % CHUNKS;
                slot[HEADER_BYTES..HEADER_BYTES + bytes].fill(round as u8);
                seal(Header { round, chunk, ..Header::new(kind) }, &mut slot[..HEADER_BYTES + bytes]);
                daemon.outbound.send(Outgoing::Shared(slot.freeze(), HEADER_BYTES + bytes)).unwrap();
            }
            for _ in 0..3 {
                daemon.outbound.flush(now).unwrap();
                worker.outbound.flush(now).unwrap();
                while daemon.inbound.receive(&mut here, now).unwrap().is_some() {
                    drop(daemon.inbound.filled().expect("a shard"));
                    received += 1;
                }
                while worker.inbound.receive(&mut there, now).unwrap().is_some() {}
                worker.outbound.release(there.updates / u64::from(CHUNKS + 1));
            }
        }
        assert_eq!(COUNT.get() - before, 0, "sleeps {sleeps}");
        assert_eq!((received, there.updates), (200 * CREDITS as u64, 200 * u64::from(CHUNKS + 1)));
        assert_eq!((daemon.inbound.fell_back(), worker.inbound.fell_back()), (None, None));
    }
}
