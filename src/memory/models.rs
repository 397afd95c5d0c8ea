//! The hand-over of slots and work, checked by loom: every order of steps of a few threads, and every value that a load may see.
//!
//! `RUSTFLAGS="--cfg modelled" cargo test --release --lib models -- --test-threads 1`. The tests that end in `is_noticed` make the models
//! of `sync` break one promise that the code relies on; each must then fail, or the tests beside them would show nothing.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use loom::thread;

use super::sync::{Mistake, Waker, make};
use super::{Bell, Slab, Slot};
use crate::pipeline::ring;

/// For models of many steps: every order with at most three switches to another thread that are not forced.
fn check_most(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// What loom says of the model if such a mistake is made.
fn noticed(mistake: Mistake, model: impl Fn() + Send + Sync + 'static) -> String {
    make(mistake);
    let result = catch_unwind(AssertUnwindSafe(|| loom::model(model)));
    make(Mistake::Nothing);
    let problem = result.expect_err("loom fails");
    let text = problem.downcast_ref::<String>().cloned();
    text.or_else(|| problem.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// One thread waits for what another one brings.
fn waiter_and_ringer() {
    let (bell, waker) = bell();
    let (producer, consumer) = ring(1, bell.clone());
    let ringer = thread::spawn(move || producer.push(7).expect("there is room"));
    assert_eq!(wait_for(&bell, &waker, || consumer.pop()), 7);
    ringer.join().expect("the ringer ends");
}

fn bell() -> (Arc<Bell>, Waker) {
    let waker = Waker::default();
    (Arc::new(Bell::new(waker.clone())), waker)
}

/// Waits as a reactor does until `look` finds something.
fn wait_for<T>(bell: &Bell, waker: &Waker, look: impl Fn() -> Option<T>) -> T {
    let mut found = look();
    while found.is_none() {
        let look = |found: &mut Option<T>| {
            *found = look();
            found.is_some()
        };
        let slept: Result<(), ()> = bell.park(&mut found, look, |_| {
            waker.wait();
            Ok(())
        });
        slept.expect("sleeping cannot fail");
    }
    found.expect("just found")
}

#[test]
fn a_ring_is_never_lost_on_a_waiter() {
    loom::model(waiter_and_ringer);
}

#[test]
fn a_bell_without_its_fences_is_noticed() {
    let text = noticed(Mistake::NoFences, waiter_and_ringer);
    assert!(text.contains("deadlock"), "{text}");
}

#[test]
fn a_waiter_that_does_not_look_once_more_is_noticed() {
    let text = noticed(Mistake::Nothing, || {
        let (bell, waker) = bell();
        let (producer, consumer) = ring(1, bell.clone());
        let ringer = thread::spawn(move || producer.push(7).expect("there is room"));
        while consumer.pop().is_none() {
            let slept: Result<(), ()> = bell.park(
                &mut (),
                |()| false,
                |()| {
                    waker.wait();
                    Ok(())
                },
            );
            slept.expect("sleeping cannot fail");
        }
        ringer.join().expect("the ringer ends");
    });
    assert!(text.contains("deadlock"), "{text}");
}

#[test]
fn two_ringers_wake_a_waiter_for_what_both_bring() {
    check_most(|| {
        let (bell, waker) = bell();
        let (producer, consumer) = ring(2, bell.clone());
        let ringers: Vec<_> = (0..2u32)
            .map(|ringer| {
                let producer = producer.clone();
                thread::spawn(move || producer.push(1 << ringer).expect("there is room"))
            })
            .collect();
        let pop = || wait_for(&bell, &waker, || consumer.pop());
        assert_eq!(pop() + pop(), 3);
        ringers.into_iter().for_each(|ringer| ringer.join().expect("the ringer ends"));
    });
}

/// A writer fills a slot, two readers have a share each, and the last of them frees it for the writer, which waits for that.
fn shared_by_two() {
    let (bell, waker) = bell();
    let slab = Slab::new(1, 1, 64, vec![bell.clone()]);
    let mut slot = slab.take(0).expect("the slot is free");
    slot[0] = 1;
    let first = slot.freeze();
    let readers = [first.clone(), first].map(|share| {
        thread::spawn(move || {
            assert_eq!(share[0], 1);
            drop(share);
        })
    });
    let mut slot = wait_for(&bell, &waker, || slab.take(0));
    // Both readers are done with what they read.
    slot[0] = 2;
    drop(slot);
    readers.into_iter().for_each(|reader| reader.join().expect("the reader ends"));
    assert_eq!(slab.free(0), 1, "freed once, by its last owner");
}

#[test]
fn a_shared_slot_is_freed_once_and_its_next_owner_sees_all_readers_done() {
    loom::model(shared_by_two);
}

#[test]
fn share_counts_without_order_are_noticed() {
    let text = noticed(Mistake::RelaxedCounts, shared_by_two);
    assert!(text.contains("Causality violation"), "{text}");
}

#[test]
fn share_counts_that_only_release_are_noticed() {
    let text = noticed(Mistake::ReleaseOnly, shared_by_two);
    assert!(text.contains("Causality violation"), "{text}");
}

#[test]
fn a_share_can_be_cloned_while_another_is_dropped() {
    loom::model(|| {
        let slab = Slab::new(1, 1, 64, Vec::new());
        let mut slot = slab.take(0).expect("the slot is free");
        slot[0] = 1;
        let first = slot.freeze();
        let second = first.clone();
        let cloner = thread::spawn(move || {
            let third = second.clone();
            drop(second);
            assert_eq!(third[0], 1);
        });
        drop(first);
        if let Some(mut slot) = slab.take(0) {
            slot[0] = 2;
        }
        cloner.join().expect("the cloner ends");
        assert_eq!(slab.free(0), 1);
    });
}

#[test]
fn slots_go_through_a_ring_and_back_to_who_waits_for_one() {
    check_most(|| {
        let (to_reader, reader_waker) = bell();
        let (to_writer, writer_waker) = bell();
        let slab = Slab::new(1, 1, 64, vec![to_writer.clone()]);
        let (producer, consumer) = ring::<Slot>(2, to_reader.clone());
        let reader = thread::spawn(move || {
            for number in 0..2 {
                let slot = wait_for(&to_reader, &reader_waker, || consumer.pop());
                assert_eq!(slot[0], number);
            }
        });
        for number in 0..2 {
            let mut slot = wait_for(&to_writer, &writer_waker, || slab.take(0));
            slot[0] = number;
            assert!(producer.push(slot).is_ok(), "there is room");
        }
        reader.join().expect("the reader ends");
        assert_eq!(slab.free(0), 1);
    });
}
