//! The pulling side: asks, sets aside what arrives, and moves a log's head when it is proven.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::codec::Bytes;
use crate::id::{BranchId, DeviceId, Hash, Hash8, LogId};
use crate::io::{Fault, Output, SessionId};
use crate::limits::{CHUNK_SLOTS, MAX_LOGS, MAX_STATEMENTS, PEER_COOLDOWN_MS, PULL_STALLED_MS};
use crate::log::branch::{Branch, Chore, Staged, Standing};
use crate::log::commit::{SignedHeader, VerifiedHeader, ranges_ascend};
use crate::message::{self, Digest, End, Plan, Planned, Repair, SlotRecord, Start, Statements};
use crate::op::{Op, Slot};
use crate::repair::digest::{self, Entry};
use crate::replica::log_set::Stands;
use crate::replica::{Replica, proves};
use crate::store::{Store, StoreError, Write};
use crate::time::Now;

/// Room for what the source writes while it streams: set aside beyond the size signed at the start.
const STAGE_SLACK: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    Roster,
    Streaming,
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
    /// Both sides were equal; says whether the peer has once been whole.
    Equal(bool),
    /// Everything planned was dealt with.
    Done,
}

/// Logs that a peer's false offers are not accepted for, and until when.
pub(crate) type PeerCooldown = BTreeMap<(DeviceId, LogId), u64>;

/// One session that pulls from one peer.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) session: SessionId,
    pub(crate) peer: DeviceId,
    /// Given up at this monotonic millisecond unless something arrives.
    pub(crate) deadline: u64,
    /// Slots received and planned in all, for showing progress.
    pub(crate) received: u64,
    pub(crate) planned: u64,
    /// Whether a log moved.
    pub(crate) learned: bool,
    /// Only closes gaps: says nothing of all else.
    pub(crate) gap: bool,
    /// What had moved here when it began: what it finds equal is that.
    pub(crate) moves: u64,
    phase: Phase,
    plan: Option<Plan>,
    receiving: Option<Receiving>,
    outbox: VecDeque<Vec<u8>>,
    ready: bool,
    telling: Vec<Entry>,
    /// The peer answered to a digest that is not ours: it is to be digest_sent_before everything again.
    misunderstood: bool,
}

impl Pull {
    pub(crate) fn start<S: Store>(
        session: SessionId,
        peer: DeviceId,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Self {
        let hello = message::encode(&Repair::Hello(replica.state_hash()));
        Self::open(session, peer, now, hello, replica)
    }

    /// A session that asks for certain logs only, at once.
    pub(crate) fn close_gaps<S: Store>(
        session: SessionId,
        peer: DeviceId,
        logs: &BTreeSet<LogId>,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Self {
        let mut entries = replica.entries();
        entries.retain(|entry| logs.contains(&entry.log));
        let only = logs.iter().copied().collect();
        let digest = Digest { statements: Vec::new(), full: false, entries, only };
        let ask = message::encode(&Repair::Digest(digest));
        let pull = Self::open(session, peer, now, ask, replica);
        Self { gap: true, phase: Phase::Streaming, ..pull }
    }

    fn open<S: Store>(
        session: SessionId,
        peer: DeviceId,
        now: Now,
        first: Vec<u8>,
        replica: &mut Replica<S>,
    ) -> Self {
        replica.out.push_back(Output::OpenSession(session, peer));
        Self {
            session,
            peer,
            deadline: now.mono + PULL_STALLED_MS,
            received: 0,
            planned: 0,
            learned: false,
            gap: false,
            moves: replica.moves(),
            phase: Phase::Hello,
            plan: None,
            receiving: None,
            outbox: VecDeque::from([first]),
            ready: false,
            telling: Vec::new(),
            misunderstood: false,
        }
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
            replica.out.push_back(Output::SendFrame(self.session, frame));
        }
    }

    fn say<S>(&mut self, message: &Repair, replica: &mut Replica<S>) {
        self.outbox.push_back(message::encode(message));
        self.pump(replica);
    }

    /// What the peer knows of us now that this session is through; nothing if it cannot be said. What a
    /// session that closes gaps says is not remembered by either side.
    pub(crate) fn digest_sent_before(self) -> Option<digest::Digest> {
        let telling = if self.misunderstood { Vec::new() } else { self.telling };
        (!self.gap).then(|| digest::group(telling))
    }

    /// Whether a digest went out in this session: the peer may have it or not.
    pub(crate) fn digest_sent(&self) -> bool {
        self.phase == Phase::Streaming && !self.gap
    }

    /// Whether a fresh replica is whole after this session: the peer was, and all it planned is here.
    pub(crate) fn makes_whole<S: Store>(&self, replica: &Replica<S>) -> bool {
        self.plan.as_ref().is_some_and(|plan| plan.whole) && self.complete(replica)
    }

    /// Whether everything was compared, and all that the peer planned is here.
    pub(crate) fn complete<S: Store>(&self, replica: &Replica<S>) -> bool {
        let arrived = |planned: &Planned| replica.seq(planned.log) >= planned.seq;
        !self.gap && self.plan.as_ref().is_some_and(|plan| plan.logs.iter().all(arrived))
    }

    /// Takes one frame.
    pub(crate) fn frame<S: Store>(
        &mut self,
        bytes: &[u8],
        now: Now,
        digest_sent_before: &digest::Digest,
        peer_cooldown: &mut PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<Pulled, Fault> {
        let message: Repair = message::decode(bytes).map_err(|bad| {
            let damning = !matches!(bad, message::BadMessage::Version(_));
            Fault::peer(self.peer, bad, damning)
        })?;
        self.deadline = now.mono + PULL_STALLED_MS;
        match (self.phase, message) {
            (Phase::Hello, Repair::Same(whole)) => return Ok(Pulled::Equal(whole)),
            (Phase::Hello, Repair::Differs(roster)) if roster == replica.roster.hash() => {
                self.tell_digest(&[], true, digest_sent_before, replica);
            }
            (Phase::Hello, Repair::Differs(_)) => {
                self.phase = Phase::Roster;
                self.say(&Repair::Roster(replica.roster.names()), replica);
            }
            (Phase::Roster, Repair::Statements(Statements { missing, names })) => {
                if names.len() > MAX_STATEMENTS {
                    return Err(self.nonsense("names too many statements"));
                }
                replica.take_statements_of(self.peer, &missing)?;
                self.tell_digest(&names, false, digest_sent_before, replica);
            }
            (Phase::Streaming, Repair::Plan(plan)) if self.plan.is_none() => {
                if plan.logs.len() > MAX_LOGS {
                    return Err(self.nonsense("plans too many logs"));
                }
                self.planned = plan.logs.iter().map(|p| p.slots).fold(0, u64::saturating_add);
                self.plan = Some(plan);
            }
            (Phase::Streaming, Repair::Start(start)) if self.plan.is_some() => {
                self.receiving = self.start_log(&start, now, peer_cooldown, replica)?;
            }
            (Phase::Streaming, Repair::Slots(slots)) => self.slots(slots, replica)?,
            (Phase::Streaming, Repair::End(end)) => {
                self.end_log(&end, now, peer_cooldown, replica)?
            }
            (Phase::Streaming, Repair::Done) if self.plan.is_some() => return Ok(Pulled::Done),
            _ => return Err(self.nonsense("message out of turn")),
        }
        Ok(Pulled::More)
    }

    fn nonsense(&self, reason: &'static str) -> Fault {
        Fault::peer(self.peer, reason, true)
    }

    fn tell_digest<S: Store>(
        &mut self,
        names: &[Hash8],
        same_roster: bool,
        digest_sent_before: &digest::Digest,
        replica: &mut Replica<S>,
    ) {
        self.phase = Phase::Streaming;
        self.telling = replica.entries();
        let full = digest_sent_before.is_empty();
        let entries = changes(&self.telling, digest_sent_before);
        let statements = if same_roster { Vec::new() } else { replica.roster.beyond(names) };
        let digest = Digest { statements, full, entries, only: Vec::new() };
        self.say(&Repair::Digest(digest), replica);
    }

    /// A log begins: decides whether to take it. `None` passes its slots over.
    fn start_log<S: Store>(
        &mut self,
        start: &Start,
        now: Now,
        peer_cooldown: &PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<Option<Receiving>, Fault> {
        let Some(header) = self.verified(&start.header, replica)? else {
            return Ok(None);
        };
        let claim = header.header();
        if claim.log != start.log {
            return Err(self.nonsense("header of another log"));
        }
        let distrusted = peer_cooldown.get(&(self.peer, start.log)).is_some_and(|t| *t > now.mono);
        if distrusted || is_superfluous(&header, replica)? {
            return Ok(None);
        }
        if replica.own_log() == start.log {
            replica.own_head_elsewhere();
        }
        let Some(id) = self.target(start, &header, replica) else {
            return Ok(None);
        };
        if replica.receiving.contains_key(&id) {
            return Ok(None);
        }
        if let Some(log) = replica.logs.get_mut(&id)
            && log.staged.as_ref().is_some_and(|staged| staged.upto > claim.last_seq)
        {
            // What is staged goes beyond what this peer can prove, and nobody may ever prove it: what
            // can be proven comes first.
            log.drop_staged();
            let write = log.write();
            replica.persist(vec![write]);
            self.misunderstood = true;
            return Ok(None);
        }
        if !replica.logs.contains_key(&id) && !replica.make_room(start.log) {
            return Ok(None);
        }
        let changed =
            |log: &Branch| log.head.as_ref().is_some_and(|h| h.header().grant != claim.grant);
        if replica.logs.get(&id).is_some_and(changed) {
            // One log, one grant: what is here was not held against this one.
            replica.doubt(id, false);
            self.misunderstood = true;
            return Ok(None);
        }
        let log = replica.logs.entry(id).or_insert_with(|| Branch::new(id));
        let cursor = log.staged.as_ref().map_or_else(|| log.seq(), |staged| staged.upto);
        if log.closed() {
            return Ok(None);
        }
        if start.from != cursor {
            self.misunderstood = true;
            return Ok(None);
        }
        let bound = claim.live_bytes.saturating_add(STAGE_SLACK);
        let linked = start.linked || log.head.is_none();
        let resumed = log.staged.is_some();
        replica.receiving.insert(id, self.session);
        let grant = claim.grant;
        Ok(Some(Receiving { branch: id, upto: cursor, bound, linked, resumed, grant }))
    }

    /// The branch that a log's slots are for: the one they go on from, or one for the whole log.
    fn target<S: Store>(
        &self,
        start: &Start,
        header: &VerifiedHeader,
        replica: &Replica<S>,
    ) -> Option<BranchId> {
        if start.base != Hash8::default() {
            let mut shown = replica.shown(start.log);
            let base = shown.find(|branch| branch.head_hash().short8() == start.base)?;
            return (header.header().last_seq > base.seq()).then_some(base.id);
        }
        if !replica.has_room(start.log, &header.hash()) {
            return None;
        }
        let fetching = replica.fetching(start.log).map(|branch| branch.id);
        Some(fetching.unwrap_or_else(|| replica.fresh_branch(start.log)))
    }

    /// A header if it is genuine and allowed here; an unknown grant or version is nobody's fault.
    fn verified<S>(
        &self,
        bytes: &Bytes,
        replica: &Replica<S>,
    ) -> Result<Option<VerifiedHeader>, Fault> {
        match SignedHeader::decode(bytes).and_then(|h| h.verify(&replica.roster)) {
            Ok(header) => Ok(Some(header)),
            Err(bad) if bad.damning() => Err(Fault::peer(self.peer, bad, true)),
            Err(_) => Ok(None),
        }
    }

    fn slots<S: Store>(
        &mut self,
        records: Vec<SlotRecord>,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        if records.is_empty() || records.len() > CHUNK_SLOTS {
            return Err(self.nonsense("chunk of no or too many slots"));
        }
        self.received += records.len() as u64;
        replica.counters.slots_received += records.len() as u64;
        let Some(receiving) = &mut self.receiving else {
            return Ok(());
        };
        let id = receiving.branch;
        // Revoked in the middle of it: what is left is passed over.
        let Some(right) = replica.roster.right(&receiving.grant) else {
            return Ok(());
        };
        let mut slots = Vec::with_capacity(records.len());
        for record in records {
            let op =
                Op::decode(&id.log, &record.op).map_err(|b| Fault::peer(self.peer, b, true))?;
            if record.seq <= receiving.upto {
                return Err(Fault::peer(self.peer, "slots do not ascend", true));
            }
            if !op.key.starts_with(&right.prefix) {
                return Err(Fault::peer(self.peer, "slot outside its author's prefix", true));
            }
            receiving.upto = record.seq;
            let size = record.op.len();
            slots.push((
                Slot { log: id.log, seq: record.seq, hlc: record.hlc, op, size },
                record.op,
            ));
        }
        let Some(log) = replica.logs.get(&id) else {
            return Ok(());
        };
        if !receiving.linked && slots.iter().any(|(slot, _)| slot.hlc <= log.stamp()) {
            // Stamps rise within a history: these were not written after our head. It is another one,
            // even if it should have everything of ours replaced.
            self.receiving = None;
            replica.receiving.remove(&id);
            replica.doubt(id, false);
            self.misunderstood = true;
            return Ok(());
        }
        // Gossip may have moved the head over some of these since the session began.
        slots.retain(|(slot, _)| slot.seq > log.seq());
        if slots.is_empty() || log.closed() {
            return Ok(());
        }
        let change = log.stage(&slots, &replica.store)?;
        let too_much = change.totals.bytes() > receiving.bound;
        let upto = receiving.upto;
        let mut writes = change.writes;
        if let Some(log) = replica.logs.get_mut(&id) {
            log.staged = Some(Staged { totals: change.totals, upto });
            if too_much {
                log.drop_staged();
                self.receiving = None;
            }
            writes.push(log.write());
        }
        replica.persist(writes);
        if too_much {
            return Err(Fault::peer(self.peer, "sends more than the log's signed size", false));
        }
        Ok(())
    }

    /// A log is all there: proves it and moves its head, or drops the claim.
    fn end_log<S: Store>(
        &mut self,
        end: &End,
        now: Now,
        peer_cooldown: &mut PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        let Some(receiving) = self.receiving.take() else {
            return Ok(());
        };
        let id = receiving.branch;
        replica.receiving.remove(&id);
        let Some(header) = self.verified(&end.header, replica)? else {
            return Ok(());
        };
        let claim = header.header();
        if claim.log != id.log || claim.last_seq < receiving.upto {
            return Err(self.nonsense("header does not cover the slots sent"));
        }
        if !ranges_ascend(&end.gone, claim.last_seq) {
            return Err(self.nonsense("ranges given up do not ascend"));
        }
        let Some(log) = replica.logs.get(&id) else {
            return Ok(());
        };
        if claim.last_seq <= log.seq() || log.closed() {
            return Ok(());
        }
        if claim.grant != receiving.grant {
            return Ok(());
        }
        let change = log.forget(&end.gone, claim.live_count, &replica.store)?;
        if proves(claim, &change.totals) {
            let log = log.clone();
            replica.observe(&header, now);
            self.flip(log, header, change.totals, change.writes, &end.gone, replica);
            return Ok(());
        }
        if let Some(log) = replica.logs.get_mut(&id) {
            log.drop_staged();
            let write = log.write();
            replica.persist(vec![write]);
        }
        if receiving.resumed {
            self.misunderstood = true;
            return Ok(());
        }
        replica.doubt(id, receiving.linked);
        if !receiving.linked {
            // Nobody knew whether this goes on from what is here. It does not: it is asked for whole.
            self.misunderstood = true;
            return Ok(());
        }
        peer_cooldown.retain(|_, until| *until > now.mono);
        peer_cooldown.insert((self.peer, id.log), now.mono + PEER_COOLDOWN_MS);
        let reason = format!("what it sent of log {:?} is not what was signed", id.log);
        Err(Fault::peer(self.peer, reason, false))
    }

    fn flip<S: Store>(
        &mut self,
        mut log: Branch,
        header: VerifiedHeader,
        totals: crate::log::live_root::Totals,
        mut writes: Vec<Write>,
        gone: &[(u64, u64)],
        replica: &mut Replica<S>,
    ) {
        let (base, seq) = (log.seq(), header.header().last_seq);
        log.chore = match log.chore {
            Chore::Supersede((from, _)) => Chore::Supersede((from, seq)),
            _ if base > 0 => Chore::Supersede((base, seq)),
            other => other,
        };
        log.extent = replica.extent(log.id.log);
        log.totals = totals;
        log.staged = None;
        log.scrubbed = None;
        log.frozen = None;
        log.note_gone(seq, gone);
        let id = log.id;
        let whole = base == 0;
        writes.push(Write::Header { branch: id, seq, bytes: header.bytes().clone() });
        log.head = Some(header);
        replica.logs.insert(id, log);
        replica.proof_failures.remove(&id.log);
        if whole {
            replica.place_whole(id);
        }
        writes.extend(replica.logs.get(&id).map(Branch::write));
        replica.persist(writes);
        replica.resolve_aside(id.log);
        replica.resolve_cut(id.log);
        replica.note_moved(id);
        replica.out.push_back(Output::Advanced);
        replica.counters.logs_repaired += 1;
        self.learned = true;
    }
}

/// Whether a log with this header is here already, cannot be taken in, or must not.
fn is_superfluous<S: Store>(
    header: &VerifiedHeader,
    replica: &Replica<S>,
) -> Result<bool, StoreError> {
    let (log, hash) = (header.header().log, header.hash());
    let known_bad = |b: &Branch| b.frozen == Some(hash);
    let unjudged = |b: &Branch| b.standing == Standing::Unjudged && b.head_hash() == hash;
    Ok(replica.branches(log).any(|b| known_bad(b) || unjudged(b))
        || replica.at_cut(log)
        || replica.over_quota(header.header())
        || replica.stands(header)? == Stands::Here)
}

/// The entries of logs that the peer was digest_sent_before otherwise of; of one that was let go of, that nothing is
/// there.
fn changes(telling: &[Entry], digest_sent_before: &digest::Digest) -> Vec<Entry> {
    let now = digest::group(telling.iter().copied());
    let differing =
        now.iter().filter(|(log, entries)| digest_sent_before.get(log) != Some(entries));
    let gone = digest_sent_before
        .keys()
        .filter(|log| !now.contains_key(log))
        .map(|log| Entry::nothing(*log));
    let mut entries: Vec<Entry> =
        differing.flat_map(|(_, entries)| entries.iter().copied()).collect();
    entries.extend(gone);
    entries.sort_unstable();
    entries
}
