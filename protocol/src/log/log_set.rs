//! Every branch of every log that this replica keeps, and what follows from them: who owes tidying, what is
//! visible, and the hash of all heads. Each change costs what changed, not what is there.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use crate::header::Header;
use crate::id::{BranchId, DeviceId, Hash, LogId};
use crate::limits::{MAX_BRANCHES, RECORD_ALL_OPS};
use crate::log::branch::{Branch, BranchState};
use crate::log::head_hash::HeadHash;
use crate::log::heads::Heads;
use crate::meter::{self, Work};
use crate::plant::{self, Plant};
use crate::store::Write;

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
    hash: HeadHash,
    /// Operations that the records of branches do not know yet, and whose.
    unrecorded: BTreeSet<(u64, BranchId)>,
    unrecorded_all: u64,
    /// Bytes of all live sets together.
    bytes: u64,
    /// The logs in the order in which they last changed, and where in it each stands.
    changed: BTreeMap<u64, LogId>,
    changed_at: BTreeMap<LogId, u64>,
    changes: u64,
}

/// What a branch counts for in the sums over all of them.
#[derive(Clone, Copy, Default)]
struct Counted {
    owes: bool,
    quarantined: bool,
    staging: bool,
    unrecorded: u64,
    bytes: u64,
}

impl Counted {
    fn of(branch: &Branch) -> Self {
        Self {
            owes: branch.owes(),
            quarantined: branch.quarantined(),
            staging: branch.staged.is_some(),
            unrecorded: branch.unrecorded,
            bytes: branch.totals.bytes(),
        }
    }
}

impl LogSet {
    pub(crate) fn get(&self, id: &BranchId) -> Option<&Branch> {
        self.branches.get(id)
    }

    pub(crate) fn contains(&self, id: &BranchId) -> bool {
        self.branches.contains_key(id)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Branch> {
        self.branches.values().inspect(|_| meter::count(Work::Logs, 1))
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

    /// Puts a branch in, or another in its place.
    pub(crate) fn put(&mut self, branch: Branch) {
        let (id, now) = (branch.id, Counted::of(&branch));
        let before = self.branches.insert(id, branch);
        self.recount(id, before.as_ref().map(Counted::of).unwrap_or_default(), now);
    }

    /// Changes a branch; nothing if there is no such branch.
    pub(crate) fn edit<R>(
        &mut self,
        id: BranchId,
        change: impl FnOnce(&mut Branch) -> R,
    ) -> Option<R> {
        let branch = self.branches.get_mut(&id)?;
        let before = Counted::of(branch);
        let result = change(branch);
        let now = Counted::of(branch);
        self.recount(id, before, now);
        Some(result)
    }

    /// A branch counts for something else now.
    fn recount(&mut self, id: BranchId, before: Counted, now: Counted) {
        self.stale.insert(id.log);
        let set = |set: &mut BTreeSet<BranchId>, before: bool, now: bool| {
            if before && !now {
                set.remove(&id);
            } else if now && !before {
                set.insert(id);
            }
        };
        set(&mut self.owing, before.owes, now.owes);
        set(&mut self.quarantined, before.quarantined, now.quarantined);
        set(&mut self.staging, before.staging, now.staging);
        if before.unrecorded != now.unrecorded {
            self.unrecorded.remove(&(before.unrecorded, id));
            if now.unrecorded > 0 {
                self.unrecorded.insert((now.unrecorded, id));
            }
        }
        self.unrecorded_all = self.unrecorded_all - before.unrecorded + now.unrecorded;
        self.bytes = self.bytes.saturating_sub(before.bytes).saturating_add(now.bytes);
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
        let most = self.unrecorded.last().map(|(_, id)| *id);
        most.map(|id| self.record(id, |_| ())).unwrap_or_default()
    }

    /// The records of all branches that have gone on without one.
    pub(crate) fn record_all(&mut self) -> Vec<Write> {
        let ids: Vec<BranchId> = self.unrecorded.iter().map(|(_, id)| *id).collect();
        ids.into_iter().flat_map(|id| self.record(id, |_| ())).collect()
    }

    pub(crate) fn remove(&mut self, id: BranchId) -> Option<Branch> {
        let branch = self.branches.remove(&id)?;
        self.recount(id, Counted::of(&branch), Counted::default());
        Some(branch)
    }

    /// Brings heads and hash up to date with the logs that changed.
    pub(crate) fn refresh(&mut self) {
        while let Some(log) = self.stale.pop_first() {
            let shown: Vec<(BranchId, u64)> =
                self.branches(log).map(|branch| (branch.id, self.visible(branch))).collect();
            let there = |id: &BranchId| shown.iter().any(|(shown, _)| shown == id);
            let before = self.heads.branches(log).map(|(id, _)| *id);
            let gone: Vec<BranchId> = before.filter(|id| !there(id)).collect();
            gone.into_iter().for_each(|id| self.heads.set(id, 0));
            shown.into_iter().for_each(|(id, seq)| self.heads.set(id, seq));
            if self.shown(log).count() < MAX_BRANCHES {
                self.crowded.remove(&log);
            } else {
                self.crowded.insert(log);
            }
            self.refresh_hash(log);
            self.note_change(log);
        }
        self.hash.refresh();
    }

    fn note_change(&mut self, log: LogId) {
        self.changes += 1;
        if let Some(before) = self.changed_at.remove(&log) {
            self.changed.remove(&before);
        }
        if self.branches(log).next().is_some() {
            self.changed_at.insert(log, self.changes);
            self.changed.insert(self.changes, log);
        }
    }

    /// How often logs have changed, as of the last [`LogSet::refresh`].
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The logs that have changed since that many changes had been seen, ascending; since 0: all that are
    /// here. What one owes only counts as a change too.
    pub(crate) fn changed_since(&self, changes: u64) -> Vec<LogId> {
        let since = self.changed.range(changes + 1..);
        let mut logs: Vec<LogId> =
            since.inspect(|_| meter::count(Work::Logs, 1)).map(|(_, log)| *log).collect();
        logs.sort_unstable();
        logs
    }

    /// Whether some log has as many histories as are kept.
    pub(crate) fn is_crowded(&self) -> bool {
        !self.crowded.is_empty()
    }

    /// What lies beyond a log's end and cannot be replaced yet is offered to nobody, but it is shown in part:
    /// two replicas that show different parts are not equal.
    fn refresh_hash(&mut self, log: LogId) {
        let counts = |b: &&Branch| b.seq() > 0 && (b.shown() || b.remains().is_some());
        let mut heads: Vec<(u64, Hash)> = self
            .branches(log)
            .filter(counts)
            .map(|branch| match plant::is(Plant::DigestWithoutHeads) {
                true => (branch.seq(), Hash::default()),
                false => (branch.seq(), branch.head_hash()),
            })
            .collect();
        // A branch's number is this replica's own affair.
        heads.sort_unstable();
        heads.dedup();
        self.hash.set(log, &heads);
    }

    /// What readers see. Up to date after [`LogSet::refresh`].
    pub(crate) fn heads(&self) -> &Heads {
        &self.heads
    }

    /// Hash of all proven heads, whole hashes each: equal replicas, equal hashes. Up to date after
    /// [`LogSet::refresh`].
    pub(crate) fn hash(&self) -> Hash {
        self.hash.root()
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
