//! Slots that repair brings, set aside until a header proves them: what that changes in the sums, what it
//! writes and what it drops.

use std::collections::{BTreeMap, BTreeSet};

use super::Branch;
use crate::codec::Bytes;
use crate::log::live_root::Totals;
use crate::model::op::Slot;
use crate::model::slot::RawSlot;
use crate::store::{Store, StoreError, Write};

/// The sums and writes of setting slots aside.
pub(crate) struct Staging {
    pub(crate) totals: Totals,
    pub(crate) writes: Vec<Write>,
}

impl Branch {
    /// Works out what setting slots aside changes. A slot replaces an older staged one on its cell at once; an
    /// older shown one stays until the head moves. One that is older than what is there changes nothing.
    pub(crate) fn stage(
        &self,
        slots: &[(Slot, Bytes)],
        store: &impl Store,
    ) -> Result<Staging, StoreError> {
        self.restage(&[], slots, store)
    }

    /// The same, after some of what is set aside was dropped.
    pub(crate) fn restage(
        &self,
        drop: &[RawSlot],
        slots: &[(Slot, Bytes)],
        store: &impl Store,
    ) -> Result<Staging, StoreError> {
        let mut totals = self.staged.as_ref().map_or(&self.totals, |s| &s.totals).clone();
        let mut writes = Vec::new();
        let mut dropped = BTreeSet::new();
        for raw in drop {
            let slot = raw.open()?;
            totals.remove(&slot);
            writes.push(self.remove(&slot.op.cell.index_key(), raw.seq));
            dropped.insert(raw.seq);
        }
        totals.add_all(slots);
        let mut latest: BTreeMap<Bytes, &(Slot, Bytes)> = BTreeMap::new();
        for pair in slots {
            let cell = pair.0.op.cell.index_key();
            match latest.get(&cell) {
                Some((newer, _)) if newer.seq >= pair.0.seq => totals.remove(&pair.0),
                _ => {
                    if let Some((older, _)) = latest.insert(cell, pair) {
                        totals.remove(older);
                    }
                }
            }
        }
        for (cell, (slot, bytes)) in latest {
            let mut there = self.own_slots(&cell, u64::MAX, store)?;
            there.retain(|raw| !dropped.contains(&raw.seq));
            match there.last() {
                Some(newer) if newer.seq >= slot.seq => {
                    totals.remove(slot);
                    continue;
                }
                Some(live) => totals.remove(&live.open()?),
                None => {}
            }
            let staged = there.into_iter().filter(|old| old.seq > self.seq());
            writes.extend(staged.map(|old| self.remove(&cell, old.seq)));
            writes.push(self.keep(slot, bytes.clone()));
        }
        Ok(Staging { totals, writes })
    }
}
