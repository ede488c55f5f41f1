//! How far each branch is visible: what readers may see at one moment.
//!
//! A tree that moments share: taking one costs a pointer, and moving one log while somebody reads an older
//! moment copies the path to its leaf, however many logs there are.

use std::array;
use std::sync::Arc;

use crate::id::{BranchId, LogId};
use crate::meter::{self, Work};

/// Children of a node. Three levels of them make 4,096 leaves: with 6,000 logs one or two stand in each.
const FAN: usize = 16;

/// Branches ascending, and how far each is visible.
type Leaf = Arc<Vec<(BranchId, u64)>>;
type Node<T> = Arc<[T; FAN]>;

/// Visible sequence numbers by branch; one that is not visible is not in it. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heads(Node<Node<Node<Leaf>>>);

impl Default for Heads {
    fn default() -> Self {
        Self(all(&all(&all(&Leaf::default()))))
    }
}

fn all<T: Clone>(child: &T) -> Node<T> {
    Arc::new(array::from_fn(|_| child.clone()))
}

/// Which child is gone to on each level.
fn path(log: &LogId) -> [usize; 3] {
    // Ids are public keys: their bytes are spread evenly unless somebody took pains, which costs it time.
    let id = log.author.as_bytes();
    let (first, second) = (usize::from(id[0] ^ id[31]), usize::from(id[1] ^ id[30]));
    [first / FAN, first % FAN, second % FAN]
}

impl Heads {
    fn leaf(&self, log: &LogId) -> &[(BranchId, u64)] {
        let [top, middle, low] = path(log);
        &self.0[top][middle][low]
    }

    /// How far a branch is visible; 0: not at all.
    #[must_use]
    pub fn of(&self, branch: &BranchId) -> u64 {
        let leaf = self.leaf(&branch.log);
        leaf.binary_search_by_key(branch, |(there, _)| *there).map_or(0, |at| leaf[at].1)
    }

    /// The branches of a log that are visible, and how far.
    pub fn branches(&self, log: LogId) -> impl Iterator<Item = (&BranchId, u64)> {
        let of_log = self.leaf(&log).iter().filter(move |(branch, _)| branch.log == log);
        of_log.map(|(branch, seq)| (branch, *seq))
    }

    /// Every visible branch, in no order that means anything.
    pub fn iter(&self) -> impl Iterator<Item = (&BranchId, u64)> {
        let leaves = self.0.iter().flat_map(|node| node.iter()).flat_map(|node| node.iter());
        leaves.flat_map(|leaf| leaf.iter()).map(|(branch, seq)| (branch, *seq))
    }

    /// How many branches are visible. Walks over all of them.
    #[must_use]
    pub fn len(&self) -> usize {
        self.iter().count()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    pub(crate) fn set(&mut self, branch: BranchId, seq: u64) {
        if self.of(&branch) == seq {
            return;
        }
        let [top, middle, low] = path(&branch.log);
        let node = &mut Arc::make_mut(&mut self.0)[top];
        let leaf = &mut Arc::make_mut(&mut Arc::make_mut(node)[middle])[low];
        meter::count(Work::Logs, leaf.len());
        let leaf = Arc::make_mut(leaf);
        match leaf.binary_search_by_key(&branch, |(there, _)| *there) {
            Ok(at) if seq == 0 => drop(leaf.remove(at)),
            Ok(at) => leaf[at].1 = seq,
            Err(at) => leaf.insert(at, (branch, seq)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::id::DeviceId;

    #[test]
    fn a_moment_keeps_what_it_showed_while_heads_move() {
        let branch = |n: u64, number| {
            let mut author = [0; 32];
            author[..8].copy_from_slice(&n.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes());
            BranchId {
                log: LogId { author: DeviceId::new(author), epoch: n % 3, shard: 0 },
                number,
            }
        };
        let (mut heads, mut model) = (Heads::default(), BTreeMap::new());
        for n in 0..600 {
            let moment = (heads.clone(), model.clone());
            // Put in, moved, and taken out again.
            let (id, seq) =
                (branch(n % 200, u16::from(n % 7 == 0)), if n % 5 == 0 { 0 } else { n });
            heads.set(id, seq);
            model.insert(id, seq);
            model.retain(|_, seq| *seq > 0);
            for (heads, model) in [(&heads, &model), (&moment.0, &moment.1)] {
                let there: BTreeMap<BranchId, u64> =
                    heads.iter().map(|(id, seq)| (*id, seq)).collect();
                assert_eq!(there, *model);
                assert_eq!(heads.len(), model.len());
                assert_eq!(heads.of(&id), model.get(&id).copied().unwrap_or(0));
                let of_log = model.iter().filter(|(other, _)| other.log == id.log);
                let of_log: Vec<(&BranchId, u64)> = of_log.map(|(id, seq)| (id, *seq)).collect();
                assert_eq!(heads.branches(id.log).collect::<Vec<_>>(), of_log);
            }
        }
    }
}
