//! What a store takes over from one of an earlier layout. Operations were signed in another form then, so each
//! device writes again what it wrote itself: what others wrote comes from their devices.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::slice;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::limits::{GROUP_BYTES, GROUP_OPS};
use swarmkv_protocol::log::rewrite::{Content, Item, Rewriter};
use swarmkv_protocol::roster::{Roster, Statement, StatementBody};
use swarmkv_protocol::store::{StoreError, Write};
use swarmkv_protocol::time::Hlc;
use tracing::warn;

use super::disk::Disk;
use super::old::{self, Body, BranchName, OldStore, Op, Place, Version};
use super::schema::Rows;
use crate::clock;

/// Bytes that are made durable together.
const STEP: usize = 4 << 20;
/// Rows of [`Rows::Meta`] that belong to the old store alone.
const LEFT: [&[u8]; 4] = [b"format", b"journal", b"own-head", b"caught-up"];

/// What became of what was in the old store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Own values and deletions written again.
    pub(super) written: usize,
    /// Own ones that a member has overwritten: its device brings what it wrote.
    pub(super) overwritten: usize,
    /// Own ones beside a later own one on the same key, from a copy of this device.
    pub(super) concurrent: usize,
    /// Keys' values of other devices.
    pub(super) of_others: usize,
    /// Own ones that are not what was written, so they cannot be read.
    pub(super) damaged: usize,
    /// Own ones that this device may not write now: outside its prefix, over its quota, or it is no writer.
    pub(super) refused: usize,
    /// Statements about members that cannot be read any more, or rest on such.
    pub(super) statements: usize,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} values of this device written again", self.written)?;
        let left = [
            (self.of_others, "of other devices left to them"),
            (self.overwritten, "overwritten by other devices"),
            (self.concurrent, "older of two written at once by copies of this device"),
            (self.damaged, "damaged"),
            (self.refused, "that this device may not write"),
            (self.statements, "statements about members that cannot be read"),
        ];
        for (count, what) in left.into_iter().filter(|(count, _)| *count > 0) {
            write!(f, "; not taken over: {count} {what}")?;
        }
        Ok(())
    }
}

/// Takes over what can be. Durable when this returns.
pub(super) fn carry(old: &OldStore, new: &Disk, key: &DeviceKey) -> Result<Report, StoreError> {
    let mut report = Report::default();
    for rows in [Rows::Tickets, Rows::Addresses, Rows::Meta] {
        for (name, value) in old.rows(rows)? {
            if rows != Rows::Meta || !LEFT.contains(&&name[..]) {
                new.note(rows, &name, Some(value));
            }
        }
    }
    if let Some(genesis) = old.rows(Rows::Meta)?.remove(&b"genesis"[..]) {
        let mut roster = Roster::open(&genesis).map_err(StoreError::failed)?;
        let unread = carry_statements(old, new, &mut roster, &mut report)?;
        let me = key.id();
        let chosen = Found::in_store(old, me, &mut report)?.chosen(&roster, &unread, &mut report);
        write_again(old, new, key, &roster, chosen, &mut report)?;
        // A replica catches up from one that has: with none, a swarm whose devices all migrate would wait for
        // ever. So its owner's begins, as when the swarm was made, and others' ask it.
        let alone = roster.members().all(|member| member.device == me);
        let first = roster.genesis().owner == me;
        new.apply(vec![Write::CaughtUp(alone || first)]);
    }
    new.sync()?;
    Ok(report)
}

/// Keeps the statements that can be read; says which devices the others took out.
fn carry_statements(
    old: &OldStore,
    new: &Disk,
    roster: &mut Roster,
    report: &mut Report,
) -> Result<BTreeSet<DeviceId>, StoreError> {
    let rows = old.rows(Rows::Statements)?;
    roster.restore(&rows.values().cloned().collect::<Vec<_>>());
    let kept: BTreeSet<&[u8]> = roster.kept().map(|name| &name.as_bytes()[..]).collect();
    let mut taken_out = BTreeSet::new();
    for (name, bytes) in rows {
        if kept.contains(&name[..]) {
            new.note(Rows::Statements, &name, Some(bytes));
            continue;
        }
        report.statements += 1;
        match Statement::claim(&bytes) {
            Some(Statement { body: StatementBody::Revoke(revoke), .. }) => {
                taken_out.insert(revoke.device);
                warn!(
                    "that {} was taken out of the swarm is stated in an earlier form, which does not count \
                     any more: take it out again",
                    revoke.device
                );
            }
            Some(statement) => warn!(
                "what a member stated about {} rests on what does not count any more: invite it again",
                statement.device()
            ),
            None => warn!("a statement about a member cannot be read"),
        }
    }
    Ok(taken_out)
}

/// The latest slot of a branch on a key.
struct Latest {
    place: Place,
    hlc: Hlc,
    /// Its name, if it is an own one.
    own: Option<Version>,
    /// The own writes that it overwrites.
    over: Vec<Version>,
    counter: Option<(u64, u64)>,
}

/// What every key holds in the old store.
struct Found(BTreeMap<Bytes, BTreeMap<BranchName, Latest>>);

/// An own value that is to be written again.
struct Chosen {
    hlc: Hlc,
    place: Place,
    /// All own parts of a counter together.
    counter: Option<(u64, u64)>,
}

impl Found {
    /// Reads every slot up to its branch's proven head.
    fn in_store(old: &OldStore, me: DeviceId, report: &mut Report) -> Result<Self, StoreError> {
        let mut heads: BTreeMap<BranchName, u64> = BTreeMap::new();
        for place in old.rows(Rows::Headers)?.keys() {
            if let Some((branch, seq)) = old::place(place) {
                heads.entry(branch).and_modify(|head| *head = seq.max(*head)).or_insert(seq);
            }
        }
        let logs = old.rows(Rows::Logs)?;
        let mut found: BTreeMap<Bytes, BTreeMap<BranchName, Latest>> = BTreeMap::new();
        for place in old.places()? {
            let (branch, seq) = place;
            if !logs.contains_key(&branch[..]) || heads.get(&branch).is_none_or(|head| seq > *head)
            {
                continue;
            }
            let mine = old::author(&branch) == me;
            let Some((hlc, op)) = old::sound(&place, &old.slot(&place)?) else {
                report.damaged += usize::from(mine);
                continue;
            };
            let own = mine.then(|| old::version(&place, hlc, &op));
            let Op { key, body, mut ctx, .. } = op;
            ctx.retain(|((author, ..), ..)| *author == me);
            let counter = match body {
                Body::Counter(parts) => Some(parts),
                Body::Put(_) | Body::Delete => None,
            };
            let on_key = found.entry(key).or_default();
            if on_key.get(&branch).is_none_or(|latest| latest.place.1 < seq) {
                on_key.insert(branch, Latest { place, hlc, own, over: ctx, counter });
            }
        }
        Ok(Self(found))
    }

    /// Of every key the own value that stands, ascending by stamp. One stands unless a member has overwritten
    /// it: what others have is not brought by anybody.
    fn chosen(
        self,
        roster: &Roster,
        unread: &BTreeSet<DeviceId>,
        report: &mut Report,
    ) -> Vec<Chosen> {
        let brings = |branch: &BranchName| {
            let author = old::author(branch);
            roster.member(&author).is_some() && !unread.contains(&author)
        };
        let mut chosen = Vec::new();
        for on_key in self.0.into_values() {
            let counts =
                |(branch, latest): &(&BranchName, &Latest)| latest.own.is_some() || brings(branch);
            let named: BTreeSet<Version> = on_key
                .iter()
                .filter(counts)
                .flat_map(|(_, latest)| latest.over.iter().copied())
                .collect();
            let (mine, others): (Vec<_>, Vec<_>) =
                on_key.into_values().partition(|latest| latest.own.is_some());
            report.of_others += usize::from(!others.is_empty());
            // Two histories of one log may hold the same write.
            let mut standing: BTreeMap<(Hlc, Version), Latest> = BTreeMap::new();
            let there = !mine.is_empty();
            for latest in mine {
                if let Some(version) = latest.own.filter(|version| !named.contains(version)) {
                    standing.insert((latest.hlc, version), latest);
                }
            }
            let Some((_, last)) = standing.pop_last() else {
                report.overwritten += usize::from(there);
                continue;
            };
            let mut counter = last.counter;
            for (_, beside) in standing {
                match (&mut counter, beside.counter) {
                    (Some((up, down)), Some((more, less))) => {
                        (*up, *down) = (up.saturating_add(more), down.saturating_add(less));
                    }
                    _ => report.concurrent += 1,
                }
            }
            chosen.push(Chosen { hlc: last.hlc, place: last.place, counter });
        }
        chosen.sort_by_key(|one| (one.hlc, one.place));
        chosen
    }
}

/// Writes the chosen values in one new log, each with its stamp.
fn write_again(
    old: &OldStore,
    new: &Disk,
    key: &DeviceKey,
    roster: &Roster,
    chosen: Vec<Chosen>,
    report: &mut Report,
) -> Result<(), StoreError> {
    // As every epoch: above all before it, and not the same in two copies of one device.
    let epoch = 1 << 32 | u64::from(u32::from_be_bytes(clock::random()));
    let Some(rewriter) = Rewriter::new(key, roster, epoch) else {
        report.refused += chosen.len();
        return Ok(());
    };
    let mut log =
        NewLog { rewriter, new, stamp: Hlc::default(), group: Vec::new(), bytes: 0, unsynced: 0 };
    for Chosen { hlc, place, counter } in chosen {
        let Some((_, op)) = old::sound(&place, &old.slot(&place)?) else {
            report.damaged += 1;
            continue;
        };
        let content = match (op.body, counter) {
            (Body::Put(value), _) => Content::Put(value),
            (Body::Delete, _) => Content::Delete,
            (Body::Counter((up, down)), None) => Content::Counter(up, down),
            (Body::Counter(_), Some((up, down))) => Content::Counter(up, down),
        };
        log.add(hlc, Item { key: op.key, content, expires_at: op.expires_at }, report)?;
    }
    log.commit(report)?;
    new.apply(log.rewriter.finish());
    Ok(())
}

/// The new log, and the commit that is being gathered.
struct NewLog<'a> {
    rewriter: Rewriter<'a>,
    new: &'a Disk,
    stamp: Hlc,
    group: Vec<Item>,
    bytes: usize,
    unsynced: usize,
}

impl NewLog<'_> {
    /// Adds a value to the commit of its stamp.
    fn add(&mut self, stamp: Hlc, item: Item, report: &mut Report) -> Result<(), StoreError> {
        if !self.rewriter.allows(&item) {
            report.refused += 1;
            return Ok(());
        }
        let size = size(&item);
        let full = self.group.len() >= GROUP_OPS || self.bytes + size > GROUP_BYTES;
        if full || stamp != self.stamp {
            self.commit(report)?;
        }
        self.stamp = stamp;
        self.bytes += size;
        self.group.push(item);
        Ok(())
    }

    /// Signs what was gathered. If that is over the quota, what fits of it.
    fn commit(&mut self, report: &mut Report) -> Result<(), StoreError> {
        let group = std::mem::take(&mut self.group);
        self.unsynced += std::mem::take(&mut self.bytes);
        if self.sign(&group)? {
            report.written += group.len();
        } else {
            for item in &group {
                match self.sign(slice::from_ref(item))? {
                    true => report.written += 1,
                    false => report.refused += 1,
                }
            }
        }
        if self.unsynced >= STEP {
            self.unsynced = 0;
            self.new.sync()?;
        }
        Ok(())
    }

    fn sign(&mut self, items: &[Item]) -> Result<bool, StoreError> {
        let Some(writes) = self.rewriter.commit(self.stamp, items, self.new)? else {
            return Ok(false);
        };
        self.new.apply(writes);
        Ok(true)
    }
}

fn size(item: &Item) -> usize {
    let value = match &item.content {
        Content::Put(value) => value.len(),
        Content::Delete | Content::Counter(..) => 0,
    };
    item.key.len() + value + 32
}
