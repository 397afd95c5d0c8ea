//! Planted bugs: a simulation is only as good as its oracles, so the tests break what is tested on purpose and look whether
//! anybody notices. Compiled in only with the feature `sabotage`, which only the tests switch on.

/// A way to break the pipeline, or a worker's part in the relay.
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
    /// A carrier is named after one complaint.
    BlameOne,
    /// A carrier whose link is gone counts as late.
    BlameGone,
    /// No carrier is ever named.
    NameNobody,
    /// A carrier that was named goes on carrying.
    AskBad,
    /// A pair is not switched off by a complaint.
    AskAtOnce,
    /// A carrier is asked to carry to whoever says to have a link with it, although it says to have none.
    AskUnlinked,
    /// A worker that answers for nothing is asked again at once.
    AskSilent,
    /// The wait for a target does not end with its session.
    HoldForLeavers,
    /// The departure of a carrier is not noticed.
    ForgetCarrier,
    /// What takes a round's place is queued before all of that round is sent.
    NoOvertake,
    /// Chunks are kept until targets answer, however long it takes.
    NeverGiveUp,
    /// A chunk is dropped when the first target has it.
    FirstHave,
    /// Carried bytes are counted twice.
    HaveTwice,
    /// Answers for chunks that were not announced are taken.
    AnyAnswer,
    /// The key of a link is used again.
    SameLinkKey,
    /// A chunk that its carrier declines is not sent.
    DeclineUnheard,
    /// A chunk that is fetched is not sent.
    FetchUnheard,
    /// What workers say of their updates is not compared.
    DigestUnheard,
    /// What a carrier brings is not compared with its hash.
    SkipHash,
    /// A chunk may come from another worker than its carrier.
    AnyCarrier,
    /// A link may bring as much as it likes.
    EndlessSurplus,
    /// What is late is not fetched.
    NoRepair,
    /// What was awaited over a link that is gone is fetched once it is late.
    NoneGone,
    /// A worker does not say that a carried chunk is here.
    HaveNothing,
    /// Slots of chunks that were passed on are never free again.
    KeepCarried,
    /// A carrier passes on to everybody.
    PassToAll,
    /// The first round does not wait for anybody, although it should.
    BeginEarly,
}

impl Bug {
    /// Every bug that can be planted.
    pub const ALL: [Bug; 45] = [
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
        Bug::BlameOne,
        Bug::BlameGone,
        Bug::NameNobody,
        Bug::AskBad,
        Bug::AskAtOnce,
        Bug::AskUnlinked,
        Bug::AskSilent,
        Bug::HoldForLeavers,
        Bug::ForgetCarrier,
        Bug::NoOvertake,
        Bug::NeverGiveUp,
        Bug::FirstHave,
        Bug::HaveTwice,
        Bug::AnyAnswer,
        Bug::SameLinkKey,
        Bug::DeclineUnheard,
        Bug::FetchUnheard,
        Bug::DigestUnheard,
        Bug::SkipHash,
        Bug::AnyCarrier,
        Bug::EndlessSurplus,
        Bug::NoRepair,
        Bug::NoneGone,
        Bug::HaveNothing,
        Bug::KeepCarried,
        Bug::PassToAll,
        Bug::BeginEarly,
    ];
}

#[cfg(feature = "sabotage")]
thread_local! {
    static PLANTED: std::cell::Cell<Option<Bug>> = const { std::cell::Cell::new(None) };
}

/// Plants one bug (or none) in all pipelines and workers that this thread steps. Without the feature `sabotage` it does nothing.
pub fn plant(bug: Option<Bug>) {
    #[cfg(feature = "sabotage")]
    PLANTED.set(bug);
    #[cfg(not(feature = "sabotage"))]
    let _ = bug;
}

/// Is this bug planted? Without the feature `sabotage` it never is.
#[inline]
pub(crate) fn planted(bug: Bug) -> bool {
    #[cfg(feature = "sabotage")]
    return PLANTED.get() == Some(bug);
    #[cfg(not(feature = "sabotage"))]
    {
        let _ = bug;
        false
    }
}
