use super::*;
use crate::memory::Slab;

const P: usize = 6;

fn relays(liars: usize, carried: usize) -> Relays {
    let relay = Relay { repair: Duration::from_millis(50), auto: false };
    Relays::new(relay, &[1; 32], P, liars, 16, carried)
}

/// All workers in sessions 100, 101 .., and linked with each other.
fn mesh(liars: usize, carried: usize) -> Relays {
    let mut relays = relays(liars, carried);
    for worker in 0..P {
        relays.joined(worker, 100 + worker as u64, 0);
        relays.reach(worker, "10.0.0.1".parse().unwrap(), 7, |_, _| {}).unwrap();
    }
    for (worker, peer) in (0..P * P).map(|at| (at / P, at % P)).filter(|(a, b)| a != b) {
        relays.linked(worker, peer, 100 + peer as u64, true, 0);
    }
    relays
}

const ALL: Set = (1 << P) - 1;

fn hold(relays: &mut Relays, slab: &Slab, round: u64, chunk: u32) -> Option<(usize, Set)> {
    let (carrier, targets) = relays.choose(round, ALL)?;
    let slot = slab.take(0).unwrap().freeze();
    relays.hold((round, chunk), (carrier, targets), (slot, 10), Instant::now());
    Some((carrier, targets))
}

#[test]
fn carriers_rotate_and_none_has_more_under_way_than_it_may() {
    let (mut relays, slab) = (mesh(1, 2), Slab::new(1, 16, 16, Vec::new()));
    let carriers: Vec<_> = (0..12).map(|chunk| hold(&mut relays, &slab, 0, chunk).unwrap()).collect();
    let expected: Vec<_> = (0..12).map(|at| (at % P, ALL & !bit(at % P))).collect();
    assert_eq!(carriers, expected);
    assert_eq!(hold(&mut relays, &slab, 0, 12), None, "all have as much as they may");
    for worker in 1..P {
        assert_eq!(relays.have(worker, 0, 0, Instant::now()), Ok(Some(10)));
    }
    assert_eq!((relays.held(), slab.free(0)), (11, 5), "who carried it waits for nothing");
    assert_eq!(hold(&mut relays, &slab, 0, 12).unwrap().0, 0);
}

#[test]
fn a_chunk_is_answered_for_once_and_never_unasked() {
    let (mut relays, slab) = (mesh(1, 2), Slab::new(1, 16, 16, Vec::new()));
    hold(&mut relays, &slab, 0, 0).unwrap();
    assert!(relays.have(0, 0, 0, Instant::now()).is_err(), "the carrier was not announced to itself");
    assert_eq!(relays.have(1, 0, 0, Instant::now()), Ok(Some(10)));
    assert!(relays.have(1, 0, 0, Instant::now()).is_err());
    assert!(relays.fetch(1, 0, 0, Why::Late, 0).is_err());
    assert!(relays.have(2, 0, 1, Instant::now()).is_err() && relays.have(2, 1, 0, Instant::now()).is_err());
    assert!(relays.fetch(2, 0, 0, Why::Late, 0).unwrap().is_some());
    assert!(relays.have(2, 0, 0, Instant::now()).is_err());
}

#[test]
fn what_waits_too_long_is_sent_and_an_answer_under_way_is_no_violation() {
    let (mut relays, slab) = (mesh(1, 2), Slab::new(1, 16, 16, Vec::new()));
    hold(&mut relays, &slab, 0, 0).unwrap();
    assert_eq!(relays.have(1, 0, 0, Instant::now()), Ok(Some(10)));
    let (now, mut sent) = (Instant::now() + Duration::from_secs(1), Vec::new());
    relays.give_up(now, Duration::from_secs(9), 0, |worker, _, _| sent.push(worker));
    assert!(sent.is_empty());
    relays.give_up(now, Duration::from_millis(500), 0, |worker, _, _| sent.push(worker));
    assert_eq!((sent, relays.held(), slab.free(0)), (vec![2, 3, 4, 5], 0, 16));
    assert_eq!(relays.have(2, 0, 0, Instant::now()), Ok(None));
    assert!(relays.have(2, 0, 0, Instant::now()).is_err());
}

#[test]
fn whoever_answers_for_nothing_holds_up_a_round_now_and_then_and_gets_everything_meanwhile() {
    let (mut relays, slab) = (mesh(1, 9), Slab::new(1, 16, 16, Vec::new()));
    let (late, mut waited) = (Instant::now() + Duration::from_secs(9), Vec::new());
    for round in 0..40 {
        for chunk in 0..4 {
            let (_, targets) = hold(&mut relays, &slab, round, chunk).unwrap();
            each(targets & !bit(5))
                .for_each(|worker| assert!(relays.have(worker, round, chunk, Instant::now()).unwrap().is_some()));
        }
        if relays.held() > 0 {
            waited.push(round);
        }
        relays.give_up(late, Duration::from_secs(1), round, |worker, _, _| assert_eq!(worker, 5));
        assert_eq!(slab.free(0), 16);
        relays.closed(round, |_, _| {});
    }
    assert_eq!(waited, [0, 5, 14, 31]);
}

#[test]
fn up_to_s_complainers_name_nobody_and_cost_only_their_own_pairs() {
    let (mut relays, slab) = (mesh(2, 9), Slab::new(1, 16, 16, Vec::new()));
    for chunk in 0..2 * P as u32 {
        let (carrier, targets) = hold(&mut relays, &slab, 0, chunk).unwrap();
        for worker in each(targets) {
            let lies = worker < 2;
            if lies {
                assert_eq!(relays.fetch(worker, 0, chunk, Why::Wrong, 0).unwrap().unwrap().bad, None);
            } else {
                relays.have(worker, 0, chunk, Instant::now()).unwrap();
            }
            assert!(!lies || carrier != worker);
        }
    }
    let seen: Vec<_> = (0..P as u32).map(|chunk| hold(&mut relays, &slab, 0, chunk + 50).unwrap()).collect();
    assert!(seen.iter().all(|(_, targets)| targets & 3 == 0), "{seen:?}");
    assert_eq!(seen.iter().map(|(carrier, _)| *carrier).collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5]);
    relays.closed(ROUNDS_OFF - 1, |_, _| {});
    assert_eq!(relays.choose(4, ALL).unwrap().1 & 3, 0);
    relays.closed(ROUNDS_OFF, |_, _| panic!("they have their links still"));
    assert_ne!(relays.choose(4, ALL).unwrap().1 & 3, 0, "asked again after a while");
}

#[test]
fn a_pair_is_off_twice_as_long_each_time_unless_it_was_well_for_longer_than_that() {
    let (mut relays, slab) = (mesh(2, 9), Slab::new(1, 16, 16, Vec::new()));
    let mut off_after = |round: u64, chunk: u32| {
        relays.next = 0;
        assert_ne!(hold(&mut relays, &slab, round, chunk).unwrap().1 & bit(1), 0);
        relays.fetch(1, round, chunk, Why::Late, round).unwrap();
        (round..).find(|next| {
            relays.closed(*next, |_, _| {});
            relays.members[0].complained == 0
        })
    };
    assert_eq!(off_after(10, 0), Some(14));
    assert_eq!(off_after(14, 1), Some(22));
    assert_eq!(off_after(23, 2), Some(39));
    assert_eq!(off_after(1000, 3), Some(1004));
}

#[test]
fn a_carrier_of_whom_more_complain_than_can_lie_is_named_once_and_carries_no_more() {
    for wrong in [true, false] {
        let (mut relays, slab) = (mesh(2, 9), Slab::new(1, 16, 16, Vec::new()));
        let (carrier, _) = hold(&mut relays, &slab, 0, 0).unwrap();
        let why = if wrong { Why::Wrong } else { Why::Late };
        let mut named = |worker| relays.fetch(worker, 0, 0, why, 0).unwrap().unwrap().bad;
        // What is late takes twice as many, and one more.
        let named: Vec<_> = (1..P).map(&mut named).collect();
        let expected = |at: usize| (at == if wrong { 2 } else { 4 }).then_some(Bad { carrier, wrong });
        assert!((0..P - 1).all(|at| named[at] == expected(at)), "named once: {named:?}");
        for chunk in 1..7 {
            assert_ne!(hold(&mut relays, &slab, 0, chunk).unwrap().0, carrier);
        }
        relays.closed(ROUNDS_BAD, |_, _| {});
        let carriers: Vec<_> = (0..P).map(|_| relays.choose(ROUNDS_BAD, ALL).unwrap().0).collect();
        assert_eq!(carriers.contains(&carrier), !wrong, "late ones may try again");
        relays.joined(carrier, 500, 0);
        assert!(relays.choose(0, ALL).unwrap().1 & bit(carrier) == 0, "its links are gone with its session");
        for peer in (0..P).filter(|peer| *peer != carrier) {
            relays.linked(carrier, peer, 100 + peer as u64, true, 0);
            relays.linked(peer, carrier, 500, true, 0);
        }
        let mut asked = |round| (0..P).any(|_| relays.choose(round, ALL).unwrap().0 == carrier);
        assert_eq!([asked(ROUNDS_BAD - 1), asked(ROUNDS_BAD)], [false, true], "nobody comes clean by joining again");
    }
}

#[test]
fn a_link_that_could_not_be_made_is_told_from_one_that_broke() {
    let mut relays = mesh(1, 2);
    assert!(!relays.linked(0, 1, 101, false, 0), "it was there");
    for worker in 0..2 {
        relays.joined(worker, 200, 0);
    }
    assert!(!relays.linked(0, 1, 101, false, 0), "with a session that is over");
    assert!(relays.linked(0, 1, 200, false, 0));
    assert!(!relays.linked(0, 1, 200, false, 0), "told once");
}

#[test]
fn a_carrier_that_brings_some_only_half_a_chunk_does_not_make_them_silent() {
    let (mut relays, slab) = (mesh(1, 9), Slab::new(1, 16, 16, Vec::new()));
    let limit = Duration::from_secs(1);
    let give_up = |relays: &mut Relays, round| {
        let (carrier, targets) = hold(relays, &slab, round, 0).unwrap();
        let victim = if carrier == 5 { 4 } else { 5 };
        for worker in each(targets & !bit(victim)) {
            relays.have(worker, round, 0, Instant::now()).unwrap();
        }
        let mut sent = Vec::new();
        relays.give_up(Instant::now() + limit, limit, round, |worker, _, _| sent.push(worker));
        assert_eq!(sent, [victim]);
        (carrier, victim)
    };
    let (carrier, victim) = give_up(&mut relays, 0);
    assert_eq!((carrier, relays.silent), (0, 0), "one carrier may be at fault itself");
    assert_eq!(relays.members[carrier].doubted, bit(victim));
    assert!((0..P).all(|_| relays.choose(0, ALL).is_some_and(|(it, to)| it != carrier || to & bit(victim) == 0)));
    relays.closed(ROUNDS_OFF, |_, _| panic!("their link is as it was"));
    assert_eq!(relays.members[carrier].doubted, 0);
    let (other, again) = give_up(&mut relays, ROUNDS_OFF);
    assert!(other != carrier && again == victim);
    assert_eq!(relays.silent, bit(victim), "under more carriers than can lie");
}

#[test]
fn whoever_leaves_is_waited_for_no_more_and_blamed_for_nothing_in_its_next_session() {
    let (mut relays, slab) = (mesh(1, 2), Slab::new(1, 16, 16, Vec::new()));
    let (carrier, _) = hold(&mut relays, &slab, 0, 0).unwrap();
    for worker in 2..P {
        relays.have(worker, 0, 0, Instant::now()).unwrap();
    }
    relays.left(carrier);
    relays.joined(carrier, 700, 0);
    assert_eq!(relays.fetch(1, 0, 0, Why::Wrong, 0).unwrap().unwrap().bad, None);
    relays.linked(1, carrier, 100, false, 0);
    assert_eq!(relays.members[carrier].apart, 0, "a word about the old session");
    assert!(relays.members[carrier].complained == 0);
    hold(&mut relays, &slab, 0, 1).unwrap();
    for worker in 0..P {
        relays.left(worker);
    }
    assert_eq!((relays.held(), slab.free(0)), (0, 16));
    assert_eq!(relays.members(), 0);
}

#[test]
fn a_link_that_broke_is_ordered_anew_after_a_while_with_another_key() {
    let mut relays = relays(1, 2);
    let mut orders = Vec::new();
    for worker in 0..2 {
        relays.joined(worker, 100 + worker as u64, 0);
        relays
            .reach(worker, "10.0.0.1".parse().unwrap(), 7 + worker as u16, |to, order| orders.push((to, order)))
            .unwrap();
    }
    let again = relays.reach(0, "10.0.0.1".parse().unwrap(), 7, |_, _| panic!("every time costs everybody a link"));
    assert!(again.is_err());
    assert_eq!(
        orders.iter().map(|(to, order)| (*to, order.peer, order.port)).collect::<Vec<_>>(),
        [(1, 0, 7), (0, 1, 8)]
    );
    assert_eq!(orders[0].1.key, orders[1].1.key);
    relays.linked(0, 1, 101, true, 0);
    assert_eq!(relays.choose(0, 3), None, "only one end says so");
    relays.linked(1, 0, 100, true, 0);
    assert!(relays.choose(0, 3).is_some());
    assert!(!relays.linked(0, 1, 101, false, 0), "it was there, and broke");
    assert_eq!(relays.choose(0, 3), None);
    let mut again = Vec::new();
    relays.closed(ROUNDS_OFF - 1, |to, order| again.push((to, order)));
    assert!(again.is_empty());
    relays.closed(ROUNDS_OFF, |to, order| again.push((to, order)));
    relays.closed(ROUNDS_OFF + 1, |to, order| again.push((to, order)));
    assert_eq!(again.len(), 2, "once");
    assert!(again[0].1.key == again[1].1.key && again[0].1.key != orders[0].1.key);
    relays.linked(0, 1, 101, true, 9);
    assert_eq!(relays.choose(9, 3), None, "what the other end had ended with the order");
    relays.linked(1, 0, 100, true, 9);
    assert!(relays.choose(9, 3).is_some());
}

#[test]
fn a_carrier_without_room_says_so_and_is_not_blamed() {
    let (mut relays, slab) = (mesh(1, 2), Slab::new(1, 16, 16, Vec::new()));
    let (carrier, _) = hold(&mut relays, &slab, 0, 0).unwrap();
    relays.have(1, 0, 0, Instant::now()).unwrap();
    let mut sent = Vec::new();
    relays.decline(carrier + 1, 0, 0, |worker, _, _| sent.push(worker));
    assert!(sent.is_empty(), "it does not carry it");
    for _ in 0..2 {
        relays.decline(carrier, 0, 0, |worker, _, _| sent.push(worker));
    }
    assert_eq!((sent, relays.held(), slab.free(0)), (vec![2, 3, 4, 5], 0, 16));
    assert_eq!((relays.members[carrier].complained, relays.members[carrier].load), (0, 0));
    assert_eq!(relays.have(2, 0, 0, Instant::now()), Ok(None), "it may have come all the same");
}

#[test]
fn how_long_a_chunk_usually_takes_is_up_to_most_workers() {
    let (mut relays, slab) = (mesh(1, 9), Slab::new(1, 16, 16, Vec::new()));
    assert_eq!(relays.usual(), None);
    let start = Instant::now();
    let ms = Duration::from_millis;
    for chunk in 0..6 {
        let (carrier, targets) = relays.choose(0, ALL).unwrap();
        relays.hold((0, chunk), (carrier, targets), (slab.take(0).unwrap().freeze(), 10), start);
        let mut others = each(targets);
        // Of five two say so at once; the third decides.
        for took in [0, 0, 30, 1000, 60_000] {
            relays.have(others.next().unwrap(), 0, chunk, start + ms(took)).unwrap();
        }
    }
    assert_eq!((relays.usual(), relays.held()), (Some(ms(30)), 0));
}
