//! Planted bugs: a simulation is only as good as its oracles, so the tests break the pipeline on purpose and look whether
//! anybody notices. Compiled in only with the feature `sabotage`, which only the tests switch on.

/// A way to break the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Bug {
    /// Checksums are not verified.
    SkipChecksum,
    /// Frames of another session are accepted.
    AnySession,
    /// The index in the frame is believed, not the one of the handshake.
    AnyWorker,
    /// A second shard for the same word replaces the first.
    Overwrite,
    /// Shards of rounds outside the window are taken for the window's round in the same place.
    AnyRound,
    /// A round's deadline never comes.
    NoDeadline,
    /// Credits are granted twice.
    GrantTwice,
    /// Slots of late shards are never free again.
    LeakSlot,
    /// Words are believed with one agreeing row too few.
    AgreeTooFew,
    /// A word that cannot be decoded is decoded from whatever there is.
    Guess,
    /// Rows with NaN or infinity are used like others.
    SkipFinite,
    /// The secret projections are the same for every word.
    KnownProjection,
    /// Rows that are only suspect are named as liars.
    BlameSuspects,
    /// Shards that come after their word was decided are not looked at.
    ForgetLate,
    /// All groups are recovered with the agreeing rows of the first.
    OneSetForAll,
    /// A round is closed before its last chunk was pushed.
    CloseEarly,
    /// A joining worker is told that it gets a round of which it has missed chunks.
    ReadyTooEarly,
    /// Absent workers are named as liars.
    BlameAbsent,
}

impl Bug {
    /// Every bug that can be planted.
    pub const ALL: [Bug; 18] = [
        Bug::SkipChecksum,
        Bug::AnySession,
        Bug::AnyWorker,
        Bug::Overwrite,
        Bug::AnyRound,
        Bug::NoDeadline,
        Bug::GrantTwice,
        Bug::LeakSlot,
        Bug::AgreeTooFew,
        Bug::Guess,
        Bug::SkipFinite,
        Bug::KnownProjection,
        Bug::BlameSuspects,
        Bug::ForgetLate,
        Bug::OneSetForAll,
        Bug::CloseEarly,
        Bug::ReadyTooEarly,
        Bug::BlameAbsent,
    ];
}

#[cfg(feature = "sabotage")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants one bug (or none) in all pipelines that this thread steps. Without the feature `sabotage` it does nothing.
pub fn plant(bug: Option<Bug>) {
    #[cfg(feature = "sabotage")]
    PLANTED.set(bug);
    #[cfg(not(feature = "sabotage"))]
    let _ = bug;
}

/// Is this bug planted? Without the feature `sabotage` it never is.
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
