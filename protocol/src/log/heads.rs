//! How far each branch is visible: what readers may see at one moment.
//!
//! A map in shares, so that taking a moment costs a few pointers however many logs there are, and moving one
//! log copies one share only.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::id::{BranchId, LogId};

/// Shares: with 6,000 logs each holds some hundred.
const SHARES: usize = 64;

/// Visible sequence numbers by branch; one that is not visible is not in it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads([Arc<BTreeMap<BranchId, u64>>; SHARES]);

impl Default for Heads {
    fn default() -> Self {
        Self(std::array::from_fn(|_| Arc::default()))
    }
}

fn share(log: &LogId) -> usize {
    // Ids are public keys: their bytes are spread evenly unless somebody took pains, which costs it time.
    usize::from(log.author.as_bytes()[0] ^ log.author.as_bytes()[31]) % SHARES
}

impl Heads {
    /// How far a branch is visible; 0: not at all.
    #[must_use]
    pub fn of(&self, branch: &BranchId) -> u64 {
        self.0[share(&branch.log)].get(branch).copied().unwrap_or(0)
    }

    /// The branches of a log that are visible, and how far.
    pub fn branches(&self, log: LogId) -> impl Iterator<Item = (&BranchId, u64)> {
        let all = BranchId { log, number: 0 }..=BranchId { log, number: u16::MAX };
        self.0[share(&log)].range(all).map(|(branch, seq)| (branch, *seq))
    }

    /// Every visible branch, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&BranchId, u64)> {
        self.0.iter().flat_map(|share| share.iter()).map(|(branch, seq)| (branch, *seq))
    }

    /// How many branches are visible.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|share| share.len()).sum()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn set(&mut self, branch: BranchId, seq: u64) {
        if self.of(&branch) == seq {
            return;
        }
        let share = Arc::make_mut(&mut self.0[share(&branch.log)]);
        if seq == 0 {
            share.remove(&branch);
        } else {
            share.insert(branch, seq);
        }
    }
}
