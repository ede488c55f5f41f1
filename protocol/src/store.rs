//! What the core asks of storage (pure reads) and tells it to write.
//!
//! Slots are kept by sequence number, so a key may hold several slots of one log for a while: what
//! lies above a log's proven head is staged and shown to nobody, and moving the head shows it all at
//! once.

use crate::codec::Bytes;
use crate::id::{Hash, Hash8, LogId};
use crate::op::{Op, Slot};
use crate::time::Hlc;

/// A slot as stored: the operation stays the bytes its author signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSlot {
    /// The log.
    pub log: LogId,
    /// Place in it.
    pub seq: u64,
    /// Stamp of the commit that carried it.
    pub hlc: Hlc,
    /// The encoded operation.
    pub op: Bytes,
}

impl RawSlot {
    /// Decodes the operation.
    ///
    /// # Errors
    /// When the stored bytes are damaged.
    pub fn open(&self) -> Result<Slot, StoreError> {
        let op: Op = crate::codec::decode(&self.op)
            .map_err(|e| StoreError(format!("slot {:?}:{} is damaged: {e}", self.log, self.seq)))?;
        Ok(Slot { log: self.log, seq: self.seq, hlc: self.hlc, op, size: self.op.len() })
    }
}

/// Storage failed or is damaged. The replica stops writing: nothing it says could be trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("storage: {0}")]
pub struct StoreError(pub String);

/// Pure reads. They see every [`Write`] of every [`crate::io::Output::Persist`] handed out so far.
pub trait Store {
    /// Every slot on `key`, staged ones too, ascending by log and sequence number.
    ///
    /// # Errors
    /// When storage fails.
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError>;

    /// Slots of `log` with `after < seq <= upto`, ascending, until `max_slots` or `max_bytes` of
    /// operations are reached; at least one if there is any.
    ///
    /// # Errors
    /// When storage fails.
    fn slots_after(
        &self,
        log: &LogId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError>;

    /// The signed header of `log` that ends at `seq`, if it was kept.
    ///
    /// # Errors
    /// When storage fails.
    fn header(&self, log: &LogId, seq: u64) -> Result<Option<Bytes>, StoreError>;
}

/// One change to storage. The writes of one `Persist` take effect together or not at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Keeps a slot.
    Slot {
        /// The user's key.
        key: Bytes,
        /// The slot.
        slot: RawSlot,
    },
    /// Drops a slot.
    RemoveSlot {
        /// The user's key.
        key: Bytes,
        /// Its log.
        log: LogId,
        /// Its place there.
        seq: u64,
    },
    /// Keeps a signed header.
    Header {
        /// Its log.
        log: LogId,
        /// Where it ends.
        seq: u64,
        /// The signed header.
        bytes: Bytes,
    },
    /// Replaces what is known of a log as a whole (opaque, see `log.rs`).
    Log {
        /// The log.
        log: LogId,
        /// The record.
        record: Bytes,
    },
    /// Keeps a roster statement.
    Statement {
        /// Its name.
        name: Hash,
        /// The signed statement.
        bytes: Bytes,
    },
    /// Replaces a ticket's record (opaque, see `ticket.rs`).
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
    /// This replica has once been whole: from now on it answers reads at once.
    CaughtUp,
}

/// What storage holds when a replica is opened.
#[derive(Clone, Debug, Default)]
pub struct Recovered {
    /// Signed statements, in any order.
    pub statements: Vec<Bytes>,
    /// Log records.
    pub logs: Vec<(LogId, Bytes)>,
    /// Ticket records.
    pub tickets: Vec<(Hash8, Bytes)>,
    /// Whether [`Write::CaughtUp`] was ever written.
    pub caught_up: bool,
}
