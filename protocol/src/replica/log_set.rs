//! The histories of one log: where a header belongs, when one history holds another, what becomes of a
//! history that is damaged.
//!
//! A log's author may sign two histories (a clone, a restored copy, malice). Both are kept and merged
//! like any others. Which of two proven histories goes on from the other is decided by what they hold,
//! so every replica that has the same two decides alike, whatever it saw on the way: `old` is part of
//! `new` if `new` is exactly `old` with everything of `new` after `old`'s head put over it.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

use crate::id::{BranchId, DeviceId, Hash, LogId};
use crate::io::Output;
use crate::limits::{CHORE_SLOTS, MAX_BRANCHES, MAX_LOGS};
use crate::log::branch::{Branch, Chore, Standing};
use crate::log::commit::{Header, VerifiedHeader};
use crate::plant::{self, Plant};
use crate::replica::{Replica, proves};
use crate::store::{Store, StoreError, Write};

/// Every branch of a log.
pub(crate) fn all(log: LogId) -> RangeInclusive<BranchId> {
    BranchId { log, number: 0 }..=BranchId { log, number: u16::MAX }
}

/// Where a genuine header stands to what is shown of its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stands {
    /// It differs from what every history here has in its place: the log is forked.
    Apart,
    /// As old as something known, but nobody can say whether it is part of that.
    Old,
    /// It may go on from what is here.
    Beyond,
    /// Known.
    Here,
}

impl<S: Store> Replica<S> {
    /// Every branch of a log.
    pub(crate) fn branches(&self, log: LogId) -> impl Iterator<Item = &Branch> {
        self.logs.range(all(log)).map(|(_, branch)| branch)
    }

    /// The branches of a log that count.
    pub(crate) fn shown(&self, log: LogId) -> impl Iterator<Item = &Branch> {
        self.branches(log).filter(|branch| branch.shown())
    }

    /// Last proven sequence number of a branch; 0 if it does not count.
    pub(crate) fn head(&self, branch: &BranchId) -> u64 {
        self.logs.get(branch).filter(|log| log.shown()).map_or(0, Branch::seq)
    }

    /// How far readers see a branch; 0 if not at all.
    pub(crate) fn visible(&self, branch: &BranchId) -> u64 {
        match self.logs.get(branch) {
            Some(log) if log.shown() => {
                let lags =
                    !log.at_cut() && self.branches(branch.log).any(|b| b.remains().is_some());
                if lags { 0 } else { log.seq() }
            }
            Some(log) if !self.branches(branch.log).any(Branch::at_cut) => {
                log.remains().unwrap_or(0)
            }
            _ => 0,
        }
    }

    /// Whether a log is here as it was when a revocation ended it.
    pub(crate) fn at_cut(&self, log: LogId) -> bool {
        self.branches(log).any(Branch::at_cut)
    }

    /// Last proven sequence number of a log.
    pub(crate) fn seq(&self, log: LogId) -> u64 {
        self.shown(log).map(Branch::seq).max().unwrap_or(0)
    }

    /// A number that no branch of this log has.
    pub(crate) fn fresh_branch(&self, log: LogId) -> BranchId {
        let last = self.branches(log).last().map(|branch| branch.id.number);
        BranchId { log, number: last.map_or(0, |last| last.saturating_add(1)) }
    }

    /// Numbers are not used again: a slot that could not be read may have been left behind under one.
    pub(crate) fn keep_number(&mut self, gone: BranchId) -> Option<Write> {
        if self.branches(gone.log).any(|branch| branch.id > gone) {
            return None;
        }
        let next = BranchId { number: gone.number.saturating_add(1), ..gone };
        let log = Branch::new(next);
        let write = log.write();
        self.logs.insert(next, log);
        Some(write)
    }

    /// The branch in which a log is being fetched whole.
    pub(crate) fn fetching(&self, log: LogId) -> Option<&Branch> {
        self.branches(log).find(|branch| branch.fetching())
    }

    /// Where a header stands to what is here.
    pub(crate) fn stands(&self, header: &VerifiedHeader) -> Result<Stands, StoreError> {
        let claim = header.header();
        let mut stands = None;
        for branch in self.shown(claim.log) {
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
        Some(fetching.unwrap_or_else(|| self.fresh_branch(header.log)))
    }

    /// Two histories of a log were seen. Nothing is taken away.
    pub(crate) fn mark_forked(&mut self, log: LogId) {
        let first = self.logs.range_mut(all(log)).map(|(_, branch)| branch).next();
        if let Some(branch) = first.filter(|branch| !branch.forked) {
            branch.forked = true;
            let write = branch.write();
            self.persist(vec![write]);
        }
    }

    /// What was offered of a log proved false. After the second time, or when nobody could know whether
    /// it goes on from what is here, the log is asked for whole.
    pub(crate) fn doubt(&mut self, id: BranchId, linked: bool) {
        let count = self.proof_failures.entry(id.log).or_default();
        *count += 1;
        let whole = !linked || *count > 1;
        if whole && self.fetching(id.log).is_none() && self.logs.len() < MAX_LOGS {
            let branch = self.fresh_branch(id.log);
            self.logs.insert(branch, Branch::new(branch));
        }
    }

    /// A peer says that a header of an own log has a wrong live root. Once each, that is looked into.
    pub(crate) fn root_disputed(&mut self, by: DeviceId, log: LogId) {
        if self.root_disputes.len() < MAX_LOGS && self.root_disputes.insert((by, log)) {
            let own: Vec<BranchId> = self.shown(log).map(|branch| branch.id).collect();
            self.suspects.extend(own);
        }
    }

    /// A header's live root is wrong over a proven state: the branch stands still, nobody is blamed.
    /// Unless it is ours that is wrong, which a look at what is stored will tell.
    pub(crate) fn freeze(&mut self, branch: Branch, header: Hash) {
        let id = branch.id;
        if !self.logs.contains_key(&id) && !self.make_room(id.log) {
            return;
        }
        let log = self.logs.entry(id).or_insert(branch);
        if log.frozen != Some(header) {
            log.frozen = Some(header);
            let write = log.write();
            self.persist(vec![write]);
            self.suspects.insert(id);
        }
    }

    /// A branch was fetched whole and proven. If it is the only one it is shown; else it is compared
    /// with the others first, once what was stored with it can be read.
    pub(crate) fn place_whole(&mut self, id: BranchId) {
        let alone = self.shown(id.log).all(|other| other.id == id);
        if let Some(branch) = self.logs.get_mut(&id) {
            branch.standing = if alone { Standing::Shown } else { Standing::Unjudged };
        }
    }

    /// Compares a branch that was fetched whole with those shown, and keeps those of them that are no
    /// part of another.
    pub(crate) fn compare(&mut self, id: BranchId) -> Result<(), StoreError> {
        let Some(new) = self.logs.get(&id).cloned() else { return Ok(()) };
        let mut drop = Vec::new();
        let mut superfluous = false;
        for old in self.shown(id.log) {
            if self.is_part(old, &new)? {
                drop.push(old.id);
            } else if self.is_part(&new, old)? {
                superfluous = true;
            }
        }
        if superfluous {
            drop = vec![id];
        }
        let mut writes = Vec::new();
        if let Some(new) = self.logs.get_mut(&id) {
            new.standing = Standing::Shown;
            new.forked |= drop.is_empty();
            writes.push(new.write());
        }
        for id in drop {
            if let Some(branch) = self.logs.get_mut(&id) {
                branch.give_up();
                writes.push(branch.write());
            }
        }
        self.persist(writes);
        self.limit_branches(id.log);
        self.resolve_aside(id.log);
        self.resolve_cut(id.log);
        self.note_moved(id);
        self.out.push_back(Output::Advanced);
        Ok(())
    }

    /// Whether `new` is `old` with everything of `new` after `old`'s head put over it.
    fn is_part(&self, old: &Branch, new: &Branch) -> Result<bool, StoreError> {
        if old.head_hash() == new.head_hash() {
            return Ok(true);
        }
        if plant::is(Plant::LongerReplaces) {
            return Ok(old.seq() < new.seq());
        }
        if old.seq() >= new.seq() {
            return Ok(false);
        }
        let (mut kept, mut base) = (new.totals.clone(), old.totals.clone());
        let mut after = old.seq();
        loop {
            let step =
                self.store.slots_after(&new.id, after, new.seq(), CHORE_SLOTS, usize::MAX)?;
            let Some(last) = step.last() else { break };
            after = last.seq;
            for raw in &step {
                if !new.is_latest(raw, new.seq(), &self.store)? {
                    continue;
                }
                let slot = raw.open()?;
                if slot.hlc <= old.stamp() {
                    // Stamps rise within a history: this was not written after `old`'s head.
                    return Ok(false);
                }
                kept.remove(&slot);
                if let Some(older) = old.live(&slot.op.key, &self.store)? {
                    base.remove(&older);
                }
            }
        }
        Ok(kept == base)
    }

    /// Keeps as many branches as are allowed: those whose heads have the least hashes, so that every
    /// replica with the same ones keeps the same. Only an author that forks again and again gets here.
    fn limit_branches(&mut self, log: LogId) {
        let mut heads: Vec<(Hash, BranchId)> =
            self.shown(log).map(|branch| (branch.head_hash(), branch.id)).collect();
        heads.sort_unstable();
        for (_, id) in heads.into_iter().skip(MAX_BRANCHES) {
            if let Some(branch) = self.logs.get_mut(&id) {
                branch.give_up();
                let write = branch.write();
                self.persist(vec![write]);
            }
        }
    }

    /// Whether another history of a log, with this head, would be kept.
    pub(crate) fn has_room(&self, log: LogId, head: &Hash) -> bool {
        let less = self.shown(log).filter(|branch| branch.head_hash() < *head).count();
        less < MAX_BRANCHES
    }

    /// What is stored of a branch is not what was signed. It is shown and offered to nobody from now
    /// on, and fetched afresh; until then readers are told so.
    pub(crate) fn set_aside(&mut self, id: BranchId) {
        let Some(branch) = self.logs.get_mut(&id).filter(|branch| branch.shown()) else {
            return;
        };
        branch.standing = Standing::Aside;
        branch.was_whole = self.caught_up || self.mending;
        self.mending = branch.was_whole;
        branch.staged = None;
        branch.chore = Chore::None;
        let write = branch.write();
        self.counters.set_aside += 1;
        self.caught_up = false;
        self.persist(vec![write, Write::CaughtUp(false)]);
        if id.log == self.own {
            self.rotate();
        }
        if self.roster.members().nth(1).is_none() {
            // Nobody else can have it.
            self.whole();
        }
        self.out.push_back(Output::Advanced);
    }

    /// All that some peer has arrived while something is set aside: what it does not have of own logs
    /// nobody else can be waited for.
    pub(crate) fn compared(&mut self) {
        if self.mending {
            let me = self.me;
            let own: BTreeSet<LogId> = self.logs.keys().map(|id| id.log).collect();
            own.into_iter().filter(|log| log.author == me).for_each(|log| self.salvage(log));
            self.look_mended();
        }
    }

    /// A replica that was whole is so again once nothing is set aside any more.
    pub(crate) fn look_mended(&mut self) {
        let aside = |log: &Branch| log.standing == Standing::Aside && log.chore != Chore::Drop;
        if self.mending && !self.logs.values().any(aside) {
            self.whole();
        }
    }

    /// This replica has, or has again, all that a whole peer has.
    pub(crate) fn whole(&mut self) {
        if self.caught_up {
            return;
        }
        let own: Vec<LogId> = self.logs.keys().map(|id| id.log).collect();
        let me = self.me;
        for log in own.into_iter().filter(|log| log.author == me) {
            self.salvage(log);
        }
        self.caught_up = true;
        self.mending = false;
        self.persist(vec![Write::CaughtUp(true)]);
        self.out.push_back(Output::Advanced);
    }

    /// A log was fetched afresh, or moved on since: lets go of what was set aside of it, or tries again to
    /// mend it.
    pub(crate) fn resolve_aside(&mut self, log: LogId) {
        if self.branches(log).all(|branch| branch.standing != Standing::Aside) {
            return;
        }
        let seq = self.seq(log);
        let mut writes = Vec::new();
        for (_, branch) in self.logs.range_mut(all(log)) {
            if branch.standing != Standing::Aside || branch.chore == Chore::Drop {
                continue;
            }
            if branch.seq() <= seq {
                branch.give_up();
            } else if branch.chore == Chore::None {
                branch.chore = Chore::Mend;
            }
            writes.push(branch.write());
        }
        self.persist(writes);
        self.look_mended();
    }

    /// Nobody has a branch that is set aside as far as it went: what lies beyond is put on top of what
    /// was fetched afresh. Its own header proves it, or it is damaged there as well.
    pub(crate) fn mend(&mut self, id: BranchId) -> Result<(), StoreError> {
        let tip = self.shown(id.log).max_by_key(|branch| branch.seq()).cloned();
        let (Some(mut aside), Some(mut tip)) = (self.logs.get(&id).cloned(), tip) else {
            return Ok(());
        };
        if tip.staged.is_some() || tip.chore != Chore::None {
            return Ok(());
        }
        let beyond = self.store.slots_after(&id, tip.seq(), aside.seq(), usize::MAX, usize::MAX)?;
        let mut slots = Vec::with_capacity(beyond.len());
        for raw in beyond {
            if raw.open().is_ok() && aside.is_latest(&raw, aside.seq(), &self.store)? {
                slots.push((raw.open()?, raw.op));
            }
        }
        let change = tip.stage(&slots, &self.store)?;
        let proven = aside.head.clone().filter(|head| proves(head.header(), &change.totals));
        let mut writes = Vec::new();
        match proven {
            Some(head) if aside.seq() > tip.seq() => {
                let (branch, seq) = (tip.id, aside.seq());
                writes.extend(change.writes);
                writes.push(Write::Header { branch, seq, bytes: head.bytes().clone() });
                tip.chore = Chore::Supersede((tip.seq(), seq));
                tip.totals = change.totals;
                tip.scrubbed = None;
                tip.head = Some(head);
                aside.give_up();
            }
            Some(_) => aside.give_up(),
            None if id.log.author == self.me => aside.chore = Chore::Salvage(tip.seq()),
            // Kept, in case somebody who is away has it.
            None => aside.chore = Chore::None,
        }
        for log in [tip, aside] {
            writes.push(log.write());
            self.logs.insert(log.id, log);
        }
        self.persist(writes);
        self.look_mended();
        self.note_moved(id);
        self.out.push_back(Output::Advanced);
        Ok(())
    }

    /// What nobody else has of an own log that is set aside is written again in the log that is
    /// written to now, slot by slot as tidying goes on.
    fn salvage(&mut self, log: LogId) {
        let seq = self.seq(log);
        for (_, branch) in self.logs.range_mut(all(log)) {
            if branch.standing == Standing::Aside && branch.chore == Chore::None {
                branch.chore = Chore::Salvage(seq);
                let write = branch.write();
                self.out.push_back(Output::Persist(vec![write]));
            }
        }
    }
}
