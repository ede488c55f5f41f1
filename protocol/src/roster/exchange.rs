//! What rosters tell each other: hashes to compare by, names, the statements that the other side lacks, and
//! proofs for whoever knows the swarm only.

use super::Roster;
use super::heads::{ChainHead, heads_of};
use crate::codec::Bytes;
use crate::id::{DeviceId, Hash, Hash8};
use crate::limits::{MAX_STATEMENT_BYTES, MAX_STATEMENTS};

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
