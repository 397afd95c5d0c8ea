//! One region of memory, claimed at start and cut into equal slots with one owner at a time.
//!
//! The slots are divided among *holders* (the workers of a job, say): each holder has its own free list, so that nobody can
//! use up the slots of another. A [`Slot`] can be written; frozen into a [`SharedSlot`] it can be read from several places,
//! and goes back to its free list when the last of them drops it. Nothing is allocated after [`Slab::new`].

#![allow(unsafe_code)]

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crossbeam::queue::ArrayQueue;

use super::Bell;

/// Regions are whole pages: one that is registered with a NIC is kept from forked children, and nothing else may lie there.
const REGION_ALIGNMENT: usize = 4096;
/// Each slot begins on its own cache line.
const SLOT_ALIGNMENT: usize = 64;

struct Region {
    base: NonNull<u8>,
    layout: Layout,
    slot_bytes: usize,
    per_holder: u32,
    free: Box<[ArrayQueue<u32>]>,
    shares: Box<[AtomicU32]>,
    bells: Box<[Arc<Bell>]>,
    /// Children of this process do not have it.
    kept: AtomicBool,
}

// SAFETY: the region is plain memory; every byte of it is reached through a `Slot` (one owner) or `SharedSlot`s (readers
// only), and the hand-over of slot indices goes through queues that order memory accesses.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        if *self.kept.get_mut() {
            // The pages may serve others next. Fails only if they are not ours.
            // SAFETY: as in `Slab::keep_from_children`.
            let _ = unsafe {
                rustix::mm::madvise(self.base.as_ptr().cast(), self.layout.size(), rustix::mm::Advice::LinuxDoFork)
            };
        }
        // SAFETY: allocated in `Slab::new` with this layout; every slot holds an `Arc` of the region, so none is left.
        unsafe { dealloc(self.base.as_ptr(), self.layout) }
    }
}

impl Region {
    fn start(&self, index: u32) -> *mut u8 {
        // SAFETY: the index is below the number of slots, so the offset stays inside the region.
        unsafe { self.base.as_ptr().add(index as usize * self.slot_bytes) }
    }

    fn free(&self, index: u32) {
        let queued = self.free[(index / self.per_holder) as usize].push(index);
        debug_assert!(queued.is_ok(), "a free list has room for every slot of its holder");
        self.bells.iter().for_each(|bell| bell.ring());
    }
}

/// The region and its free lists. Clones are handles to the same region.
#[derive(Clone)]
pub struct Slab(Arc<Region>);

impl Slab {
    /// Claims `holders * slots` slots of at least `slot_bytes` bytes (rounded up to whole cache lines), all zero. The `bells` ring
    /// whenever a slot becomes free.
    ///
    /// # Panics
    /// If a count is 0, or the sizes overflow.
    pub fn new(holders: usize, slots: usize, slot_bytes: usize, bells: Vec<Arc<Bell>>) -> Slab {
        assert!(holders > 0 && slots > 0 && slot_bytes > 0, "a slab has no empty side");
        let slot_bytes = slot_bytes.next_multiple_of(SLOT_ALIGNMENT);
        let count = holders.checked_mul(slots).filter(|count| u32::try_from(*count).is_ok()).expect("slots fit in u32");
        let bytes = count.checked_mul(slot_bytes).and_then(|bytes| bytes.checked_next_multiple_of(REGION_ALIGNMENT));
        let bytes = bytes.expect("the region fits in the address space");
        let layout = Layout::from_size_align(bytes, REGION_ALIGNMENT).expect("the region fits in the address space");
        // SAFETY: the layout has a size above 0.
        let base = unsafe { alloc_zeroed(layout) };
        let Some(base) = NonNull::new(base) else { handle_alloc_error(layout) };
        let free = (0..holders)
            .map(|holder| {
                let queue = ArrayQueue::new(slots);
                for index in holder * slots..(holder + 1) * slots {
                    queue.push(index as u32).expect("the queue has room for all slots of its holder");
                }
                queue
            })
            .collect();
        let shares = (0..count).map(|_| AtomicU32::new(0)).collect();
        let (per_holder, bells) = (slots as u32, bells.into_boxed_slice());
        Slab(Arc::new(Region {
            base,
            layout,
            slot_bytes,
            per_holder,
            free,
            shares,
            bells,
            kept: AtomicBool::new(false),
        }))
    }

    /// A free slot of `holder`; its bytes are those of its last use.
    pub fn take(&self, holder: usize) -> Option<Slot> {
        let index = self.0.free[holder].pop()?;
        Some(Slot { region: self.0.clone(), index })
    }

    /// How many slots of `holder` are free now.
    pub fn free(&self, holder: usize) -> usize {
        self.0.free[holder].len()
    }

    /// Bytes per slot.
    pub fn slot_bytes(&self) -> usize {
        self.0.slot_bytes
    }

    /// Address and length of the whole region, to register it once.
    pub fn region(&self) -> (*const u8, usize) {
        (self.0.base.as_ptr(), self.0.layout.size())
    }

    /// Keeps the region from children of this process: they must not touch it, and it stays where a NIC knows it to be.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn keep_from_children(&self) -> std::io::Result<()> {
        let (start, bytes) = self.region();
        self.0.kept.store(true, Ordering::Relaxed);
        // SAFETY: whole pages, in which there is nothing but the region; what this process sees does not change.
        Ok(unsafe { rustix::mm::madvise(start.cast_mut().cast(), bytes, rustix::mm::Advice::LinuxDontFork) }?)
    }

    /// Address and length of the slots of `holder`, which lie side by side.
    ///
    /// # Panics
    /// If there is no such holder.
    pub fn holder_region(&self, holder: usize) -> (*const u8, usize) {
        assert!(holder < self.0.free.len(), "holder {holder} of {}", self.0.free.len());
        let first = holder as u32 * self.0.per_holder;
        (self.0.start(first), self.0.per_holder as usize * self.0.slot_bytes)
    }
}

/// One slot, owned by whoever holds this value.
pub struct Slot {
    region: Arc<Region>,
    index: u32,
}

impl Slot {
    /// The slot's number in its region.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Where the slot lies, for a device that is to fill it: making the address makes no reference.
    pub fn address(&self) -> *const u8 {
        self.region.start(self.index)
    }

    /// A part of the slot, without a reference to the rest, which a device may be writing.
    ///
    /// # Panics
    /// If the part is not inside the slot.
    pub fn part(&self, range: std::ops::Range<usize>) -> &[u8] {
        assert!(range.start <= range.end && range.end <= self.region.slot_bytes, "a part of the slot");
        // SAFETY: the bytes are inside the slot, and initialised; this value owns them, and who lent them to a device asks for
        // the parts that the device is done with.
        unsafe { std::slice::from_raw_parts(self.region.start(self.index).add(range.start), range.len()) }
    }

    /// Makes the slot readable from several places, and unwritable.
    pub fn freeze(self) -> SharedSlot {
        self.region.shares[self.index as usize].store(1, Ordering::Relaxed);
        let this = std::mem::ManuallyDrop::new(self);
        // SAFETY: `this` is never dropped nor used again, so the `Arc` is moved, not copied.
        let region = unsafe { std::ptr::read(&this.region) };
        SharedSlot { region, index: this.index }
    }
}

impl Deref for Slot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are inside the region, initialised at start, and this value is their only owner.
        unsafe { std::slice::from_raw_parts(self.region.start(self.index), self.region.slot_bytes) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes the access exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.region.start(self.index), self.region.slot_bytes) }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.region.free(self.index);
    }
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Slot({})", self.index)
    }
}

/// A slot that is read from several places; free again when the last of them drops it.
pub struct SharedSlot {
    region: Arc<Region>,
    index: u32,
}

impl Clone for SharedSlot {
    fn clone(&self) -> SharedSlot {
        self.region.shares[self.index as usize].fetch_add(1, Ordering::Relaxed);
        SharedSlot { region: self.region.clone(), index: self.index }
    }
}

impl Deref for SharedSlot {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are inside the region and initialised; while shares exist nobody holds the `Slot`, so nobody
        // writes them.
        unsafe { std::slice::from_raw_parts(self.region.start(self.index), self.region.slot_bytes) }
    }
}

impl Drop for SharedSlot {
    fn drop(&mut self) {
        // As in `Arc`: release so that our reads come before the free, acquire so that the last one sees them all.
        if self.region.shares[self.index as usize].fetch_sub(1, Ordering::AcqRel) == 1 {
            self.region.free(self.index);
        }
    }
}

impl std::fmt::Debug for SharedSlot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SharedSlot({})", self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_cannot_take_the_slots_of_another() {
        let slab = Slab::new(2, 2, 10, Vec::new());
        let mine = [slab.take(0).unwrap(), slab.take(0).unwrap()];
        assert!(slab.take(0).is_none());
        assert_eq!((slab.free(0), slab.free(1)), (0, 2));
        drop(mine);
        assert_eq!(slab.free(0), 2);
    }

    #[test]
    fn slots_do_not_overlap_and_start_on_cache_lines() {
        let slab = Slab::new(3, 4, 100, Vec::new());
        let mut slots: Vec<Slot> = (0..3)
            .flat_map(|holder| std::iter::from_fn(move || Some(holder)).take(4))
            .map(|h| slab.take(h).unwrap())
            .collect();
        for slot in &mut slots {
            let number = slot.index() as u8;
            slot.fill(number);
        }
        for slot in &slots {
            assert_eq!(slot.as_ptr() as usize % 64, 0);
            assert_eq!(slot.len(), 128);
            assert!(slot.iter().all(|byte| *byte == slot.index() as u8));
        }
    }

    #[test]
    fn a_shared_slot_is_free_when_its_last_share_is_dropped() {
        let slab = Slab::new(1, 1, 8, Vec::new());
        let mut slot = slab.take(0).unwrap();
        slot[0] = 7;
        let first = slot.freeze();
        let second = first.clone();
        drop(first);
        assert!(slab.take(0).is_none());
        assert_eq!(second[0], 7);
        drop(second);
        assert!(slab.take(0).is_some());
    }

    #[test]
    fn slots_survive_many_hand_overs_between_threads() {
        let slab = Slab::new(1, 4, 64, Vec::new());
        let queue = Arc::new(ArrayQueue::<SharedSlot>::new(4));
        let reader = {
            let queue = queue.clone();
            std::thread::spawn(move || {
                for expected in 0u32..20_000 {
                    let slot = loop {
                        match queue.pop() {
                            Some(slot) => break slot,
                            None => std::thread::yield_now(),
                        }
                    };
                    assert_eq!(slot[..4], expected.to_le_bytes());
                    assert_eq!(slot[60..64], expected.to_le_bytes());
                }
            })
        };
        for number in 0u32..20_000 {
            let mut slot = loop {
                match slab.take(0) {
                    Some(slot) => break slot,
                    None => std::thread::yield_now(),
                }
            };
            slot[..4].copy_from_slice(&number.to_le_bytes());
            slot[60..64].copy_from_slice(&number.to_le_bytes());
            let mut shared = slot.freeze();
            while let Err(back) = queue.push(shared) {
                shared = back;
                std::thread::yield_now();
            }
        }
        reader.join().unwrap();
        assert_eq!(slab.free(0), 4);
    }
}
