//! Values that a device wrote in a form that nobody reads any more, written again in a new log of its own.
//! Knows nothing of that form, nor where the values come from.

use crate::codec::{self, Bytes};
use crate::crypto::DeviceKey;
use crate::id::LogId;
use crate::log::branch::Branch;
use crate::log::branch::advance::Advanced;
use crate::log::commit;
use crate::model::cell::Cell;
use crate::model::counter::{Amount, Part};
use crate::model::op::{Body, Op, Slot};
use crate::roster::{Right, Role, Roster};
use crate::store::{Store, StoreError, Write};
use crate::time::Hlc;

/// What a key is to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// This value.
    Put(Bytes),
    /// Nothing: it was deleted.
    Delete,
    /// What this device has added to a counter, and what it has taken from it.
    Counter(u64, u64),
}

/// One value to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// What it is to hold.
    pub content: Content,
    /// Unix milliseconds after which that is no longer shown.
    pub expires_at: Option<u64>,
}

/// A new log that one device signs from its begin, with stamps that are given.
///
/// Every commit's writes must be in the store before the next commit is made; those of
/// [`Rewriter::finish`] come last, and until they are there the log does not count.
pub struct Rewriter<'a> {
    key: &'a DeviceKey,
    roster: &'a Roster,
    right: &'a Right,
    branch: Branch,
}

impl<'a> Rewriter<'a> {
    /// A log of `key`'s device in this epoch; `None` if that device may not write.
    #[must_use]
    pub fn new(key: &'a DeviceKey, roster: &'a Roster, epoch: u64) -> Option<Self> {
        let author = key.id();
        let right = roster.right(&roster.member(&author)?.grant)?;
        let branch = Branch::new(LogId { author, epoch, shard: 0 }.into());
        (right.role >= Role::Writer).then_some(Self { key, roster, right, branch })
    }

    /// Whether the device's grant covers this, and whether any replica takes it.
    #[must_use]
    pub fn allows(&self, item: &Item) -> bool {
        let value = match &item.content {
            Content::Put(value) => Some(&value[..]),
            Content::Delete | Content::Counter(..) => None,
        };
        let sound = Op::check_parts(&Cell::value(item.key.clone()), value).is_ok();
        sound && item.key.starts_with(&self.right.prefix)
    }

    /// Signs items as the next commit, stamped `stamp`, or just after the commit before if that is not
    /// later. `None` if they exceed the quota: nothing has changed then.
    ///
    /// # Errors
    /// When the store fails.
    pub fn commit(
        &mut self,
        stamp: Hlc,
        items: &[Item],
        store: &impl Store,
    ) -> Result<Option<Vec<Write>>, StoreError> {
        if items.is_empty() {
            return Ok(Some(Vec::new()));
        }
        let stamp = stamp.max(self.branch.stamp().next());
        let log = self.branch.id.log;
        let slots = (self.branch.seq() + 1..).zip(items).map(|(seq, item)| {
            let op = op(item, log, seq);
            let bytes = Bytes(codec::encode(&op));
            (Slot { log, seq, hlc: stamp, op, size: bytes.len() }, bytes)
        });
        let slots: Vec<(Slot, Bytes)> = slots.collect();
        let Advanced::By(change) = self.branch.advance(&slots, store)? else { return Ok(None) };
        let header = commit::next_header(
            &self.branch,
            self.roster,
            &self.key.id(),
            stamp,
            slots.len(),
            change.totals(),
        );
        if self.right.max_bytes.is_some_and(|max| header.live_bytes > max) {
            return Ok(None);
        }
        let commit = commit::sign(self.key, header, slots);
        Ok(Some(self.branch.go_on(commit.header().clone(), *change)))
    }

    /// The writes that make the log count as far as it goes.
    #[must_use]
    pub fn finish(mut self) -> Vec<Write> {
        if self.branch.head.is_some() { self.branch.record() } else { Vec::new() }
    }
}

fn op(item: &Item, log: LogId, seq: u64) -> Op {
    let body = match &item.content {
        Content::Put(value) => Body::Put(value.clone()),
        Content::Delete => Body::Delete,
        Content::Counter(up, down) => {
            let (up, down) = (Amount((*up).into()), Amount((*down).into()));
            Body::Counter(vec![Part { log, first_seq: seq, up, down }])
        }
    };
    let (ctx, took) = (Vec::new(), Vec::new());
    Op { cell: Cell::value(item.key.clone()), body, ctx, took, expires_at: item.expires_at }
}
