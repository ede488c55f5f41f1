//! What rosters tell each other: hashes to compare by, names, the statements that the other side lacks, and
//! proofs for whoever knows the swarm only.

use std::collections::{BTreeMap, BTreeSet};

use super::Roster;
use super::statement::Held;
use crate::codec::{Bytes, tuple_codec};
use crate::crypto::{self, Domain};
use crate::id::{DeviceId, Hash, Hash8, SwarmId};
use crate::limits::{MAX_STATEMENT_BYTES, MAX_STATEMENTS};

/// Where an issuer's chain of statements ends; one that forked its chain has several of these. A statement
/// names the one before it, so all heads together say which statements a roster holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChainHead {
    /// Who states.
    pub issuer: DeviceId,
    /// The last statement's place in the chain.
    pub number: u64,
    /// Its name.
    pub name: Hash,
}
tuple_codec!(ChainHead { issuer, number, name });

/// The heads of the chains that these statements form, ascending.
pub(super) fn heads_of<'a>(
    names: impl Iterator<Item = &'a Hash> + Clone,
    statements: &BTreeMap<Hash, Held>,
) -> Vec<ChainHead> {
    let passed: BTreeSet<Hash> =
        names.clone().map(|name| statements[name].statement.prev).collect();
    let last = names.filter(|name| !passed.contains(name));
    let mut heads: Vec<ChainHead> = last
        .map(|name| {
            let statement = &statements[name].statement;
            ChainHead { issuer: statement.issuer, number: statement.number, name: *name }
        })
        .collect();
    heads.sort_unstable();
    heads
}

/// The hash of a roster with these heads.
pub(super) fn hash_of(swarm: &SwarmId, heads: &[ChainHead]) -> Hash {
    let mut h = crypto::hasher(Domain::Roster);
    h.update(swarm.as_bytes());
    for head in heads {
        h.update(head.issuer.as_bytes());
        h.update(&head.number.to_be_bytes());
        h.update(head.name.as_bytes());
    }
    Hash::new(*h.finalize().as_bytes())
}

impl Roster {
    /// The heads of all chains of statements that count: [`Roster::counted_hash`] is their hash.
    #[must_use]
    pub fn heads(&self) -> Vec<ChainHead> {
        heads_of(self.counted.iter(), &self.statements)
    }

    /// A hash of all statements that count here: what this device's headers name. A member that only a
    /// later version's statement admits is not counted by a header of ours, so that statement is not in it.
    #[must_use]
    pub fn counted_hash(&self) -> Hash {
        self.counted_hash
    }

    /// A hash of all statements that are here, understood or not: replicas of two versions that have heard
    /// the same find that they have.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Every statement that is kept, by name: also those that counted once and do not now.
    pub fn kept(&self) -> impl Iterator<Item = &Hash> {
        self.statements.keys()
    }

    /// The short names of all statements that are here, ascending.
    #[must_use]
    pub fn names(&self) -> Vec<Hash8> {
        self.shared.iter().map(Hash::short8).collect()
    }

    /// The statements whose short names are not among `known` (ascending): as many as one frame takes,
    /// each after those it rests on, so that what is cut off can follow in the next session.
    #[must_use]
    pub fn beyond(&self, known: &[Hash8]) -> Vec<Bytes> {
        let unknown = |name: &&Hash| known.binary_search(&name.short8()).is_err();
        let mut room = MAX_STATEMENT_BYTES;
        let fits = |bytes: &Bytes| {
            let size = bytes.len() + 8;
            let fits = size <= room;
            room = room.saturating_sub(size);
            fits
        };
        // Both are listed so that each comes after those it rests on.
        let all = self.outcome.counted.iter().chain(&self.outcome.held);
        let missing = all.filter(unknown);
        missing.map(|name| self.statements[name].bytes.clone()).take_while(fits).collect()
    }

    /// The statements that admit `device`: its own grant's chain and its issuer's, up to the genesis.
    #[must_use]
    pub fn path(&self, device: &DeviceId) -> Vec<Bytes> {
        let mut path = Vec::new();
        let mut at = *device;
        while at != self.genesis.owner && path.len() <= MAX_STATEMENTS {
            let Some(member) = self.outcome.granted.get(&at) else {
                break;
            };
            path.extend(self.chain(member.grant));
            at = member.issuer;
        }
        path
    }

    /// The statements that prove to anyone that `device` was revoked, or has left.
    #[must_use]
    pub fn proof_of_revocation(&self, device: &DeviceId) -> Vec<Bytes> {
        let Some(revoked) = self.outcome.revoked.get(device) else {
            return Vec::new();
        };
        let mut proof = self.path(&revoked.by);
        proof.extend(self.chain(revoked.statement));
        proof
    }

    /// A statement and those before it of the same issuer.
    fn chain(&self, mut name: Hash) -> Vec<Bytes> {
        let mut chain = Vec::new();
        while let Some(held) = self.statements.get(&name) {
            chain.push(held.bytes.clone());
            name = held.statement.prev;
        }
        chain
    }
}
