//! Faults planted on purpose, so that the simulator can show that it would catch them. They exist only
//! with the feature `plant`, which no program enables: without it every question here is answered "no"
//! at compile time.

/// A fault in the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Plant {
    /// What repair brings is believed without its live root.
    SkipRoot,
    /// The live root says nothing of contexts.
    RootWithoutContext,
    /// A context entry dominates whatever its log wrote up to there.
    DominateUpTo,
    /// Of concurrent writes only the winner is kept in view.
    KeepOnlyWinner,
    /// Writing goes on in the old log after a restore.
    ReuseEpoch,
    /// A longer history of a log replaces a shorter one.
    LongerReplaces,
    /// Who passes on a commit whose predecessor is missing is punished.
    PunishGap,
    /// What was set aside as damaged is still shown.
    ShowAside,
    /// Nothing is ever read again.
    ScrubOff,
    /// Digests carry numbers only.
    DigestWithoutHeads,
    /// What repair brings is shown before it is proven.
    ShowStaged,
    /// Anybody signs for anybody.
    SkipSignature,
    /// A gap is neither asked for nor repaired from the one that showed it, and rounds are off.
    NeverRepair,
    /// A revocation does not end what its target stated and wrote.
    IgnoreCut,
    /// Tombstones are dropped locally once they are written.
    DropTombstones,
    /// A header with a false root has the whole log read again.
    RescanFrozen,
    /// What is left of damaged or surplus own logs is not written again.
    NoSalvage,
    /// Conditions are judged before the replica is complete.
    JudgeEarly,
    /// Any frame renews a session's deadline.
    AnyFrameIsProgress,
    /// One comparison at a time.
    OneComparison,
    /// Quotas are not looked at.
    NoQuota,
    /// A write forgets what the own slot it replaces has named.
    DropReplacedContext,
    /// What a write names beyond what is here hides nothing meanwhile.
    OnlyExactEntries,
    /// All logs of an author are kept, however many it opens.
    KeepAllEpochs,
    /// All histories of a log are kept, however often it is forked.
    KeepAllBranches,
    /// The prefix of a grant is not looked at.
    NoPrefix,
    /// A log may go on under another grant than it began with.
    MixGrants,
    /// All that an author begins and nothing is proven of is kept.
    KeepUnproven,
    /// Who passes on what a grant not known here allows is punished.
    PunishUnknownGrant,
    /// A slow comparison lasts as long as it likes, whoever waits.
    EndlessTurns,
    /// Who has as many histories of a log as are kept is taken to lag behind in one of them.
    FullLags,
    /// Blocks of a live set are taken for the same, whatever their sums say.
    TrustSums,
}

#[cfg(feature = "plant")]
mod planted {
    use std::cell::Cell;

    use super::Plant;

    thread_local! {
        static PLANTED: Cell<Option<Plant>> = const { Cell::new(None) };
    }

    /// Plants a fault in every replica of this thread, or takes it out.
    pub fn plant(fault: Option<Plant>) {
        PLANTED.set(fault);
    }

    pub(crate) fn is(fault: Plant) -> bool {
        PLANTED.get() == Some(fault)
    }

    pub(crate) fn any() -> bool {
        PLANTED.get().is_some()
    }
}

#[cfg(feature = "plant")]
pub use planted::plant;
#[cfg(feature = "plant")]
pub(crate) use planted::{any, is};

#[cfg(not(feature = "plant"))]
pub(crate) const fn is(_: Plant) -> bool {
    false
}

/// Whether any fault is planted in this thread; other threads know nothing of it.
#[cfg(not(feature = "plant"))]
pub(crate) const fn any() -> bool {
    false
}
