//! Bugs that can be planted in this transport, to see that its tests notice them. Compiled in only with the feature `sabotage`,
//! which only the tests switch on.

/// A bug to plant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// A slot is posted again while the pipeline still reads it.
    RepostEarly,
    /// Whatever completes is taken for a shard.
    AnyCompletion,
    /// Updates are written to places that are not free.
    WriteEarly,
}

#[cfg(feature = "sabotage")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants one bug (or none) in all connections that this thread drives. Without the feature `sabotage` it does nothing.
pub fn plant(bug: Option<Bug>) {
    #[cfg(feature = "sabotage")]
    PLANTED.set(bug);
    #[cfg(not(feature = "sabotage"))]
    let _ = bug;
}

#[inline]
pub(super) fn planted(bug: Bug) -> bool {
    #[cfg(feature = "sabotage")]
    return PLANTED.get() == Some(bug);
    #[cfg(not(feature = "sabotage"))]
    {
        let _ = bug;
        false
    }
}
