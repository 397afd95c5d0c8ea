//! The lock-free bounded rings between stages.

use std::sync::Arc;

use crate::memory::Bell;
use crate::memory::sync::ArrayQueue;

/// The end of a ring that makes values.
#[derive(Debug)]
pub struct Producer<T> {
    queue: Arc<ArrayQueue<T>>,
    bell: Arc<Bell>,
}

/// The end of a ring that uses them up.
#[derive(Debug)]
pub struct Consumer<T> {
    queue: Arc<ArrayQueue<T>>,
}

/// A ring with room for `capacity` values, whose consumer runs on the reactor of `bell`.
pub fn ring<T>(capacity: usize, bell: Arc<Bell>) -> (Producer<T>, Consumer<T>) {
    let queue = Arc::new(ArrayQueue::new(capacity.max(1)));
    (Producer { queue: queue.clone(), bell }, Consumer { queue })
}

/// How full a ring is, whatever it carries.
pub trait Depth: Send + Sync {
    /// Values in it.
    fn used(&self) -> usize;
    /// Values it has room for.
    fn capacity(&self) -> usize;
}

impl<T: Send> Depth for ArrayQueue<T> {
    fn used(&self) -> usize {
        self.len()
    }

    fn capacity(&self) -> usize {
        self.capacity()
    }
}

impl<T: Send + 'static> Producer<T> {
    /// How full it is.
    pub fn depth(&self) -> Arc<dyn Depth> {
        self.queue.clone()
    }
}

impl<T> Producer<T> {
    /// Hands over a value and wakes the consumer.
    ///
    /// # Errors
    /// Gives the value back if the ring is full.
    pub fn push(&self, value: T) -> Result<(), T> {
        self.queue.push(value)?;
        self.bell.ring();
        Ok(())
    }

    /// Wakes the consumer, though no value is handed over.
    pub fn ring(&self) {
        self.bell.ring();
    }

    /// Hands over a value through a ring that has room for every value there can be (`Limits` says why).
    ///
    /// # Panics
    /// If it has not: a bug in `Limits`.
    pub fn push_within_limit(&self, value: T) {
        assert!(self.push(value).is_ok(), "a ring has room for everything that can be on its way");
    }
}

impl<T> Clone for Producer<T> {
    fn clone(&self) -> Self {
        Producer { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

impl<T> Consumer<T> {
    /// The oldest value.
    pub fn pop(&self) -> Option<T> {
        self.queue.pop()
    }
}
