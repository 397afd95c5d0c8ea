//! What a training worker links: join a job, submit gradients, get updates, leave.
//!
//! [`Worker`] is the whole of it for most users. Below it, [`Session`] is the same protocol as a state machine without sockets,
//! clock or threads, which the simulation drives.

mod across;
mod driver;
mod error;
mod join;
mod landing;
mod lateness;
mod mesh;
mod relay;
mod session;
mod worker;

pub use error::{ClientError, Fault, JoinError, Lost};
pub use join::Way;
pub use relay::Carry;
pub use session::{Memory, Session, Source, Tamper, generator_digest};
pub use worker::{JoinOptions, Joined, Update, Worker};
