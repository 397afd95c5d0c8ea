//! Wakes a parked reactor, and costs one load when it is not parked.

use std::sync::atomic::{AtomicU64, Ordering};

use super::sync::{AtomicBool, Waker, fence};

/// Rung by whoever made work for a reactor. A reactor that never parks (the simulation's) has a silent one.
///
/// The rule that makes it safe: the waiter announces itself, *then* looks for work once more, and
/// only then sleeps ([`Bell::park`]); the ringer first publishes the work, *then* looks for a waiter. With a sequentially consistent fence
/// between the two steps on both sides, at least one of them sees the other.
#[derive(Debug, Default)]
pub struct Bell {
    parked: AtomicBool,
    waker: Option<Waker>,
    wakes: AtomicU64,
}

impl Bell {
    /// A bell that wakes the poll that `waker` belongs to.
    pub fn new(waker: Waker) -> Bell {
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

    /// For the one waiter: sleeps unless it finds work now. `sleep` ends at the latest when the waker is rung.
    ///
    /// # Errors
    /// Those of `sleep`.
    pub fn park<W, E>(
        &self,
        waiter: &mut W,
        finds_work: impl FnOnce(&mut W) -> bool,
        sleep: impl FnOnce(&mut W) -> Result<(), E>,
    ) -> Result<(), E> {
        self.parked.store(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        let slept = if finds_work(waiter) { Ok(()) } else { sleep(waiter) };
        self.parked.store(false, Ordering::Relaxed);
        slept
    }
}
