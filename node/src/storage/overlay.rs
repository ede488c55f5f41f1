//! Writes on their way to disk: the core's reads see them at once, readers only when they are durable.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{DeviceId, Hash, Hash8, LogId};
use swarmkv_protocol::store::{RawSlot, Write};

use super::schema::{self, Place};

/// One layer of writes. Later ones replace earlier ones; `None` is a removal.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    pub(super) slots: BTreeMap<Place, Option<RawSlot>>,
    pub(super) keys: BTreeMap<Bytes, BTreeMap<Place, bool>>,
    pub(super) headers: BTreeMap<Place, Bytes>,
    pub(super) logs: BTreeMap<LogId, Bytes>,
    pub(super) statements: BTreeMap<Hash, Bytes>,
    pub(super) tickets: BTreeMap<Hash8, Option<Bytes>>,
    pub(super) addresses: BTreeMap<(DeviceId, String), bool>,
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
                let place = (slot.log, slot.seq);
                self.keys.entry(key).or_default().insert(place, true);
                self.slots.insert(place, Some(slot));
            }
            Write::RemoveSlot { key, log, seq } => {
                self.keys.entry(key).or_default().insert((log, seq), false);
                self.slots.insert((log, seq), None);
            }
            Write::Header { log, seq, bytes } => {
                self.headers.insert((log, seq), bytes);
            }
            Write::Log { log, record } => {
                self.logs.insert(log, record);
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
            Write::CaughtUp => {
                self.meta.insert("caught-up", Bytes::from(&[1][..]));
            }
        }
    }

    /// Puts this layer's word on `key` over `places`.
    pub(super) fn patch_places(&self, key: &[u8], places: &mut Vec<Place>) {
        if let Some(changes) = self.keys.get(&Bytes::from(key)) {
            patch(places, changes);
        }
    }

    /// Puts this layer's slots of `log` with `after < seq <= upto` over `slots`.
    pub(super) fn patch_range(
        &self,
        log: &LogId,
        after: u64,
        upto: u64,
        slots: &mut BTreeMap<u64, RawSlot>,
    ) {
        for ((_, seq), slot) in self.slots.range((*log, after + 1)..=(*log, upto)) {
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
        Write::RemoveTicket { .. } | Write::CaughtUp => 8,
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
