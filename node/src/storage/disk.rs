//! A replica's store on disk: takes the core's writes, makes them durable, answers its reads.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, TableError, WriteTransaction};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{Branch, DeviceId, Hash8};
use swarmkv_protocol::store::{RawSlot, Recovered, Store, StoreError, Write};

use super::overlay::{self, Overlay};
use super::schema::{
    self, ADDRESSES, FORMAT, HEADERS, KEYS, LOGS, META, SLOTS, STATEMENTS, TICKETS, store_error,
};
use super::view::Snapshot;

/// Pages kept in memory.
const CACHE_BYTES: usize = 24 << 20;

/// Addresses remembered for one member.
const ADDRESSES_PER_MEMBER: usize = 8;
/// An address that worked this recently need not be noted again, in milliseconds.
const ADDRESS_FRESH_MS: u64 = 3_600_000;

/// Where members were reached, and when that last worked.
type Addresses = BTreeMap<DeviceId, BTreeMap<String, u64>>;

/// A replica's store. Clones share it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    db: Database,
    path: PathBuf,
    layers: Mutex<Layers>,
    addresses: Mutex<Addresses>,
}

/// What is durable, what is being made durable, and what waits for the next commit.
struct Layers {
    durable: Snapshot,
    committing: Arc<Overlay>,
    building: Overlay,
}

impl Disk {
    /// Opens the store in `dir`, or makes one.
    pub(crate) fn open(dir: &Path) -> Result<Self, StoreError> {
        let io = |e: std::io::Error| StoreError::Failed(format!("{}: {e}", dir.display()));
        fs::create_dir_all(dir).map_err(io)?;
        let path = dir.join("swarmkv.redb");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(&path).map_err(io)?;
        let db = Database::builder()
            .set_cache_size(CACHE_BYTES)
            .create_file(file)
            .map_err(|e| StoreError::Failed(format!("{}: {e}", path.display())))?;
        prepare(&db)?;
        let durable = Snapshot::take(&db)?;
        let layers = Layers {
            durable,
            committing: Arc::new(Overlay::default()),
            building: Overlay::default(),
        };
        let (layers, addresses) = (Mutex::new(layers), Mutex::default());
        let disk = Self(Arc::new(Inner { db, path, layers, addresses }));
        disk.load_addresses()?;
        Ok(disk)
    }

    fn load_addresses(&self) -> Result<(), StoreError> {
        let mut known = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        self.each(ADDRESSES, |key, at| {
            if let (Some((device, addr)), Ok(at)) = (key.split_first_chunk::<32>(), at.try_into()) {
                let addr = String::from_utf8_lossy(addr).into_owned();
                let theirs = known.entry(DeviceId::new(*device)).or_default();
                theirs.insert(addr, u64::from_be_bytes(at));
            }
            Ok(())
        })
    }

    fn layers(&self) -> MutexGuard<'_, Layers> {
        // A panic elsewhere leaves whole layers behind: they are replaced, never edited in part.
        self.0.layers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes writes over. The core's reads see them from now on; they are durable after the next
    /// [`Disk::seal`] and [`Disk::commit`].
    pub(crate) fn apply(&self, writes: Vec<Write>) {
        self.layers().building.apply(writes);
    }

    /// Draws the line: what was taken over so far is what the next [`Disk::commit`] makes durable.
    /// One seal for each commit.
    pub(crate) fn seal(&self) {
        let mut layers = self.layers();
        layers.committing = Arc::new(std::mem::take(&mut layers.building));
    }

    /// Makes everything taken over so far durable.
    pub(crate) fn sync(&self) -> Result<Snapshot, StoreError> {
        self.seal();
        self.commit()
    }

    /// Makes what was sealed durable, in one transaction; returns what is durable then.
    pub(crate) fn commit(&self) -> Result<Snapshot, StoreError> {
        let layer = Arc::clone(&self.layers().committing);
        let mut write = self.0.db.begin_write().map_err(store_error)?;
        write.set_quick_repair(true);
        commit_layer(&write, &layer)?;
        write.commit().map_err(store_error)?;
        let durable = Snapshot::take(&self.0.db)?;
        let mut layers = self.layers();
        layers.durable = durable.clone();
        layers.committing = Arc::new(Overlay::default());
        Ok(durable)
    }

    /// What is durable now.
    pub(crate) fn durable(&self) -> Snapshot {
        self.layers().durable.clone()
    }

    /// What a replica is opened from.
    pub(crate) fn recover(&self) -> Result<Recovered, StoreError> {
        let mut logs = Vec::new();
        self.each(LOGS, |key, value| {
            let id = key.try_into().map_err(|_| StoreError::failed("a log's id is damaged"))?;
            logs.push((Branch::from_bytes(id), value.into()));
            Ok(())
        })?;
        let mut statements = Vec::new();
        self.each(STATEMENTS, |_, value| {
            statements.push(value.into());
            Ok(())
        })?;
        let mut tickets = Vec::new();
        self.each(TICKETS, |key, value| {
            let id = key.try_into().map_err(|_| StoreError::failed("a ticket's id is damaged"))?;
            tickets.push((Hash8::new(id), value.into()));
            Ok(())
        })?;
        let caught_up = self.meta("caught-up")?.is_some_and(|flag| flag[..] == [1]);
        Ok(Recovered { statements, logs, tickets, caught_up })
    }

    /// The signed genesis of the swarm that this store belongs to.
    pub(crate) fn genesis(&self) -> Result<Option<Bytes>, StoreError> {
        self.meta("genesis")
    }

    /// Ties the store to a swarm. Durable after the next sync.
    pub(crate) fn set_genesis(&self, genesis: &Bytes) {
        self.layers().building.meta.insert("genesis", genesis.clone());
    }

    /// Whether the store was last opened under another fingerprint.
    pub(crate) fn moved(&self, fingerprint: &str) -> Result<bool, StoreError> {
        let before = self.meta("fingerprint")?;
        Ok(before.is_some_and(|before| before[..] != *fingerprint.as_bytes()))
    }

    /// Records the present fingerprint. Durable after the next sync: together with whatever was done
    /// because it had changed.
    pub(crate) fn set_fingerprint(&self, fingerprint: &str) {
        let now = Bytes::from(fingerprint.as_bytes());
        self.layers().building.meta.insert("fingerprint", now);
    }

    /// The port that this peer last listened on; `transport` is `tcp-port` or `quic-port`.
    pub(crate) fn port(&self, transport: &'static str) -> Option<u16> {
        let bytes = self.meta(transport).ok().flatten()?;
        Some(u16::from_be_bytes(bytes[..].try_into().ok()?))
    }

    /// Notes that port; says whether there is something to sync.
    pub(crate) fn set_port(&self, transport: &'static str, port: u16) -> bool {
        let changed = self.port(transport) != Some(port);
        if changed {
            let bytes = Bytes::from(&port.to_be_bytes()[..]);
            self.layers().building.meta.insert(transport, bytes);
        }
        changed
    }

    /// The block list as last kept.
    pub(crate) fn blocklist(&self) -> Result<Bytes, StoreError> {
        Ok(self.meta("blocked")?.unwrap_or_default())
    }

    /// Keeps the block list. Durable after the next sync.
    pub(crate) fn set_blocklist(&self, list: Bytes) {
        self.layers().building.meta.insert("blocked", list);
    }

    /// Remembers that a member was reached at `addr` at Unix millisecond `now`, for the next start;
    /// says whether there is something to sync. Of many, the ones that last worked are kept.
    pub(crate) fn remember_address(&self, device: &DeviceId, addr: &str, now: u64) -> bool {
        let mut known = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let theirs = known.entry(*device).or_default();
        if theirs.get(addr).is_some_and(|at| now.saturating_sub(*at) < ADDRESS_FRESH_MS) {
            return false;
        }
        theirs.insert(addr.to_owned(), now);
        let mut layers = self.layers();
        let addresses = &mut layers.building.addresses;
        addresses.insert((*device, addr.to_owned()), Some(now));
        if theirs.len() > ADDRESSES_PER_MEMBER
            && let Some(oldest) = theirs.iter().min_by_key(|(_, at)| **at).map(|(a, _)| a.clone())
        {
            theirs.remove(&oldest);
            addresses.insert((*device, oldest), None);
        }
        true
    }

    /// Remembered addresses.
    pub(crate) fn addresses(&self) -> Vec<(DeviceId, String)> {
        let known = self.0.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        let pairs = known.iter().flat_map(|(d, addrs)| addrs.keys().map(|a| (*d, a.clone())));
        pairs.collect()
    }

    /// Bytes of the store's file.
    pub(crate) fn bytes(&self) -> u64 {
        fs::metadata(&self.0.path).map_or(0, |meta| meta.len())
    }

    fn meta(&self, name: &'static str) -> Result<Option<Bytes>, StoreError> {
        {
            let layers = self.layers();
            let waiting =
                layers.building.meta.get(name).or_else(|| layers.committing.meta.get(name));
            if let Some(value) = waiting {
                return Ok(Some(value.clone()));
            }
        }
        let read = self.0.db.begin_read().map_err(store_error)?;
        let table = read.open_table(META).map_err(store_error)?;
        let value = table.get(name.as_bytes()).map_err(store_error)?;
        Ok(value.map(|guard| Bytes::from(guard.value())))
    }

    fn each(
        &self,
        table: redb::TableDefinition<'static, &'static [u8], &'static [u8]>,
        mut f: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let read = self.0.db.begin_read().map_err(store_error)?;
        let table = read.open_table(table).map_err(store_error)?;
        for entry in table.iter().map_err(store_error)? {
            let (key, value) = entry.map_err(store_error)?;
            f(key.value(), value.value())?;
        }
        Ok(())
    }
}

/// Makes all tables exist and checks the layout's number.
fn prepare(db: &Database) -> Result<(), StoreError> {
    let read = db.begin_read().map_err(store_error)?;
    match read.open_table(META) {
        Ok(meta) => {
            let format = meta.get(&b"format"[..]).map_err(store_error)?;
            let format = format.and_then(|guard| guard.value().try_into().ok());
            match format.map(u32::from_be_bytes) {
                Some(FORMAT) => return Ok(()),
                other => {
                    return Err(StoreError::Failed(format!(
                        "the store has layout {}, this build of swarmkv reads layout {FORMAT}: use the build \
                         that wrote it, or move the data directory away and join again",
                        other.map_or_else(|| "unknown".to_owned(), |number| number.to_string())
                    )));
                }
            }
        }
        Err(TableError::TableDoesNotExist(_)) => {}
        Err(e) => return Err(store_error(e)),
    }
    drop(read);
    let write = db.begin_write().map_err(store_error)?;
    for table in [SLOTS, KEYS, HEADERS, LOGS, STATEMENTS, TICKETS, ADDRESSES] {
        write.open_table(table).map_err(store_error)?;
    }
    {
        let mut meta = write.open_table(META).map_err(store_error)?;
        meta.insert(&b"format"[..], &FORMAT.to_be_bytes()[..]).map_err(store_error)?;
    }
    write.commit().map_err(store_error)
}

/// Writes one layer, table by table, each in key order.
fn commit_layer(write: &WriteTransaction, layer: &Overlay) -> Result<(), StoreError> {
    let slots = layer.slots.iter().map(|(place, slot)| {
        let value = slot.as_ref().map(|slot| schema::slot_bytes(place, slot.hlc, &slot.op));
        (schema::place_bytes(place), value)
    });
    fill(write, SLOTS, slots)?;
    commit_keys(write, layer)?;
    let headers = layer.headers.iter();
    fill(write, HEADERS, headers.map(|(place, b)| (schema::place_bytes(place), Some(b.to_vec()))))?;
    let logs = layer.logs.iter();
    fill(write, LOGS, logs.map(|(id, b)| (id.to_bytes(), b.as_ref().map(|b| b.to_vec()))))?;
    let statements = layer.statements.iter();
    fill(write, STATEMENTS, statements.map(|(name, b)| (*name.as_bytes(), Some(b.to_vec()))))?;
    let tickets = layer.tickets.iter();
    fill(write, TICKETS, tickets.map(|(id, b)| (*id.as_bytes(), b.as_ref().map(|b| b.to_vec()))))?;
    let addresses = layer.addresses.iter().map(|((device, addr), at)| {
        let mut key = device.as_bytes().to_vec();
        key.extend_from_slice(addr.as_bytes());
        (key, at.map(|at| at.to_be_bytes().to_vec()))
    });
    fill(write, ADDRESSES, addresses)?;
    fill(write, META, layer.meta.iter().map(|(name, b)| (name.as_bytes(), Some(b.to_vec()))))
}

fn fill<K: AsRef<[u8]>>(
    write: &WriteTransaction,
    table: redb::TableDefinition<'static, &'static [u8], &'static [u8]>,
    entries: impl Iterator<Item = (K, Option<Vec<u8>>)>,
) -> Result<(), StoreError> {
    let mut entries = entries.peekable();
    if entries.peek().is_none() {
        return Ok(());
    }
    let mut table = write.open_table(table).map_err(store_error)?;
    for (key, value) in entries {
        match value {
            Some(value) => table.insert(key.as_ref(), &value[..]).map_err(store_error)?,
            None => table.remove(key.as_ref()).map_err(store_error)?,
        };
    }
    Ok(())
}

fn commit_keys(write: &WriteTransaction, layer: &Overlay) -> Result<(), StoreError> {
    if layer.keys.is_empty() {
        return Ok(());
    }
    let mut table = write.open_table(KEYS).map_err(store_error)?;
    for (key, changes) in &layer.keys {
        let mut places = match table.get(&key[..]).map_err(store_error)? {
            Some(record) => schema::places(record.value())?,
            None => Vec::new(),
        };
        overlay::patch(&mut places, changes);
        if places.is_empty() {
            table.remove(&key[..]).map_err(store_error)?;
        } else {
            let record = overlay::places_record(&places);
            table.insert(&key[..], &record[..]).map_err(store_error)?;
        }
    }
    Ok(())
}

impl Store for Disk {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        let layers = self.layers();
        let mut places = layers.durable.places(key)?;
        layers.committing.patch_places(key, &mut places);
        layers.building.patch_places(key, &mut places);
        places
            .into_iter()
            .map(|place| {
                let waiting = [&layers.building, &*layers.committing];
                match waiting.iter().find_map(|layer| layer.slots.get(&place)) {
                    Some(Some(slot)) => Ok(slot.clone()),
                    _ => layers.durable.slot(place),
                }
            })
            .collect()
    }

    fn slots_after(
        &self,
        branch: &Branch,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        if after >= upto {
            return Ok(Vec::new());
        }
        let layers = self.layers();
        let mut waiting = BTreeMap::new();
        layers.committing.patch_range(branch, after, upto, &mut waiting);
        layers.building.patch_range(branch, after, upto, &mut waiting);
        let gone = |seq: u64| {
            let layered = [&layers.building, &*layers.committing];
            matches!(layered.iter().find_map(|l| l.slots.get(&(*branch, seq))), Some(None))
        };
        let mut waiting = waiting.into_values().peekable();
        let mut durable = layers.durable.range(branch, after, upto)?.peekable();
        let (mut out, mut bytes) = (Vec::new(), 0usize);
        loop {
            let next_durable = match durable.peek() {
                Some(Ok(slot)) => Some(slot.seq),
                Some(Err(e)) => return Err(e.clone()),
                None => None,
            };
            let slot = match (next_durable, waiting.peek().map(|slot| slot.seq)) {
                (None, None) => break,
                (Some(seq), _) if gone(seq) => {
                    durable.next();
                    continue;
                }
                (Some(d), Some(w)) if d == w => {
                    durable.next();
                    continue;
                }
                (Some(d), w) if w.is_none_or(|w| d < w) => durable.next().transpose()?,
                _ => waiting.next(),
            };
            let Some(slot) = slot else { break };
            bytes = bytes.saturating_add(slot.op.len());
            if !out.is_empty() && (out.len() >= max_slots || bytes > max_bytes) {
                break;
            }
            out.push(slot);
        }
        Ok(out)
    }

    fn header(&self, branch: &Branch, seq: u64) -> Result<Option<Bytes>, StoreError> {
        let layers = self.layers();
        let place = (*branch, seq);
        let waiting = [&layers.building, &*layers.committing];
        if let Some(bytes) = waiting.iter().find_map(|layer| layer.headers.get(&place)) {
            return Ok(Some(bytes.clone()));
        }
        layers.durable.header(place)
    }
}
