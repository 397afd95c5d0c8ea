//! Which process a session belongs to.
//!
//! A child has copies of everything its parent had, but of its threads only the one that forked: the thread that receives is not
//! there, and may hold the session's lock for ever. Sockets and what a NIC knows are not copies but shared with the parent. So a
//! child asks for nothing and gives nothing back: it leaves all of it alone.

/// A worker is used in a process that was forked from the one that joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "this worker was joined by process {parent} and is used in process {child}, a fork of it: only {parent} can use it; a child \
     that needs a worker of its own joins after the fork, with another index"
)]
pub struct Forked {
    /// The process that joined.
    pub parent: u32,
    /// This process.
    pub child: u32,
}

/// The process that joined.
pub(super) struct Owner(u32);

impl Owner {
    /// This process.
    pub(super) fn this() -> Owner {
        Owner(std::process::id())
    }

    /// Is it still this process?
    pub(super) fn check(&self) -> Result<(), Forked> {
        let child = std::process::id();
        if child == self.0 { Ok(()) } else { Err(Forked { parent: self.0, child }) }
    }
}
