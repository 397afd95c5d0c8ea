//! What a training worker links: join a job, submit gradients, get updates, leave.
//!
//! [`Worker`] is the whole of it for most users. Below it, [`Session`] is the same protocol as a state machine without sockets,
//! clock or threads, which the simulation drives.

mod across;
mod driver;
mod environment;
mod error;
mod join;
mod joined;
mod landing;
mod lateness;
mod mesh;
mod owner;
mod patience;
mod relay;
mod session;
mod worker;

pub use environment::{Given, NotFound, Problem, VARIABLES};
pub use error::{ClientError, Fault, JoinError, Lost};
pub use join::Way;
pub use joined::Joined;
pub use owner::Forked;
pub use patience::Interrupt;
pub use relay::Carry;
pub use session::{Memory, Session, Source, Tamper, generator_digest};
pub use worker::{JoinOptions, Update, Worker};
