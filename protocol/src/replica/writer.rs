//! Local writes: what is refused, how they share a commit, when a new epoch is opened.

use super::Replica;
use crate::codec::{self, Bytes};
use crate::id::{DeviceId, LogId, Version};
use crate::io::{Change, Condition, Edit, Fault, Output, Token, WriteRefused};
use crate::limits::{
    GROUP_BYTES, GROUP_OPS, MAX_CTX, MAX_GOSSIP, MAX_GOSSIP_VALUE, MAX_LOGS_PER_AUTHOR, MAX_PARTS,
    MAX_QUEUED_WRITES, MAX_TX_BYTES, MAX_TX_OPS,
};
use crate::log::branch::advance::Advanced;
use crate::log::branch::{Branch, BranchState};
use crate::log::commit::{self, VerifiedCommit};
use crate::message::{self, Gossip};
use crate::model::counter::{Amount, Part, PartId, Parts, decimal};
use crate::model::op::{Body, Op, Slot};
use crate::model::view::{Shown, View};
use crate::plant::{self, Plant};
use crate::roster::{Right, Role};
use crate::store::{Store, StoreError};
use crate::time::{Hlc, HybridClock, Now};

/// Totals of a counter stay below this.
const MAX_AMOUNT: u128 = 1 << 96;

impl<S: Store> Replica<S> {
    // ---- the log to write to --------------------------------------------------------------------

    /// Chooses the log that writing goes on in when a replica is opened: one whose newest commit this very
    /// store signed, or a new one.
    pub(crate) fn choose_log(&mut self, fresh_epoch: bool) {
        let live = |b: &&Branch| b.state == BranchState::Live && b.head.is_some();
        let newest = self.logs.of_author(self.me).filter(live).map(|b| (b.stamp(), b.id.log)).max();
        if let Some((_, own)) = newest {
            self.own = own;
        }
        if fresh_epoch && !plant::is(Plant::ReuseEpoch) || newest.is_none() {
            self.rotate();
        }
    }

    /// Leaves the own log for good and goes on in a new one, above every own epoch known here.
    pub(crate) fn rotate(&mut self) {
        let left: Vec<_> = self
            .logs
            .branches(self.own)
            .filter(|b| b.state == BranchState::Live)
            .map(|b| b.id)
            .collect();
        for id in left {
            let writes = self.logs.record(id, |branch| branch.state = BranchState::Closed);
            self.fx.persist(writes);
        }
        let there = self.logs.of_author(self.me).map(|branch| branch.id.log.epoch >> 32).max();
        let resumable = self.resumable.map(|(log, _)| log.epoch >> 32);
        let greatest = there.into_iter().chain(resumable).chain([self.own.epoch >> 32]).max();
        let next = greatest.unwrap_or(0).saturating_add(1).min(u64::from(u32::MAX));
        // Two copies of one device do not open the same.
        self.own =
            LogId { author: self.me, epoch: next << 32 | self.random.next() >> 32, shard: 0 };
    }

    /// The own log's branch that writing goes on in.
    pub(crate) fn writing(&self) -> Branch {
        let there = self.logs.branches(self.own).next().cloned();
        there.unwrap_or_else(|| self.new_branch(self.own.into()))
    }

    /// Opens a new epoch when the own log cannot safely go on.
    pub(crate) fn prepare_log(&mut self, now: Now) {
        self.resume();
        let several = self.logs.branches(self.own).nth(1).is_some();
        let branch = self.writing();
        let runaway = HybridClock::runs_away(branch.stamp(), now);
        let grant = self.roster.member(&self.me).map(|member| member.grant);
        let regranted = branch.head.as_ref().is_some_and(|head| Some(head.header().grant) != grant);
        let live = matches!(branch.state, BranchState::Live | BranchState::Fetching);
        let busy = branch.staged.is_some() || branch.purging();
        let stuck = busy || branch.forked || branch.frozen.is_some() || regranted || !live;
        let stuck = stuck && !plant::is(Plant::ReuseEpoch);
        // A greater own epoch has come from elsewhere: a lesser one might count nowhere any more.
        // Above the last one there is none: whoever else signs with this key has seen to that.
        let greater = |log: &LogId| *log > self.own && log.epoch >> 32 < u64::from(u32::MAX);
        let behind = self.logs.epochs(self.me).last().is_some_and(greater);
        if runaway || stuck || several || behind {
            self.rotate();
            self.clock.reset_lead(now);
        }
    }

    /// A peer in memory goes on in the log that it left in good order, once that is here as it left it.
    fn resume(&mut self) {
        let Some((log, head)) = self.resumable else { return };
        let here = self.logs.branches(log).find(|b| b.shown() && b.head_hash() == head);
        let alone = self.logs.branches(log).nth(1).is_none();
        let unused = self.logs.branches(self.own).next().is_none();
        if let Some(id) = here.filter(|_| alone && unused).map(|branch| branch.id) {
            let writes = self.logs.record(id, |branch| branch.state = BranchState::Live);
            self.fx.persist(writes);
            self.own = log;
            self.resumable = None;
        }
    }

    /// A peer shows an own head that this replica does not have: the data directory is a copy, or an
    /// old one. What was written there stays a log like any other's; writing goes on in a new epoch.
    pub(crate) fn own_head_elsewhere(&mut self) {
        if !plant::is(Plant::ReuseEpoch) {
            self.rotate();
        }
    }

    /// As [`Self::own_head_elsewhere`], but the peer has only said so. Better an epoch too many than a
    /// fork; but no peer can make us open one after the other.
    pub(crate) fn own_head_claimed(&mut self, peer: DeviceId) {
        if self.alarmed.insert(peer) && !plant::is(Plant::ReuseEpoch) {
            self.rotate();
        }
    }

    pub(crate) fn own_right(&self) -> Option<&Right> {
        self.roster.member(&self.me).and_then(|member| self.roster.right(&member.grant))
    }

    /// Whether this device may write anything.
    pub(crate) fn may_write(&self) -> bool {
        self.own_right().is_some_and(|right| right.role >= Role::Writer)
    }

    // ---- taking writes --------------------------------------------------------------------------

    pub(crate) fn enqueue(&mut self, token: Token, changes: Vec<Change>) {
        let refusal = if self.queue.len() >= MAX_QUEUED_WRITES {
            Some(WriteRefused::Busy)
        } else {
            self.refusal(&changes)
        };
        match refusal {
            Some(refusal) => self.fx.push(Output::WriteRefused(token, refusal)),
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
            if !change.cell.key.starts_with(&right.prefix) {
                return Some(WriteRefused::NotAllowed("the key lies outside its prefix"));
            }
            if let Err(bad) = Op::check_parts(&change.cell, value_of(change)) {
                return Some(WriteRefused::Invalid(bad.to_string()));
            }
            bytes += size_hint(change);
        }
        if bytes > MAX_TX_BYTES {
            let text = format!("a transaction of {bytes} bytes (at most {MAX_TX_BYTES})");
            return Some(WriteRefused::Invalid(text));
        }
        let conditional = changes.iter().any(|change| change.condition.is_some());
        if conditional && !self.complete && !plant::is(Plant::JudgeEarly) {
            return Some(WriteRefused::CatchingUp);
        }
        // Logs that are not here cannot be written again: one more would push the oldest out of the swarm.
        let elsewhere = self.resumable.is_some() && !self.complete;
        if elsewhere && self.logs.epochs(self.me).len() + 2 > MAX_LOGS_PER_AUTHOR {
            return Some(WriteRefused::CatchingUp);
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
        self.prepare_log(now);
        self.logs.refresh();
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
                self.fx.push(Output::WriteRefused(token, refused));
                continue;
            }
            match self.plan(&group, &own, hlc, changes, now) {
                Ok(Ok(slots)) => group.take(token, bytes, slots),
                Ok(Err(refused)) => self.fx.push(Output::WriteRefused(token, refused)),
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
            self.fx.push(Output::Written(token, names.by_ref().take(ops).collect()));
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
            self.fx.push(Output::WriteRefused(token, refused.clone()));
        }
        Ok(result?)
    }

    /// Signs slots as the own log's next commit, keeps and spreads it; returns their names, or `None` if they
    /// exceed the quota.
    pub(crate) fn sign(
        &mut self,
        own: Branch,
        hlc: Hlc,
        slots: Vec<(Slot, Bytes)>,
    ) -> Result<Option<Vec<Version>>, StoreError> {
        let Advanced::By(mut change) = own.advance(&slots, &self.store)? else {
            return Ok(None);
        };
        let names = std::mem::take(&mut change.names);
        let (count, totals) = (slots.len(), change.totals());
        let header = commit::next_header(&own, &self.roster, &self.me, hlc, count, totals);
        let max = self.own_right().and_then(|right| right.max_bytes);
        if max.is_some_and(|max| header.live_bytes > max) {
            return Ok(None);
        }
        let commit = commit::sign(&self.key, header, slots);
        self.fx.counters.commits_signed += 1;
        self.advance_head(own, &commit, *change);
        self.fx.push(Output::Publish(announce(&commit)));
        Ok(Some(names))
    }

    fn plan(
        &self,
        group: &Group,
        own: &Branch,
        hlc: Hlc,
        changes: Vec<Change>,
        now: Now,
    ) -> Result<Result<Vec<(Slot, Bytes)>, WriteRefused>, StoreError> {
        let mut slots: Vec<(Slot, Bytes)> = Vec::with_capacity(changes.len());
        for change in changes {
            let view = self.view(&change.cell)?;
            let mine = group.slots.iter().chain(&slots).rev().map(|(slot, _)| slot);
            let pending = mine.into_iter().find(|slot| slot.op.cell == change.cell);
            if let Some(condition) = &change.condition
                && !holds(condition, &view, pending, now.wall)
            {
                let there = view.values(now.wall).map(|seen| seen.version).collect();
                return Ok(Err(WriteRefused::Condition(there)));
            }
            let seq = own.seq() + (group.slots.len() + slots.len()) as u64 + 1;
            let replaced = pending.or_else(|| view.own(&own.id.log));
            let op = match write(change, &view, own.id.log, seq, replaced, now.wall) {
                Ok(op) => op,
                Err(refused) => return Ok(Err(refused)),
            };
            let bytes = Bytes(codec::encode(&op));
            slots.push((Slot { log: own.id.log, seq, hlc, op, size: bytes.len() }, bytes));
        }
        Ok(Ok(slots))
    }
}

/// The operation that a change comes to over what is there. `replaced`: the own log's slot on the cell, also
/// one that waits in the same group.
fn write(
    change: Change,
    view: &View,
    own: LogId,
    seq: u64,
    replaced: Option<&Slot>,
    wall: u64,
) -> Result<Op, WriteRefused> {
    let too_many = |_| {
        let text = format!("more than {MAX_CTX} logs have written to this key: delete it first");
        WriteRefused::Invalid(text)
    };
    let adds = matches!(change.edit, Edit::Add(_));
    let ctx = view.context(&own, replaced, adds).map_err(too_many)?;
    let mut counted = view.counted(wall);
    let mut taken = view.taken();
    if let Some(slot) = replaced {
        taken.join(&slot.op.took);
        if let Body::Counter(parts) = &slot.op.body {
            counted.join(parts);
        }
    }
    let numbers = numbers(view, replaced);
    let (body, took) = match change.edit {
        Edit::Add(amount) => {
            let (parts, adopted) = added(amount, view, own, seq, replaced, &taken, wall)?;
            let mut carried = Parts::default();
            carried.join(replaced.map_or(&[][..], |slot| &slot.op.took));
            // A number that this write overwrites and does not adopt is gone, also where it was adopted.
            carried
                .join(&numbers.into_iter().filter(|n| Some(n.id()) != adopted).collect::<Vec<_>>());
            (Body::Counter(parts), carried)
        }
        edit => {
            taken.join_all(&counted);
            taken.join(&numbers);
            let body = match edit {
                Edit::Put(value) => Body::Put(value),
                _ => Body::Delete,
            };
            (body, taken)
        }
    };
    let took = took.bounded(&counted).to_vec();
    if took.len() > MAX_PARTS {
        let text = format!("more than {MAX_PARTS} devices and runs have added to this counter");
        return Err(WriteRefused::Invalid(text));
    }
    Ok(Op { cell: change.cell, body, ctx, took, expires_at: change.expires_at })
}

/// The whole numbers among the values on the cell, each as the part that a counter which adopts it begins
/// with.
fn numbers(view: &View, replaced: Option<&Slot>) -> Vec<Part> {
    let slots = view.seen().map(|seen| &seen.slot).chain(replaced);
    let number = |slot: &Slot| match &slot.op.body {
        Body::Put(value) => decimal(value).map(|n| adopted(slot, n)),
        _ => None,
    };
    slots.filter_map(number).collect()
}

fn adopted(slot: &Slot, number: i64) -> Part {
    part(PartId { log: slot.log, first_seq: slot.seq }, i128::from(number), (0, 0))
}

/// The own log's parts once `amount` is added: what was taken away is dropped, the own part grows or a new
/// one begins, and a whole number that is shown is adopted as a part named by the write that set it (returned
/// as well).
fn added(
    amount: i64,
    view: &View,
    own: LogId,
    seq: u64,
    replaced: Option<&Slot>,
    taken: &Parts,
    wall: u64,
) -> Result<(Vec<Part>, Option<PartId>), WriteRefused> {
    let mut parts = Parts::default();
    if let Some(Slot { op: Op { body: Body::Counter(theirs), .. }, .. }) = replaced {
        parts.join(theirs);
    }
    parts.retain(|part| !taken.covers(part));
    // A pending own write stands over what is shown.
    let pending = replaced.filter(|own| view.seen().all(|seen| seen.slot.hlc < own.hlc));
    let shown = pending.or_else(|| view.values(wall).next().map(|seen| &seen.slot));
    let value = shown.filter(|slot| !slot.expired(wall)).and_then(|slot| match &slot.op.body {
        Body::Put(value) => Some((slot, value)),
        _ => None,
    });
    let mut from = None;
    if let Some((slot, value)) = value {
        let Some(number) = decimal(value) else {
            let text = "what the key holds is no whole number: nothing can be added to it";
            return Err(WriteRefused::Invalid(text.to_owned()));
        };
        let part = adopted(slot, number);
        from = Some(part.id());
        parts.join(&[part]);
    }
    let mine = parts.to_vec().into_iter().find(|part| part.log == own && Some(part.id()) != from);
    let id = mine.map_or(PartId { log: own, first_seq: seq }, |part| part.id());
    let grown = part(id, i128::from(amount), parts.of(&id));
    if grown.up.0 >= MAX_AMOUNT || grown.down.0 >= MAX_AMOUNT {
        return Err(WriteRefused::Invalid("the counter is full".to_owned()));
    }
    parts.set(&grown);
    if parts.len() > MAX_PARTS {
        return Err(WriteRefused::Invalid("the counter has too many parts".to_owned()));
    }
    Ok((parts.to_vec(), from))
}

fn part(id: PartId, amount: i128, (up, down): (u128, u128)) -> Part {
    let size = amount.unsigned_abs();
    let (more, less) = if amount < 0 { (0, size) } else { (size, 0) };
    Part { log: id.log, first_seq: id.first_seq, up: Amount(up + more), down: Amount(down + less) }
}

fn value_of(change: &Change) -> Option<&[u8]> {
    match &change.edit {
        Edit::Put(value) => Some(value),
        Edit::Delete | Edit::Add(_) => None,
    }
}

fn size_hint(change: &Change) -> usize {
    change.cell.key.len() + value_of(change).map_or(0, <[u8]>::len) + 32
}

fn holds(condition: &Condition, view: &View, pending: Option<&Slot>, wall: u64) -> bool {
    match (condition, pending) {
        (Condition::Absent, Some(slot)) => slot.op.body == Body::Delete,
        (Condition::Absent, None) => view.shown(wall) == Shown::Absent,
        (Condition::Values(_), Some(_)) => false,
        (Condition::Values(wanted), None) => {
            let mut there: Vec<Version> = view.values(wall).map(|seen| seen.version).collect();
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
        _ => true,
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
