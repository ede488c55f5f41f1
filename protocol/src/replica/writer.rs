//! Local writes: what is refused, how they share a commit, when a new epoch is opened.

use crate::codec::{self, Bytes};
use crate::id::{BranchId, DeviceId, Hash, Version};
use crate::io::{Change, Condition, Fault, Output, Token, WriteRefused};
use crate::limits::{
    GROUP_BYTES, GROUP_OPS, MAX_CTX, MAX_GOSSIP, MAX_GOSSIP_VALUE, MAX_QUEUED_WRITES, MAX_TX_BYTES,
    MAX_TX_OPS, VERSION,
};
use crate::log::branch::{Branch, Chore, Standing};
use crate::log::commit::{self, Header, VerifiedCommit};
use crate::message::{self, Gossip};
use crate::op::{Body, Op, Slot};
use crate::plant::{self, Plant};
use crate::replica::Replica;
use crate::roster::Role;
use crate::store::{Store, StoreError};
use crate::time::{HybridClock, Now};
use crate::view::{Seen, Shown, View};

impl<S: Store> Replica<S> {
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
        if self.roster.revocation(&self.me).is_some() {
            return Some(WriteRefused::NotAllowed("it was revoked, or left the swarm"));
        }
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
            if let Err(bad) = Op::check_parts(&change.key, &change.body) {
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

    /// Whether the writes that wait fill a commit: no more would share it if it were signed later.
    pub(crate) fn has_full_group(&self) -> bool {
        let (mut ops, mut bytes) = (0, 0);
        self.queue.iter().any(|(_, changes)| {
            ops += changes.len();
            bytes += changes.iter().map(size_hint).sum::<usize>();
            ops >= GROUP_OPS || bytes >= GROUP_BYTES
        })
    }

    /// Signs one group of queued writes as one commit.
    pub(crate) fn commit(&mut self, now: Now) -> Result<(), Fault> {
        self.settle_epoch(now);
        let own = self.writing();
        let hlc = self.clock.tick(now, own.stamp());
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
            match self.plan(&group, &own, hlc, changes, now) {
                Ok(Ok(slots)) => group.take(token, bytes, slots),
                Ok(Err(refused)) => self.out.push_back(Output::WriteRefused(token, refused)),
                Err(broken) => {
                    group.tokens.push((token, 0));
                    return self.refuse(group.tokens, &WriteRefused::Damaged, Err(broken));
                }
            }
        }
        if group.slots.is_empty() {
            return Ok(());
        }
        let mut names = match self.sign(own, hlc, group.slots) {
            Ok(Some(names)) => names.into_iter(),
            Ok(None) => {
                let refused = WriteRefused::NotAllowed("it would go over its quota");
                return self.refuse(group.tokens, &refused, Ok(()));
            }
            Err(broken) => return self.refuse(group.tokens, &WriteRefused::Damaged, Err(broken)),
        };
        for (token, ops) in group.tokens {
            self.out.push_back(Output::Written(token, names.by_ref().take(ops).collect()));
        }
        Ok(())
    }

    fn refuse(
        &mut self,
        tokens: Vec<(Token, usize)>,
        refused: &WriteRefused,
        result: Result<(), StoreError>,
    ) -> Result<(), Fault> {
        for (token, _) in tokens {
            self.out.push_back(Output::WriteRefused(token, refused.clone()));
        }
        Ok(result?)
    }

    /// Signs slots as the own log's next commit, keeps and spreads it; returns their names, or `None` if they
    /// exceed the quota.
    fn sign(
        &mut self,
        own: Branch,
        hlc: crate::time::Hlc,
        slots: Vec<(Slot, Bytes)>,
    ) -> Result<Option<Vec<Version>>, StoreError> {
        let mut change = own.advance(&slots, &[], &self.store)?;
        let names = std::mem::take(&mut change.names);
        let grant = self.roster.member(&self.me).map(|m| m.grant).unwrap_or_default();
        let header = Header {
            version: VERSION,
            swarm: self.roster.swarm(),
            grant,
            log: own.id.log,
            last_seq: own.seq() + slots.len() as u64,
            count: u32::try_from(slots.len()).unwrap_or(u32::MAX),
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
        if self.over_quota(&header) {
            return Ok(None);
        }
        let commit = commit::sign(&self.key, header, slots);
        self.counters.commits_signed += 1;
        self.settle(own, &commit, change);
        self.out.push_back(Output::Publish(announce(&commit)));
        Ok(Some(names))
    }

    /// The own log's branch that writing goes on in.
    fn writing(&self) -> Branch {
        let there = self.branches(self.own).next().cloned();
        there.unwrap_or_else(|| Branch::new(self.own.into()))
    }

    /// Opens a new epoch when the own log cannot safely go on.
    fn settle_epoch(&mut self, now: Now) {
        let several = self.branches(self.own).nth(1).is_some();
        let log = self.writing();
        let runaway = HybridClock::runs_away(log.stamp(), now);
        let grant = self.roster.member(&self.me).map(|member| member.grant);
        let regranted = log.head.as_ref().is_some_and(|head| Some(head.header().grant) != grant);
        let stuck = log.unsettled() || log.forked || log.frozen.is_some() || regranted;
        let stuck = stuck && !plant::is(Plant::ReuseEpoch);
        if runaway || stuck || several || log.standing != Standing::Shown {
            self.rotate();
            self.clock.reset_lead(now);
        }
    }

    /// Writes a few slots of an own branch that is set aside again, each as it was: what another write
    /// here has named or replaced since is left out.
    pub(crate) fn salvage_step(&mut self, now: Now, id: BranchId, after: u64) -> Result<(), Fault> {
        let Some(aside) = self.logs.get(&id).cloned() else { return Ok(()) };
        let step = self.store.slots_after(&id, after, aside.seq(), GROUP_OPS, GROUP_BYTES)?;
        self.settle_epoch(now);
        let own = self.writing();
        let hlc = self.clock.tick(now, own.stamp());
        let right = self.roster.member(&self.me).and_then(|m| self.roster.right(&m.grant));
        let prefix = right.map(|right| right.prefix.clone()).unwrap_or_default();
        let mut slots = Vec::with_capacity(step.len());
        for raw in &step {
            // What cannot be read any more is lost.
            let Ok(slot) = raw.open() else { continue };
            let view = self.view(&slot.op.key)?;
            let version = slot.version();
            let newer = |seen: &Seen| {
                seen.version == version
                    || seen.slot.op.ctx.contains(&version)
                    || seen.slot.log.author == self.me && seen.slot.hlc > slot.hlc
            };
            // What its grant allows no more, others would not take.
            let allowed = slot.op.key.starts_with(&prefix);
            let latest = aside.is_latest(raw, aside.seq(), &self.store)?;
            if !allowed || !latest || view.seen().any(newer) {
                continue;
            }
            // Should the first one come to light after all, this one has seen it.
            let mut ctx: Vec<Version> =
                slot.op.ctx.into_iter().filter(|named| named.log != own.id.log).collect();
            ctx.truncate(MAX_CTX - 1);
            ctx.push(version);
            ctx.sort_unstable();
            let op = Op { ctx, ..slot.op };
            let bytes = Bytes(codec::encode(&op));
            let seq = own.seq() + slots.len() as u64 + 1;
            slots.push((Slot { log: own.id.log, seq, hlc, op, size: bytes.len() }, bytes));
        }
        if !slots.is_empty() {
            self.sign(own, hlc, slots)?;
        }
        if let Some(aside) = self.logs.get_mut(&id) {
            match step.last() {
                Some(last) => aside.chore = Chore::Salvage(last.seq),
                None => aside.give_up(),
            }
            let write = aside.write();
            self.persist(vec![write]);
        }
        self.look_mended();
        Ok(())
    }

    /// A peer shows an own head that this replica does not have: the data directory is a copy, or an
    /// old one. What was written there stays a log like any other's; writing goes on in a new epoch.
    pub(crate) fn own_head_elsewhere(&mut self) {
        if plant::is(Plant::ReuseEpoch) {
            return;
        }
        self.rotate();
    }

    /// As [`Self::own_head_elsewhere`], but the peer has only said so. Better an epoch too many than a
    /// fork; but no peer can make us open one after the other.
    pub(crate) fn own_head_claimed(&mut self, peer: DeviceId) {
        if self.alarmed.insert(peer) && !plant::is(Plant::ReuseEpoch) {
            self.rotate();
        }
    }

    fn plan(
        &self,
        group: &Group,
        own: &Branch,
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
                ctx: view.context(&own.id.log),
                key: change.key,
                body: change.body,
                expires_at: change.expires_at,
            };
            let bytes = Bytes(codec::encode(&op));
            let seq = own.seq() + (group.slots.len() + slots.len()) as u64 + 1;
            slots.push((Slot { log: own.id.log, seq, hlc, op, size: bytes.len() }, bytes));
        }
        Ok(Ok(slots))
    }
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
    /// The writes that share it, each with its number of operations.
    tokens: Vec<(Token, usize)>,
    bytes: usize,
}

impl Group {
    fn fits(&self, ops: usize, bytes: usize) -> bool {
        self.slots.is_empty()
            || (self.slots.len() + ops <= GROUP_OPS && self.bytes + bytes <= GROUP_BYTES)
    }

    fn take(&mut self, token: Token, bytes: usize, slots: Vec<(Slot, Bytes)>) {
        self.bytes += bytes;
        self.tokens.push((token, slots.len()));
        self.slots.extend(slots);
    }
}
