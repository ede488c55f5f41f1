//! A log's live set summed up: the signed live root that proves a log complete without its history.
//!
//! LtHash16 with 1,024 lanes (Lewi et al., "Securing Update Propagation with Homomorphic Hashing",
//! 2019): a set hash under addition. XOR or plain sums would be forgeable. The hash is thirty lines
//! and part of what swarmkv authenticates with, so it is ours.

use crate::crypto::{self, Domain};
use crate::id::{Hash, Hash8, Version};
use crate::op::Slot;

const LANES: usize = 1024;

/// Bytes of an accumulator.
pub const ACCUMULATOR: usize = LANES * 2;

/// Sums over a log's slots: the LtHash accumulator, their number and their bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct Totals {
    lanes: Box<[u16; LANES]>,
    count: u64,
    bytes: u64,
}

impl Default for Totals {
    fn default() -> Self {
        Self { lanes: Box::new([0; LANES]), count: 0, bytes: 0 }
    }
}

impl std::fmt::Debug for Totals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} slots, {} bytes, root {:?}", self.count, self.bytes, self.root())
    }
}

fn element(slot: &Slot) -> [u16; LANES] {
    let mut bytes = [0; ACCUMULATOR];
    slot.expand().fill(&mut bytes);
    let mut lanes = [0; LANES];
    for (lane, pair) in lanes.iter_mut().zip(bytes.chunks_exact(2)) {
        *lane = u16::from_le_bytes([pair[0], pair[1]]);
    }
    lanes
}

impl Totals {
    /// Counts a slot in; returns its name, which is the first part of what is summed.
    pub fn add(&mut self, slot: &Slot) -> Version {
        let element = element(slot);
        for (lane, x) in self.lanes.iter_mut().zip(element) {
            *lane = lane.wrapping_add(x);
        }
        self.count += 1;
        self.bytes += slot.size as u64;
        let mut name = [0; 8];
        for (pair, lane) in name.chunks_exact_mut(2).zip(element) {
            pair.copy_from_slice(&lane.to_le_bytes());
        }
        Version { log: slot.log, seq: slot.seq, hash: Hash8::new(name) }
    }

    /// Takes a slot out that was counted in.
    pub fn remove(&mut self, slot: &Slot) {
        for (lane, x) in self.lanes.iter_mut().zip(element(slot)) {
            *lane = lane.wrapping_sub(x);
        }
        self.count = self.count.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(slot.size as u64);
    }

    /// The live root: a hash of the accumulator.
    #[must_use]
    pub fn root(&self) -> Hash {
        crypto::hash(Domain::Root, &[&self.to_bytes()])
    }

    /// Number of slots.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes of their operations.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The accumulator, for keeping.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.lanes.iter().flat_map(|lane| lane.to_le_bytes()).collect()
    }

    /// Reads what [`Totals::to_bytes`] wrote; `None` if the length is wrong.
    #[must_use]
    pub fn from_parts(accumulator: &[u8], count: u64, bytes: u64) -> Option<Self> {
        if accumulator.len() != ACCUMULATOR {
            return None;
        }
        let mut lanes = Box::new([0; LANES]);
        for (lane, pair) in lanes.iter_mut().zip(accumulator.chunks_exact(2)) {
            *lane = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Some(Self { lanes, count, bytes })
    }
}
