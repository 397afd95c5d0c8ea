//! What is shared between threads: the atomics, the queue and the waker of the processor and system. Built with `--cfg modelled`, models
//! of these: `loom` then tries every order of steps and every value that the memory model lets a load see, in the very code that
//! runs in earnest (`models`).

#[cfg(not(modelled))]
mod real {
    pub use std::sync::atomic::{AtomicBool, AtomicU32, fence};

    pub use crossbeam::queue::ArrayQueue;
    pub use mio::Waker;

    /// Notes reads and writes of one slot's memory, where they are checked.
    pub struct Accesses;

    impl Accesses {
        pub fn new() -> Accesses {
            Accesses
        }
        #[inline(always)]
        pub fn read(&self) {}
        #[inline(always)]
        pub fn write(&self) {}
    }
}

#[cfg(modelled)]
mod modelled;

#[cfg(modelled)]
pub use modelled::*;
#[cfg(not(modelled))]
pub use real::*;
