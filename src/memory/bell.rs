//! Wakes a parked reactor, and costs one load when it is not parked.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};

/// Rung by whoever made work for a reactor. A reactor that never parks (the simulation's) has a silent one.
///
/// The rule that makes it safe: the waiter announces itself ([`Bell::about_to_park`]), *then* looks for work once more, and
/// only then sleeps; the ringer first publishes the work, *then* looks for a waiter. With a sequentially consistent fence
/// between the two steps on both sides, at least one of them sees the other.
#[derive(Debug, Default)]
pub struct Bell {
    parked: AtomicBool,
    waker: Option<mio::Waker>,
    wakes: AtomicU64,
}

impl Bell {
    /// A bell that wakes the poll that `waker` belongs to.
    pub fn new(waker: mio::Waker) -> Bell {
        Bell { waker: Some(waker), ..Bell::default() }
    }

    /// A bell that wakes nobody.
    pub fn silent() -> Bell {
        Bell::default()
    }

    /// Wakes the waiter, if it is parked. Publish the work before.
    pub fn ring(&self) {
        let Some(waker) = &self.waker else { return };
        fence(Ordering::SeqCst);
        if self.parked.load(Ordering::Relaxed) && self.parked.swap(false, Ordering::Relaxed) {
            // An eventfd write fails only if the counter is full, and then the waiter is awake anyway.
            let _ = waker.wake();
            self.wakes.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often it woke somebody: one system call each.
    pub fn wakes(&self) -> u64 {
        self.wakes.load(Ordering::Relaxed)
    }

    /// The waiter will sleep unless it finds work now.
    pub fn about_to_park(&self) {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
    }

    /// The waiter is awake.
    pub fn awake(&self) {
        self.parked.store(false, Ordering::Relaxed);
    }
}
