//! False answers to the offer: places that are not the worker's, queue pairs that are somebody else's, addresses of nobody.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use solon::transport::rdma::ffi::IBV_ACCESS_LOCAL_WRITE;
use solon::wire::{Area, CHALLENGE_BYTES, Credential, Endpoint, Refusal};

use super::attacker::{Attacker, Invited, area};
use super::job::{HONEST, Solond, while_the_honest_work};
use super::verbs::End;
use crate::guest::tools::DEVICES;

const PAUSE: Duration = Duration::from_millis(2);

fn open() -> Solond {
    Solond::start(&["--listen-open", "true"])
}

#[test]
#[ignore = "runs in the guest"]
fn places_that_are_not_the_workers_end_its_link_and_no_other() {
    type False = fn(&mut End, Area) -> Area;
    let places: [(&str, False); 5] = [
        ("another key", |_, area| Area { key: area.key ^ 0x55, ..area }),
        ("address 0", |_, area| Area { address: 0, ..area }),
        ("an address beyond all memory", |_, area| Area { address: 1 << 62, ..area }),
        ("the key of a region that nobody may write to", |end, area| {
            let closed = end.memory(1 << 16, IBV_ACCESS_LOCAL_WRITE);
            Area { address: closed.address(), key: closed.local_key, ..area }
        }),
        ("one byte too far", |_, area| Area {
            address: area.address + area.stride * u64::from(area.rounds) - 1,
            ..area
        }),
    ];
    let mut solond = open();
    let rounds = while_the_honest_work(
        &mut solond,
        PAUSE,
        |_| String::new(),
        |solond| {
            for (at, (name, place)) in places.into_iter().enumerate() {
                let worker = HONEST + at % 2;
                let start = Instant::now();
                let attacker = Attacker::join_at(&solond.address, worker as u32, "", 7, place);
                let named = format!("\"worker\":{worker}");
                let line = solond.wait_for(&["RDMA connection ended", &named, "status 10"]);
                println!("{name}: {:?} after the first byte, {line}", start.elapsed());
                drop(attacker);
                solond.wait_for(&["worker left", &named]);
            }
        },
    );
    println!("the honest ran {rounds} rounds");
}

#[test]
#[ignore = "runs in the guest"]
fn an_attach_that_is_forged_or_replayed_is_refused() {
    let mut solond = open();
    let rounds = while_the_honest_work(
        &mut solond,
        PAUSE,
        |_| String::new(),
        |solond| {
            let worker = HONEST as u32;
            let mut end = End::new(DEVICES[0].name);
            end.reset();
            let refused = |solond: &mut Solond, mut invited: Invited, bytes: &[u8]| {
                assert_eq!(invited.answer(bytes), Err(Some(Refusal::Unreadable)));
                println!("{}", solond.wait_for(&["answer to the offer of RDMA was refused", "\"worker\":4"]));
            };
            let mut first = Invited::new(&solond.address, worker, "");
            let (_, place) = area(&mut end, &first.welcome);
            let replayed = first.attach_bytes(end.endpoint(), place);
            assert_eq!(first.answer(&replayed), Ok(0));
            drop(first);

            let invited = Invited::new(&solond.address, worker, "");
            refused(solond, invited, &replayed);
            let mut invited = Invited::new(&solond.address, worker, "");
            invited.credential = Credential::from_token("another");
            let bytes = invited.attach_bytes(end.endpoint(), place);
            refused(solond, invited, &bytes);
            let mut invited = Invited::new(&solond.address, worker, "");
            invited.welcome.session += 1;
            let bytes = invited.attach_bytes(end.endpoint(), place);
            refused(solond, invited, &bytes);
        },
    );
    println!("the honest ran {rounds} rounds");
}

/// Answers the offer with this endpoint and a good area; says the status and how long that took.
fn attach(address: &str, worker: usize, end: &mut End, endpoint: Endpoint) -> (Invited, u64, Duration) {
    let mut invited = Invited::new(address, worker as u32, "");
    let (_, place) = area(end, &invited.welcome);
    let bytes = invited.attach_bytes(endpoint, place);
    let start = Instant::now();
    let status = invited.answer(&bytes).expect("an answer");
    (invited, status, start.elapsed())
}

#[test]
#[ignore = "runs in the guest"]
fn the_queue_pair_of_somebody_else_is_not_disturbed_by_who_names_it() {
    let mut solond = open();
    let rounds = while_the_honest_work(
        &mut solond,
        PAUSE,
        |_| String::new(),
        |solond| {
            // Numbers are given out one after the other: these four are the honest workers'.
            let mut end = End::new(DEVICES[0].name);
            end.reset();
            let mine = end.endpoint();
            for back in 1..=HONEST as u32 {
                let worker = HONEST + back as usize % 2;
                let theirs = Endpoint { number: mine.number - back, ..mine };
                let (invited, status, _) = attach(&solond.address, worker, &mut end, theirs);
                assert_eq!(status, 0);
                let (start, named) = (Instant::now(), format!("\"worker\":{worker}"));
                // Nothing that is written arrives. Either the NIC gives up, or the daemon, which needs its slots, does so before.
                let line = solond.wait_for(&[" ended", &named]);
                println!("queue pair {}: ended after {:?}: {line}", theirs.number, start.elapsed());
                drop(invited);
                solond.wait_for(&["worker left", &named]);
            }
        },
    );
    println!("the honest ran {rounds} rounds");
}

/// How long a stranger waits for the door's first word.
fn challenged(address: &str) -> Duration {
    let start = Instant::now();
    let mut stream = TcpStream::connect(address).expect("the door");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time-out");
    stream.read_exact(&mut [0; CHALLENGE_BYTES]).expect("a challenge");
    start.elapsed()
}

#[test]
#[ignore = "runs in the guest"]
fn workers_that_name_addresses_of_nobody_do_not_keep_others_from_joining() {
    let mut solond = open();
    let rounds = while_the_honest_work(
        &mut solond,
        PAUSE,
        |_| String::new(),
        |solond| {
            let usual = challenged(&solond.address);
            let mut waits = Vec::new();
            std::thread::scope(|scope| {
                let hostile = [HONEST, HONEST + 1].map(|worker| {
                    let address = &solond.address;
                    scope.spawn(move || {
                        let mut end = End::new(DEVICES[0].name);
                        end.reset();
                        for last in 0..4u8 {
                            let gid = Ipv4Addr::new(10, 0, worker as u8, last).to_ipv6_mapped().octets();
                            let endpoint = Endpoint { gid, ..end.endpoint() };
                            attach(address, worker, &mut end, endpoint);
                        }
                    })
                });
                while hostile.iter().any(|thread| !thread.is_finished()) {
                    waits.push(challenged(&solond.address));
                    std::thread::sleep(Duration::from_millis(20));
                }
            });
            waits.sort();
            let (median, longest) = (waits[waits.len() / 2], waits[waits.len() - 1]);
            println!(
                "a stranger waits {usual:?} for the challenge, and then, of {} times, {median:?}, at most {longest:?}",
                waits.len()
            );
            // The kernel takes a second to find that there is no way; strangers do not wait for that.
            assert!(median < Duration::from_millis(500), "{waits:?}");
        },
    );
    println!("the honest ran {rounds} rounds");
}

#[test]
#[ignore = "runs in the guest"]
fn an_address_of_nobody_is_given_up_in_bounded_time() {
    let mapped = |address: [u8; 4]| Ipv4Addr::from(address).to_ipv6_mapped().octets();
    let link_local = |last| [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last];
    let multicast = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    let addresses = [
        ("nobody in the network", mapped([10, 0, 0, 77])),
        ("beyond the network", mapped([192, 0, 2, 1])),
        ("loopback", mapped([127, 0, 0, 1])),
        ("nothing", [0; 16]),
        ("link-local", link_local(9)),
        ("multicast", multicast),
        ("the daemon itself", mapped([10, 0, 0, 2])),
    ];
    let mut solond = open();
    let rounds = while_the_honest_work(
        &mut solond,
        PAUSE,
        |_| String::new(),
        |solond| {
            for (at, (name, gid)) in addresses.into_iter().enumerate() {
                let worker = HONEST + at % 2;
                let mut end = End::new(DEVICES[0].name);
                end.reset();
                let endpoint = Endpoint { gid, ..end.endpoint() };
                let (invited, status, took) = attach(&solond.address, worker, &mut end, endpoint);
                let named = format!("\"worker\":{worker}");
                let text = match status {
                    0 => " ended",
                    _ => "the RDMA connection could not be made",
                };
                let start = Instant::now();
                let line = solond.wait_for(&[text, &named]);
                println!("{name}: status {status} after {took:?}, then {:?}: {line}", start.elapsed());
                assert!(took < Duration::from_secs(10));
                drop(invited);
                solond.wait_for(&["worker left", &named]);
            }
        },
    );
    println!("the honest ran {rounds} rounds");
}
