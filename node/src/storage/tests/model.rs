//! What a store should hold, kept in plain maps, and the writes to drive both.

use std::collections::BTreeMap;
use std::time::Duration;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::id::{BranchId, DeviceId, Hash8, LogId};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op};
use swarmkv_protocol::store::{RawSlot, Store, Write};
use swarmkv_protocol::time::Hlc;

use super::super::disk::Disk;
use super::super::journal::Sizes;
use super::super::schema::Rows;

/// Small, so that a test sees many segments and checkpoints.
pub(super) const SMALL: Sizes = Sizes {
    segment: 6 << 10,
    ahead: 1 << 10,
    memtable: 4 << 10,
    open: 3,
    idle: Duration::from_millis(2),
    worth: 1,
};

/// Numbers from a seed (SplitMix64).
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What a store should hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Model {
    slots: BTreeMap<(BranchId, u64), (Bytes, RawSlot)>,
    headers: BTreeMap<(BranchId, u64), Bytes>,
    tickets: BTreeMap<Hash8, Bytes>,
    next: u64,
}

pub(super) fn branch(n: u64) -> BranchId {
    let log =
        LogId { author: DeviceId::new([u8::try_from(n).unwrap_or(0); 32]), epoch: 7, shard: 0 };
    BranchId::from(log)
}

/// Branches and keys that tests use.
const BRANCHES: u64 = 3;
const KEYS: u64 = 12;

/// The index key of the cell of `key/` and that number.
pub(super) fn key(n: u64) -> Bytes {
    Cell::value(format!("key/{n:02}").as_bytes()).index_key()
}

impl Model {
    /// Some writes, as one transaction of a replica would make them.
    pub(super) fn some(&mut self, random: &mut Random) -> Vec<Write> {
        let mut writes = Vec::new();
        for _ in 0..=random.below(5) {
            self.next += 1;
            let at = branch(random.below(BRANCHES));
            match random.below(8) {
                0..=4 => writes.extend(self.put(at, key(random.below(KEYS)), random)),
                5 => {
                    let header = Bytes(vec![random.below(256) as u8; 40]);
                    self.headers.insert((at, self.next), header.clone());
                    writes.push(Write::Header { branch: at, seq: self.next, bytes: header });
                }
                6 => {
                    let id = Hash8::new(random.below(4).to_be_bytes());
                    let record = Bytes(vec![7; random.below(30) as usize]);
                    self.tickets.insert(id, record.clone());
                    writes.push(Write::Ticket { id, record });
                }
                _ => {
                    let id = Hash8::new(random.below(4).to_be_bytes());
                    self.tickets.remove(&id);
                    writes.push(Write::RemoveTicket { id });
                }
            }
        }
        writes
    }

    /// A branch's slot on a key takes the place of the one before.
    fn put(&mut self, at: BranchId, key: Bytes, random: &mut Random) -> Vec<Write> {
        let mut writes = Vec::new();
        let before = self.slots.iter().find(|((b, _), (k, _))| (*b, k) == (at, &key));
        if let Some((place, _)) = before.map(|(place, slot)| (*place, slot.clone())) {
            self.slots.remove(&place);
            writes.push(Write::RemoveSlot { key: key.clone(), branch: at, seq: place.1 });
        }
        let value = vec![random.below(256) as u8; random.below(400) as usize];
        let op = Op {
            cell: Cell::from_index_key(&key).expect("an index key"),
            body: Body::Put(Bytes(value)),
            ctx: Vec::new(),
            took: Vec::new(),
            expires_at: None,
        };
        let op = Bytes(codec::encode(&op));
        let slot = RawSlot { branch: at, seq: self.next, hlc: Hlc(self.next << 16), op };
        self.slots.insert((at, self.next), (key.clone(), slot.clone()));
        writes.push(Write::Slot { key, slot });
        writes
    }

    fn on(&self, key: &Bytes) -> Vec<RawSlot> {
        self.slots.values().filter(|(k, _)| k == key).map(|(_, slot)| slot.clone()).collect()
    }

    /// Where a store differs, if it does.
    pub(super) fn differs(&self, disk: &Disk) -> Option<String> {
        let snapshot = disk.durable();
        for key in (0..KEYS).map(key) {
            let (held, shown) = (disk.slots(&key).ok()?, snapshot.slots(&key).ok()?);
            if held != self.on(&key) || shown != held {
                return Some(format!("{key:?}: {held:?} and {shown:?}, not {:?}", self.on(&key)));
            }
        }
        for at in (0..BRANCHES).map(branch) {
            let mine =
                self.slots.range((at, 0)..=(at, u64::MAX)).map(|(_, (_, slot))| slot.clone());
            let mine: Vec<_> = mine.collect();
            let held = disk.slots_after(&at, 0, u64::MAX - 1, usize::MAX, usize::MAX).ok()?;
            if held != mine {
                return Some(format!("{at:?}: {held:?}, not {mine:?}"));
            }
        }
        for ((at, seq), header) in &self.headers {
            if disk.header(at, *seq).ok()?.as_ref() != Some(header) {
                return Some(format!("header {at:?}:{seq}"));
            }
        }
        let tickets: BTreeMap<_, _> = disk.recover().ok()?.tickets.into_iter().collect();
        (tickets != self.tickets).then(|| format!("{tickets:?}, not {:?}", self.tickets))
    }

    /// All keys in order, as a reader lists them.
    pub(super) fn listing(&self) -> Vec<(Vec<u8>, Vec<RawSlot>)> {
        let keys = (0..KEYS).map(key).map(|key| (key.0.clone(), self.on(&key)));
        keys.filter(|(_, slots)| !slots.is_empty()).collect()
    }
}

/// Every row of a kind, for those that the core does not read back.
pub(super) fn rows(disk: &Disk, rows: Rows) -> usize {
    disk.rows(rows).map_or(0, |rows| rows.len())
}
