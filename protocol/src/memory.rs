//! A store in memory: ordered maps that take [`Write`]s. For simulation, tests and short-lived swarms.

use std::collections::BTreeMap;

use crate::codec::Bytes;
use crate::id::{Hash, Hash8, LogId};
use crate::store::{RawSlot, Recovered, Store, StoreError, Write};
use crate::time::Hlc;

/// Everything a replica keeps, in maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    slots: BTreeMap<(Bytes, LogId, u64), (Hlc, Bytes)>,
    by_seq: BTreeMap<(LogId, u64), Bytes>,
    headers: BTreeMap<(LogId, u64), Bytes>,
    logs: BTreeMap<LogId, Bytes>,
    statements: BTreeMap<Hash, Bytes>,
    tickets: BTreeMap<Hash8, Bytes>,
    caught_up: bool,
}

impl MemoryStore {
    /// Takes writes over.
    pub fn apply(&mut self, writes: Vec<Write>) {
        for write in writes {
            match write {
                Write::Slot { key, slot } => {
                    self.by_seq.insert((slot.log, slot.seq), key.clone());
                    self.slots.insert((key, slot.log, slot.seq), (slot.hlc, slot.op));
                }
                Write::RemoveSlot { key, log, seq } => {
                    self.by_seq.remove(&(log, seq));
                    self.slots.remove(&(key, log, seq));
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
                    self.tickets.insert(id, record);
                }
                Write::RemoveTicket { id } => {
                    self.tickets.remove(&id);
                }
                Write::CaughtUp => self.caught_up = true,
            }
        }
    }

    /// What a replica is opened from.
    #[must_use]
    pub fn recover(&self) -> Recovered {
        Recovered {
            statements: self.statements.values().cloned().collect(),
            logs: self.logs.iter().map(|(id, record)| (*id, record.clone())).collect(),
            tickets: self.tickets.iter().map(|(id, record)| (*id, record.clone())).collect(),
            caught_up: self.caught_up,
        }
    }

    /// Every key that has a slot, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let mut last = None;
        self.slots.keys().map(|(key, ..)| key).filter(move |key| last.replace(*key) != Some(*key))
    }

    /// Slots kept, staged and superseded ones too.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no slot is kept.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }
}

impl Store for MemoryStore {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        let key = Bytes::from(key);
        let first = LogId::from_bytes(&[0; LogId::LEN]);
        let last = LogId::from_bytes(&[0xff; LogId::LEN]);
        let range = self.slots.range((key.clone(), first, 0)..=(key, last, u64::MAX));
        Ok(range.map(|((_, log, seq), (hlc, op))| raw(log, *seq, *hlc, op)).collect())
    }

    fn slots_after(
        &self,
        log: &LogId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let mut out = Vec::new();
        let mut bytes = 0usize;
        if after >= upto {
            return Ok(out);
        }
        for ((log, seq), key) in self.by_seq.range((*log, after + 1)..=(*log, upto)) {
            let Some((hlc, op)) = self.slots.get(&(key.clone(), *log, *seq)) else {
                return Err(StoreError(format!("slot {log:?}:{seq} is indexed but not there")));
            };
            bytes = bytes.saturating_add(op.len());
            if !out.is_empty() && (out.len() >= max_slots || bytes > max_bytes) {
                break;
            }
            out.push(raw(log, *seq, *hlc, op));
        }
        Ok(out)
    }

    fn header(&self, log: &LogId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.headers.get(&(*log, seq)).cloned())
    }
}

fn raw(log: &LogId, seq: u64, hlc: Hlc, op: &Bytes) -> RawSlot {
    RawSlot { log: *log, seq, hlc, op: op.clone() }
}
