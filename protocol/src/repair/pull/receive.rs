//! One log arriving: accepted or passed over, set aside slot by slot, proven by its header or dropped.

use super::super::progress::LOG_BYTES;
use super::receiving::{Comparing, Receiving};
use super::{PeerCooldown, Pull};
use crate::codec::Bytes;
use crate::id::{BranchId, Hash8};
use crate::io::{Blame, Fault};
use crate::limits::{CHUNK_SLOTS, PEER_COOLDOWN_MS, STAGE_SLACK};
use crate::log::branch::{Branch, BranchState, Staged, proves};
use crate::log::commit::{SignedHeader, VerifiedHeader};
use crate::log::verify::admissible_slot;
use crate::message::{Plan, SlotRecord, Start};
use crate::model::op::{Op, Slot};
use crate::model::slot::RawSlot;
use crate::replica::Replica;
use crate::replica::comparison::Stands;
use crate::store::{Store, StoreError, Write};
use crate::time::Now;

impl Pull {
    /// A log begins: decides whether to take it; otherwise its slots are passed over.
    pub(super) fn start_log<S: Store>(
        &mut self,
        start: &Start,
        now: Now,
        cooldown: &PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        let Some(header) = self.verified(&start.header, replica)? else {
            self.receiving = None;
            return Ok(());
        };
        let claim = header.header();
        let planned = |plan: &Plan| plan.logs.iter().any(|p| p.log == start.log);
        if claim.log != start.log || !self.plan.as_ref().is_some_and(planned) {
            return Err(self.nonsense("starts a log that it did not plan"));
        }
        self.reserved.remove(&start.log);
        let bound = claim.live_bytes.saturating_add(STAGE_SLACK);
        if let Some(receiving) = &mut self.receiving
            && receiving.branch.log == start.log
            && receiving.upto == start.from
            && receiving.grant == claim.grant
        {
            // It has grown while it was sent.
            receiving.bound = bound;
            return Ok(());
        }
        self.stop_receiving(replica);
        let cold = cooldown.get(&(self.peer, start.log)).is_some_and(|t| *t > now.mono);
        if cold || is_superfluous(&header, replica)? {
            return Ok(());
        }
        if replica.writer.log() == start.log {
            replica.own_head_elsewhere();
        }
        let Some(id) = self.target(start, &header, replica) else {
            return Ok(());
        };
        self.receiving = self.accept(id, start, &header, now, replica);
        Ok(())
    }

    /// Takes a branch for this session, unless another has it or what is here does not fit.
    fn accept<S: Store>(
        &mut self,
        id: BranchId,
        start: &Start,
        header: &VerifiedHeader,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Option<Receiving> {
        let claim = header.header();
        if replica.receiving.get(&id).is_some_and(|(_, until)| now.mono < *until) {
            return None;
        }
        if !replica.logs.contains(&id) {
            if !replica.log_counts(start.log) {
                return None;
            }
            let branch = replica.new_branch(id);
            replica.logs.put(branch);
            replica.limit_unproven(start.log.author);
        }
        let branch = replica.logs.get(&id)?;
        if branch.closed_to_repair() {
            return None;
        }
        if branch.staged.as_ref().is_some_and(|staged| staged.upto > claim.last_seq) {
            // What is staged goes beyond what this peer can prove, and nobody may ever prove it: what
            // can be proven comes first.
            replica.drop_staged(id);
            self.misunderstood = true;
            return None;
        }
        if branch.head.as_ref().is_some_and(|h| h.header().grant != claim.grant) {
            // One log, one grant: what is here was not held against this one.
            replica.proof_failed(id);
            self.misunderstood = true;
            return None;
        }
        let gapless = branch.staged.as_ref().filter(|staged| !staged.compared);
        let cursor = match &branch.staged {
            // Whatever is here is compared, or sent over.
            _ if start.compare && branch.fetching() => 0,
            Some(_) => gapless.map_or(0, |staged| staged.upto),
            None => branch.seq(),
        };
        if start.from != cursor || start.compare && !branch.fetching() {
            self.misunderstood = true;
            return None;
        }
        let linked = start.linked || branch.head.is_none();
        let resumed = branch.staged.is_some() && !start.compare;
        self.hold.begun();
        replica.receiving.insert(id, (self.session, self.hold.until()));
        let bound = claim.live_bytes.saturating_add(STAGE_SLACK);
        let comparing = start.compare.then(Comparing::default);
        let (upto, grant) = (cursor, claim.grant);
        Some(Receiving { branch: id, upto, bound, linked, resumed, grant, comparing })
    }

    pub(super) fn stop_receiving<S>(&mut self, replica: &mut Replica<S>) {
        if let Some(receiving) = self.receiving.take() {
            self.release(&receiving.branch, replica);
        }
    }

    fn release<S>(&self, id: &BranchId, replica: &mut Replica<S>) {
        if replica.receiving.get(id).is_some_and(|(by, _)| *by == self.session) {
            replica.receiving.remove(id);
        }
    }

    /// The branch that a log's slots are for: the one they go on from, or one for the whole log.
    fn target<S: Store>(
        &self,
        start: &Start,
        header: &VerifiedHeader,
        replica: &Replica<S>,
    ) -> Option<BranchId> {
        if start.base != Hash8::default() {
            let mut shown = replica.logs.shown(start.log);
            let base = shown.find(|branch| self.key.short(&branch.head_hash()) == start.base)?;
            return (header.header().last_seq > base.seq()).then_some(base.id);
        }
        if !replica.has_room(start.log, &header.hash()) {
            return None;
        }
        let fetching = replica.logs.fetching(start.log).map(|branch| branch.id);
        Some(fetching.unwrap_or_else(|| replica.logs.fresh_id(start.log)))
    }

    /// A header if it is genuine and admissible here; what a newer version or roster explains is nobody's
    /// fault.
    fn verified<S: Store>(
        &self,
        bytes: &Bytes,
        replica: &mut Replica<S>,
    ) -> Result<Option<VerifiedHeader>, Fault> {
        match SignedHeader::decode(bytes).and_then(|h| h.verify(&replica.roster)) {
            Ok(header) => Ok(Some(header)),
            Err(bad) if bad.blame(&self.peer) == Blame::Sender => {
                Err(Fault::sender(self.peer, bad))
            }
            Err(bad) => {
                replica.note_later_commit(&bad, self.peer);
                Ok(None)
            }
        }
    }

    pub(super) fn slots<S: Store>(
        &mut self,
        records: Vec<SlotRecord>,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        if records.is_empty() || records.len() > CHUNK_SLOTS {
            return Err(self.nonsense("chunk of no or too many slots"));
        }
        replica.fx.counters.slots_received += records.len() as u64;
        let Some(mut receiving) = self.receiving.take() else {
            // Of a log that is not wanted: no progress.
            replica.fx.counters.slots_in_vain += records.len() as u64;
            return Ok(());
        };
        self.received += records.len() as u64;
        let id = receiving.branch;
        let mine = replica.receiving.get(&id).is_some_and(|(by, _)| *by == self.session);
        // Another session has taken it over, or its author was revoked in the middle of it.
        let Some(right) = replica.roster.right(&receiving.grant).filter(|_| mine) else {
            return Ok(());
        };
        let bytes: u64 = records.iter().map(|record| record.op.len() as u64 + 32).sum();
        let mut slots = Vec::with_capacity(records.len());
        for SlotRecord { seq, hlc, op: bytes } in records {
            let op = match Op::decode(&id.log, &bytes) {
                Ok(op) => op,
                Err(bad) if bad.by_all() => return Err(Fault::sender(self.peer, bad)),
                Err(bad) => {
                    // Of a later version: this log is passed over, the others are not held up.
                    replica.note_later_commit(&bad.into(), self.peer);
                    self.release(&id, replica);
                    return Ok(());
                }
            };
            if !receiving.expects(seq) {
                return Err(self.nonsense("slots do not ascend, or were not asked for"));
            }
            let slot = Slot { log: id.log, seq, hlc, op, size: bytes.len() };
            admissible_slot(right, &slot).map_err(|bad| Fault::sender(self.peer, bad))?;
            slots.push((slot, bytes));
        }
        self.progress.bytes(now.mono, bytes);
        self.hold_on(id, now, bytes, replica);
        self.set_aside(receiving, &[], slots, now, replica)
    }

    /// Something of a log has come that stands for this many bytes of slots: it is this session's for longer.
    pub(super) fn hold_on<S>(
        &mut self,
        id: BranchId,
        now: Now,
        bytes: u64,
        replica: &mut Replica<S>,
    ) {
        self.hold.bytes(now.mono, bytes);
        replica.receiving.insert(id, (self.session, self.hold.until()));
    }

    /// Changes what is set aside of the log that arrives, unless that cannot be gone on with.
    pub(super) fn set_aside<S: Store>(
        &mut self,
        receiving: Receiving,
        drop: &[RawSlot],
        mut slots: Vec<(Slot, Bytes)>,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        let id = receiving.branch;
        let Some(branch) = replica.logs.get(&id) else {
            return Ok(());
        };
        if slots.iter().any(|(slot, _)| slot.hlc < branch.stamp()) {
            // Stamps never fall within a history, whatever links its headers: the live path stops there, so
            // repair must as well. It is another history, even if it should have everything of ours replaced.
            self.release(&id, replica);
            replica.proof_failed(id);
            self.misunderstood = true;
            return Ok(());
        }
        // Gossip may have moved the head over some of these since the session began.
        let head = branch.seq();
        slots.retain(|(slot, _)| slot.seq > head);
        if branch.closed_to_repair() {
            self.release(&id, replica);
            return Ok(());
        }
        if slots.is_empty() && drop.is_empty() {
            self.receiving = Some(receiving);
            return Ok(());
        }
        let staging = branch.restage(drop, &slots, &replica.store)?;
        let too_much = staging.totals.bytes() > receiving.bound;
        let (upto, compared) = (receiving.upto, receiving.comparing.is_some());
        let mut writes = staging.writes;
        writes.extend(replica.logs.record(id, |branch| {
            branch.staged = Some(Staged { totals: staging.totals, upto, compared });
            branch.staged_at = now.mono;
            if too_much {
                branch.drop_staged();
            }
        }));
        replica.fx.persist(writes);
        if too_much {
            self.release(&id, replica);
            return Err(Fault::nobody(self.peer, "sends more than the log's signed size"));
        }
        self.receiving = Some(receiving);
        Ok(())
    }

    /// A log is all there: proves it and moves its head, or drops the claim.
    pub(super) fn end_log<S: Store>(
        &mut self,
        end: &Bytes,
        now: Now,
        cooldown: &mut PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        let Some(receiving) = self.receiving.take() else {
            return Ok(());
        };
        let id = receiving.branch;
        self.release(&id, replica);
        let Some(header) = self.verified(end, replica)? else {
            return Ok(());
        };
        let claim = header.header();
        if claim.log != id.log || claim.last_seq < receiving.upto {
            return Err(self.nonsense("header does not cover the slots sent"));
        }
        let Some(branch) = replica.logs.get(&id) else {
            return Ok(());
        };
        if branch.closed_to_repair() || claim.grant != receiving.grant {
            return Ok(());
        }
        if claim.last_seq <= branch.seq() {
            // Gossip was faster: what is set aside is here already.
            if branch.staged.as_ref().is_some_and(|staged| staged.upto <= branch.seq()) {
                let writes = replica.logs.record(id, |branch| branch.staged = None);
                replica.fx.persist(writes);
            }
            self.progress.bytes(now.mono, LOG_BYTES);
            return Ok(());
        }
        let totals = branch.staged.as_ref().map_or(&branch.totals, |staged| &staged.totals).clone();
        if proves(&header, &totals) {
            self.progress.bytes(now.mono, LOG_BYTES);
            replica.observe(&header, now);
            self.flip(id, header, totals, replica);
            return Ok(());
        }
        replica.drop_staged(id);
        if receiving.resumed {
            self.misunderstood = true;
            return Ok(());
        }
        replica.proof_failed(id);
        if !receiving.linked {
            // Nobody knew whether this goes on from what is here. It does not: it is asked for whole.
            self.misunderstood = true;
            return Ok(());
        }
        cooldown.retain(|_, until| *until > now.mono);
        cooldown.insert((self.peer, id.log), now.mono + PEER_COOLDOWN_MS);
        let reason = format!("what it sent of log {:?} is not what was signed", id.log);
        Err(Fault::nobody(self.peer, reason))
    }

    fn flip<S: Store>(
        &mut self,
        id: BranchId,
        header: VerifiedHeader,
        totals: crate::log::live_root::Totals,
        replica: &mut Replica<S>,
    ) {
        let extent = replica.extent(id.log);
        let whole = replica.logs.get(&id).is_some_and(|branch| branch.head.is_none());
        let mut writes: Vec<Write> = Vec::new();
        writes.extend(replica.logs.edit(id, |branch| {
            branch.extent = extent;
            branch.flip(header, totals)
        }));
        if whole {
            replica.place_whole(id);
        }
        writes.extend(replica.logs.record(id, |branch| {
            // An own log that others gave back is not written on: somewhere there may be more of it.
            if branch.state == BranchState::Live && branch.id.log == replica.writer.log() && whole {
                branch.state = BranchState::Closed;
            }
        }));
        replica.fx.counters.logs_repaired += 1;
        replica.after_head_moved(id, writes);
        if whole {
            replica.make_room(id.log.author);
        }
        self.learned = true;
    }
}

/// Whether a log with this header is here already, cannot be taken in, or must not.
fn is_superfluous<S: Store>(
    header: &VerifiedHeader,
    replica: &Replica<S>,
) -> Result<bool, StoreError> {
    let (log, hash) = (header.header().log, header.hash());
    let unjudged = |b: &Branch| b.state == BranchState::Unjudged && b.head_hash() == hash;
    Ok(replica.logs.branches(log).any(unjudged)
        || replica.refuses(header)
        || replica.logs.at_cut(log)
        || !replica.log_counts(log)
        || replica.stands(header)? == Stands::Here)
}
