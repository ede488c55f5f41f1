//! What the core asks of storage (pure reads) and tells it to write.
//!
//! Slots are kept by sequence number, so a cell may hold several slots of one log for a while: what
//! lies above a log's proven head is staged and shown to nobody, and moving the head shows it all at
//! once.

use crate::codec::Bytes;
use crate::id::{BranchId, Hash, Hash8};
use crate::model::slot::DamagedSlot;
pub use crate::model::slot::RawSlot;

/// Storage failed or is damaged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The replica stops: nothing it says could be trusted.
    #[error("storage: {0}")]
    Failed(String),
    /// One slot is not what was stored. Its branch is set aside and fetched afresh.
    #[error("storage: slot {branch:?}:{seq} is damaged")]
    Damaged {
        /// The branch.
        branch: BranchId,
        /// The slot's place in it.
        seq: u64,
    },
}

impl From<DamagedSlot> for StoreError {
    fn from(slot: DamagedSlot) -> Self {
        Self::Damaged { branch: slot.branch, seq: slot.seq }
    }
}

impl StoreError {
    /// A failure that stops the replica.
    pub fn failed(reason: impl ToString) -> Self {
        Self::Failed(reason.to_string())
    }
}

/// Pure reads. A store that can lose or change bytes keeps checksums, and hands a slot that does not
/// match its own out with an empty operation ([`RawSlot::open`]): nobody who asks us is to get bytes
/// that would be held against us.
///
/// Reads see every [`Write`] of every [`crate::io::Output::Persist`] handed out so far.
pub trait Store {
    /// Every slot on the cell with this index key, staged ones too, ascending by branch and sequence number.
    ///
    /// # Errors
    /// When storage fails.
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError>;

    /// Slots of `branch` with `after < seq <= upto`, ascending, until `max_slots` or `max_bytes` of
    /// operations are reached; at least one if there is any.
    ///
    /// # Errors
    /// When storage fails.
    fn slots_after(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError>;

    /// The signed header of `branch` that ends at `seq`, if it was kept.
    ///
    /// # Errors
    /// When storage fails.
    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError>;
}

/// One change to storage. The writes of one `Persist` take effect together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Keeps a slot.
    Slot {
        /// The cell's index key, see [`crate::model::cell::Cell::index_key`].
        key: Bytes,
        /// The slot.
        slot: RawSlot,
    },
    /// Drops a slot.
    RemoveSlot {
        /// The cell's index key, see [`crate::model::cell::Cell::index_key`].
        key: Bytes,
        /// Its branch.
        branch: BranchId,
        /// Its place there.
        seq: u64,
    },
    /// Keeps a signed header.
    Header {
        /// Its branch.
        branch: BranchId,
        /// Where it ends.
        seq: u64,
        /// The signed header.
        bytes: Bytes,
    },
    /// Replaces what is known of a log as a whole (opaque, see `log/branch`).
    Log {
        /// The branch.
        branch: BranchId,
        /// The record.
        record: Bytes,
    },
    /// Forgets a log's record: none of its slots is left.
    RemoveLog {
        /// The branch.
        branch: BranchId,
    },
    /// Keeps a roster statement.
    Statement {
        /// Its name.
        name: Hash,
        /// The signed statement.
        bytes: Bytes,
    },
    /// Replaces a ticket's record (opaque, see `roster/ticket.rs`).
    Ticket {
        /// The ticket's id.
        id: Hash8,
        /// The record.
        record: Bytes,
    },
    /// Drops a ticket.
    RemoveTicket {
        /// The ticket's id.
        id: Hash8,
    },
    /// Whether this replica is whole: only then does it answer reads at once.
    CaughtUp(bool),
}

/// What storage holds when a replica is opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Signed statements, in any order.
    pub statements: Vec<Bytes>,
    /// Log records.
    pub logs: Vec<(BranchId, Bytes)>,
    /// Of each branch the newest header that was kept: a record may be older.
    pub heads: Vec<(BranchId, Bytes)>,
    /// The signed head at which a replica in memory left its log when it last stopped in good order. Its
    /// logs are gone; whoever has them gives them back, and writing goes on there.
    pub resumable: Option<Bytes>,
    /// Ticket records.
    pub tickets: Vec<(Hash8, Bytes)>,
    /// What [`Write::CaughtUp`] last said.
    pub caught_up: bool,
}
