//! Local writes: what is refused, how they share a commit, when a new epoch is opened. Knows nothing of what
//! follows when the head of the own log moves: a signed commit is handed back, see `local.rs`.

use std::collections::{BTreeSet, VecDeque};

use super::effects::Effects;
use super::plan::{holds, size_hint, value_of, write};
use crate::codec::{self, Bytes};
use crate::crypto::DeviceKey;
use crate::id::{BranchId, DeviceId, Hash, LogId, Version};
use crate::io::{Change, Edit, Fault, Output, Token, WriteRefused};
use crate::limits::{
    GROUP_BYTES, GROUP_OPS, MAX_LOGS_PER_AUTHOR, MAX_QUEUED_WRITES, MAX_TX_BYTES, MAX_TX_OPS,
};
use crate::log::branch::advance::{Advance, Advanced};
use crate::log::branch::{Branch, BranchState};
use crate::log::commit::{self, VerifiedCommit};
use crate::log::log_set::LogSet;
use crate::log::verify::VerifiedHeader;
use crate::model::cell::Cell;
use crate::model::op::{BadOp, Op, Slot};
use crate::model::view::View;
use crate::plant::{self, Plant};
use crate::random::Random;
use crate::roster::{Right, Role, Roster};
use crate::store::{Store, StoreError};
use crate::time::{Hlc, HybridClock, Now};

/// This device as an author: its key, the log that it writes to, the stamps that it gives, and the writes that
/// wait.
///
/// [`LocalWriter::choose_log`] comes first. Each [`LocalWriter::commit`] signs one group of what
/// [`LocalWriter::enqueue`] took; what it returns is to be kept before anything else is asked of the writer.
pub(crate) struct LocalWriter {
    key: DeviceKey,
    me: DeviceId,
    /// The log that local writes go to.
    log: LogId,
    /// The head at which a peer in memory left its log when it last stopped: written on once it is here.
    resumable: Option<(LogId, Hash)>,
    /// Peers that made us leave a log by a claim they did not prove: once each.
    alarmed: BTreeSet<DeviceId>,
    clock: HybridClock,
    queue: VecDeque<(Token, Vec<Change>)>,
}

/// The other parts of a replica, as far as writing works on them.
pub(crate) struct Parts<'a, S> {
    pub(crate) logs: &'a mut LogSet,
    pub(crate) fx: &'a mut Effects,
    pub(crate) roster: &'a Roster,
    pub(crate) store: &'a S,
    pub(crate) random: &'a mut Random,
    /// Whether the replica is complete.
    pub(crate) complete: bool,
}

/// A commit of this device's that is signed, and what it changes. Nothing of it is kept yet.
pub(crate) struct Signed {
    /// The branch that it goes on from.
    pub(crate) branch: BranchId,
    pub(crate) commit: VerifiedCommit,
    pub(crate) change: Advance,
    /// The names of its operations, in their order.
    pub(crate) names: Vec<Version>,
}

/// A group of local writes that became one commit.
pub(crate) struct Committed {
    pub(crate) signed: Signed,
    /// The writes that share it, each with its number of operations.
    pub(crate) tokens: Vec<(Token, usize)>,
}

impl LocalWriter {
    /// The author with this key. `resumable`: the signed head at which it last left a log in memory.
    pub(crate) fn new(key: DeviceKey, resumable: Option<&Bytes>) -> Self {
        let me = key.id();
        let resumable = resumable.and_then(|bytes| {
            let header = VerifiedHeader::from_store(bytes).ok()?;
            (header.header().log.author == me).then(|| (header.header().log, header.hash()))
        });
        Self {
            key,
            me,
            log: LogId { author: me, epoch: 0, shard: 0 },
            resumable,
            alarmed: BTreeSet::new(),
            clock: HybridClock::default(),
            queue: VecDeque::new(),
        }
    }

    /// What this device signs with.
    pub(crate) fn key(&self) -> &DeviceKey {
        &self.key
    }

    /// The log that local writes go to.
    pub(crate) fn log(&self) -> LogId {
        self.log
    }

    // ---- the log to write to --------------------------------------------------------------------

    /// Chooses the log that writing goes on in when a replica is opened: one whose newest commit this very
    /// store signed, or a new one.
    pub(crate) fn choose_log<S>(&mut self, fresh_epoch: bool, parts: &mut Parts<'_, S>) {
        let live = |b: &&Branch| b.state == BranchState::Live && b.head.is_some();
        let newest =
            parts.logs.of_author(self.me).filter(live).map(|b| (b.stamp(), b.id.log)).max();
        if let Some((_, own)) = newest {
            self.log = own;
        }
        if fresh_epoch && !plant::is(Plant::ReuseEpoch) || newest.is_none() {
            self.rotate(parts);
        }
    }

    /// Leaves the own log for good and goes on in a new one, above every own epoch known here.
    pub(crate) fn rotate<S>(&mut self, parts: &mut Parts<'_, S>) {
        let left: Vec<_> = parts
            .logs
            .branches(self.log)
            .filter(|b| b.state == BranchState::Live)
            .map(|b| b.id)
            .collect();
        for id in left {
            let writes = parts.logs.record(id, |branch| branch.state = BranchState::Closed);
            parts.fx.persist(writes);
        }
        let there = parts.logs.of_author(self.me).map(|branch| branch.id.log.epoch >> 32).max();
        let resumable = self.resumable.map(|(log, _)| log.epoch >> 32);
        let greatest = there.into_iter().chain(resumable).chain([self.log.epoch >> 32]).max();
        let next = greatest.unwrap_or(0).saturating_add(1).min(u64::from(u32::MAX));
        // Two copies of one device do not open the same.
        self.log =
            LogId { author: self.me, epoch: next << 32 | parts.random.next() >> 32, shard: 0 };
    }

    /// The own log's branch that writing goes on in.
    pub(crate) fn branch(&self, logs: &LogSet) -> Branch {
        let there = logs.branches(self.log).next().cloned();
        // Own logs count at this replica whatever the roster says: a new one is open.
        there.unwrap_or_else(|| Branch::new(self.log.into()))
    }

    /// Opens a new epoch when the own log cannot safely go on.
    pub(crate) fn prepare_log<S>(&mut self, now: Now, parts: &mut Parts<'_, S>) {
        self.resume(parts);
        let several = parts.logs.branches(self.log).nth(1).is_some();
        let branch = self.branch(parts.logs);
        let runaway = HybridClock::runs_away(branch.stamp(), now);
        let grant = parts.roster.member(&self.me).map(|member| member.grant);
        let regranted = branch.head.as_ref().is_some_and(|head| Some(head.header().grant) != grant);
        let live = matches!(branch.state, BranchState::Live | BranchState::Fetching);
        let busy = branch.staged.is_some() || branch.purging();
        let stuck = busy || branch.forked || branch.frozen.is_some() || regranted || !live;
        let stuck = stuck && !plant::is(Plant::ReuseEpoch);
        // A greater own epoch has come from elsewhere: a lesser one might count nowhere any more.
        // Above the last one there is none: whoever else signs with this key has seen to that.
        let greater = |log: &LogId| *log > self.log && log.epoch >> 32 < u64::from(u32::MAX);
        let behind = parts.logs.epochs(self.me).last().is_some_and(greater);
        if runaway || stuck || several || behind {
            self.rotate(parts);
            self.clock.reset_lead(now);
        }
    }

    /// A peer in memory goes on in the log that it left in good order, once that is here as it left it.
    fn resume<S>(&mut self, parts: &mut Parts<'_, S>) {
        let Some((log, head)) = self.resumable else { return };
        let here = parts.logs.branches(log).find(|b| b.shown() && b.head_hash() == head);
        let alone = parts.logs.branches(log).nth(1).is_none();
        let unused = parts.logs.branches(self.log).next().is_none();
        if let Some(id) = here.filter(|_| alone && unused).map(|branch| branch.id) {
            let writes = parts.logs.record(id, |branch| branch.state = BranchState::Live);
            parts.fx.persist(writes);
            self.log = log;
            self.resumable = None;
        }
    }

    /// The head at which a peer in memory left this log when it last stopped.
    pub(crate) fn left_at(&self, log: LogId) -> Option<Hash> {
        self.resumable.filter(|(left, _)| *left == log).map(|(_, head)| head)
    }

    /// A peer shows an own head that this replica does not have: the data directory is a copy, or an
    /// old one. What was written there stays a log like any other's; writing goes on in a new epoch.
    pub(crate) fn head_elsewhere<S>(&mut self, parts: &mut Parts<'_, S>) {
        if !plant::is(Plant::ReuseEpoch) {
            self.rotate(parts);
        }
    }

    /// As [`Self::head_elsewhere`], but the peer has only said so. Better an epoch too many than a
    /// fork; but no peer can make us open one after the other.
    pub(crate) fn head_claimed<S>(&mut self, peer: DeviceId, parts: &mut Parts<'_, S>) {
        if self.alarmed.insert(peer) && !plant::is(Plant::ReuseEpoch) {
            self.rotate(parts);
        }
    }

    /// What this device may write, by the grant that its headers cite.
    pub(crate) fn right<'a>(&self, roster: &'a Roster) -> Option<&'a Right> {
        roster.member(&self.me).and_then(|member| roster.right(&member.grant))
    }

    /// Whether this device may write anything.
    pub(crate) fn may_write(&self, roster: &Roster) -> bool {
        self.right(roster).is_some_and(|right| right.role >= Role::Writer)
    }

    /// Follows a stamp of another author's.
    pub(crate) fn observe(&mut self, stamp: Hlc, now: Now) {
        self.clock.observe(stamp, now);
    }

    /// The stamp of the next commit on this branch.
    pub(crate) fn stamp(&mut self, own: &Branch, now: Now) -> Hlc {
        self.clock.tick(now, own.stamp())
    }

    // ---- taking writes --------------------------------------------------------------------------

    /// Takes a transaction in, or refuses it.
    pub(crate) fn enqueue<S>(
        &mut self,
        token: Token,
        changes: Vec<Change>,
        parts: &mut Parts<'_, S>,
    ) {
        let refusal = if self.queue.len() >= MAX_QUEUED_WRITES {
            Some(WriteRefused::Busy)
        } else {
            self.refusal(&changes, parts)
        };
        match refusal {
            Some(refusal) => parts.fx.push(Output::WriteRefused(token, refusal)),
            None => self.queue.push_back((token, changes)),
        }
    }

    fn refusal<S>(&self, changes: &[Change], parts: &Parts<'_, S>) -> Option<WriteRefused> {
        if parts.roster.revocation(&self.me).is_some() {
            return Some(WriteRefused::NotAllowed("it was revoked, or left the swarm"));
        }
        let Some(member) = parts.roster.member(&self.me) else {
            return Some(WriteRefused::NotAllowed("it is no member"));
        };
        if member.role < Role::Writer {
            return Some(WriteRefused::NotAllowed("it is a reader"));
        }
        let Some(right) = parts.roster.right(&member.grant) else {
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
            // What does not fit its cell no replica takes, and who hands it on is blamed.
            let fits = change.edit == Edit::Delete || change.cell.tag.has_values();
            let checked = Op::check_parts(&change.cell, value_of(change));
            if let Err(bad) = checked.and(fits.then_some(()).ok_or(BadOp::Body)) {
                return Some(WriteRefused::Invalid(bad.to_string()));
            }
            bytes += size_hint(change);
        }
        if bytes > MAX_TX_BYTES {
            let text = format!("a transaction of {bytes} bytes (at most {MAX_TX_BYTES})");
            return Some(WriteRefused::Invalid(text));
        }
        let conditional = changes.iter().any(|change| change.condition.is_some());
        if conditional && !parts.complete && !plant::is(Plant::JudgeEarly) {
            return Some(WriteRefused::CatchingUp);
        }
        // Logs that are not here cannot be written again: one more would push the oldest out of the swarm.
        let elsewhere = self.resumable.is_some() && !parts.complete;
        if elsewhere && parts.logs.epochs(self.me).len() + 2 > MAX_LOGS_PER_AUTHOR {
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

    /// Signs one group of queued writes as one commit; `None` if nothing is left to be written.
    pub(crate) fn commit<S: Store>(
        &mut self,
        now: Now,
        parts: &mut Parts<'_, S>,
    ) -> Result<Option<Committed>, Fault> {
        self.prepare_log(now, parts);
        parts.logs.refresh();
        let own = self.branch(parts.logs);
        let hlc = self.stamp(&own, now);
        let mut group = Group::default();
        while let Some((token, changes)) = self.queue.front() {
            let bytes: usize = changes.iter().map(size_hint).sum();
            if !group.fits(changes.len(), bytes) {
                break;
            }
            let token = *token;
            let changes = self.queue.pop_front().map(|(_, changes)| changes).unwrap_or_default();
            // Rights may have changed while it waited.
            if let Some(refused) = self.refusal(&changes, parts) {
                parts.fx.push(Output::WriteRefused(token, refused));
                continue;
            }
            match plan(&group, &own, hlc, changes, now, parts) {
                Ok(Ok(slots)) => group.take(token, bytes, slots),
                Ok(Err(refused)) => parts.fx.push(Output::WriteRefused(token, refused)),
                Err(broken) => {
                    group.tokens.push((token, 0));
                    return refuse(group.tokens, &WriteRefused::Damaged, Err(broken), parts.fx);
                }
            }
        }
        if group.slots.is_empty() {
            return Ok(None);
        }
        match self.sign(own, hlc, group.slots, parts) {
            Ok(Some(signed)) => Ok(Some(Committed { signed, tokens: group.tokens })),
            Ok(None) => {
                let refused = WriteRefused::NotAllowed("it would go over its quota");
                refuse(group.tokens, &refused, Ok(()), parts.fx)
            }
            Err(broken) => refuse(group.tokens, &WriteRefused::Damaged, Err(broken), parts.fx),
        }
    }

    /// Signs slots as the own log's next commit; `None` if they exceed the quota.
    pub(crate) fn sign<S: Store>(
        &self,
        own: Branch,
        hlc: Hlc,
        slots: Vec<(Slot, Bytes)>,
        parts: &mut Parts<'_, S>,
    ) -> Result<Option<Signed>, StoreError> {
        let Advanced::By(mut change) = own.advance(&slots, parts.store)? else {
            return Ok(None);
        };
        let names = std::mem::take(&mut change.names);
        let (count, totals) = (slots.len(), change.totals());
        let header = commit::next_header(&own, parts.roster, &self.me, hlc, count, totals);
        let max = self.right(parts.roster).and_then(|right| right.max_bytes);
        if max.is_some_and(|max| header.live_bytes > max) {
            return Ok(None);
        }
        let commit = commit::sign(&self.key, header, slots);
        parts.fx.counters.commits_signed += 1;
        Ok(Some(Signed { branch: own.id, commit, change: *change, names }))
    }
}

impl<S: Store> Parts<'_, S> {
    fn view(&self, cell: &Cell) -> Result<View, StoreError> {
        let heads = self.logs.heads();
        Ok(View::merge(&self.store.slots(&cell.index_key())?, |branch| heads.of(branch))?)
    }
}

fn refuse(
    tokens: Vec<(Token, usize)>,
    refused: &WriteRefused,
    result: Result<(), StoreError>,
    fx: &mut Effects,
) -> Result<Option<Committed>, Fault> {
    for (token, _) in tokens {
        fx.push(Output::WriteRefused(token, refused.clone()));
    }
    result?;
    Ok(None)
}

/// The slots that a transaction comes to, after those that the group has already.
fn plan<S: Store>(
    group: &Group,
    own: &Branch,
    hlc: Hlc,
    changes: Vec<Change>,
    now: Now,
    parts: &Parts<'_, S>,
) -> Result<Result<Vec<(Slot, Bytes)>, WriteRefused>, StoreError> {
    let mut slots: Vec<(Slot, Bytes)> = Vec::with_capacity(changes.len());
    for change in changes {
        let view = parts.view(&change.cell)?;
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
