//! A slot as stores keep it: the operation stays the bytes that its author signed until somebody needs it.

use crate::codec::Bytes;
use crate::id::BranchId;
use crate::model::op::{Op, Slot};
use crate::time::Hlc;

/// A slot as stored: the operation stays the bytes its author signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawSlot {
    /// The log and which history of it.
    pub branch: BranchId,
    /// Place in it.
    pub seq: u64,
    /// Stamp of the commit that carried it.
    pub hlc: Hlc,
    /// The encoded operation.
    pub op: Bytes,
}

/// A slot that is not what was stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("slot {branch:?}:{seq} is damaged")]
pub struct DamagedSlot {
    /// The branch.
    pub branch: BranchId,
    /// The slot's place in it.
    pub seq: u64,
}

impl RawSlot {
    /// Decodes the operation.
    ///
    /// # Errors
    /// When the stored bytes are damaged. Stores that notice damage hand out an empty operation, so
    /// that it is met here, and only by those who need the slot.
    pub fn open(&self) -> Result<Slot, DamagedSlot> {
        let op =
            Op::stored(&self.op).map_err(|_| DamagedSlot { branch: self.branch, seq: self.seq })?;
        Ok(Slot { log: self.branch.log, seq: self.seq, hlc: self.hlc, op, size: self.op.len() })
    }
}
