//! Frames over RDMA verbs, beside a TCP connection that carries what is rare.
//!
//! Shards are SENT into slots that the daemon posted, updates are WRITTEN WITH IMMEDIATE to places that the worker registered; no
//! worker holds a key to the daemon's memory. When the RDMA connection ends the session goes on by TCP, nothing lost.
//!
//! - [`ffi`]: the verbs ABI, loaded at run time. - [`verbs`]: verbs as owned values. - [`error`]: what goes wrong with them.
//! - [`device`]: the ports of this machine. - [`list`]: which of them may be used. - [`select`]: which one is.
//! - [`options`]: what an operator decides about all this.
//! - `fabric`, `attach`: the set-up on the daemon's and on the worker's side. - `link`: what the halves of a connection share.
//! - [`trial`]: a connection that only shows whether there can be one. - `daemon`, `worker`: the halves. - [`immediate`]: what goes with a write. - `fake`: a provider in memory, for tests.

mod attach;
mod completions;
mod daemon;
pub mod device;
pub mod error;
mod fabric;
#[cfg(any(test, feature = "sabotage"))]
pub mod fake;
pub mod ffi;
pub mod immediate;
mod link;
pub mod list;
pub mod options;
pub mod sabotage;
pub mod select;
#[cfg(test)]
pub(super) mod tests;
pub mod trial;
pub mod verbs;
mod worker;

pub use attach::{Attachment, Memory};
pub use completions::Completions;
pub use error::{LinkFailure, VerbsError};
pub use fabric::{Fabric, Needs, NoRdma, Offer, usable};
pub use list::DeviceList;
pub use options::Options;
