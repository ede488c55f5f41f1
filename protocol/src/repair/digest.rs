//! Version digests: what a replica has, one entry a log and branch (van Renesse et al., "Efficient
//! Reconciliation and Flow Control for Anti-Entropy Protocols", LADIS 2008).
//!
//! Entries carry the head's hash: numbers alone cannot see a fork.

use std::collections::BTreeMap;

use crate::codec::tuple_codec;
use crate::crypto::{self, Domain};
use crate::id::{Hash, Hash8, LogId};

/// How far a replica has one history of a log. A log that its author forked has several entries; one
/// that is being fetched whole has one with nothing proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The log.
    pub log: LogId,
    /// Last sequence number that is proven and durable; 0: none yet.
    pub seq: u64,
    /// Start of the hash of the header that ends there.
    pub head: Hash8,
    /// Last sequence number received and set aside, not proven yet; 0: none.
    pub staged: u64,
    /// Start of the hash of a header whose live root proved wrong here: not to be offered again.
    pub refused: Option<Hash8>,
}
tuple_codec!(Entry { log, seq, head, staged, refused });

impl Entry {
    /// Nothing is there of a log.
    pub(crate) fn nothing(log: LogId) -> Self {
        Self { log, seq: 0, head: Hash8::default(), staged: 0, refused: None }
    }
}

/// Entries by log.
pub(crate) type Digest = BTreeMap<LogId, Vec<Entry>>;

/// Groups entries by log.
pub(crate) fn group(entries: impl IntoIterator<Item = Entry>) -> Digest {
    let mut digest = Digest::new();
    for entry in entries {
        digest.entry(entry.log).or_default().push(entry);
    }
    digest
}

/// Hash of a roster and of all entries with something proven: equal replicas, equal hashes. The entries
/// are expected to ascend.
pub fn state_hash<'a>(roster: &Hash, entries: impl Iterator<Item = &'a Entry>) -> Hash {
    let mut h = crypto::hasher(Domain::Digest);
    h.update(roster.as_bytes());
    for entry in entries.filter(|entry| entry.seq > 0) {
        h.update(&entry.log.to_bytes());
        h.update(&entry.seq.to_be_bytes());
        h.update(entry.head.as_bytes());
    }
    Hash::new(*h.finalize().as_bytes())
}
