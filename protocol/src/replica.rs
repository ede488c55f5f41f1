//! A replica's state and the only ways it changes: local writes, commits from others, statements.
//! Knows nothing of sessions or timers.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::codec::{self, Bytes};
use crate::commit::{self, Header, SignedCommit, SignedHeader, VerifiedCommit, VerifiedHeader};
use crate::crypto::DeviceKey;
use crate::digest::{self, Entry};
use crate::gossip::Held;
use crate::id::{DeviceId, Hash, LogId, Version};
use crate::io::{
    Change, Condition, Counters, Fault, LogStatus, Output, Token, Verdict, WriteRefused,
};
use crate::limits::{
    GROUP_BYTES, GROUP_OPS, MAX_GOSSIP, MAX_GOSSIP_VALUE, MAX_LOGS, MAX_QUEUED_WRITES,
    MAX_TX_BYTES, MAX_TX_OPS, VERSION,
};
use crate::log::{Gone, Log};
use crate::message::{self, Gossip};
use crate::op::{Body, Op, Slot};
use crate::random::Random;
use crate::roster::{Role, Roster};
use crate::store::{Recovered, Store, StoreError, Write};
use crate::ticket::TicketRecord;
use crate::time::{HybridClock, Now};
use crate::view::{Shown, View};

/// What became of a commit or header from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Applied, or already known.
    Settled,
    /// Something before it is missing: pull.
    Gap,
}

pub(crate) struct Replica<S> {
    pub(crate) key: DeviceKey,
    pub(crate) me: DeviceId,
    pub(crate) roster: Roster,
    pub(crate) logs: BTreeMap<LogId, Log>,
    pub(crate) tickets: BTreeMap<crate::id::Hash8, TicketRecord>,
    pub(crate) store: S,
    pub(crate) random: Random,
    pub(crate) out: VecDeque<Output>,
    pub(crate) caught_up: bool,
    pub(crate) counters: Counters,
    own: LogId,
    closes: Option<Version>,
    clock: HybridClock,
    held: Held,
    /// Logs that moved and may have held commits to go on with.
    moved: BTreeSet<LogId>,
    /// Slots were handed to storage in this call: reads do not see them before the next.
    unread: bool,
    /// Peers that made us leave a log by a claim they did not prove: once each.
    alarmed: BTreeSet<DeviceId>,
    queue: VecDeque<(Token, Vec<Change>)>,
}

impl<S: Store> Replica<S> {
    pub(crate) fn open(
        key: DeviceKey,
        roster: Roster,
        recovered: Recovered,
        store: S,
        entropy: u64,
        fresh_epoch: bool,
    ) -> Result<Self, StoreError> {
        let me = key.id();
        let mut roster = roster;
        roster.insert(&recovered.statements);
        let mut logs = BTreeMap::new();
        for (id, record) in &recovered.logs {
            logs.insert(*id, Log::from_record(*id, record)?);
        }
        let mut tickets = BTreeMap::new();
        for (id, record) in &recovered.tickets {
            let record = codec::decode(record)
                .map_err(|e| StoreError(format!("ticket {id:?} is damaged: {e}")))?;
            tickets.insert(*id, record);
        }
        let mut replica = Self {
            own: LogId { author: me, epoch: 0, shard: 0 },
            caught_up: recovered.caught_up,
            clock: HybridClock::default(),
            closes: None,
            counters: Counters::default(),
            held: Held::default(),
            moved: BTreeSet::new(),
            unread: false,
            alarmed: BTreeSet::new(),
            out: VecDeque::new(),
            queue: VecDeque::new(),
            random: Random::new(entropy),
            key,
            me,
            roster,
            logs,
            tickets,
            store,
        };
        let newest = replica
            .logs
            .values()
            .filter(|log| log.id.author == me && !log.left)
            .filter_map(|log| Some((log.head.as_ref()?.header().hlc, log.id)))
            .max();
        match newest {
            Some((_, id)) if !fresh_epoch => replica.own = id,
            _ => replica.rotate(),
        }
        Ok(replica)
    }

    /// Leaves the own log for good and goes on in a new one.
    fn rotate(&mut self) {
        let mut left = Vec::new();
        if let Some(log) = self.logs.get_mut(&self.own) {
            log.left = true;
            left.push(log.write());
            if let Some(head) = &log.head {
                let (seq, hash) = (head.header().last_seq, head.hash().short8());
                self.closes = Some(Version { log: self.own, seq, hash });
            }
        }
        self.persist(left);
        loop {
            self.own.epoch = u32::try_from(self.random.next() >> 32).unwrap_or(1);
            if !self.logs.contains_key(&self.own) {
                return;
            }
        }
    }

    // ---- what a replica has -------------------------------------------------------------------

    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry> {
        self.logs.values().map(Log::entry)
    }

    pub(crate) fn state_hash(&self) -> Hash {
        let entries: Vec<Entry> = self.entries().collect();
        digest::state_hash(&self.roster.hash(), entries.iter())
    }

    pub(crate) fn heads(&self) -> BTreeMap<LogId, u64> {
        self.logs.values().map(|log| (log.id, log.seq())).collect()
    }

    pub(crate) fn own_log(&self) -> LogId {
        self.own
    }

    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    pub(crate) fn log_status(&self) -> Vec<LogStatus> {
        let one = |log: &Log| LogStatus {
            log: log.id,
            seq: log.seq(),
            slots: log.totals.count(),
            bytes: log.totals.bytes(),
            stamp: log.head.as_ref().map_or(0, |head| head.header().hlc.millis()),
            staged: log.staged.as_ref().map_or(0, |staged| staged.upto),
            frozen: log.frozen,
            forked: log.forked,
        };
        self.logs.values().map(one).collect()
    }

    /// A new call begins: storage has taken whatever earlier calls handed out.
    pub(crate) fn begin(&mut self) {
        self.unread = false;
    }

    /// Whether slots were written in this call, so that storage must not be read for slots again.
    pub(crate) fn unread(&self) -> bool {
        self.unread
    }

    pub(crate) fn persist(&mut self, writes: Vec<Write>) {
        self.unread |= writes.iter().any(|w| {
            matches!(w, Write::Slot { .. } | Write::RemoveSlot { .. } | Write::Header { .. })
        });
        if !writes.is_empty() {
            self.out.push_back(Output::Persist(writes));
        }
    }

    fn view(&self, key: &[u8]) -> Result<View, StoreError> {
        let head = |log: &LogId| self.logs.get(log).map_or(0, Log::seq);
        View::merge(&self.store.slots(key)?, head)
    }

    // ---- local writes -------------------------------------------------------------------------

    pub(crate) fn enqueue(&mut self, token: Token, changes: Vec<Change>) {
        let refusal = if self.queue.len() >= MAX_QUEUED_WRITES {
            Some(WriteRefused::Busy)
        } else {
            self.refusal(&changes)
        };
        match refusal {
            Some(refusal) => self.out.push_back(Output::WriteRefused(token, refusal)),
            None => self.queue.push_back((token, changes)),
        }
    }

    fn refusal(&self, changes: &[Change]) -> Option<WriteRefused> {
        let Some(member) = self.roster.member(&self.me) else {
            return Some(WriteRefused::NotAllowed("it is no member"));
        };
        if member.role < Role::Writer {
            return Some(WriteRefused::NotAllowed("it is a reader"));
        }
        let Some(right) = self.roster.right(&member.grant) else {
            return Some(WriteRefused::NotAllowed("it has no grant"));
        };
        if changes.is_empty() || changes.len() > MAX_TX_OPS {
            let n = changes.len();
            let text = format!("a transaction of {n} operations (1 to {MAX_TX_OPS} are allowed)");
            return Some(WriteRefused::Invalid(text));
        }
        let mut bytes = 0;
        for change in changes {
            if !change.key.starts_with(&right.prefix) {
                return Some(WriteRefused::NotAllowed("the key lies outside its prefix"));
            }
            let op = Op {
                key: change.key.clone(),
                body: change.body.clone(),
                ctx: Vec::new(),
                expires_at: change.expires_at,
            };
            if let Err(bad) = op.check(&self.own) {
                return Some(WriteRefused::Invalid(bad.to_string()));
            }
            bytes += size_hint(change);
        }
        if bytes > MAX_TX_BYTES {
            let text = format!("a transaction of {bytes} bytes (at most {MAX_TX_BYTES})");
            return Some(WriteRefused::Invalid(text));
        }
        None
    }

    /// Whether local writes wait for [`Self::commit`].
    pub(crate) fn has_queued(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Signs one group of queued writes as one commit.
    pub(crate) fn commit(&mut self, now: Now) -> Result<(), Fault> {
        self.settle_epoch(now);
        let own = self.logs.get(&self.own).cloned().unwrap_or_else(|| Log::new(self.own));
        let hlc =
            self.clock.tick(now, own.head.as_ref().map(|h| h.header().hlc).unwrap_or_default());
        let mut group = Group::default();
        while let Some((token, changes)) = self.queue.front() {
            let bytes: usize = changes.iter().map(size_hint).sum();
            if !group.fits(changes.len(), bytes) {
                break;
            }
            let token = *token;
            let changes = self.queue.pop_front().map(|(_, changes)| changes).unwrap_or_default();
            // Rights may have changed while it waited.
            if let Some(refused) = self.refusal(&changes) {
                self.out.push_back(Output::WriteRefused(token, refused));
                continue;
            }
            match self.plan(&group, &own, hlc, changes, now)? {
                Ok(slots) => group.take(token, bytes, slots),
                Err(refused) => self.out.push_back(Output::WriteRefused(token, refused)),
            }
        }
        if group.slots.is_empty() {
            return Ok(());
        }
        let change = own.advance(&group.slots, &[], &self.store)?;
        let grant = self.roster.member(&self.me).map(|m| m.grant).unwrap_or_default();
        let right = self.roster.right(&grant).and_then(|right| right.max_bytes);
        if right.is_some_and(|max| change.totals.bytes() > max) {
            let refused = WriteRefused::NotAllowed("its quota is used up");
            for (token, _) in group.tokens {
                self.out.push_back(Output::WriteRefused(token, refused.clone()));
            }
            return Ok(());
        }
        let header = Header {
            version: VERSION,
            swarm: self.roster.swarm(),
            grant,
            log: own.id,
            last_seq: own.seq() + group.slots.len() as u64,
            count: u32::try_from(group.slots.len()).unwrap_or(u32::MAX),
            hlc,
            prev: own.head_hash(),
            ops_hash: Hash::default(),
            live_root: change.totals.root(),
            live_count: change.totals.count(),
            live_bytes: change.totals.bytes(),
            retired: Vec::new(),
            expired_upto: None,
            closes: if own.head.is_none() { self.closes } else { None },
        };
        let commit = commit::sign(&self.key, header, group.slots);
        self.counters.commits_signed += 1;
        self.settle(own, &commit, change);
        self.out.push_back(Output::Publish(announce(&commit)));
        for (token, versions) in group.tokens {
            self.out.push_back(Output::Written(token, versions));
        }
        Ok(())
    }

    /// Opens a new epoch when the own log cannot safely go on.
    fn settle_epoch(&mut self, now: Now) {
        let Some(log) = self.logs.get(&self.own) else {
            return;
        };
        let last = log.head.as_ref().map(|h| h.header().hlc).unwrap_or_default();
        let runaway = HybridClock::runs_away(last, now);
        if runaway || log.unsettled() || log.forked || log.frozen.is_some() {
            self.rotate();
            self.clock.reset_lead(now);
        }
    }

    /// A peer shows an own head that this replica does not have: the data directory is a copy, or an
    /// old one. What was written there stays a log like any other's; writing goes on in a new epoch.
    pub(crate) fn own_head_elsewhere(&mut self) {
        self.rotate();
    }

    /// As [`Self::own_head_elsewhere`], but the peer has only said so. Better an epoch too many than a
    /// fork; but no peer can make us open one after the other.
    pub(crate) fn own_head_claimed(&mut self, peer: DeviceId) {
        if self.alarmed.insert(peer) {
            self.rotate();
        }
    }

    fn plan(
        &self,
        group: &Group,
        own: &Log,
        hlc: crate::time::Hlc,
        changes: Vec<Change>,
        now: Now,
    ) -> Result<Result<Vec<(Slot, Bytes)>, WriteRefused>, StoreError> {
        let mut slots: Vec<(Slot, Bytes)> = Vec::with_capacity(changes.len());
        for change in changes {
            let view = self.view(&change.key)?;
            if let Some(condition) = &change.condition {
                let mine = group.slots.iter().chain(&slots).rev();
                let pending = mine.map(|(slot, _)| slot).find(|slot| slot.op.key == change.key);
                if !holds(condition, &view, pending, now.wall) {
                    let there = view.siblings().map(|seen| seen.version).collect();
                    return Ok(Err(WriteRefused::Condition(there)));
                }
            }
            let op = Op {
                ctx: view.context(&own.id),
                key: change.key,
                body: change.body,
                expires_at: change.expires_at,
            };
            let bytes = Bytes(codec::encode(&op));
            let seq = own.seq() + (group.slots.len() + slots.len()) as u64 + 1;
            slots.push((Slot { log: own.id, seq, hlc, op, size: bytes.len() }, bytes));
        }
        Ok(Ok(slots))
    }

    // ---- commits of others --------------------------------------------------------------------

    /// Takes a gossiped commit in: the verdict falls first, then it is applied or held.
    pub(crate) fn take_commit(
        &mut self,
        now: Now,
        token: Token,
        from: DeviceId,
        bytes: &[u8],
    ) -> Result<Taken, Fault> {
        let checked = SignedCommit::decode(bytes).and_then(|c| c.verify(&self.roster));
        let known = checked.as_ref().is_ok_and(|commit| self.knows(commit.header()));
        let commit = self.judge(token, from, known, checked)?;
        self.clock.observe(commit.header().header().hlc, now);
        self.place(commit)
    }

    /// Takes an announcement in: says whether there is something to pull.
    pub(crate) fn take_announcement(
        &mut self,
        token: Token,
        from: DeviceId,
        bytes: &[u8],
    ) -> Result<(Taken, DeviceId), Fault> {
        let checked = SignedHeader::decode(bytes).and_then(|h| h.verify(&self.roster));
        let known = checked.as_ref().is_ok_and(|header| self.knows(header));
        let header = self.judge(token, from, known, checked)?;
        let claim = header.header();
        let known = self.logs.get(&claim.log).is_some_and(|log| log.seq() >= claim.last_seq);
        if known {
            self.note_fork(&claim.log, &header)?;
        }
        let taken = if known { Taken::Settled } else { Taken::Gap };
        Ok((taken, claim.log.author))
    }

    /// Whether a header says nothing new. One that differs from ours at the same place does: it proves
    /// a fork and is spread.
    fn knows(&self, header: &VerifiedHeader) -> bool {
        let (log, seq) = (header.header().log, header.header().last_seq);
        let differs = || {
            let stored = self.store.header(&log, seq).ok().flatten();
            stored.is_some_and(|stored| stored != *header.bytes())
        };
        self.logs.get(&log).is_some_and(|log| log.seq() >= seq) && !differs()
    }

    fn judge<T>(
        &mut self,
        token: Token,
        from: DeviceId,
        known: bool,
        checked: Result<T, commit::BadCommit>,
    ) -> Result<T, Fault> {
        let (verdict, result) = match checked {
            Ok(good) if known => (Verdict::Ignore, Ok(good)),
            Ok(good) => (Verdict::Accept, Ok(good)),
            Err(bad) if bad.damning() => (Verdict::Reject, Err(Fault::peer(from, bad, true))),
            Err(bad) => (Verdict::Ignore, Err(Fault::peer(from, bad, false))),
        };
        match verdict {
            Verdict::Accept => {}
            Verdict::Reject => self.counters.rejected += 1,
            Verdict::Ignore => self.counters.ignored += 1,
        }
        self.out.push_back(Output::Verdict(token, verdict));
        result
    }

    fn place(&mut self, commit: VerifiedCommit) -> Result<Taken, Fault> {
        let header = commit.header().header();
        let id = header.log;
        if !self.logs.contains_key(&id) && self.logs.len() >= MAX_LOGS {
            return Ok(Taken::Settled);
        }
        if header.last_seq <= self.logs.get(&id).map_or(0, Log::seq) {
            self.note_fork(&id, commit.header())?;
            return Ok(Taken::Settled);
        }
        if id == self.own {
            self.own_head_elsewhere();
        }
        let log = self.logs.get(&id).cloned().unwrap_or_else(|| Log::new(id));
        if header.first_seq() != log.seq() + 1 || log.unsettled() {
            self.held.push(commit);
            return Ok(Taken::Gap);
        }
        if header.prev != log.head_hash() {
            self.mark_forked(&id);
            return Ok(Taken::Settled);
        }
        let change = log.advance(commit.slots(), &header.retired, &self.store)?;
        let stamps_rise = log.head.as_ref().is_none_or(|head| head.header().hlc < header.hlc);
        if !stamps_rise || !proves(header, &change.totals) {
            let log = self.logs.entry(id).or_insert(log);
            log.frozen = Some(commit.header().hash());
            let write = log.write();
            self.persist(vec![write]);
            return Ok(Taken::Settled);
        }
        self.counters.commits_applied += 1;
        self.settle(log, &commit, change);
        Ok(Taken::Settled)
    }

    /// A log moved or came to rest: what was held for it may go on.
    pub(crate) fn note_moved(&mut self, id: LogId) {
        self.moved.insert(id);
    }

    /// Applies one held commit that fits now; says whether there may be more. One a call: the next
    /// one's sums are worked out from what this one writes.
    pub(crate) fn apply_held(&mut self) -> Result<bool, Fault> {
        while !self.unread
            && let Some(id) = self.moved.pop_first()
        {
            let (seq, unsettled) =
                self.logs.get(&id).map_or((0, false), |log| (log.seq(), log.unsettled()));
            if !unsettled && let Some(commit) = self.held.next(&id, seq) {
                self.place(commit)?;
            }
        }
        Ok(!self.moved.is_empty())
    }

    /// Moves a log's head over a commit whose root is right (or was just computed).
    fn settle(&mut self, mut log: Log, commit: &VerifiedCommit, change: crate::log::Change) {
        let header = commit.header().header().clone();
        log.totals = change.totals;
        log.frozen = None;
        log.note_gone(header.last_seq, &header.retired);
        let mut writes = change.writes;
        writes.push(Write::Header {
            log: log.id,
            seq: header.last_seq,
            bytes: commit.header().bytes().clone(),
        });
        log.head = Some(commit.header().clone());
        writes.push(log.write());
        self.moved.insert(log.id);
        self.logs.insert(log.id, log);
        self.persist(writes);
        self.out.push_back(Output::Advanced);
    }

    /// A header at or below the head: is it the one this replica has there?
    fn note_fork(&mut self, id: &LogId, header: &VerifiedHeader) -> Result<(), StoreError> {
        let stored = self.store.header(id, header.header().last_seq)?;
        if stored.is_some_and(|stored| stored != *header.bytes()) {
            self.mark_forked(id);
        }
        Ok(())
    }

    pub(crate) fn mark_forked(&mut self, id: &LogId) {
        if let Some(log) = self.logs.get_mut(id).filter(|log| !log.forked) {
            log.forked = true;
            let write = log.write();
            self.persist(vec![write]);
        }
    }

    /// Follows a stamp that repair brought.
    pub(crate) fn observe(&mut self, header: &VerifiedHeader, now: Now) {
        self.clock.observe(header.header().hlc, now);
    }

    // ---- roster -------------------------------------------------------------------------------

    /// Takes statements in; whatever is new is made durable and, on request, gossiped.
    pub(crate) fn take_statements(&mut self, batch: &[Bytes], spread: bool) -> usize {
        let before: BTreeSet<DeviceId> = self.roster.members().map(|m| m.device).collect();
        let (fresh, _) = self.roster.insert(batch);
        let count = fresh.len();
        let writes = fresh
            .iter()
            .map(|(name, bytes)| Write::Statement { name: *name, bytes: bytes.clone() })
            .collect();
        self.persist(writes);
        if spread {
            for (_, bytes) in fresh {
                self.out.push_back(Output::Publish(message::encode(&Gossip::Statement(bytes))));
            }
        }
        if count > 0 && self.roster.members().any(|m| !before.contains(&m.device)) {
            self.out.push_back(Output::MembersChanged);
        }
        count
    }
}

/// Whether a header's signed sums are these.
pub(crate) fn proves(header: &Header, totals: &crate::slots::Totals) -> bool {
    header.live_count == totals.count()
        && header.live_bytes == totals.bytes()
        && header.live_root == totals.root()
}

fn size_hint(change: &Change) -> usize {
    let body = match &change.body {
        Body::Put(value) => value.len(),
        Body::Delete | Body::Counter(_) => 0,
    };
    change.key.len() + body + 32
}

fn holds(condition: &Condition, view: &View, pending: Option<&Slot>, wall: u64) -> bool {
    match (condition, pending) {
        (Condition::Absent, Some(slot)) => slot.op.body == Body::Delete,
        (Condition::Absent, None) => view.shown(wall) == Shown::Absent,
        (Condition::Siblings(_), Some(_)) => false,
        (Condition::Siblings(wanted), None) => {
            let mut there: Vec<Version> = view.siblings().map(|seen| seen.version).collect();
            let mut wanted = wanted.clone();
            there.sort_unstable();
            wanted.sort_unstable();
            there == wanted
        }
    }
}

/// A commit small enough travels whole; of a larger one only the header does.
fn announce(commit: &VerifiedCommit) -> Vec<u8> {
    let small_values = commit.slots().iter().all(|(slot, _)| match &slot.op.body {
        Body::Put(value) => value.len() <= MAX_GOSSIP_VALUE,
        Body::Delete | Body::Counter(_) => true,
    });
    if small_values && commit.ops_bytes() <= GROUP_BYTES + GROUP_BYTES / 8 {
        let whole = message::encode(&Gossip::Commit(Bytes(commit.encode())));
        if whole.len() <= MAX_GOSSIP {
            return whole;
        }
    }
    message::encode(&Gossip::Announce(commit.header().bytes().clone()))
}

/// Local writes on their way into one commit.
#[derive(Default)]
struct Group {
    slots: Vec<(Slot, Bytes)>,
    tokens: Vec<(Token, Vec<Version>)>,
    bytes: usize,
}

impl Group {
    fn fits(&self, ops: usize, bytes: usize) -> bool {
        self.slots.is_empty()
            || (self.slots.len() + ops <= GROUP_OPS && self.bytes + bytes <= GROUP_BYTES)
    }

    fn take(&mut self, token: Token, bytes: usize, slots: Vec<(Slot, Bytes)>) {
        self.bytes += bytes;
        self.tokens.push((token, slots.iter().map(|(slot, _)| slot.version()).collect()));
        self.slots.extend(slots);
    }
}

impl Log {
    pub(crate) fn note_gone(&mut self, at: u64, retired: &[(u64, u64)]) {
        self.gone.extend(retired.iter().map(|(from, to)| Gone { at, from: *from, to: *to }));
    }
}
