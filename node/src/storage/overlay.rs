//! Writes on their way to disk: the core's reads see them at once, readers only when they are durable.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{Branch, DeviceId, Hash, Hash8};
use swarmkv_protocol::store::{RawSlot, Write};

use super::schema::{self, Place};

/// One layer of writes. Later ones replace earlier ones; `None` is a removal.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pub(super) slots: BTreeMap<Place, Option<RawSlot>>,
    pub(super) keys: BTreeMap<Bytes, BTreeMap<Place, bool>>,
    pub(super) headers: BTreeMap<Place, Bytes>,
    pub(super) logs: BTreeMap<Branch, Option<Bytes>>,
    pub(super) statements: BTreeMap<Hash, Bytes>,
    pub(super) tickets: BTreeMap<Hash8, Option<Bytes>>,
    pub(super) addresses: BTreeMap<(DeviceId, String), Option<u64>>,
    pub(super) meta: BTreeMap<&'static str, Bytes>,
}

impl Overlay {
    pub(super) fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.apply_one(write);
        }
    }

    fn apply_one(&mut self, write: Write) {
        match write {
            Write::Slot { key, slot } => {
                let place = (slot.branch, slot.seq);
                self.keys.entry(key).or_default().insert(place, true);
                self.slots.insert(place, Some(slot));
            }
            Write::RemoveSlot { key, branch, seq } => {
                self.keys.entry(key).or_default().insert((branch, seq), false);
                self.slots.insert((branch, seq), None);
            }
            Write::Header { branch, seq, bytes } => {
                self.headers.insert((branch, seq), bytes);
            }
            Write::Log { branch, record } => {
                self.logs.insert(branch, Some(record));
            }
            Write::RemoveLog { branch } => {
                self.logs.insert(branch, None);
            }
            Write::Statement { name, bytes } => {
                self.statements.insert(name, bytes);
            }
            Write::Ticket { id, record } => {
                self.tickets.insert(id, Some(record));
            }
            Write::RemoveTicket { id } => {
                self.tickets.insert(id, None);
            }
            Write::CaughtUp(whole) => {
                self.meta.insert("caught-up", Bytes::from(&[u8::from(whole)][..]));
            }
        }
    }

    /// Puts this layer's word on `key` over `places`.
    pub(super) fn patch_places(&self, key: &[u8], places: &mut Vec<Place>) {
        if let Some(changes) = self.keys.get(&Bytes::from(key)) {
            patch(places, changes);
        }
    }

    /// Puts this layer's slots of `branch` with `after < seq <= upto` over `slots`.
    pub(super) fn patch_range(
        &self,
        branch: &Branch,
        after: u64,
        upto: u64,
        slots: &mut BTreeMap<u64, RawSlot>,
    ) {
        for ((_, seq), slot) in self.slots.range((*branch, after + 1)..=(*branch, upto)) {
            match slot {
                Some(slot) => slots.insert(*seq, slot.clone()),
                None => slots.remove(seq),
            };
        }
    }
}

/// Bytes that a write holds in memory until it is durable, about.
pub(crate) fn size(write: &Write) -> usize {
    match write {
        // The key stands in the operation, in the overlay and in its index.
        Write::Slot { key, slot } => 2 * key.len() + slot.op.len() + 2 * schema::PLACE,
        Write::RemoveSlot { key, .. } => key.len() + 2 * schema::PLACE,
        Write::Header { bytes, .. } | Write::Statement { bytes, .. } => bytes.len(),
        Write::Log { record, .. } | Write::Ticket { record, .. } => record.len(),
        Write::RemoveTicket { .. } | Write::RemoveLog { .. } | Write::CaughtUp(_) => 8,
    }
}

/// Adds and removes places, keeping them ascending.
pub(super) fn patch(places: &mut Vec<Place>, changes: &BTreeMap<Place, bool>) {
    for (place, present) in changes {
        match (places.binary_search(place), present) {
            (Err(at), true) => places.insert(at, *place),
            (Ok(at), false) => {
                places.remove(at);
            }
            _ => {}
        }
    }
}

/// The `keys` record of these places.
pub(super) fn places_record(places: &[Place]) -> Vec<u8> {
    places.iter().flat_map(schema::place_bytes).collect()
}
