//! Models for loom, each with no more order than the real thing promises.

#![allow(unsafe_code)]

use std::sync::atomic::{AtomicU8, Ordering};

use loom::cell::UnsafeCell;

/// Mistakes that the models can make on purpose, to show that the tests notice them.
#[cfg_attr(not(test), expect(dead_code, reason = "tests make mistakes"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Mistake {
    /// None.
    Nothing,
    /// Fences do nothing.
    NoFences,
    /// What is read, changed and written in one step is not ordered with anything else.
    RelaxedCounts,
    /// As if all of an order were only its release.
    ReleaseOnly,
}

// Of the real kind: it is no part of what is checked, and stays as it is for all runs of a model.
static MADE: AtomicU8 = AtomicU8::new(0);

#[cfg(test)]
/// The models make this mistake from now on. Tests that do are run one at a time.
pub fn make(mistake: Mistake) {
    MADE.store(mistake as u8, Ordering::SeqCst);
}

fn is(mistake: Mistake) -> bool {
    MADE.load(Ordering::SeqCst) == mistake as u8
}

pub fn fence(order: Ordering) {
    if !is(Mistake::NoFences) {
        loom::sync::atomic::fence(order);
    }
}

#[derive(Debug, Default)]
pub struct AtomicBool(loom::sync::atomic::AtomicBool);

impl AtomicBool {
    pub fn load(&self, order: Ordering) -> bool {
        self.0.load(order)
    }

    pub fn store(&self, value: bool, order: Ordering) {
        // All writes of one place have one order, in which a swap comes right behind what it read. loom 0.7 lets a later swap read past a
        // plain store of another thread, as no machine may; with swaps alone it does not.
        self.0.swap(value, order);
    }

    pub fn swap(&self, value: bool, order: Ordering) -> bool {
        self.0.swap(value, order)
    }
}

#[derive(Debug)]
pub struct AtomicU32(loom::sync::atomic::AtomicU32);

impl AtomicU32 {
    pub fn new(value: u32) -> AtomicU32 {
        AtomicU32(loom::sync::atomic::AtomicU32::new(value))
    }

    pub fn store(&self, value: u32, order: Ordering) {
        self.0.store(value, order);
    }

    pub fn fetch_add(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_add(value, mistaken(order))
    }

    pub fn fetch_sub(&self, value: u32, order: Ordering) -> u32 {
        self.0.fetch_sub(value, mistaken(order))
    }
}

fn mistaken(order: Ordering) -> Ordering {
    match order {
        _ if is(Mistake::RelaxedCounts) => Ordering::Relaxed,
        Ordering::AcqRel if is(Mistake::ReleaseOnly) => Ordering::Release,
        order => order,
    }
}

/// What the users of a queue may rely on, and nothing else: a value is popped by one, who sees what happened before it was pushed;
/// a place is used again by one who sees that it was popped. Nobody learns anything from an empty or a full queue.
pub struct ArrayQueue<T> {
    places: Box<[Place<T>]>,
}

struct Place<T> {
    state: loom::sync::atomic::AtomicU8,
    value: UnsafeCell<Option<T>>,
}

const EMPTY: u8 = 0;
const FULL: u8 = 1;
const BUSY: u8 = 2;

// SAFETY: a value is touched by who made its place busy, and handed over with its state; loom checks it.
unsafe impl<T: Send> Send for ArrayQueue<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for ArrayQueue<T> {}

impl<T> std::fmt::Debug for ArrayQueue<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ArrayQueue")
    }
}

impl<T> ArrayQueue<T> {
    pub fn new(capacity: usize) -> ArrayQueue<T> {
        let place = |_| Place { state: loom::sync::atomic::AtomicU8::new(EMPTY), value: UnsafeCell::new(None) };
        ArrayQueue { places: (0..capacity).map(place).collect() }
    }

    /// Makes a place busy that was in this state.
    fn claim(&self, state: u8) -> Option<&Place<T>> {
        let claimed = |place: &&Place<T>| {
            let claim = place.state.compare_exchange(state, BUSY, Ordering::Acquire, Ordering::Relaxed);
            claim.is_ok()
        };
        self.places.iter().find(claimed)
    }

    pub fn push(&self, value: T) -> Result<(), T> {
        let Some(place) = self.claim(EMPTY) else { return Err(value) };
        // SAFETY: the place is ours while it is busy.
        place.value.with_mut(|old| unsafe { *old = Some(value) });
        place.state.store(FULL, Ordering::Release);
        Ok(())
    }

    pub fn pop(&self) -> Option<T> {
        let place = self.claim(FULL)?;
        // SAFETY: the place is ours while it is busy.
        let value = place.value.with_mut(|value| unsafe { (*value).take() });
        place.state.store(EMPTY, Ordering::Release);
        value
    }

    pub fn capacity(&self) -> usize {
        self.places.len()
    }

    pub fn len(&self) -> usize {
        self.places.iter().filter(|place| place.state.load(Ordering::Relaxed) == FULL).count()
    }
}

/// Wakes one waiter, which may also wake up for nothing.
#[derive(Clone, Debug, Default)]
pub struct Waker(std::sync::Arc<loom::sync::Notify>);

impl Waker {
    /// As the real one is made; there is no such thing to wait on.
    #[expect(clippy::missing_errors_doc, reason = "as the real one")]
    pub fn new(_: &mio::Registry, _: mio::Token) -> std::io::Result<Waker> {
        Ok(Waker::default())
    }

    #[expect(clippy::missing_errors_doc, reason = "as the real one")]
    pub fn wake(&self) -> std::io::Result<()> {
        self.0.notify();
        Ok(())
    }

    /// Sleeps until it is woken.
    pub fn wait(&self) {
        self.0.wait();
    }
}

/// The accesses to one slot's memory: loom fails if two of them are not in order and one of them writes.
pub struct Accesses(UnsafeCell<()>);

impl Accesses {
    pub fn new() -> Accesses {
        Accesses(UnsafeCell::new(()))
    }

    pub fn read(&self) {
        self.0.with(|_| ());
    }

    pub fn write(&self) {
        self.0.with_mut(|_| ());
    }
}
