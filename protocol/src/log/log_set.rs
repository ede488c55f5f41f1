//! Every branch of every log that this replica keeps, and what follows from them: who owes tidying, what is
//! visible, and the hash of all heads. Each change costs what changed, not what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::crypto::{self, Domain};
use crate::header::Header;
use crate::id::{BranchId, DeviceId, Hash, LogId};
use crate::limits::{MAX_BRANCHES, RECORD_ALL_OPS};
use crate::log::branch::{Branch, BranchState};
use crate::log::heads::Heads;
use crate::plant::{self, Plant};
use crate::store::Write;

/// Shares of the hash of all heads: a change hashes one share anew.
const SHARES: usize = 256;

/// Every branch of a log.
pub(crate) fn all(log: LogId) -> RangeInclusive<BranchId> {
    BranchId { log, number: 0 }..=BranchId { log, number: u16::MAX }
}

/// Every branch of an author.
fn all_of(author: DeviceId) -> RangeInclusive<BranchId> {
    let first = LogId { author, epoch: 0, shard: 0 };
    let last = LogId { author, epoch: u64::MAX, shard: u16::MAX };
    BranchId { log: first, number: 0 }..=BranchId { log: last, number: u16::MAX }
}

/// The branches of a replica.
#[derive(Debug, Default)]
pub(crate) struct LogSet {
    branches: BTreeMap<BranchId, Branch>,
    owing: BTreeSet<BranchId>,
    quarantined: BTreeSet<BranchId>,
    staging: BTreeSet<BranchId>,
    /// Logs of which no further history has room.
    crowded: BTreeSet<LogId>,
    /// Logs that changed since heads and hash were brought up to date.
    stale: BTreeSet<LogId>,
    heads: Heads,
    shares: BTreeMap<usize, Share>,
    /// Hash of all shares.
    total: Hash,
    /// Operations that the records of branches do not know yet.
    unrecorded: BTreeMap<BranchId, u64>,
    unrecorded_all: u64,
    /// Bytes of all live sets together.
    bytes: u64,
}

/// The proven heads of some logs.
#[derive(Debug, Default)]
struct Share {
    heads: BTreeMap<(LogId, u64, Hash), ()>,
    hash: Option<Hash>,
}

impl LogSet {
    pub(crate) fn get(&self, id: &BranchId) -> Option<&Branch> {
        self.branches.get(id)
    }

    pub(crate) fn contains(&self, id: &BranchId) -> bool {
        self.branches.contains_key(id)
    }

    pub(crate) fn len(&self) -> usize {
        self.branches.len()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Branch> {
        self.branches.values()
    }

    /// The branches after one.
    pub(crate) fn after(&self, id: BranchId) -> impl Iterator<Item = &Branch> {
        use std::ops::Bound::{Excluded, Unbounded};
        self.branches.range((Excluded(id), Unbounded)).map(|(_, branch)| branch)
    }

    /// Every branch of a log.
    pub(crate) fn branches(&self, log: LogId) -> impl DoubleEndedIterator<Item = &Branch> {
        self.branches.range(all(log)).map(|(_, branch)| branch)
    }

    /// Every branch of an author.
    pub(crate) fn of_author(&self, author: DeviceId) -> impl DoubleEndedIterator<Item = &Branch> {
        self.branches.range(all_of(author)).map(|(_, branch)| branch)
    }

    /// The branches of a log that count.
    pub(crate) fn shown(&self, log: LogId) -> impl Iterator<Item = &Branch> {
        self.branches(log).filter(|branch| branch.shown())
    }

    /// Every log.
    pub(crate) fn logs(&self) -> BTreeSet<LogId> {
        self.branches.keys().map(|id| id.log).collect()
    }

    /// Last proven sequence number of a branch; 0 if it does not count.
    pub(crate) fn head(&self, id: &BranchId) -> u64 {
        self.get(id).filter(|branch| branch.shown()).map_or(0, Branch::seq)
    }

    /// Last proven sequence number of a log.
    pub(crate) fn seq(&self, log: LogId) -> u64 {
        self.shown(log).map(Branch::seq).max().unwrap_or(0)
    }

    /// Whether a log is here as it was when a revocation ended it.
    pub(crate) fn at_cut(&self, log: LogId) -> bool {
        self.branches(log).any(Branch::at_cut)
    }

    /// How far readers see a branch; 0 if not at all.
    fn visible(&self, branch: &Branch) -> u64 {
        let all = || self.branches(branch.id.log);
        if plant::is(Plant::ShowStaged)
            && let Some(staged) = &branch.staged
        {
            return staged.upto;
        }
        if branch.shown() {
            let lags = !branch.at_cut() && all().any(|b| b.remains().is_some());
            return if lags { 0 } else { branch.seq() };
        }
        if all().any(Branch::at_cut) { 0 } else { branch.remains().unwrap_or(0) }
    }

    /// A number that no branch of this log has.
    pub(crate) fn fresh_id(&self, log: LogId) -> BranchId {
        let last = self.branches(log).next_back().map(|branch| branch.id.number);
        BranchId { log, number: last.map_or(0, |last| last.saturating_add(1)) }
    }

    /// The branch in which a log is being fetched whole.
    pub(crate) fn fetching(&self, log: LogId) -> Option<&Branch> {
        self.branches(log).find(|branch| branch.fetching())
    }

    /// The branch that a commit with this header goes right on from.
    pub(crate) fn next_of(&self, header: &Header) -> Option<BranchId> {
        let follows = |branch: &&Branch| {
            header.first_seq() == branch.seq() + 1 && header.prev == branch.head_hash()
        };
        if let Some(branch) = self.shown(header.log).find(follows) {
            return Some(branch.id);
        }
        if header.first_seq() != 1 || self.shown(header.log).next().is_some() {
            return None;
        }
        let fetching = self.fetching(header.log).map(|branch| branch.id);
        Some(fetching.unwrap_or_else(|| self.fresh_id(header.log)))
    }

    /// A branch that owes something done in small steps: mending waits until the others have nothing to do.
    pub(crate) fn owing(&self) -> Option<&Branch> {
        use crate::log::branch::Chore;
        let owing = || self.owing.iter().filter_map(|id| self.get(id));
        owing().find(|b| !matches!(b.chore, Chore::Mend(_))).or_else(|| owing().next())
    }

    pub(crate) fn owes(&self) -> bool {
        !self.owing.is_empty()
    }

    /// Whether something is set aside as damaged.
    pub(crate) fn has_quarantined(&self) -> bool {
        !self.quarantined.is_empty()
    }

    /// The branches that have something staged.
    pub(crate) fn staging(&self) -> impl Iterator<Item = &Branch> {
        self.staging.iter().filter_map(|id| self.get(id))
    }

    /// Puts a branch in, or a changed one back.
    pub(crate) fn put(&mut self, branch: Branch) {
        let id = branch.id;
        let set = |set: &mut BTreeSet<BranchId>, there: bool| {
            if there {
                set.insert(id)
            } else {
                set.remove(&id)
            };
        };
        set(&mut self.owing, branch.owes());
        set(&mut self.quarantined, branch.quarantined());
        set(&mut self.staging, branch.staged.is_some());
        let before = self.unrecorded.get(&id).copied().unwrap_or(0);
        self.unrecorded_all = self.unrecorded_all - before + branch.unrecorded;
        if branch.unrecorded > 0 {
            self.unrecorded.insert(id, branch.unrecorded);
        } else {
            self.unrecorded.remove(&id);
        }
        self.stale.insert(id.log);
        self.bytes = self.bytes.saturating_add(branch.totals.bytes());
        if let Some(before) = self.branches.insert(id, branch) {
            self.bytes = self.bytes.saturating_sub(before.totals.bytes());
        }
    }

    /// Changes a branch; nothing if there is no such branch.
    pub(crate) fn edit<R>(
        &mut self,
        id: BranchId,
        change: impl FnOnce(&mut Branch) -> R,
    ) -> Option<R> {
        let mut branch = self.branches.remove(&id)?;
        self.bytes = self.bytes.saturating_sub(branch.totals.bytes());
        let result = change(&mut branch);
        self.put(branch);
        Some(result)
    }

    /// Changes a branch and keeps its record: what to write.
    pub(crate) fn record(&mut self, id: BranchId, change: impl FnOnce(&mut Branch)) -> Vec<Write> {
        let changed = self.edit(id, |branch| {
            change(branch);
            branch.record()
        });
        changed.unwrap_or_default()
    }

    /// The record of the branch that has gone on furthest without one, when all together have gone far.
    pub(crate) fn record_one(&mut self) -> Vec<Write> {
        if self.unrecorded_all < RECORD_ALL_OPS {
            return Vec::new();
        }
        let most = self.unrecorded.iter().max_by_key(|(_, ops)| **ops).map(|(id, _)| *id);
        most.map(|id| self.record(id, |_| ())).unwrap_or_default()
    }

    /// The records of all branches that have gone on without one.
    pub(crate) fn record_all(&mut self) -> Vec<Write> {
        let ids: Vec<BranchId> = self.unrecorded.keys().copied().collect();
        ids.into_iter().flat_map(|id| self.record(id, |_| ())).collect()
    }

    pub(crate) fn remove(&mut self, id: BranchId) -> Option<Branch> {
        let branch = self.branches.remove(&id)?;
        self.owing.remove(&id);
        self.quarantined.remove(&id);
        self.staging.remove(&id);
        self.unrecorded_all -= self.unrecorded.remove(&id).unwrap_or(0);
        self.bytes = self.bytes.saturating_sub(branch.totals.bytes());
        self.stale.insert(id.log);
        Some(branch)
    }

    /// Brings heads and hash up to date with the logs that changed.
    pub(crate) fn refresh(&mut self) {
        let moved = !self.stale.is_empty() || self.total == Hash::default();
        while let Some(log) = self.stale.pop_first() {
            let shown: Vec<(BranchId, u64)> =
                self.branches(log).map(|branch| (branch.id, self.visible(branch))).collect();
            let there: BTreeSet<BranchId> = shown.iter().map(|(id, _)| *id).collect();
            let gone: Vec<BranchId> = self
                .heads
                .branches(log)
                .map(|(id, _)| *id)
                .filter(|id| !there.contains(id))
                .collect();
            gone.into_iter().for_each(|id| self.heads.set(id, 0));
            shown.into_iter().for_each(|(id, seq)| self.heads.set(id, seq));
            if self.shown(log).count() < MAX_BRANCHES {
                self.crowded.remove(&log);
            } else {
                self.crowded.insert(log);
            }
            self.refresh_hash(log);
        }
        if moved {
            self.sum_up();
        }
    }

    /// Whether some log has as many histories as are kept.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }

    /// What lies beyond a log's end and cannot be replaced yet is offered to nobody, but it is shown in part:
    /// two replicas that show different parts are not equal.
    fn refresh_hash(&mut self, log: LogId) {
        let counts = |b: &&Branch| b.seq() > 0 && (b.shown() || b.remains().is_some());
        let heads: Vec<(LogId, u64, Hash)> = self
            .branches(log)
            .filter(counts)
            .map(|branch| match plant::is(Plant::DigestWithoutHeads) {
                true => (log, branch.seq(), Hash::default()),
                false => (log, branch.seq(), branch.head_hash()),
            })
            .collect();
        let at = crypto::hash(Domain::Digest, &[&log.to_bytes()]).as_bytes()[0];
        let share = self.shares.entry(usize::from(at) % SHARES).or_default();
        let lowest = (log, 0, Hash::new([0; 32]));
        let highest = (log, u64::MAX, Hash::new([0xff; 32]));
        let before: Vec<_> = share.heads.range(lowest..=highest).map(|(key, ())| *key).collect();
        if before != heads {
            before.iter().for_each(|key| {
                share.heads.remove(key);
            });
            share.heads.extend(heads.into_iter().map(|key| (key, ())));
            share.hash = None;
        }
    }

    /// What readers see. Up to date after [`LogSet::refresh`].
    pub(crate) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Hash of all proven heads, whole hashes each: equal replicas, equal hashes. Up to date after
    /// [`LogSet::refresh`].
    pub(crate) fn hash(&self) -> Hash {
        self.total
    }

    fn sum_up(&mut self) {
        let mut h = crypto::hasher(Domain::Digest);
        self.shares.retain(|_, share| !share.heads.is_empty());
        for (number, share) in &mut self.shares {
            let hash = *share.hash.get_or_insert_with(|| share_hash(&share.heads));
            h.update(&(*number as u64).to_be_bytes());
            h.update(hash.as_bytes());
        }
        self.total = Hash::new(*h.finalize().as_bytes());
    }

    /// Bytes of all live sets together.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether more than one history of a log counts.
    pub(crate) fn several(&self, log: LogId) -> bool {
        self.shown(log).nth(1).is_some()
    }

    /// Marks a log as one with two histories; what to write.
    pub(crate) fn mark_forked(&mut self, log: LogId) -> Vec<Write> {
        let first = self.branches(log).next().filter(|branch| !branch.forked);
        let id = first.map(|branch| branch.id);
        id.map(|id| self.record(id, |branch| branch.forked = true)).unwrap_or_default()
    }

    /// The epochs of an author's logs that are here, ascending, given-up ones left out.
    pub(crate) fn epochs(&self, author: DeviceId) -> BTreeSet<LogId> {
        let proven = |b: &&Branch| b.head.is_some() && b.state != BranchState::Dropping;
        self.of_author(author).filter(proven).map(|branch| branch.id.log).collect()
    }
}

fn share_hash(heads: &BTreeMap<(LogId, u64, Hash), ()>) -> Hash {
    let mut h = crypto::hasher(Domain::Digest);
    for (log, seq, head) in heads.keys() {
        h.update(&log.to_bytes());
        h.update(&seq.to_be_bytes());
        h.update(head.as_bytes());
    }
    Hash::new(*h.finalize().as_bytes())
}
