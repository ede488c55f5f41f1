//! The pulling side: asks, sets aside what arrives, and moves a log's head when it is proven.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::progress::{LOG_BYTES, Progress};
use crate::codec::Bytes;
use crate::io::{Blame, Fault, Output, SessionId};
use crate::limits::{
    CHUNK_SLOTS, DIGEST_ENTRIES, LOG_HOLD_MS, MAX_LOGS, MAX_STATEMENTS, PEER_COOLDOWN_MS,
    SLOW_LINE_BYTES_PER_MS, STAGE_SLACK,
};
use crate::log::branch::{Branch, BranchState, Staged, proves};
use crate::log::commit::{SignedHeader, VerifiedHeader};
use crate::log::header::admissible_slot;
use crate::message::{
    self, Completeness, Digest, Plan, Planned, Repair, SlotRecord, Start, Statements, Then,
};
use crate::model::id::{BranchId, DeviceId, Hash, Hash8, LogId};
use crate::model::op::{Op, Slot};
use crate::repair::digest::{self, DigestKey, Entry};
use crate::replica::Replica;
use crate::replica::histories::Stands;
use crate::store::{Store, StoreError, Write};
use crate::time::Now;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    Roster,
    Streaming,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything is compared.
    Compare,
    /// Only gaps on the live path are closed: says nothing of all else.
    CloseGaps,
}

/// A branch whose slots are arriving.
#[derive(Clone, Debug)]
struct Receiving {
    branch: BranchId,
    upto: u64,
    bound: u64,
    /// The peer knows that its log goes through our head, or sends it whole: what does not prove right
    /// is then the peer's doing.
    linked: bool,
    /// Goes on from what an earlier session set aside, which may be another peer's doing.
    resumed: bool,
    /// The grant under which the log is written; it says which keys may be in it.
    grant: Hash,
}

/// How a session stands after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// Goes on.
    More,
    /// Both sides were equal; says whether the peer is complete.
    Equal(Completeness),
    /// Everything planned was dealt with.
    Done,
}

/// Logs that a peer's false offers are not accepted for, and until when.
pub(crate) type PeerCooldown = BTreeMap<(DeviceId, LogId), u64>;

/// What this side has told a peer on this connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Under which heads are cut short.
    pub(crate) key: DigestKey,
    /// Digests told.
    pub(crate) number: u64,
    /// The last of them; nothing if the peer may not know it.
    pub(crate) digest: digest::Digest,
}

/// One session that pulls from one peer.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) session: SessionId,
    pub(crate) peer: DeviceId,
    pub(crate) purpose: Purpose,
    /// Slots received and planned in all, for showing progress.
    pub(crate) received: u64,
    pub(crate) planned: u64,
    /// Whether a log moved.
    pub(crate) learned: bool,
    /// What had moved here when it began: what it finds equal is that.
    pub(crate) moves: u64,
    progress: Progress,
    phase: Phase,
    plan: Option<Plan>,
    /// Planned logs that have not begun, and until when they are this session's.
    reserved: BTreeSet<LogId>,
    reserved_until: u64,
    receiving: Option<Receiving>,
    outbox: VecDeque<Vec<u8>>,
    ready: bool,
    key: DigestKey,
    number: u64,
    telling: Vec<Entry>,
    told_all: bool,
    /// Others are pulling as well: the plan is looked at before anything is sent.
    beside_others: bool,
    /// The peer answered to a digest that is not ours: it is to be told everything again.
    misunderstood: bool,
}

impl Pull {
    pub(crate) fn start<S: Store>(
        session: SessionId,
        peer: DeviceId,
        now: Now,
        beside_others: bool,
        replica: &mut Replica<S>,
    ) -> Self {
        let hello = message::encode(&Repair::Hello(replica.state_hash()));
        let pull = Self::open(session, peer, now, hello, replica);
        Self { beside_others, ..pull }
    }

    /// A session that asks for certain logs only, at once.
    pub(crate) fn close_gaps<S: Store>(
        session: SessionId,
        peer: DeviceId,
        logs: &BTreeSet<LogId>,
        told: &Told,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Self {
        let mut entries = replica.entries(&told.key);
        entries.retain(|entry| logs.contains(&entry.log));
        entries.truncate(DIGEST_ENTRIES);
        let ask = message::encode(&Repair::Digest(Digest {
            statements: Vec::new(),
            key: told.key,
            number: 0,
            since: 0,
            entries,
            only: logs.iter().take(DIGEST_ENTRIES).copied().collect(),
            then: Then::Send,
        }));
        let pull = Self::open(session, peer, now, ask, replica);
        Self { purpose: Purpose::CloseGaps, phase: Phase::Streaming, key: told.key, ..pull }
    }

    fn open<S: Store>(
        session: SessionId,
        peer: DeviceId,
        now: Now,
        first: Vec<u8>,
        replica: &mut Replica<S>,
    ) -> Self {
        replica.fx.push(Output::OpenSession(session, peer));
        Self {
            session,
            peer,
            purpose: Purpose::Compare,
            received: 0,
            planned: 0,
            learned: false,
            moves: replica.moves(),
            progress: Progress::new(now.mono),
            phase: Phase::Hello,
            plan: None,
            reserved: BTreeSet::new(),
            reserved_until: 0,
            receiving: None,
            outbox: VecDeque::from([first]),
            ready: false,
            key: DigestKey::default(),
            number: 0,
            telling: Vec::new(),
            told_all: false,
            beside_others: false,
            misunderstood: false,
        }
    }

    pub(crate) fn is_comparison(&self) -> bool {
        self.purpose == Purpose::Compare
    }

    /// Given up at this monotonic millisecond unless enough arrives.
    pub(crate) fn deadline(&self) -> u64 {
        self.progress.deadline()
    }

    /// Whether the peer has said what it could send.
    pub(crate) fn has_plan(&self) -> bool {
        self.plan.is_some()
    }

    /// The logs that this session is about to receive.
    pub(crate) fn reserved(&self, now: Now) -> impl Iterator<Item = LogId> {
        let held = self.reserved.iter().copied().filter(move |_| now.mono < self.reserved_until);
        held.chain(self.receiving.iter().map(|receiving| receiving.branch.log))
    }

    /// The session can take one more frame.
    pub(crate) fn ready<S>(&mut self, replica: &mut Replica<S>) {
        self.ready = true;
        self.pump(replica);
    }

    fn pump<S>(&mut self, replica: &mut Replica<S>) {
        if self.ready
            && let Some(frame) = self.outbox.pop_front()
        {
            self.ready = false;
            replica.fx.push(Output::SendFrame(self.session, frame));
        }
    }

    fn say<S>(&mut self, message: &Repair, replica: &mut Replica<S>) {
        self.outbox.push_back(message::encode(message));
        self.pump(replica);
    }

    /// What the peer knows of us now that this session is through.
    pub(crate) fn told(self) -> Option<Told> {
        let digest = if self.misunderstood { Vec::new() } else { self.telling };
        let told = Told { key: self.key, number: self.number, digest: digest::group(digest) };
        (self.purpose == Purpose::Compare && told.number > 0).then_some(told)
    }

    /// Whether a fresh replica is complete after this session: the peer was, and all it planned is here.
    pub(crate) fn makes_complete<S: Store>(&self, replica: &Replica<S>) -> bool {
        let complete = |plan: &Plan| plan.complete == Completeness::Complete;
        self.plan.as_ref().is_some_and(complete) && self.all_here(replica)
    }

    /// Whether everything was compared, and all that the peer planned is here.
    pub(crate) fn all_here<S: Store>(&self, replica: &Replica<S>) -> bool {
        let arrived = |planned: &Planned| replica.logs.seq(planned.log) >= planned.seq;
        let here = |plan: &Plan| plan.logs.iter().all(arrived);
        self.is_comparison() && self.plan.as_ref().is_some_and(here)
    }

    /// Takes one frame. `taken`: the logs that other sessions are about to receive.
    pub(crate) fn frame<S: Store>(
        &mut self,
        bytes: &[u8],
        now: Now,
        told: &Told,
        taken: &BTreeSet<LogId>,
        cooldown: &mut PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<Pulled, Fault> {
        let message: Repair = message::decode(bytes).map_err(|bad| bad.fault(self.peer))?;
        self.progress.other(now.mono);
        match (self.phase, message) {
            (Phase::Hello, Repair::Same(complete)) => return Ok(Pulled::Equal(complete)),
            (Phase::Hello, Repair::Differs(roster)) if roster == replica.roster.hash() => {
                self.progress.step(now.mono);
                self.tell_digest(&[], true, told, replica);
            }
            (Phase::Hello, Repair::Differs(_)) => {
                self.progress.step(now.mono);
                self.phase = Phase::Roster;
                self.say(&Repair::Roster(replica.roster.names()), replica);
            }
            (Phase::Roster, Repair::Statements(Statements { missing, names })) => {
                if names.len() > MAX_STATEMENTS {
                    return Err(self.nonsense("names too many statements"));
                }
                self.progress.step(now.mono);
                replica.take_statements_of(self.peer, &missing)?;
                self.tell_digest(&names, false, told, replica);
            }
            (Phase::Streaming, Repair::TellAll) if !self.told_all && self.plan.is_none() => {
                self.progress.step(now.mono);
                let nothing = Told { digest: digest::Digest::new(), ..told.clone() };
                self.told_all = true;
                self.tell_digest(&[], true, &nothing, replica);
            }
            (Phase::Streaming, Repair::Plan(plan)) if self.plan.is_none() => {
                self.progress.step(now.mono);
                self.take_plan(plan, now, taken, replica)?;
            }
            (Phase::Streaming, Repair::Start(start)) if self.plan.is_some() => {
                self.start_log(&start, now, cooldown, replica)?;
            }
            (Phase::Streaming, Repair::Slots(slots)) => self.slots(slots, now, replica)?,
            (Phase::Streaming, Repair::End(end)) => self.end_log(&end, now, cooldown, replica)?,
            (Phase::Streaming, Repair::Done) if self.plan.is_some() => return Ok(Pulled::Done),
            _ => return Err(self.nonsense("message out of turn")),
        }
        Ok(Pulled::More)
    }

    fn nonsense(&self, reason: &'static str) -> Fault {
        Fault::sender(self.peer, reason)
    }

    fn tell_digest<S: Store>(
        &mut self,
        names: &[Hash8],
        same_roster: bool,
        told: &Told,
        replica: &mut Replica<S>,
    ) {
        self.phase = Phase::Streaming;
        self.key = told.key;
        self.number = told.number + 1 + u64::from(self.told_all);
        self.telling = replica.entries(&told.key);
        let since = if told.digest.is_empty() { 0 } else { told.number };
        let entries = digest::changes(&self.telling, &told.digest);
        let mut statements = if same_roster { Vec::new() } else { replica.roster.beyond(names) };
        let mut parts = entries.chunks(DIGEST_ENTRIES).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let then = match (parts.peek().is_some(), self.beside_others) {
                (true, _) => Then::More,
                (false, true) => Then::Wait,
                (false, false) => Then::Send,
            };
            let digest = Digest {
                statements: std::mem::take(&mut statements),
                key: self.key,
                number: self.number,
                since,
                entries: part.to_vec(),
                only: Vec::new(),
                then,
            };
            self.say(&Repair::Digest(digest), replica);
            if then != Then::More {
                return;
            }
        }
    }

    fn take_plan<S: Store>(
        &mut self,
        plan: Plan,
        now: Now,
        taken: &BTreeSet<LogId>,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        if plan.logs.len() > MAX_LOGS {
            return Err(self.nonsense("plans too many logs"));
        }
        let wait = self.beside_others && self.is_comparison();
        let unwanted = |p: &Planned| taken.contains(&p.log) || is_unwanted(p, replica);
        let places = (0u32..).zip(&plan.logs);
        let except: Vec<u32> =
            places.filter(|(_, p)| wait && unwanted(p)).map(|(place, _)| place).collect();
        let places = || (0u32..).zip(&plan.logs);
        let mine = || places().filter(|(n, _)| except.binary_search(n).is_err()).map(|(_, p)| p);
        self.planned = mine().map(|p| p.slots).fold(0, u64::saturating_add);
        self.reserved = mine().map(|p| p.log).collect();
        self.reserved_until = now.mono + LOG_HOLD_MS;
        self.plan = Some(plan);
        if wait {
            self.say(&Repair::Except(except), replica);
        }
        Ok(())
    }

    /// A log begins: decides whether to take it; otherwise its slots are passed over.
    fn start_log<S: Store>(
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
        if replica.own == start.log {
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
            let writes = replica.logs.record(id, Branch::drop_staged);
            replica.fx.persist(writes);
            self.misunderstood = true;
            return None;
        }
        if branch.head.as_ref().is_some_and(|h| h.header().grant != claim.grant) {
            // One log, one grant: what is here was not held against this one.
            replica.proof_failed(id);
            self.misunderstood = true;
            return None;
        }
        let cursor = branch.staged.as_ref().map_or_else(|| branch.seq(), |staged| staged.upto);
        if start.from != cursor {
            self.misunderstood = true;
            return None;
        }
        let (linked, resumed) = (start.linked || branch.head.is_none(), branch.staged.is_some());
        let expected = claim.live_bytes.saturating_sub(branch.totals.bytes());
        let hold = (LOG_HOLD_MS + expected / SLOW_LINE_BYTES_PER_MS).min(u64::from(u32::MAX));
        replica.receiving.insert(id, (self.session, now.mono + hold));
        let bound = claim.live_bytes.saturating_add(STAGE_SLACK);
        Some(Receiving { branch: id, upto: cursor, bound, linked, resumed, grant: claim.grant })
    }

    fn stop_receiving<S>(&mut self, replica: &mut Replica<S>) {
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
    fn verified<S>(
        &self,
        bytes: &Bytes,
        replica: &Replica<S>,
    ) -> Result<Option<VerifiedHeader>, Fault> {
        match SignedHeader::decode(bytes).and_then(|h| h.verify(&replica.roster)) {
            Ok(header) => Ok(Some(header)),
            Err(bad) if bad.blame(&self.peer) == Blame::Sender => {
                Err(Fault::sender(self.peer, bad))
            }
            Err(_) => Ok(None),
        }
    }

    fn slots<S: Store>(
        &mut self,
        records: Vec<SlotRecord>,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        if records.is_empty() || records.len() > CHUNK_SLOTS {
            return Err(self.nonsense("chunk of no or too many slots"));
        }
        replica.fx.counters.slots_received += records.len() as u64;
        let Some(receiving) = self.receiving.clone() else {
            // Of a log that is not wanted: no progress.
            replica.fx.counters.slots_in_vain += records.len() as u64;
            return Ok(());
        };
        self.received += records.len() as u64;
        let id = receiving.branch;
        let mine = replica.receiving.get(&id).is_some_and(|(by, _)| *by == self.session);
        // Another session has taken it over, or its author was revoked in the middle of it.
        let Some(right) = replica.roster.right(&receiving.grant).filter(|_| mine) else {
            self.receiving = None;
            return Ok(());
        };
        let bytes: u64 = records.iter().map(|record| record.op.len() as u64 + 32).sum();
        let mut upto = receiving.upto;
        let mut slots = Vec::with_capacity(records.len());
        for SlotRecord { seq, hlc, op: bytes } in records {
            let op = match Op::decode(&id.log, &bytes) {
                Ok(op) => op,
                Err(bad) if bad.by_all() => return Err(Fault::sender(self.peer, bad)),
                Err(bad) => {
                    self.stop_receiving(replica);
                    return Err(Fault::nobody(self.peer, bad));
                }
            };
            if seq <= upto {
                return Err(self.nonsense("slots do not ascend"));
            }
            upto = seq;
            let slot = Slot { log: id.log, seq, hlc, op, size: bytes.len() };
            admissible_slot(right, &slot).map_err(|bad| Fault::sender(self.peer, bad))?;
            slots.push((slot, bytes));
        }
        if let Some(receiving) = &mut self.receiving {
            receiving.upto = upto;
        }
        self.progress.bytes(now.mono, bytes);
        self.stage(&receiving, slots, upto, now, replica)
    }

    fn stage<S: Store>(
        &mut self,
        receiving: &Receiving,
        mut slots: Vec<(Slot, Bytes)>,
        upto: u64,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        let id = receiving.branch;
        let Some(branch) = replica.logs.get(&id) else {
            return Ok(());
        };
        if !receiving.linked && slots.iter().any(|(slot, _)| slot.hlc <= branch.stamp()) {
            // Stamps rise within a history: these were not written after our head. It is another one,
            // even if it should have everything of ours replaced.
            self.stop_receiving(replica);
            replica.proof_failed(id);
            self.misunderstood = true;
            return Ok(());
        }
        // Gossip may have moved the head over some of these since the session began.
        let head = branch.seq();
        slots.retain(|(slot, _)| slot.seq > head);
        if branch.closed_to_repair() {
            self.stop_receiving(replica);
            return Ok(());
        }
        if slots.is_empty() {
            return Ok(());
        }
        let staging = branch.stage(&slots, &replica.store)?;
        let too_much = staging.totals.bytes() > receiving.bound;
        let mut writes = staging.writes;
        writes.extend(replica.logs.record(id, |branch| {
            branch.staged = Some(Staged { totals: staging.totals, upto });
            branch.staged_at = now.mono;
            if too_much {
                branch.drop_staged();
            }
        }));
        replica.fx.persist(writes);
        if too_much {
            self.stop_receiving(replica);
            return Err(Fault::nobody(self.peer, "sends more than the log's signed size"));
        }
        Ok(())
    }

    /// A log is all there: proves it and moves its head, or drops the claim.
    fn end_log<S: Store>(
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
        let writes = replica.logs.record(id, Branch::drop_staged);
        replica.fx.persist(writes);
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
            if branch.state == BranchState::Live && branch.id.log == replica.own && whole {
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

/// Whether what is planned would not be taken, as far as can be said before it begins.
fn is_unwanted<S: Store>(planned: &Planned, replica: &Replica<S>) -> bool {
    let known = |b: &Branch| b.frozen == Some(planned.head) || b.head_hash() == planned.head;
    replica.logs.branches(planned.log).any(known)
        || replica.logs.at_cut(planned.log)
        || !replica.log_counts(planned.log)
        || !replica.has_room(planned.log, &planned.head)
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
