//! The index: where everything is, and what is small enough to lie in it whole. It follows the journal from
//! checkpoint to checkpoint.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, PoisonError, RwLock};
use std::{io, iter};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, TableError, WriteTransaction,
};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::StoreError;

use super::balance::{Balance, Live, count};
use super::branches::Branches;
use super::files::File;
use super::journal::Position;
use super::memtable::{self, Maps};
use super::reclaim::Reclaimer;
use super::schema::{
    self, BRANCHES, FORMAT, KEYS, Numbered, Pointer, Rows, SEGMENTS, SLOTS, Spot, index_error,
};

/// Pages kept in memory.
const CACHE_BYTES: usize = 16 << 20;

/// Where the index says how far it has come.
const JOURNAL: &[u8] = b"journal";

/// The index of one store.
pub(super) struct Index {
    /// Gone only while this is dropped.
    db: Option<Database>,
}

impl Index {
    /// Opens the index, or makes one.
    pub(super) fn open(file: Arc<dyn File>) -> Result<Self, StoreError> {
        guarded(|| {
            let db = Database::builder()
                .set_cache_size(CACHE_BYTES)
                .create_with_backend(Backend::new(file))
                .map_err(|e| StoreError::Failed(format!("the store's index: {e}")))?;
            let index = Self { db: Some(db) };
            index.prepare()?;
            Ok(index)
        })
    }

    fn db(&self) -> Result<&Database, StoreError> {
        self.db.as_ref().ok_or_else(|| StoreError::failed("the store's index is closed"))
    }

    /// Makes all tables exist and checks the layout's number.
    fn prepare(&self) -> Result<(), StoreError> {
        let read = self.db()?.begin_read().map_err(index_error)?;
        match read.open_table(Rows::Meta.table()) {
            Ok(meta) => {
                let format = meta.get(&b"format"[..]).map_err(index_error)?;
                let format = format.and_then(|guard| guard.value().try_into().ok());
                let format = format.map(u32::from_be_bytes);
                return if format == Some(FORMAT) { Ok(()) } else { Err(unknown_layout(format)) };
            }
            Err(TableError::TableDoesNotExist(_)) => {}
            Err(e) => return Err(index_error(e)),
        }
        drop(read);
        let write = self.db()?.begin_write().map_err(index_error)?;
        let rows = Rows::ALL.map(Rows::table);
        for table in [SLOTS, KEYS, BRANCHES, SEGMENTS].into_iter().chain(rows) {
            write.open_table(table).map_err(index_error)?;
        }
        {
            let mut meta = write.open_table(Rows::Meta.table()).map_err(index_error)?;
            meta.insert(&b"format"[..], &FORMAT.to_be_bytes()[..]).map_err(index_error)?;
        }
        write.commit().map_err(index_error)
    }

    pub(super) fn tables(&self) -> Result<Tables, StoreError> {
        guarded(|| {
            let read = self.db()?.begin_read().map_err(index_error)?;
            Ok(Tables {
                slots: read.open_table(SLOTS).map_err(index_error)?,
                keys: read.open_table(KEYS).map_err(index_error)?,
            })
        })
    }

    /// How far the index has come; `None` if it holds nothing yet.
    pub(super) fn position(&self) -> Result<Option<Position>, StoreError> {
        Ok(self.row(Rows::Meta, JOURNAL)?.and_then(|bytes| Position::from_bytes(&bytes)))
    }

    /// The branches that have numbers, in their order.
    pub(super) fn branches(&self) -> Result<Vec<BranchId>, StoreError> {
        let damaged = || StoreError::failed("the store's index of branches is damaged");
        let mut named = BTreeMap::new();
        each(self.db()?, BRANCHES, |branch, number| {
            let branch = BranchId::from_bytes(branch.try_into().map_err(|_| damaged())?);
            named.insert(u32::from_be_bytes(number.try_into().map_err(|_| damaged())?), branch);
            Ok(())
        })?;
        let dense = named.keys().copied().eq(0..u32::try_from(named.len()).unwrap_or(u32::MAX));
        if dense { Ok(named.into_values().collect()) } else { Err(damaged()) }
    }

    /// Bytes that are pointed to, by segment.
    pub(super) fn live(&self) -> Result<Live, StoreError> {
        let mut live = Live::new();
        each(self.db()?, SEGMENTS, |segment, bytes| {
            if let (Ok(segment), Ok(bytes)) = (segment.try_into(), bytes.try_into()) {
                live.insert(u32::from_be_bytes(segment), u64::from_be_bytes(bytes));
            }
            Ok(())
        })?;
        Ok(live)
    }

    pub(super) fn row(&self, rows: Rows, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        guarded(|| {
            let read = self.db()?.begin_read().map_err(index_error)?;
            let table = read.open_table(rows.table()).map_err(index_error)?;
            let value = table.get(key).map_err(index_error)?;
            Ok(value.map(|guard| Bytes::from(guard.value())))
        })
    }

    /// The last row within these bounds.
    pub(super) fn last_row(
        &self,
        rows: Rows,
        bounds: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> Result<Option<(Vec<u8>, Bytes)>, StoreError> {
        guarded(|| {
            let read = self.db()?.begin_read().map_err(index_error)?;
            let table = read.open_table(rows.table()).map_err(index_error)?;
            let last = table.range::<&[u8]>(bounds).map_err(index_error)?.next_back();
            let last = last.transpose().map_err(index_error)?;
            Ok(last.map(|(key, value)| (key.value().to_vec(), Bytes::from(value.value()))))
        })
    }

    /// The keys of the rows that begin with `prefix`.
    pub(super) fn keys_under(&self, rows: Rows, prefix: &[u8]) -> Result<Vec<Vec<u8>>, StoreError> {
        guarded(|| {
            let read = self.db()?.begin_read().map_err(index_error)?;
            let table = read.open_table(rows.table()).map_err(index_error)?;
            let mut keys = Vec::new();
            for entry in table.range::<&[u8]>(prefix..).map_err(index_error)? {
                let (key, _) = entry.map_err(index_error)?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                keys.push(key.value().to_vec());
            }
            Ok(keys)
        })
    }

    pub(super) fn each_row(
        &self,
        rows: Rows,
        f: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        each(self.db()?, rows.table(), f)
    }

    /// Takes a memtable in that ends at `upto`, and has `reclaimer` empty segments while `go_on` says so. Durable
    /// when this returns.
    pub(super) fn absorb(
        &self,
        maps: &Maps,
        branches: &Branches,
        upto: Position,
        reclaimer: &mut Reclaimer<'_>,
        mut go_on: impl FnMut() -> bool,
    ) -> Result<Live, StoreError> {
        guarded(|| {
            let write = self.begin()?;
            absorb_branches(&write, branches)?;
            let balance = absorb_slots(&write, maps)?;
            absorb_keys(&write, maps)?;
            absorb_rows(&write, maps, upto)?;
            let mut live = settle(&write, &balance)?;
            while go_on()
                && let Some(balance) = reclaimer.empty_one(&write, branches, &live)?
            {
                live = settle(&write, &balance)?;
            }
            write.commit().map_err(index_error)?;
            Ok(live)
        })
    }

    /// Has `reclaimer` empty one segment, if there is one to empty. Durable when this returns.
    pub(super) fn reclaim(
        &self,
        branches: &Branches,
        reclaimer: &mut Reclaimer<'_>,
    ) -> Result<Option<Live>, StoreError> {
        let live = self.live()?;
        if !reclaimer.has_victim(&live) {
            return Ok(None);
        }
        guarded(|| {
            let write = self.begin()?;
            let Some(balance) = reclaimer.empty_one(&write, branches, &live)? else {
                return Ok(None);
            };
            let live = settle(&write, &balance)?;
            write.commit().map_err(index_error)?;
            Ok(Some(live))
        })
    }

    fn begin(&self) -> Result<WriteTransaction, StoreError> {
        let mut write = self.db()?.begin_write().map_err(index_error)?;
        // A killed peer opens in a millisecond whatever its size, and no bytes that a peer may choose can
        // imitate a finished commit.
        write.set_quick_repair(true);
        Ok(write)
    }
}

impl Drop for Index {
    fn drop(&mut self) {
        // Closing writes as well.
        let _ = guarded(|| {
            drop(self.db.take());
            Ok(())
        });
    }
}

pub(super) fn unknown_layout(format: Option<u32>) -> StoreError {
    let format = format.map_or_else(|| "unknown".to_owned(), |number| number.to_string());
    StoreError::Failed(format!(
        "the store has layout {format}, this build of swarmkv reads layout {FORMAT}: use the build that \
         wrote it, or move the data directory away and join again"
    ))
}

/// Does something with the index. Its library panics on pages that make no sense, as a flipped bit makes
/// them; here that is an error like any other.
pub(super) fn guarded<T>(work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    panic::catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        Err(StoreError::failed(
            "the store's index is damaged: move the data directory away and join again",
        ))
    })
}

/// The same for each step of an iterator, which ends where it fails.
fn guarded_each<T>(
    mut entries: impl Iterator<Item = Result<T, StoreError>>,
) -> impl Iterator<Item = Result<T, StoreError>> {
    let mut failed = false;
    iter::from_fn(move || {
        if failed {
            return None;
        }
        let next = guarded(|| entries.next().transpose()).transpose();
        failed = matches!(next, Some(Err(_)));
        next
    })
}

fn each(
    db: &Database,
    table: schema::Table,
    mut f: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    guarded(|| {
        let read = db.begin_read().map_err(index_error)?;
        let table = read.open_table(table).map_err(index_error)?;
        for entry in table.iter().map_err(index_error)? {
            let (key, value) = entry.map_err(index_error)?;
            f(key.value(), value.value())?;
        }
        Ok(())
    })
}

fn absorb_branches(write: &WriteTransaction, branches: &Branches) -> Result<(), StoreError> {
    let mut table = write.open_table(BRANCHES).map_err(index_error)?;
    let known = redb::ReadableTableMetadata::len(&table).map_err(index_error)?;
    for (branch, number) in branches.since(u32::try_from(known).unwrap_or(u32::MAX)) {
        let number = number.to_be_bytes();
        table.insert(&branch.to_bytes()[..], &number[..]).map_err(index_error)?;
    }
    Ok(())
}

fn absorb_slots(write: &WriteTransaction, maps: &Maps) -> Result<Balance, StoreError> {
    let mut balance = Balance::new();
    let mut table = write.open_table(SLOTS).map_err(index_error)?;
    for (place, pointer) in &maps.slots {
        let key = schema::numbered_bytes(*place);
        let before = match pointer {
            Some(pointer) => {
                count(&mut balance, *pointer, 1);
                table.insert(&key[..], &pointer.to_bytes()[..]).map_err(index_error)?
            }
            None => table.remove(&key[..]).map_err(index_error)?,
        };
        if let Some(before) = before {
            count(&mut balance, Pointer::from_bytes(before.value())?, -1);
        }
    }
    Ok(balance)
}

fn absorb_keys(write: &WriteTransaction, maps: &Maps) -> Result<(), StoreError> {
    let mut table = write.open_table(KEYS).map_err(index_error)?;
    for (key, changes) in &maps.keys {
        let mut spots = match table.get(&key[..]).map_err(index_error)? {
            Some(record) => schema::spots(record.value())?,
            None => Vec::new(),
        };
        memtable::patch(changes, u64::MAX, &mut spots);
        if spots.is_empty() {
            table.remove(&key[..]).map_err(index_error)?;
        } else {
            table.insert(&key[..], &schema::spots_record(&spots)[..]).map_err(index_error)?;
        }
    }
    Ok(())
}

fn absorb_rows(write: &WriteTransaction, maps: &Maps, upto: Position) -> Result<(), StoreError> {
    for rows in Rows::ALL {
        let mut table = write.open_table(rows.table()).map_err(index_error)?;
        let changed = maps.rows.range((rows, Vec::new())..).take_while(|((r, _), _)| *r == rows);
        for ((_, key), value) in changed {
            match value {
                Some(value) => table.insert(&key[..], &value[..]).map_err(index_error)?,
                None => table.remove(&key[..]).map_err(index_error)?,
            };
        }
    }
    let mut meta = write.open_table(Rows::Meta.table()).map_err(index_error)?;
    meta.insert(JOURNAL, &upto.to_bytes()[..]).map_err(index_error)?;
    Ok(())
}

/// Applies a balance to the count of live bytes.
fn settle(write: &WriteTransaction, balance: &Balance) -> Result<Live, StoreError> {
    let mut table = write.open_table(SEGMENTS).map_err(index_error)?;
    for (segment, change) in balance {
        let key = segment.to_be_bytes();
        let before = table.get(&key[..]).map_err(index_error)?;
        let before = before.and_then(|guard| guard.value().try_into().ok());
        let now = before.map_or(0, u64::from_be_bytes).saturating_add_signed(*change);
        if now == 0 {
            table.remove(&key[..]).map_err(index_error)?;
        } else {
            table.insert(&key[..], &now.to_be_bytes()[..]).map_err(index_error)?;
        }
    }
    let mut live = Live::new();
    for entry in table.iter().map_err(index_error)? {
        let (segment, bytes) = entry.map_err(index_error)?;
        if let (Ok(segment), Ok(bytes)) = (segment.value().try_into(), bytes.value().try_into()) {
            live.insert(u32::from_be_bytes(segment), u64::from_be_bytes(bytes));
        }
    }
    Ok(live)
}

/// A key and the slots on it.
pub(super) type OnKey = (Vec<u8>, Vec<Spot>);

type ReadTable = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// The index as of one checkpoint. Opened once: opening tables costs more than a read from them.
pub(super) struct Tables {
    slots: ReadTable,
    keys: ReadTable,
}

impl Tables {
    /// Bytes that lie where these places say.
    pub(super) fn bytes_at(&self, places: &[Numbered]) -> Result<u64, StoreError> {
        guarded(|| {
            let mut bytes = 0;
            for place in places {
                let there = self.slots.get(&schema::numbered_bytes(*place)[..]);
                if let Some(there) = there.map_err(index_error)? {
                    bytes += u64::from(Pointer::from_bytes(there.value())?.len);
                }
            }
            Ok(bytes)
        })
    }

    /// The slots on a key.
    pub(super) fn spots(&self, key: &[u8]) -> Result<Vec<Spot>, StoreError> {
        guarded(|| match self.keys.get(key).map_err(index_error)? {
            Some(record) => schema::spots(record.value()),
            None => Ok(Vec::new()),
        })
    }

    /// Keys from `from` on, ascending, with their slots.
    pub(super) fn keys(
        &self,
        from: &[u8],
    ) -> Result<impl Iterator<Item = Result<OnKey, StoreError>> + use<>, StoreError> {
        let range = guarded(|| self.keys.range::<&[u8]>(from..).map_err(index_error))?;
        Ok(guarded_each(range.map(|entry| {
            let (key, record) = entry.map_err(index_error)?;
            Ok((key.value().to_vec(), schema::spots(record.value())?))
        })))
    }

    /// Where the slots of a branch with `after < seq <= upto` lie, ascending.
    pub(super) fn range(
        &self,
        branch: u32,
        after: u64,
        upto: u64,
    ) -> Result<impl Iterator<Item = Result<(Numbered, Pointer), StoreError>> + use<>, StoreError>
    {
        let from = schema::numbered_bytes((branch, after.saturating_add(1)));
        let to = schema::numbered_bytes((branch, upto));
        let range =
            guarded(|| self.slots.range::<&[u8]>(&from[..]..=&to[..]).map_err(index_error))?;
        Ok(guarded_each(range.map(|entry| {
            let (place, pointer) = entry.map_err(index_error)?;
            Ok((schema::numbered(place.value())?, Pointer::from_bytes(pointer.value())?))
        })))
    }
}

/// One of our files as the library wants it. Let go of when the index is closed: snapshots that outlive it
/// keep this, and must not keep a descriptor.
#[derive(Debug)]
struct Backend(RwLock<Option<Arc<dyn File>>>);

impl Backend {
    fn new(file: Arc<dyn File>) -> Self {
        Self(RwLock::new(Some(file)))
    }

    fn with<T>(&self, work: impl FnOnce(&dyn File) -> io::Result<T>) -> io::Result<T> {
        match &*self.0.read().unwrap_or_else(PoisonError::into_inner) {
            Some(file) => work(&**file),
            None => Err(io::Error::other("the store was closed")),
        }
    }
}

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        self.with(|file| file.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|file| file.read_at(offset, out))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|file| file.set_len(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|file| file.sync_data())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|file| file.write_at(offset, data))
    }

    fn close(&self) -> io::Result<()> {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }
}
