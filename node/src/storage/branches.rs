//! Short numbers for branches: the index names one in every entry.

use std::collections::BTreeMap;
use std::sync::{PoisonError, RwLock};

use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::StoreError;

/// Every branch that was ever stored, by number. Numbers are never used again.
#[derive(Debug, Default)]
pub(super) struct Branches(RwLock<Known>);

#[derive(Debug, Default)]
struct Known {
    by_number: Vec<BranchId>,
    numbers: BTreeMap<BranchId, u32>,
}

impl Branches {
    /// Those that the index holds, in the order of their numbers.
    pub(super) fn new(by_number: Vec<BranchId>) -> Self {
        let numbers = by_number.iter().zip(0..).map(|(branch, number)| (*branch, number));
        let numbers = numbers.collect();
        Self(RwLock::new(Known { by_number, numbers }))
    }

    /// The number of a branch, if it has one.
    pub(super) fn find(&self, branch: &BranchId) -> Option<u32> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        known.numbers.get(branch).copied()
    }

    /// The number of a branch; it gets one if it has none.
    pub(super) fn number(&self, branch: &BranchId) -> u32 {
        if let Some(number) = self.find(branch) {
            return number;
        }
        let mut known = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let next = u32::try_from(known.by_number.len()).expect("fewer branches than numbers");
        let number = *known.numbers.entry(*branch).or_insert(next);
        if number == next {
            known.by_number.push(*branch);
        }
        number
    }

    /// The branch of a number.
    pub(super) fn branch(&self, number: u32) -> Result<BranchId, StoreError> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let branch = known.by_number.get(number as usize).copied();
        branch
            .ok_or_else(|| StoreError::failed("the store's index names a branch that is not there"))
    }

    /// Those from number `first` on.
    pub(super) fn since(&self, first: u32) -> Vec<(BranchId, u32)> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let all = known.by_number.iter().zip(0..).map(|(branch, number)| (*branch, number));
        all.skip(first as usize).collect()
    }
}
