//! A log's live set as it is compared between two replicas: sums over blocks of slots first, then names of the
//! slots in those blocks that differ (range-based set reconciliation with one level, as in Meyer,
//! "Range-Based Set Reconciliation", SRDS 2023).
//!
//! Names and sums are cut short under the key of the connection's digests: nobody who signs operations can
//! make two that look the same to others. What they get wrong all the same, the signed live root finds.

use crate::codec::tuple_codec;
use crate::crypto::{self, Domain};
use crate::id::Hash8;
use crate::log::digest::DigestKey;
use crate::model::slot::RawSlot;

/// A part of a log: sequence numbers greater than `after`, up to `upto`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// Below it.
    pub after: u64,
    /// Its last.
    pub upto: u64,
}
tuple_codec!(Range { after, upto });

impl Range {
    /// Whether a sequence number lies in it.
    #[must_use]
    pub fn has(&self, seq: u64) -> bool {
        self.after < seq && seq <= self.upto
    }
}

/// The live slots from the block before up to a sequence number, summed up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Its last sequence number; the next block begins after it.
    pub upto: u64,
    /// Over the names of the slots in it.
    pub sum: Hash8,
}
tuple_codec!(Block { upto, sum });

/// A live slot, named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its place in the log.
    pub seq: u64,
    /// Over its place, its stamp and its operation.
    pub name: Hash8,
}
tuple_codec!(Named { seq, name });

impl Named {
    /// The name of a slot under this key.
    #[must_use]
    pub fn of(raw: &RawSlot, key: &DigestKey) -> Self {
        let parts: [&[u8]; 4] = [&key.0, &raw.seq.to_be_bytes(), &raw.hlc.0.to_be_bytes(), &raw.op];
        Self { seq: raw.seq, name: crypto::hash(Domain::LiveSet, &parts).short8() }
    }
}

/// The sum over the slots of a block, in ascending order.
#[must_use]
pub fn sum(slots: &[RawSlot], key: &DigestKey) -> Hash8 {
    let mut h = crypto::hasher(Domain::LiveSet);
    for raw in slots {
        let named = Named::of(raw, key);
        h.update(&named.seq.to_be_bytes());
        h.update(named.name.as_bytes());
    }
    crate::id::Hash::new(*h.finalize().as_bytes()).short8()
}
