//! How a link comes to be, and the ways in which it does not.

use rustix::io::Errno;

use super::*;
use crate::transport::rdma::fake::{Element, Verb};
use crate::transport::rdma::ffi;
use crate::transport::rdma::verbs::AsyncEvent;
use crate::wire::Endpoint;

fn two(change: impl Fn(&mut Device)) -> Fake {
    let mut devices = vec![Device::roce("fake0", 1), Device::roce("fake1", 2)];
    devices.iter_mut().for_each(change);
    Fake::with(devices)
}

fn refused(fake: &Fake, workers: usize) -> NoRdma {
    let found = Rig::on(fake.clone(), usual(), workers).err().expect("it is refused");
    eventually(|| fake.counts(), Counts::is_empty);
    found
}

fn says(found: &NoRdma, failure: LinkFailure, parts: &[&str]) {
    assert_eq!(found.failure, failure, "{found}");
    for part in parts {
        assert!(found.text.contains(part), "{part:?} is not in {:?}", found.text);
    }
}

fn attach(rig: &Rig, memory: &WorkerMemory, there: &Endpoint) -> Result<Attachment, NoRdma> {
    let registered = Memory { shards: &memory.slots, places: &memory.places };
    Attachment::new(rig.fake.api(), &on("fake1"), None, registered, &rig.shape.plan(), there)
}

#[test]
fn memory_that_cannot_be_pinned_is_named_with_the_limit_that_is_to_blame() {
    let fake = two(|device| device.memlock = 4096);
    let found = refused(&fake, 1);
    let parts = ["ibv_reg_mr on fake0", "Cannot allocate memory", "to register ", " KiB for ", "RLIMIT_MEMLOCK is"];
    says(&found, LinkFailure::Resources, &parts);
}

#[test]
fn whatever_the_daemon_does_not_get_leaves_nothing_behind() {
    for (verb, errno, failure) in [
        (Verb::OpenDevice, Errno::ACCESS, LinkFailure::NoDevice),
        (Verb::AllocPd, Errno::NOMEM, LinkFailure::Resources),
        (Verb::RegMr, Errno::NOMEM, LinkFailure::Resources),
        (Verb::RegMr, Errno::IO, LinkFailure::DeviceLost),
    ] {
        let fake = fake();
        fake.fail_next(verb, errno);
        // Looking at the ports opens each device too, and passes over one that does not open.
        fake.fail_next(verb, errno);
        fake.fail_next(verb, errno);
        says(&refused(&fake, 2), failure, &[]);
    }
}

#[test]
fn an_offer_that_cannot_be_made_leaves_nothing_behind() {
    let rig = Rig::new(usual());
    let before = rig.fake.counts();
    for (verb, errno, failure, text) in [
        (Verb::CreateCompChannel, Errno::MFILE, LinkFailure::Resources, "ibv_create_comp_channel on fake0"),
        (Verb::CreateCq, Errno::NOMEM, LinkFailure::Resources, "RLIMIT_MEMLOCK is"),
        (Verb::CreateQp, Errno::NOMEM, LinkFailure::Resources, "ibv_create_qp on fake0:1 failed"),
        (Verb::ModifyQp, Errno::INVAL, LinkFailure::NoPath, "RESET -> INIT"),
        (Verb::CreateQp, Errno::IO, LinkFailure::DeviceLost, "ibv_create_qp"),
    ] {
        rig.fake.fail_next(verb, errno);
        says(&rig.fabric().offer(0).err().expect("it fails"), failure, &[text]);
        eventually(|| rig.fake.counts(), |now| *now == before);
    }
    // Nor does one that nobody takes up.
    drop(rig.fabric().offer(0).unwrap());
    eventually(|| rig.fake.counts(), |now| *now == before);
    rig.check_nothing_is_left();
}

#[test]
fn a_worker_that_does_not_get_what_it_needs_leaves_nothing_behind() {
    let rig = Rig::new(usual());
    let offer = rig.fabric().offer(0).unwrap();
    let before = rig.fake.counts();
    let memory = WorkerMemory::new(&rig.shape);
    for (verb, errno, failure, text) in [
        (Verb::AllocPd, Errno::NOMEM, LinkFailure::Resources, "ibv_alloc_pd"),
        (Verb::RegMr, Errno::NOMEM, LinkFailure::Resources, "KiB for Send"),
        (Verb::CreateCompChannel, Errno::MFILE, LinkFailure::Resources, "ibv_create_comp_channel"),
        (Verb::CreateCq, Errno::NOMEM, LinkFailure::Resources, "ibv_create_cq on fake1"),
        (Verb::CreateQp, Errno::NOMEM, LinkFailure::Resources, "sends, "),
        (Verb::PostRecv, Errno::NOMEM, LinkFailure::Resources, "ibv_post_recv"),
        (Verb::ModifyQp, Errno::INVAL, LinkFailure::NoPath, "ibv_modify_qp on fake1:1"),
    ] {
        rig.fake.fail_next(verb, errno);
        says(&attach(&rig, &memory, &offer.endpoint()).err().expect("it fails"), failure, &[text]);
        let after = rig.fake.counts();
        let (registrations, bytes_ever) = (before.registrations, before.bytes_ever);
        assert_eq!(crate::transport::rdma::fake::Counts { registrations, bytes_ever, ..after }, before, "{verb:?}");
    }
    drop(offer);
    rig.check_nothing_is_left();
}

#[test]
fn a_connection_that_cannot_be_made_gives_the_control_connection_back() {
    for on_infiniband in [false, true] {
        let rig = Rig::new(usual());
        let offer = rig.fabric().offer(0).unwrap();
        let memory = WorkerMemory::new(&rig.shape);
        let attachment = attach(&rig, &memory, &offer.endpoint()).unwrap();
        let there = Endpoint { global: !on_infiniband, ..attachment.endpoint() };
        if !on_infiniband {
            rig.fake.fail_next(Verb::ModifyQp, Errno::INVAL);
        }
        let (control, _peer) = rig.control();
        let given = rig.fabric().connect(offer, &there, attachment.area(), control).err();
        let (mut control, why) = given.expect("it fails");
        says(&why, LinkFailure::NoPath, &[if on_infiniband { "InfiniBand" } else { "INIT -> RTR" }]);
        assert!(control.outbound.flush(Instant::now()).is_ok(), "it still works");
        drop(attachment);
        rig.check_nothing_is_left();
    }
}

#[test]
fn a_job_that_is_too_large_for_the_device_is_told_what_is_too_few() {
    let fake = two(|device| device.max_qp = 2);
    says(&refused(&fake, 3), LinkFailure::Resources, &["fake0 has at most 2 queue pairs, this job needs 3"]);
    let fake = two(|device| device.max_qp_wr = 3);
    let text = "fake0 has at most 3 receives per queue pair (memory.credits), this job needs 4";
    says(&refused(&fake, 1), LinkFailure::Resources, &[text]);
    let fake = two(|device| device.max_cqe = 3);
    says(&refused(&fake, 1), LinkFailure::Resources, &["memory.credits"]);
}

#[test]
fn a_device_with_shallow_queues_is_used_as_deep_as_it_is() {
    let rig = Rig::on(two(|device| device.max_qp_wr = 4), usual(), 1).unwrap();
    let mut session = rig.session();
    assert_eq!(carry(&mut session, 0, |_| {}), Ok(()));
    assert!(session.inbound.fell_back.is_empty());
}

#[test]
fn chunks_that_are_longer_than_a_message_are_refused_with_advice() {
    let fake = two(|device| device.ports[0].max_msg_sz = 512);
    let found = refused(&fake, 1);
    says(&found, LinkFailure::Resources, &["messages of up to 512 bytes", "lower chunks.width"]);
    let rig = Rig::new(usual());
    rig.fake.configure(|devices| devices[1].ports[0].max_msg_sz = 300);
    let offer = rig.fabric().offer(0).unwrap();
    let found = attach(&rig, &WorkerMemory::new(&rig.shape), &offer.endpoint()).err().expect("it is refused");
    says(&found, LinkFailure::Resources, &["fake1:1 carries", "lower chunks.width"]);
}

#[test]
fn a_port_that_is_down_offers_nothing_until_it_is_up_again() {
    let rig = Rig::new(usual());
    rig.fake.link_down("fake0", 1);
    assert_eq!(rig.fabric().events(), [AsyncEvent::PortDown(1)]);
    says(&rig.fabric().offer(0).err().unwrap(), LinkFailure::NoDevice, &["port fake0:1 is down"]);
    // That of another port is nothing to us.
    rig.fake.raise("fake0", ffi::IBV_EVENT_PORT_ACTIVE, Element::Port(2));
    rig.fabric().events();
    assert!(rig.fabric().offer(0).is_err());
    rig.fake.link_up("fake0", 1);
    assert_eq!(rig.fabric().events(), [AsyncEvent::PortUp(1)]);
    let mut session = rig.session();
    assert_eq!(carry(&mut session, 0, |_| {}), Ok(()));
    assert!(session.inbound.fell_back.is_empty());
}

#[test]
fn after_a_change_of_addresses_the_next_offer_has_the_new_one() {
    let rig = Rig::new(usual());
    let before = rig.fabric().offer(0).unwrap().endpoint().gid;
    rig.fake.configure(|devices| devices[0].ports[0].gids[0].raw[15] = 77);
    rig.fake.raise("fake0", ffi::IBV_EVENT_GID_CHANGE, Element::Port(1));
    assert_eq!(rig.fabric().events(), [AsyncEvent::AddressesChanged(1)]);
    let after = rig.fabric().offer(0).unwrap().endpoint().gid;
    assert_eq!((before[15], after[15]), (1, 77));
    let mut session = rig.session();
    assert_eq!(carry(&mut session, 0, |_| {}), Ok(()));
    assert!(session.inbound.fell_back.is_empty());
}

#[test]
fn a_device_that_is_lost_fails_all_links_and_offers_none() {
    let rig = Rig::on(fake(), usual(), 3).unwrap();
    let mut sessions: Vec<_> = (0..3).map(|worker| rig.session_with(worker, rig.control(), |area| area)).collect();
    sessions.iter_mut().for_each(|session| session.steps(3));
    rig.fake.remove_device("fake0");
    assert_eq!(rig.fabric().events(), [AsyncEvent::DeviceLost]);
    for session in &mut sessions {
        assert_eq!(carry(session, 0, |_| {}), Ok(()));
        assert_eq!(session.inbound.fell_back, [LinkFailure::DeviceLost]);
    }
    assert!(rig.fabric().offer(0).is_err());
    drop(sessions);
    rig.check_nothing_is_left();
}

#[test]
fn both_ends_use_the_smaller_packets_of_the_two() {
    let rig = Rig::new(usual());
    rig.fake.configure(|devices| devices[1].ports[0].mtu = 3);
    let mut session = rig.session();
    assert_eq!(carry(&mut session, 0, |_| {}), Ok(()));
    assert!(session.inbound.fell_back.is_empty());
}

#[test]
fn packet_sizes_have_the_codes_that_verbs_give_them() {
    let codes = [1, 256, 512, 1024, 2048, 4096, u32::MAX].map(crate::transport::rdma::fabric::mtu_code);
    assert_eq!(codes, [1, 1, 2, 3, 4, 5, 5]);
}
