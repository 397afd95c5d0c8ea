//! Who leaves while chunks are on their way to it.

use std::net::IpAddr;
use std::os::fd::RawFd;

use super::*;
use crate::transport::{Flushed, Outbound};

/// The sending half of a socket: nobody looks at it before there is something to send.
struct Socket(Box<dyn Outbound>);

impl Outbound for Socket {
    fn send(&mut self, frame: Outgoing) -> Result<(), Outgoing> {
        self.0.send(frame)
    }

    fn flush(&mut self, now: Instant) -> Result<Flushed, Disconnect> {
        self.0.flush(now)
    }

    fn queued(&self) -> usize {
        self.0.queued()
    }

    fn descriptor(&self) -> Option<RawFd> {
        None
    }

    fn wants_turn(&self) -> bool {
        false
    }

    fn far(&self) -> Option<IpAddr> {
        self.0.far()
    }

    fn close(&mut self) {
        self.0.close();
    }
}

#[test]
fn nobody_waits_for_a_worker_that_has_left_although_nothing_is_sent_to_it() {
    let mut mesh = Mesh::new(relayed(parameters(4), true));
    let (mut here, there) = memory::pair(64);
    here.outbound = Box::new(Socket(here.outbound));
    assert!(mesh.cluster.pipeline.handle.admit(0, 5000, here));
    let welcome = Welcome { plan: mesh.job.plan, worker: 0, session: 5000, epoch: mesh.job.epoch, last: None };
    mesh.cluster.sessions[0] = Session::new(there, welcome, mesh.job.number).unwrap();
    mesh.settle();
    mesh.round(0);
    mesh.settle();
    let (slots, workers) = (mesh.job.updates, mesh.workers());
    let free = |mesh: &Mesh| mesh.cluster.pipeline.pusher.slab().free(0);
    assert_eq!(free(&mesh), slots);
    // It reads all that the daemon sends, and waits for what no carrier brings it.
    for session in &mut mesh.cluster.sessions {
        session.set_carry(Box::new(|_, peer, _| usize::from(peer != 0)));
        session.begin().unwrap();
    }
    let (gradient, began) = (&gradients(1, D, 1)[0], mesh.cluster.now);
    let (mut done, mut update) = (BTreeSet::new(), vec![0.0; D]);
    while done.len() + 1 < workers {
        for worker in 0..workers {
            let session = &mut mesh.cluster.sessions[worker];
            session.pump(Source::Separate(gradient), None);
            if worker > 0 && session.collect(&mut update).is_some_and(|ended| ended.is_ok()) {
                done.insert(worker);
            }
        }
        mesh.turn();
    }
    (0..4).for_each(|_| mesh.turn());
    assert!(mesh.cluster.now - began < REPAIR, "it has not fetched anything yet");
    assert!(free(&mesh) < slots, "something waits for it");
    mesh.cluster.sessions[0].hang_up();
    mesh.gone.insert(0);
    (0..4).for_each(|_| mesh.turn());
    assert_eq!(free(&mesh), slots);
    assert_eq!(mesh.counted(Counter::RepairsUnasked) + mesh.counted(Counter::Violations), 0);
    mesh.round(2);
}
