//! The heads of the chains that statements form: what a roster is named by.

use std::collections::{BTreeMap, BTreeSet};

use super::statement::Held;
use crate::codec::tuple_codec;
use crate::crypto::{self, Domain};
use crate::id::{DeviceId, Hash, SwarmId};

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
