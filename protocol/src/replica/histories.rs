//! The histories of one log: where a header belongs, and when one history holds another.
//!
//! A log's author may sign two histories (a clone, a restored copy, malice). Both are kept and merged
//! like any others. Which of two proven histories goes on from the other is decided by what they hold,
//! so every replica that has the same two decides alike, whatever it saw on the way: `part` is part of
//! `whole` if `whole` is exactly `part` with everything of `whole` after `part`'s head put over it.

use super::Replica;
use super::comparison::{PartCheck, Stands, Step};
use crate::id::{BranchId, DeviceId, Hash, LogId};
use crate::io::Output;
use crate::limits::MAX_BRANCHES;
use crate::log::branch::{Branch, BranchState};
use crate::log::commit::VerifiedHeader;
use crate::plant::{self, Plant};
use crate::store::{Store, StoreError};

impl<S: Store> Replica<S> {
    /// Where a header stands to what is here.
    pub(crate) fn stands(&self, header: &VerifiedHeader) -> Result<Stands, StoreError> {
        let claim = header.header();
        let mut stands = None;
        for branch in self.logs.shown(claim.log) {
            let to_this = if claim.last_seq <= branch.seq() {
                match self.store.header(&branch.id, claim.last_seq)? {
                    Some(stored) if stored == *header.bytes() => return Ok(Stands::Here),
                    Some(_) => Stands::Apart,
                    None => Stands::Old,
                }
            } else if claim.first_seq() > branch.seq() + 1
                || claim.first_seq() == branch.seq() + 1 && claim.prev == branch.head_hash()
            {
                Stands::Beyond
            } else {
                Stands::Apart
            };
            stands = stands.max(Some(to_this));
        }
        Ok(stands.unwrap_or(Stands::Beyond))
    }

    /// What was offered of a log proved false, or cannot be proven from what is here (its author may have
    /// forgotten slots below our head): the log is asked for whole, beside what is here.
    pub(crate) fn proof_failed(&mut self, id: BranchId) {
        if self.logs.fetching(id.log).is_none() && self.log_counts(id.log) {
            let branch = self.new_branch(self.logs.fresh_id(id.log));
            self.logs.put(branch);
        }
    }

    /// A header's live root or place is wrong over a proven state: the branch stands still at its last good
    /// header, nobody is blamed. Costs nothing that grows with the log.
    pub(crate) fn freeze(&mut self, branch: Branch, header: Hash) {
        let (id, log) = (branch.id, branch.id.log);
        if !self.logs.contains(&id) {
            if !self.log_counts(log) {
                return;
            }
            self.logs.put(branch);
            self.limit_unproven(log.author);
        }
        if self
            .logs
            .get(&id)
            .is_some_and(|branch| !branch.dropping() && branch.frozen != Some(header))
        {
            let writes = self.logs.record(id, |branch| branch.frozen = Some(header));
            self.fx.persist(writes);
            if plant::is(Plant::RescanFrozen) {
                self.suspects.insert(id);
            }
        }
    }

    /// A peer says that a header of an own log has a wrong live root. Once each, that is looked into.
    pub(crate) fn root_disputed(&mut self, by: DeviceId, log: LogId) {
        // Of logs that are here only: a peer may name any number of others.
        let here = self.logs.shown(log).next().is_some();
        if here && self.root_disputes.insert((by, log)) {
            self.suspects.extend(self.logs.shown(log).map(|branch| branch.id));
        }
    }

    /// A branch was fetched whole and proven. If it is the only one it is shown; else it is compared
    /// with the others first, once what was stored with it can be read.
    pub(crate) fn place_whole(&mut self, id: BranchId) {
        let alone = self.logs.shown(id.log).all(|other| other.id == id);
        let own = id.log.author == self.me;
        let resumed = self.writer.left_at(id.log);
        self.logs.edit(id, |branch| {
            branch.state = match alone {
                true if own && resumed != Some(branch.head_hash()) => BranchState::Closed,
                true => BranchState::Live,
                false => BranchState::Unjudged,
            };
        });
    }

    /// Compares a branch that was fetched whole with those shown, a step at a time, and keeps those of them
    /// that are no part of another.
    pub(crate) fn compare(&mut self, id: BranchId) -> Result<(), StoreError> {
        let mut comparison = self.comparisons.remove(&id).unwrap_or_default();
        let Some(new) = self.logs.get(&id).filter(|branch| branch.to_compare()) else {
            return Ok(());
        };
        let others = self.logs.shown(id.log).filter(|old| old.id != id);
        let next = others.into_iter().find(|old| !comparison.done.contains(&old.id));
        let Some(old) = next else {
            self.compared_all(id, comparison.parts);
            return Ok(());
        };
        let old_id = old.id;
        let (part, whole) = if old.seq() < new.seq() { (old, new) } else { (new, old) };
        let mut check = match comparison.running.take() {
            Some(check) => check,
            None => PartCheck::new(part, whole),
        };
        match check.step(part, whole, &self.store)? {
            Step::More => comparison.running = Some(check),
            Step::Stale if new.outdated => {
                // It goes on: the next round looks again. Whoever writes fast costs no more for it.
                self.logs.edit(id, |branch| branch.outdated = false);
                self.to_compare.insert(id);
                return Ok(());
            }
            Step::Stale => {}
            Step::Is(false) => {
                comparison.done.insert(old_id);
            }
            Step::Is(true) if part.id == id || old.head_hash() == new.head_hash() => {
                // It brings nothing that another history has not.
                let writes = self.logs.record(id, Branch::give_up);
                self.fx.persist(writes);
                return Ok(());
            }
            Step::Is(true) => {
                comparison.done.insert(old_id);
                comparison.parts.push(old_id);
            }
        }
        self.comparisons.insert(id, comparison);
        Ok(())
    }

    /// Has the histories that moved beside others of their log compared with them: what went on from a
    /// fork may have come to hold what the other side wrote.
    pub(crate) fn compare_moved(&mut self) {
        for id in std::mem::take(&mut self.to_compare) {
            if self.logs.several(id.log) {
                self.comparisons.remove(&id);
                self.logs.edit(id, |branch| branch.outdated = branch.shown());
            }
        }
    }

    /// A new history has been compared with every other: it is shown from now on in place of its parts.
    fn compared_all(&mut self, id: BranchId, parts: Vec<BranchId>) {
        let was_shown = self.logs.edit(id, |branch| std::mem::take(&mut branch.outdated));
        if was_shown == Some(true) {
            for part in parts {
                let writes = self.logs.record(part, Branch::give_up);
                self.fx.persist(writes);
            }
            self.say_advanced();
            return;
        }
        let own = id.log.author == self.me;
        let forked = parts.is_empty();
        let mut writes = self.logs.record(id, |branch| {
            branch.state = if own { BranchState::Closed } else { BranchState::Live };
            branch.forked |= forked;
        });
        for part in parts {
            writes.extend(self.logs.record(part, Branch::give_up));
        }
        self.fx.persist(writes);
        self.limit_branches(id.log);
        self.after_head_moved(id, Vec::new());
    }

    /// Keeps as many branches as are allowed: those whose heads have the least hashes, so that every
    /// replica with the same ones keeps the same. Only an author that forks again and again gets here.
    fn limit_branches(&mut self, log: LogId) {
        let mut heads: Vec<(Hash, BranchId)> =
            self.logs.shown(log).map(|branch| (branch.head_hash(), branch.id)).collect();
        heads.sort_unstable();
        let most = if plant::is(Plant::KeepAllBranches) { usize::MAX } else { MAX_BRANCHES };
        for (_, id) in heads.into_iter().skip(most) {
            let writes = self.logs.record(id, Branch::give_up);
            self.fx.persist(writes);
        }
    }

    /// Whether another history of a log, with this head, would be kept.
    pub(crate) fn has_room(&self, log: LogId, head: &Hash) -> bool {
        let before = self.logs.shown(log).filter(|b| b.head_hash() < *head).count();
        before < MAX_BRANCHES || plant::is(Plant::KeepAllBranches)
    }
}

impl<S: Store> Replica<S> {
    /// Says that what readers see has moved.
    pub(crate) fn say_advanced(&mut self) {
        self.fx.push(Output::Advanced);
    }
}
