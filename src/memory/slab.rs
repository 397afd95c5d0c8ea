//! One region of memory, claimed at start and cut into equal slots with one owner at a time.
//!
//! The slots are divided among *holders* (the workers of a job, say): each holder has its own free list, so that nobody can
//! use up the slots of another. A [`Slot`] can be written; frozen into a [`SharedSlot`] it can be read from several places,
//! and goes back to its free list when the last of them drops it. Nothing is allocated after [`Slab::new`].
//!
//! Slots of a page and more, and the slots of one holder and the next, begin at different places of a page: a word is read from
//! all its rows at once, and rows that begin at the same place of their pages push each other out of the first-level cache, which
//! has room for 8 or 12 of them.

#![allow(unsafe_code)]

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Bell;
use super::pages::{ClaimError, HugePages, Mapping, Pages, page};
use super::sync::{Accesses, ArrayQueue, AtomicU32};

/// Each slot begins on its own cache line.
const LINE: usize = 64;
/// By how much more than whole pages slots lie apart: an odd number of cache lines, so that 64 slots come by all sets of the
/// cache, and far enough that what is read ahead of one row is not where the next one begins.
const STAGGER: usize = 17 * LINE;
/// So far apart numbers share a place of the first-level cache, whatever pages they lie on.
const ALIAS: usize = 4096;

struct Region {
    /// Whole pages: a region that is registered with a NIC is kept from forked children, and nothing else may lie there.
    mapping: Mapping,
    bytes: usize,
    slot_bytes: usize,
    /// From the first slot of a holder to that of the next.
    holder_bytes: usize,
    per_holder: u32,
    free: Box<[ArrayQueue<u32>]>,
    shares: Box<[AtomicU32]>,
    accesses: Box<[Accesses]>,
    bells: Box<[Arc<Bell>]>,
}

/// Bytes from one piece of so many bytes to the next; `None` if there are not so many.
fn stride(bytes: usize) -> Option<usize> {
    let lines = bytes.checked_next_multiple_of(LINE)?;
    if lines < ALIAS {
        return Some(lines);
    }
    (lines - STAGGER).checked_next_multiple_of(ALIAS)?.checked_add(STAGGER)
}

// SAFETY: the region is plain memory; every byte of it is reached through a `Slot` (one owner) or `SharedSlot`s (readers
// only), and the hand-over of slot indices goes through queues that order memory accesses.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn start(&self, index: u32) -> *mut u8 {
        let (holder, slot) = (index / self.per_holder, index % self.per_holder);
        let offset = holder as usize * self.holder_bytes + slot as usize * self.slot_bytes;
        // SAFETY: the index is below the number of slots, so the offset stays inside the region.
        unsafe { self.mapping.base().as_ptr().add(offset) }
    }

    /// The accesses to the memory of a slot.
    fn accesses(&self, index: u32) -> &Accesses {
        &self.accesses[index as usize]
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
    /// Claims `holders * slots` slots of at least `slot_bytes` bytes (see [`Slab::stride`]), all zero, on small pages that are not there
    /// before they are touched. The `bells` ring whenever a slot becomes free.
    ///
    /// # Panics
    /// If a count is 0, or there is not so much address space.
    pub fn new(holders: usize, slots: usize, slot_bytes: usize, bells: Vec<Arc<Bell>>) -> Slab {
        let claimed = Slab::over(holders, slots, slot_bytes, bells, Mapping::untouched);
        claimed.unwrap_or_else(|error| panic!("{error}"))
    }

    /// [`Slab::new`] with all pages there, and touched from the calling thread: so they lie near the core that it runs on.
    ///
    /// # Errors
    /// If there is not so much memory, or huge pages are required and there are not so many.
    ///
    /// # Panics
    /// If a count is 0.
    pub fn claim(
        holders: usize,
        slots: usize,
        slot_bytes: usize,
        bells: Vec<Arc<Bell>>,
        huge: HugePages,
    ) -> Result<Slab, ClaimError> {
        Slab::over(holders, slots, slot_bytes, bells, |bytes| Mapping::touched(bytes, huge))
    }

    fn over(
        holders: usize,
        slots: usize,
        slot_bytes: usize,
        bells: Vec<Arc<Bell>>,
        map: impl FnOnce(usize) -> Result<Mapping, ClaimError>,
    ) -> Result<Slab, ClaimError> {
        assert!(holders > 0 && slots > 0 && slot_bytes > 0, "a slab has no empty side");
        let count = holders.checked_mul(slots).filter(|count| u32::try_from(*count).is_ok()).expect("slots fit in u32");
        // More than the address space holds is refused by the system.
        let bytes = Slab::bytes(holders, slots, slot_bytes).and_then(|bytes| bytes.checked_next_multiple_of(page()));
        let bytes = bytes.unwrap_or(usize::MAX);
        let mapping = map(bytes)?;
        let slot_bytes = Slab::stride(slot_bytes);
        let holder_bytes = stride(slots * slot_bytes).expect("less than all of it");
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
        let accesses = (0..count).map(|_| Accesses::new()).collect();
        let (per_holder, bells) = (slots as u32, bells.into_boxed_slice());
        Ok(Slab(Arc::new(Region {
            mapping,
            bytes,
            slot_bytes,
            holder_bytes,
            per_holder,
            free,
            shares,
            accesses,
            bells,
        })))
    }

    /// Bytes of a slot that is to hold `slot_bytes`: whole cache lines and, from a page on, such that slots begin at different places
    /// of their pages.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn stride(slot_bytes: usize) -> usize {
        stride(slot_bytes).expect("a slot fits in the address space")
    }

    /// Bytes of the slots that [`Slab::new`] claims and of what lies between them; `None` if there are not so many. The region ends
    /// with a whole page.
    pub fn bytes(holders: usize, slots: usize, slot_bytes: usize) -> Option<usize> {
        let holder = stride(slots.checked_mul(stride(slot_bytes)?)?)?;
        holder.checked_mul(holders)
    }

    /// The pages that the region lies on.
    pub fn pages(&self) -> &Pages {
        self.0.mapping.pages()
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
        (self.0.mapping.base().as_ptr(), self.0.bytes)
    }

    /// Keeps the region from children of this process: they must not touch it, and it stays where a NIC knows it to be.
    ///
    /// # Errors
    /// If the system refuses.
    pub fn keep_from_children(&self) -> std::io::Result<()> {
        self.0.mapping.keep_from_children()
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
        self.region.accesses(self.index).read();
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
        self.region.accesses(self.index).read();
        // SAFETY: the bytes are inside the region, initialised at start, and this value is their only owner.
        unsafe { std::slice::from_raw_parts(self.region.start(self.index), self.region.slot_bytes) }
    }
}

impl DerefMut for Slot {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.region.accesses(self.index).write();
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
        self.region.accesses(self.index).read();
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
    fn slots_begin_at_different_places_of_their_pages() {
        for bytes in [4096, 4097, 64 + 4 * 16384, 5184, 5185] {
            let stride = Slab::stride(bytes);
            assert!(stride >= bytes && stride - bytes <= 4096 && stride % 4096 == 1088, "{bytes} -> {stride}");
        }
        assert_eq!((Slab::stride(1), Slab::stride(4032), Slab::stride(4033)), (64, 4032, 5184));
        // The first slots of 45 workers, as a word of 45 rows has them: no two in one set of the cache.
        let slab = Slab::new(45, 8, 64 + 4 * 16384, Vec::new());
        let set = |holder: usize| slab.holder_region(holder).0.addr() / 64 % 64;
        let sets: std::collections::BTreeSet<usize> = (0..45).map(set).collect();
        assert_eq!(sets.len(), 45);
        let (start, bytes) = slab.region();
        assert_eq!(Slab::bytes(45, 8, 64 + 4 * 16384).unwrap().next_multiple_of(4096), bytes);
        let (last, length) = slab.holder_region(44);
        assert!(last.addr() + length <= start.addr() + bytes);
        assert_eq!(Slab::bytes(usize::MAX, 1, 64), None);
    }

    #[test]
    fn a_claimed_slab_is_as_one_that_is_not_there_yet() {
        let slab = Slab::claim(3, 8, 64 + 4 * 16384, Vec::new(), HugePages::Auto).unwrap();
        assert_ne!(*slab.pages(), Pages::Untouched);
        let mut slot = slab.take(2).unwrap();
        assert!(slot.iter().all(|byte| *byte == 0));
        slot.fill(3);
        slab.keep_from_children().unwrap();
        assert!(slot.freeze().iter().all(|byte| *byte == 3));
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
