//! Version digests: what a replica has, one entry a log and branch (van Renesse et al., "Efficient
//! Reconciliation and Flow Control for Anti-Entropy Protocols", LADIS 2008).
//!
//! Entries carry the head's hash: numbers alone cannot see a fork. In memory the hash is whole; on the wire
//! it is cut to 8 bytes under a key that the sender draws for each connection, so that nobody who signs
//! headers can make two that look the same to others.

use std::collections::BTreeMap;

use crate::codec::tuple_codec;
use crate::crypto::{self, Domain};
use crate::id::{Hash, Hash8, LogId};
use crate::log::branch::Branch;
use crate::plant::{self, Plant};

/// Under which hashes are cut short on one connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DigestKey(pub [u8; 16]);

impl serde::Serialize for DigestKey {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.0)
    }
}

impl<'de> serde::Deserialize<'de> for DigestKey {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        crate::codec::fixed_bytes(d).map(Self)
    }
}

impl DigestKey {
    /// A hash cut short; the hash of nothing stays that.
    #[must_use]
    pub fn short(&self, hash: &Hash) -> Hash8 {
        if *hash == Hash::default() || plant::is(Plant::DigestWithoutHeads) {
            return Hash8::default();
        }
        crypto::hash(Domain::DigestEntry, &[&self.0, hash.as_bytes()]).short8()
    }
}

/// How far a replica has one history of a log, as it travels. A log that its author forked has several
/// entries; one that is being fetched whole has one with nothing proven.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// The log.
    pub log: LogId,
    /// Last sequence number that is proven and durable; 0: none yet.
    pub seq: u64,
    /// Hash of the header that ends there, cut short.
    pub head: Hash8,
    /// Last sequence number received and set aside, not proven yet; 0: none.
    pub staged: u64,
    /// Hash of a header whose live root proved wrong here, cut short: not to be offered again.
    pub refused: Option<Hash8>,
    /// Nothing is proven, but slots of the log are here that its live set can be compared with.
    pub compare: bool,
}
tuple_codec!(Entry { log, seq, head, staged, refused, compare });

impl Entry {
    /// Nothing is there of a log.
    pub(crate) fn nothing(log: LogId) -> Self {
        Self { log, seq: 0, head: Hash8::default(), staged: 0, refused: None, compare: false }
    }

    /// How far a branch goes, whether it counts or not.
    pub(crate) fn of(branch: &Branch, key: &DigestKey) -> Self {
        // What came by comparing has gaps: it is no place to go on from.
        let gapless = branch.staged.as_ref().filter(|staged| !staged.compared);
        Self {
            log: branch.id.log,
            seq: branch.seq(),
            head: key.short(&branch.head_hash()),
            staged: gapless.map_or(0, |staged| staged.upto),
            refused: branch.frozen.map(|hash| key.short(&hash)),
            compare: branch.head.is_none() && branch.staged.is_some() && gapless.is_none(),
        }
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

/// The entries of logs that the other side was told otherwise of; of one that was let go of, that nothing is
/// there.
pub(crate) fn changes(telling: &[Entry], told: &Digest) -> Vec<Entry> {
    let now = group(telling.iter().copied());
    let differing = now.iter().filter(|(log, entries)| told.get(log) != Some(entries));
    let gone = told.keys().filter(|log| !now.contains_key(log)).map(|log| Entry::nothing(*log));
    let mut entries: Vec<Entry> =
        differing.flat_map(|(_, entries)| entries.iter().copied()).collect();
    entries.extend(gone);
    entries.sort_unstable();
    entries
}
