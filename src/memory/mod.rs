//! Memory that is claimed once, at start, and handed from owner to owner: slots, and the bells that wake who waits for one.

mod bell;
#[cfg(all(modelled, test))]
mod models;
mod pages;
mod slab;
pub(crate) mod sync;

pub use bell::Bell;
pub(crate) use pages::available_in;
pub use pages::{ClaimError, HugePages, Pages, available};
pub use slab::{SharedSlot, Slab, Slot};
