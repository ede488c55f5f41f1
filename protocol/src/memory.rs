//! A store in memory: ordered maps that take [`Write`]s. For simulation, tests and short-lived swarms.

use std::collections::BTreeMap;

use crate::codec::Bytes;
use crate::id::{BranchId, Hash, Hash8};
use crate::store::{RawSlot, Recovered, Store, StoreError, Write};
use crate::time::Hlc;

/// Everything a replica keeps, in maps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MemoryStore {
    slots: BTreeMap<(Bytes, BranchId, u64), (Hlc, Bytes)>,
    by_seq: BTreeMap<(BranchId, u64), Bytes>,
    headers: BTreeMap<(BranchId, u64), Bytes>,
    logs: BTreeMap<BranchId, Bytes>,
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
                    self.by_seq.insert((slot.branch, slot.seq), key.clone());
                    self.slots.insert((key, slot.branch, slot.seq), (slot.hlc, slot.op));
                }
                Write::RemoveSlot { key, branch, seq } => {
                    // Whoever cannot read a slot any more cannot name its cell either.
                    let filed = self.by_seq.remove(&(branch, seq)).unwrap_or(key);
                    self.slots.remove(&(filed, branch, seq));
                }
                Write::Header { branch, seq, bytes } => {
                    self.headers.insert((branch, seq), bytes);
                }
                Write::Log { branch, record } => {
                    self.logs.insert(branch, record);
                }
                Write::RemoveLog { branch } => {
                    self.logs.remove(&branch);
                    self.headers.retain(|(other, _), _| *other != branch);
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
                Write::CaughtUp(whole) => self.caught_up = whole,
            }
        }
    }

    /// What a replica is opened from.
    #[must_use]
    pub fn recover(&self) -> Recovered {
        Recovered {
            statements: self.statements.values().cloned().collect(),
            logs: self.logs.iter().map(|(id, record)| (*id, record.clone())).collect(),
            resumable: None,
            heads: self
                .logs
                .keys()
                .filter_map(|id| {
                    let all = (*id, 0)..=(*id, u64::MAX);
                    let (_, newest) = self.headers.range(all).next_back()?;
                    Some((*id, newest.clone()))
                })
                .collect(),
            tickets: self.tickets.iter().map(|(id, record)| (*id, record.clone())).collect(),
            caught_up: self.caught_up,
        }
    }

    /// The index key of every cell that has a slot, ascending.
    pub fn keys(&self) -> impl Iterator<Item = &Bytes> {
        let mut last = None;
        self.slots.keys().map(|(key, ..)| key).filter(move |key| last.replace(*key) != Some(*key))
    }

    /// Where every header that is kept ends.
    pub fn headers(&self) -> impl Iterator<Item = (BranchId, u64)> {
        self.headers.keys().copied()
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
        let first = BranchId::from_bytes(&[0; BranchId::LEN]);
        let last = BranchId::from_bytes(&[0xff; BranchId::LEN]);
        let range = self.slots.range((key.clone(), first, 0)..=(key, last, u64::MAX));
        Ok(range.map(|((_, branch, seq), (hlc, op))| raw(branch, *seq, *hlc, op)).collect())
    }

    fn slots_after(
        &self,
        branch: &BranchId,
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
        for ((branch, seq), key) in self.by_seq.range((*branch, after + 1)..=(*branch, upto)) {
            let Some((hlc, op)) = self.slots.get(&(key.clone(), *branch, *seq)) else {
                return Err(StoreError::Damaged { branch: *branch, seq: *seq });
            };
            bytes = bytes.saturating_add(op.len());
            if !out.is_empty() && (out.len() >= max_slots || bytes > max_bytes) {
                break;
            }
            out.push(raw(branch, *seq, *hlc, op));
        }
        Ok(out)
    }

    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        Ok(self.headers.get(&(*branch, seq)).cloned())
    }
}

fn raw(branch: &BranchId, seq: u64, hlc: Hlc, op: &Bytes) -> RawSlot {
    RawSlot { branch: *branch, seq, hlc, op: op.clone() }
}
