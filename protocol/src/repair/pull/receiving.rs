//! What a session knows of the log that is arriving on it.

use crate::id::{BranchId, Hash};

/// A branch whose slots are arriving.
#[derive(Clone, Debug)]
pub(super) struct Receiving {
    pub(super) branch: BranchId,
    pub(super) upto: u64,
    pub(super) bound: u64,
    /// The peer knows that its log goes through our head, or sends it whole: what does not prove right
    /// is then the peer's doing.
    pub(super) linked: bool,
    /// Goes on from what an earlier session set aside, which may be another peer's doing.
    pub(super) resumed: bool,
    /// The grant under which the log is written; it says which keys may be in it.
    pub(super) grant: Hash,
}
