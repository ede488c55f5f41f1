//! Writes on their way to the journal: the core's reads see them at once, readers only when they are
//! durable.

use std::collections::{BTreeMap, HashMap};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::{RawSlot, Write};

use super::schema::{self, PLACE, Place, Rows};

/// The index key of a slot's cell, and the slot unless it is removed.
pub(super) type Kept = (Bytes, Option<RawSlot>);

/// One layer of writes. Later ones replace earlier ones; `None` is a removal.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    /// By branch first: most of a layer is of one, and its id is long to compare.
    slots: BTreeMap<BranchId, BTreeMap<u64, Kept>>,
    keys: HashMap<Bytes, Vec<Place>>,
    pub(super) rows: BTreeMap<(Rows, Vec<u8>), Option<Bytes>>,
}

impl Overlay {
    pub(super) fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.apply_one(write);
        }
    }

    fn apply_one(&mut self, write: Write) {
        match write {
            Write::Slot { key, slot } => self.slot(key, (slot.branch, slot.seq), Some(slot)),
            Write::RemoveSlot { key, branch, seq } => self.slot(key, (branch, seq), None),
            Write::Header { branch, seq, bytes } => {
                self.row(Rows::Headers, &schema::place_bytes(&(branch, seq)), Some(bytes));
            }
            Write::Log { branch, record } => self.row(Rows::Logs, &branch.to_bytes(), Some(record)),
            Write::RemoveLog { branch } => {
                let prefix = branch.to_bytes();
                let headers: Vec<Vec<u8>> =
                    schema::keys_under(&self.rows, Rows::Headers, &prefix).collect();
                headers.iter().for_each(|key| self.row(Rows::Headers, key, None));
                self.row(Rows::Logs, &prefix, None);
            }
            Write::Statement { name, bytes } => {
                self.row(Rows::Statements, name.as_bytes(), Some(bytes));
            }
            Write::Ticket { id, record } => self.row(Rows::Tickets, id.as_bytes(), Some(record)),
            Write::RemoveTicket { id } => self.row(Rows::Tickets, id.as_bytes(), None),
            Write::CaughtUp(whole) => {
                let flag = Bytes::from(&[u8::from(whole)][..]);
                self.row(Rows::Meta, b"caught-up", Some(flag));
            }
        }
    }

    fn slot(&mut self, key: Bytes, place: Place, slot: Option<RawSlot>) {
        self.keys.entry(key.clone()).or_default().push(place);
        self.slots.entry(place.0).or_default().insert(place.1, (key, slot));
    }

    /// Every slot that this layer speaks of, by place.
    pub(super) fn slots(&self) -> impl Iterator<Item = (Place, &Kept)> {
        let of_one = |(branch, slots)| {
            let branch: &BranchId = branch;
            let slots: &BTreeMap<u64, Kept> = slots;
            slots.iter().map(|(seq, kept)| ((*branch, *seq), kept))
        };
        self.slots.iter().flat_map(of_one)
    }

    pub(super) fn row(&mut self, rows: Rows, key: &[u8], value: Option<Bytes>) {
        self.rows.insert((rows, key.to_vec()), value);
    }

    /// What this layer says of a row: nothing, that it is gone, or its value.
    pub(super) fn find_row(&self, rows: Rows, key: &[u8]) -> Option<&Option<Bytes>> {
        self.rows.get(&(rows, key.to_vec()))
    }

    /// Puts this layer's word on `key` over `slots`.
    pub(super) fn patch(&self, key: &[u8], slots: &mut BTreeMap<Place, RawSlot>) {
        for place in self.keys.get(key).into_iter().flatten() {
            let kept = self.slots.get(&place.0).and_then(|slots| slots.get(&place.1));
            match kept.and_then(|(_, slot)| slot.clone()) {
                Some(slot) => slots.insert(*place, slot),
                None => slots.remove(place),
            };
        }
    }

    /// This layer's slots of `branch` with `after < seq <= upto`, ascending; `None` for removed ones.
    pub(super) fn range(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
    ) -> impl Iterator<Item = (u64, Option<&RawSlot>)> {
        let slots = self.slots.get(branch).into_iter();
        slots
            .flat_map(move |slots| slots.range(after + 1..=upto))
            .map(|(seq, kept)| (*seq, kept.1.as_ref()))
    }
}

/// Bytes that a write holds in memory until it is durable, about.
pub(crate) fn size(write: &Write) -> usize {
    match write {
        // The key stands in the operation, in the overlay and in its index.
        Write::Slot { key, slot } => 3 * key.len() + slot.op.len() + 2 * PLACE,
        Write::RemoveSlot { key, .. } => 2 * key.len() + 2 * PLACE,
        Write::Header { bytes, .. } | Write::Statement { bytes, .. } => bytes.len(),
        Write::Log { record, .. } | Write::Ticket { record, .. } => record.len(),
        Write::RemoveTicket { .. } | Write::RemoveLog { .. } | Write::CaughtUp(_) => 8,
    }
}
