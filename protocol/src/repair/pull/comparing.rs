//! A log of which something is here already, compared with a peer's: what is the same is taken from here, what
//! differs is asked for. It is built beside what is here, and the header's live root proves it like any other.

use std::collections::{BTreeMap, BTreeSet};

use super::Pull;
use super::receiving::{Comparing, Receiving};
use crate::codec::Bytes;
use crate::id::{BranchId, Hash8};
use crate::io::Fault;
use crate::limits::{
    BLOCK_BYTES, BLOCK_SLOTS, CHORE_BYTES, CHORE_SLOTS, COMPARE_BYTES, NAMES, RANGES, SUMS,
};
use crate::log::live_set::{self, Named, Range};
use crate::log::verify::admissible_slot;
use crate::message::{Ask, Names, Repair, Sums};
use crate::model::op::Slot;
use crate::model::slot::RawSlot;
use crate::plant::{self, Plant};
use crate::replica::Replica;
use crate::store::{Store, StoreError};
use crate::time::Now;

/// Bytes of slots that a byte of sums or names stands for, about: comparing brings few and holds its log for as long
/// as sending it whole would.
const SPARED: u64 = 64;

/// What is to be dropped of what is set aside, and what is put there instead.
struct Edit {
    drop: Vec<RawSlot>,
    add: Vec<(Slot, Bytes)>,
    /// Bytes of operations that may still be read for this frame: what lies beyond is asked for.
    left: usize,
}

impl Edit {
    fn new() -> Self {
        Self { drop: Vec::new(), add: Vec::new(), left: COMPARE_BYTES }
    }

    /// Slots of a history in a range, within what may still be read. A history that cannot be read has none.
    fn read(
        &mut self,
        id: &BranchId,
        range: Range,
        most: (usize, usize),
        store: &impl Store,
    ) -> Result<Vec<RawSlot>, StoreError> {
        if self.left == 0 {
            return Ok(Vec::new());
        }
        let (slots, bytes) = (most.0, most.1.min(self.left));
        let raws = match store.slots_after(id, range.after, range.upto, slots, bytes) {
            Err(StoreError::Damaged { .. }) => Vec::new(),
            raws => raws?,
        };
        self.left = self.left.saturating_sub(raws.iter().map(|raw| raw.op.len()).sum());
        Ok(raws)
    }
}

impl Pull {
    /// Sums over blocks of the peer's live set: those that differ from every history here are noted.
    pub(super) fn sums<S: Store>(
        &mut self,
        sums: &Sums,
        size: u64,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        if sums.blocks.len() > SUMS || sums.blocks.is_empty() && !sums.last {
            return Err(self.nonsense("no or too many sums"));
        }
        self.was_asked()?;
        let Some((mut receiving, mut comparing)) = self.comparing(replica) else {
            if sums.last {
                // Of a log that is not wanted: no more of it than has to be.
                self.say(&Repair::Ask(Ask::default()), replica);
            }
            return Ok(());
        };
        self.progress.bytes(now.mono, size);
        self.hold_on(receiving.branch, now, SPARED * size, replica);
        let mut edit = Edit::new();
        for block in &sums.blocks {
            if block.upto <= receiving.upto {
                return Err(self.nonsense("sums do not ascend"));
            }
            let range = Range { after: receiving.upto, upto: block.upto };
            receiving.upto = block.upto;
            if !self.same(&receiving, range, block.sum, &mut edit, replica)? {
                comparing.note(range);
            }
        }
        self.received += edit.add.len() as u64;
        receiving.comparing = Some(comparing);
        self.set_aside(receiving, &edit.drop, edit.add, now, replica)?;
        if sums.last { self.ask(Vec::new(), replica) } else { Ok(()) }
    }

    /// Names of the peer's slots in the ranges asked about: what is not among them is dropped here, what is
    /// missing is taken from another history here or asked for.
    pub(super) fn names<S: Store>(
        &mut self,
        names: &Names,
        size: u64,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        self.was_asked()?;
        let Some((mut receiving, mut comparing)) = self.comparing(replica) else {
            self.say(&Repair::Ask(Ask::default()), replica);
            return Ok(());
        };
        let asked = std::mem::take(&mut comparing.asked);
        let inside = |named: &Named| {
            named.seq <= names.upto && asked.iter().any(|range| range.has(named.seq))
        };
        let ascending = names.names.windows(2).all(|pair| pair[0].seq < pair[1].seq);
        let goes_on = asked.first().is_some_and(|first| first.after < names.upto);
        if names.names.len() > NAMES || !ascending || !goes_on || !names.names.iter().all(inside) {
            return Err(self.nonsense("names slots that were not asked about"));
        }
        self.progress.bytes(now.mono, size);
        self.hold_on(receiving.branch, now, SPARED * size, replica);
        let mut due: BTreeMap<u64, Hash8> =
            names.names.iter().map(|named| (named.seq, named.name)).collect();
        let mut edit = Edit::new();
        for range in asked.iter().rev().filter(|range| range.upto > names.upto) {
            let after = range.after.max(names.upto);
            comparing.differing.push_front(Range { after, upto: range.upto });
        }
        for range in asked.iter().filter(|range| range.after < names.upto) {
            let range = Range { upto: range.upto.min(names.upto), ..*range };
            self.keep_named(&receiving, range, &mut due, &mut edit, replica)?;
        }
        self.received += edit.add.len() as u64;
        let wanted: Vec<u64> = due.into_keys().collect();
        receiving.comparing = Some(comparing);
        self.set_aside(receiving, &edit.drop, edit.add, now, replica)?;
        self.ask(wanted, replica)
    }

    /// Each such frame may be answered, so one that comes before the last answer has left ends the session: what
    /// waits to be sent would have no bound.
    fn was_asked(&self) -> Result<(), Fault> {
        match self.outbox.is_empty() {
            true => Ok(()),
            false => Err(Fault::nobody(self.peer, "goes on without waiting for the answers")),
        }
    }

    /// The log that arrives, if its live set is being compared and this session still may.
    fn comparing<S: Store>(&mut self, replica: &Replica<S>) -> Option<(Receiving, Comparing)> {
        let mut receiving = self.receiving.take_if(|receiving| receiving.comparing.is_some())?;
        let comparing = receiving.comparing.take()?;
        let id = receiving.branch;
        let mine = replica.receiving.get(&id).is_some_and(|(by, _)| *by == self.session);
        let fetching = replica.logs.get(&id).is_some_and(|b| b.fetching() && !b.purging());
        let granted = replica.roster.right(&receiving.grant).is_some();
        (mine && fetching && granted).then_some((receiving, comparing))
    }

    /// Whether what is set aside, or another history here, has exactly the slots of a block; what of it is to
    /// be copied is noted.
    fn same<S: Store>(
        &self,
        receiving: &Receiving,
        range: Range,
        sum: Hash8,
        edit: &mut Edit,
        replica: &Replica<S>,
    ) -> Result<bool, StoreError> {
        let most = (BLOCK_SLOTS + 1, BLOCK_BYTES + 1);
        if edit.left == 0 {
            return Ok(false);
        }
        let here = edit.read(&receiving.branch, range, most, &replica.store)?;
        let is = |raws: &[RawSlot]| live_set::sum(raws, &self.key) == sum;
        let end = here.last().map_or(range.after, |last| last.seq);
        if !replica.store.slots_after(&receiving.branch, end, range.upto, 1, 1)?.is_empty() {
            return Ok(false);
        }
        if is(&here) || plant::is(Plant::TrustSums) {
            return Ok(true);
        }
        for source in sources(receiving, replica) {
            let mut raws = edit.read(&source, range, most, &replica.store)?;
            if let Some(branch) = replica.logs.get(&source) {
                let upto = branch.seq();
                let latest = raws.iter().map(|raw| branch.is_latest(raw, upto, &replica.store));
                let latest: Result<Vec<bool>, StoreError> = latest.collect();
                let Ok(latest) = latest else { continue };
                let mut latest = latest.into_iter();
                raws.retain(|_| latest.next().unwrap_or(false));
            }
            if is(&raws)
                && let Some(slots) = opened(&raws, receiving, replica)
            {
                edit.drop.extend(here);
                edit.add.extend(slots);
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Drops what is set aside in a range and not named, and takes what is from other histories here. What is
    /// left of the names is nowhere here.
    fn keep_named<S: Store>(
        &self,
        receiving: &Receiving,
        range: Range,
        due: &mut BTreeMap<u64, Hash8>,
        edit: &mut Edit,
        replica: &Replica<S>,
    ) -> Result<(), StoreError> {
        let (after, upto) = (range.after, range.upto);
        let store = &replica.store;
        for raw in store.slots_after(&receiving.branch, after, upto, usize::MAX, usize::MAX)? {
            if due.get(&raw.seq) == Some(&Named::of(&raw, &self.key).name) {
                due.remove(&raw.seq);
            } else {
                edit.drop.push(raw);
            }
        }
        for source in sources(receiving, replica) {
            if due.range(after + 1..=upto).next().is_none() {
                return Ok(());
            }
            for raw in edit.read(&source, range, (NAMES, CHORE_BYTES), store)? {
                let named = due.get(&raw.seq) == Some(&Named::of(&raw, &self.key).name);
                let one = std::slice::from_ref(&raw);
                if named && let Some(slots) = opened(one, receiving, replica) {
                    due.remove(&raw.seq);
                    edit.add.extend(slots);
                }
            }
        }
        Ok(())
    }

    /// Asks for slots, and about the next ranges that differ: no more than can be gone through at once here.
    fn ask<S: Store>(&mut self, wanted: Vec<u64>, replica: &mut Replica<S>) -> Result<(), Fault> {
        let going_on = self.receiving.as_mut();
        let Some((id, comparing)) = going_on.and_then(|r| Some((r.branch, r.comparing.as_mut()?)))
        else {
            // It cannot be gone on with: no more of it than has to be.
            self.say(&Repair::Ask(Ask::default()), replica);
            return Ok(());
        };
        let (mut slots, mut bytes) = (CHORE_SLOTS, CHORE_BYTES);
        while comparing.asked.len() < RANGES
            && slots > 0
            && bytes > 0
            && let Some(range) = comparing.differing.pop_front()
        {
            let here = replica.store.slots_after(&id, range.after, range.upto, slots, bytes)?;
            let end = here.last().map_or(range.after, |last| last.seq);
            let more = !replica.store.slots_after(&id, end, range.upto, 1, 1)?.is_empty();
            let upto = if more { end } else { range.upto };
            comparing.asked.push(Range { upto, ..range });
            if more {
                comparing.differing.push_front(Range { after: end, ..range });
                break;
            }
            slots = slots.saturating_sub(here.len());
            bytes = bytes.saturating_sub(here.iter().map(|raw| raw.op.len()).sum());
        }
        comparing.asked_all = comparing.asked.is_empty();
        comparing.wanted = wanted.iter().copied().collect();
        let ranges = comparing.asked.clone();
        self.say(&Repair::Ask(Ask { wanted, ranges }), replica);
        Ok(())
    }
}

/// The other histories of the log that are here.
fn sources<S: Store>(receiving: &Receiving, replica: &Replica<S>) -> BTreeSet<BranchId> {
    let id = receiving.branch;
    let there = replica.logs.branches(id.log).filter(|b| b.id != id && !b.dropping());
    there.map(|branch| branch.id).collect()
}

/// Stored slots as they are set aside, if all can be read and the log's grant allows them.
fn opened<S: Store>(
    raws: &[RawSlot],
    receiving: &Receiving,
    replica: &Replica<S>,
) -> Option<Vec<(Slot, Bytes)>> {
    let right = replica.roster.right(&receiving.grant)?;
    let open = |raw: &RawSlot| {
        let slot = raw.open().ok()?;
        admissible_slot(right, &slot).is_ok().then(|| (slot, raw.op.clone()))
    };
    raws.iter().map(open).collect()
}
