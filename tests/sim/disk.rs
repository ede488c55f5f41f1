//! A disk that can be cut: writes are seen at once, but outlive a kill only when they were synced.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{BranchId, LogId};
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::store::{RawSlot, Store, StoreError, Write};

#[derive(Default)]
pub struct Disk {
    /// What reads see.
    pub visible: MemoryStore,
    /// What a kill leaves.
    pub durable: MemoryStore,
    unsynced: VecDeque<Vec<Write>>,
    /// Headers that were durable and went with their logs: a digest that was drawn up before is told later.
    dropped: BTreeSet<(LogId, u64)>,
    handed: u64,
    synced: u64,
}

impl Disk {
    /// Takes one `Persist`; says its number.
    pub fn write(&mut self, writes: Vec<Write>) -> u64 {
        self.visible.apply(writes.clone());
        self.unsynced.push_back(writes);
        self.handed += 1;
        self.handed
    }

    /// Everything up to this number is durable now.
    pub fn sync(&mut self, upto: u64) {
        while self.synced < upto {
            let Some(writes) = self.unsynced.pop_front() else { return };
            let gone: BTreeSet<BranchId> = writes
                .iter()
                .filter_map(|write| match write {
                    Write::RemoveLog { branch } => Some(*branch),
                    _ => None,
                })
                .collect();
            // All headers are walked over: not at every write.
            if !gone.is_empty() {
                let headers = self.durable.headers().filter(|(branch, _)| gone.contains(branch));
                self.dropped.extend(headers.map(|(branch, seq)| (branch.log, seq)));
            }
            self.durable.apply(writes);
            self.synced += 1;
        }
    }

    /// Whether a header of this log that ends at `seq` is durable, or was until its log was dropped.
    pub fn had_durable(&self, log: &LogId, seq: u64) -> bool {
        has_header(&self.durable, log, seq) || self.dropped.contains(&(*log, seq))
    }

    pub fn handed(&self) -> u64 {
        self.handed
    }

    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The power goes: of what was not synced the first `lucky` transactions happen to be there.
    pub fn crash(&mut self, lucky: u64) {
        self.sync((self.synced + lucky).min(self.handed));
        self.unsynced.clear();
        self.handed = self.synced;
        self.visible = self.durable.clone();
    }

    /// A slot is not what was written any more, and the store's checksum says so.
    pub fn rot(&mut self, key: &Bytes, mut slot: RawSlot) {
        slot.op = Bytes::default();
        for store in [&mut self.durable, &mut self.visible] {
            store.apply(vec![Write::Slot { key: key.clone(), slot: slot.clone() }]);
        }
    }

    /// The disk is what it was at some time before.
    pub fn restore(&mut self, copy: &MemoryStore) {
        self.dropped.clear();
        self.unsynced.clear();
        self.handed = self.synced;
        self.durable = copy.clone();
        self.visible = copy.clone();
    }
}

/// The disk as the engine reads it.
#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<Disk>>);

impl Store for Shared {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        self.0.borrow().visible.slots(key)
    }

    fn slots_after(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        self.0.borrow().visible.slots_after(branch, after, upto, max_slots, max_bytes)
    }

    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        self.0.borrow().visible.header(branch, seq)
    }
}

/// Whether a header of this log that ends at `seq` is kept, in whichever history.
pub fn has_header(store: &MemoryStore, log: &LogId, seq: u64) -> bool {
    header_of(store, log, seq).is_some()
}

/// See [`has_header`].
pub fn header_of(store: &MemoryStore, log: &LogId, seq: u64) -> Option<Bytes> {
    headers_at(store, log, seq).next()
}

/// The headers that end there, of every history.
pub fn headers_at(store: &MemoryStore, log: &LogId, seq: u64) -> impl Iterator<Item = Bytes> {
    let branches = (0..64).map(|number| BranchId { log: *log, number });
    branches.filter_map(move |branch| store.header(&branch, seq).ok().flatten())
}
