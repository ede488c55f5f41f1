//! What is stored is not what was signed: set aside, fetched afresh, mended, and what nobody else has of an
//! own log written again.

use super::Replica;
use crate::codec::{self, Bytes};
use crate::id::{BranchId, LogId, Version};
use crate::io::Fault;
use crate::limits::{
    CHORE_BYTES, CHORE_SLOTS, GROUP_BYTES, GROUP_OPS, MAX_CTX, MAX_LOGS_PER_AUTHOR,
};
use crate::log::branch::{Branch, BranchState, Chore, Staged, proves};
use crate::model::op::{Op, Slot};
use crate::model::view::{View, carried_on};
use crate::plant::{self, Plant};
use crate::store::{RawSlot, Store, StoreError, Write};
use crate::time::{Hlc, Now};

impl<S: Store> Replica<S> {
    /// What is stored of a branch is not what was signed. It is shown and offered to nobody from now
    /// on, and fetched afresh; until then readers are told so.
    pub(crate) fn set_aside(&mut self, id: BranchId) {
        let Some(branch) = self.logs.get(&id) else { return };
        if !branch.shown() {
            self.survive_hidden(id);
            return;
        }
        let was_complete = self.complete || self.mending;
        let mut writes = self.logs.record(id, |branch| {
            branch.state = BranchState::Quarantined;
            branch.was_complete = was_complete;
            branch.staged = None;
            branch.chore = Chore::None;
        });
        self.mending = was_complete;
        self.fx.counters.set_aside += 1;
        self.complete = false;
        writes.push(Write::CaughtUp(false));
        self.fx.persist(writes);
        if id.log == self.writer.log() {
            self.rotate();
        }
        if self.roster.members().nth(1).is_none() {
            // Nobody else can have it.
            self.become_complete();
        }
        self.say_advanced();
    }

    /// A slot that nobody is shown is damaged: what was being done with it is given up, so that it is not
    /// tried again and again.
    fn survive_hidden(&mut self, id: BranchId) {
        self.comparisons.remove(&id);
        self.receiving.remove(&id);
        let writes = self.logs.record(id, |branch| match branch.state {
            BranchState::Fetching | BranchState::Live | BranchState::Closed => {
                branch.drop_staged();
            }
            BranchState::Unjudged => branch.give_up(),
            BranchState::Quarantined => branch.chore = Chore::None,
            BranchState::Dropping => {}
        });
        self.fx.persist(writes);
        self.look_mended();
    }

    /// All that some peer has arrived while something is set aside: what it does not have of own logs
    /// nobody else can be waited for.
    pub(crate) fn compared_with_peer(&mut self) {
        if self.mending {
            self.salvage_own();
            self.look_mended();
        }
    }

    /// A replica that was complete is so again once nothing is set aside any more.
    pub(crate) fn look_mended(&mut self) {
        if self.mending && !self.logs.has_quarantined() {
            self.become_complete();
        }
    }

    /// This replica has, or has again, all that a complete peer has.
    pub(crate) fn become_complete(&mut self) {
        if self.complete {
            return;
        }
        self.salvage_own();
        self.complete = true;
        self.mending = false;
        self.fx.persist(vec![Write::CaughtUp(true)]);
        self.say_advanced();
    }

    /// A log was fetched afresh, or moved on since: lets go of what was set aside of it, or tries again to
    /// mend it.
    pub(crate) fn resolve_aside(&mut self, log: LogId) {
        let aside: Vec<BranchId> =
            self.logs.branches(log).filter(|b| b.is_aside()).map(|b| b.id).collect();
        if aside.is_empty() {
            return;
        }
        let seq = self.logs.seq(log);
        for id in aside {
            let writes = self.logs.record(id, |branch| {
                if branch.seq() <= seq {
                    branch.give_up();
                } else if branch.chore == Chore::None && branch.quarantined() {
                    branch.chore = Chore::Mend(seq);
                }
            });
            self.fx.persist(writes);
        }
        self.look_mended();
    }

    /// Nobody has a branch that is set aside as far as it went: what lies beyond is put on top of what
    /// was fetched afresh, a step at a time. Its own header proves it, or it is damaged there as well.
    pub(crate) fn mend(&mut self, id: BranchId, after: u64) -> Result<(), StoreError> {
        let tip = self.logs.shown(id.log).max_by_key(|branch| branch.seq()).cloned();
        let (Some(aside), Some(tip)) = (self.logs.get(&id).cloned(), tip) else {
            let writes = self.logs.record(id, |branch| branch.chore = Chore::None);
            self.fx.persist(writes);
            return Ok(());
        };
        if tip.chore != Chore::None || self.receiving.contains_key(&tip.id) {
            return Ok(());
        }
        let began = tip.staged.as_ref().is_some_and(|staged| staged.upto == after);
        if tip.staged.is_some() && !began {
            // Somebody else's: it is in the way.
            self.drop_staged(tip.id);
            return Ok(());
        }
        let from = if began { after } else { tip.seq() };
        let step = self.store.slots_after(&id, from, aside.seq(), CHORE_SLOTS, CHORE_BYTES)?;
        let Some(last) = step.last().map(|raw| raw.seq) else {
            self.end_mending(&aside, tip);
            return Ok(());
        };
        let slots = self.readable(&aside, step)?;
        let staging = tip.stage(&slots, &self.store)?;
        let mut writes = staging.writes;
        writes.extend(self.logs.record(tip.id, |tip| {
            tip.staged = Some(Staged { totals: staging.totals, upto: last, compared: false });
        }));
        writes.extend(self.logs.record(id, |branch| branch.chore = Chore::Mend(last)));
        self.fx.persist(writes);
        Ok(())
    }

    fn readable(
        &self,
        branch: &Branch,
        step: Vec<RawSlot>,
    ) -> Result<Vec<(Slot, Bytes)>, StoreError> {
        let mut slots = Vec::with_capacity(step.len());
        for raw in step {
            if raw.open().is_ok() && branch.is_latest(&raw, branch.seq(), &self.store)? {
                slots.push((raw.open()?, raw.op));
            }
        }
        Ok(slots)
    }

    fn end_mending(&mut self, aside: &Branch, tip: Branch) {
        let totals = tip.staged.as_ref().map_or(&tip.totals, |staged| &staged.totals).clone();
        let proven = aside.head.clone().filter(|head| proves(head, &totals));
        let own = aside.id.log.author == self.me;
        let mut writes = Vec::new();
        match proven {
            Some(head) if aside.seq() > tip.seq() => {
                let id = tip.id;
                writes.extend(self.logs.edit(id, |tip| tip.flip(head, totals)));
                writes.extend(self.logs.record(id, |_| ()));
                writes.extend(self.logs.record(aside.id, Branch::give_up));
            }
            Some(_) => writes.extend(self.logs.record(aside.id, Branch::give_up)),
            None => {
                if tip.staged.is_some() {
                    writes.extend(self.logs.record(tip.id, Branch::drop_staged));
                }
                // Others' are kept, in case somebody who is away has them.
                let chore = if own { Chore::Salvage(tip.seq()) } else { Chore::None };
                writes.extend(self.logs.record(aside.id, |branch| branch.chore = chore));
            }
        }
        self.after_head_moved(tip.id, writes);
        self.look_mended();
    }

    /// What nobody else has of own logs that are set aside is written again in the log that is written to
    /// now, slot by slot as tidying goes on.
    fn salvage_own(&mut self) {
        let aside = |b: &&Branch| b.quarantined() && b.chore == Chore::None && !b.was_salvaged();
        let own: Vec<BranchId> = self.logs.of_author(self.me).filter(aside).map(|b| b.id).collect();
        for id in own {
            let seq = self.logs.seq(id.log);
            let writes = self.logs.record(id, |branch| branch.chore = Chore::Salvage(seq));
            self.fx.persist(writes);
        }
    }

    /// When a device has as many logs as count, the oldest is written again in the newest, so that none of
    /// its writes is lost when the next one pushes it out.
    pub(crate) fn consolidate(&mut self) {
        let epochs = self.logs.epochs(self.me);
        if epochs.len() < MAX_LOGS_PER_AUTHOR || !self.complete || self.writer.has_queued() {
            return;
        }
        let surplus = epochs.len() + 1 - MAX_LOGS_PER_AUTHOR;
        let old = epochs.iter().filter(|log| **log != self.writer.log()).take(surplus);
        let old: Vec<LogId> =
            old.filter(|_| self.writer.may_write(&self.roster)).copied().collect();
        let counted: Vec<LogId> = epochs.iter().rev().take(MAX_LOGS_PER_AUTHOR).copied().collect();
        for log in old {
            let ids: Vec<(BranchId, bool)> = self
                .logs
                .branches(log)
                .filter(|b| b.shown() && b.chore == Chore::None)
                .map(|b| (b.id, b.was_salvaged()))
                .collect();
            for (id, written) in ids {
                let writes = match written {
                    false => self.logs.record(id, |branch| branch.chore = Chore::Salvage(0)),
                    true if counted.contains(&log) => continue,
                    true => self.logs.record(id, Branch::give_up),
                };
                self.fx.persist(writes);
            }
        }
    }

    /// Writes a few slots of an own branch again, each as it was: what another write here has named or
    /// replaced since is left out.
    pub(crate) fn salvage_step(&mut self, now: Now, id: BranchId, after: u64) -> Result<(), Fault> {
        let Some(from) = self.logs.get(&id).cloned() else { return Ok(()) };
        let step = self.store.slots_after(&id, after, from.seq(), GROUP_OPS, GROUP_BYTES)?;
        let (writer, mut parts) = self.writer_and_parts();
        writer.prepare_log(now, &mut parts);
        let own = writer.branch(parts.logs);
        let hlc = writer.stamp(&own, now);
        let mut slots: Vec<(Slot, Bytes)> = Vec::with_capacity(step.len());
        let mut lost = false;
        for raw in &step {
            let Ok(slot) = raw.open() else {
                lost = true;
                continue;
            };
            if let Some(op) = self.written_again(&from, raw, &slot, own.id.log)? {
                let bytes = Bytes(codec::encode(&op));
                let seq = own.seq() + slots.len() as u64 + 1;
                slots.push((Slot { log: own.id.log, seq, hlc, op, size: bytes.len() }, bytes));
            }
        }
        let signed = slots.is_empty() || self.sign(own, hlc, slots)?;
        let (last, more) = (step.last().map(|raw| raw.seq), step.last().is_some());
        let writes = self.logs.record(id, |branch| {
            branch.lost |= lost;
            match last {
                Some(last) if signed => branch.chore = Chore::Salvage(last),
                // Over quota: kept as it is, for nothing that was acknowledged is dropped.
                Some(_) => branch.park(),
                // What is shown stays until it counts no more anywhere.
                None if branch.lost || branch.shown() => branch.park(),
                None => branch.give_up(),
            }
        });
        self.fx.persist(writes);
        if !more {
            self.say_advanced();
        }
        self.look_mended();
        Ok(())
    }

    /// Signs, keeps and spreads slots as the own log's next commit; whether they are within the quota.
    fn sign(
        &mut self,
        own: Branch,
        hlc: Hlc,
        slots: Vec<(Slot, Bytes)>,
    ) -> Result<bool, StoreError> {
        let (writer, mut parts) = self.writer_and_parts();
        let signed = writer.sign(own, hlc, slots, &mut parts)?;
        Ok(signed.map(|signed| self.keep_signed(signed)).is_some())
    }

    /// The operation that says again what a slot says, unless that is not needed or not allowed any more.
    fn written_again(
        &self,
        from: &Branch,
        raw: &RawSlot,
        slot: &Slot,
        own: LogId,
    ) -> Result<Option<Op>, StoreError> {
        if !from.is_latest(raw, from.seq(), &self.store)? {
            return Ok(None);
        }
        let prefix =
            self.writer.right(&self.roster).map(|right| right.prefix.clone()).unwrap_or_default();
        if !slot.op.cell.key.starts_with(&prefix) {
            // What its grant allows no more, others would not take.
            return Ok(None);
        }
        let heads = self.logs.heads();
        let stored = self.store.slots(&slot.op.cell.index_key())?;
        let others: Vec<RawSlot> =
            stored.into_iter().filter(|other| other.branch != from.id).collect();
        let view = View::merge(&others, |branch| heads.of(branch))?;
        let version = slot.version();
        let newer = view.seen().any(|seen| {
            let mine = seen.slot.log.author == self.me;
            seen.version == version
                || seen.slot.op.ctx.contains(&version)
                || mine && seen.slot.hlc > slot.hlc
        });
        if newer || plant::is(Plant::NoSalvage) {
            return Ok(None);
        }
        // Should the first one come to light again, this one has seen it.
        let mut ctx: Vec<Version> =
            carried_on(&slot.op.ctx, &[version]).filter(|named| named.log != own).collect();
        if ctx.len() < MAX_CTX {
            ctx.push(version);
        }
        ctx.sort_unstable();
        Ok(Some(Op { ctx, ..slot.op.clone() }))
    }
}
