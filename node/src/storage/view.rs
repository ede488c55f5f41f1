//! A consistent view of what is durable.

use std::sync::Arc;

use redb::{Database, ReadOnlyTable, ReadableDatabase};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::Branch;
use swarmkv_protocol::store::{RawSlot, StoreError};

use super::schema::{self, HEADERS, KEYS, Place, SLOTS, store_error};

type Table = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// A moment of the store; cheap to clone, lives as long as anyone reads from it. `None` once the peer
/// has stopped and let go of its store.
#[derive(Clone)]
pub(crate) struct Snapshot(Option<Arc<Tables>>);

/// Opened once: opening tables costs more than a read from them.
struct Tables {
    slots: Table,
    keys: Table,
    headers: Table,
}

impl Snapshot {
    pub(super) fn take(db: &Database) -> Result<Self, StoreError> {
        let read = db.begin_read().map_err(store_error)?;
        Ok(Self(Some(Arc::new(Tables {
            slots: read.open_table(SLOTS).map_err(store_error)?,
            keys: read.open_table(KEYS).map_err(store_error)?,
            headers: read.open_table(HEADERS).map_err(store_error)?,
        }))))
    }

    /// The snapshot of a store that was let go of.
    pub(crate) fn closed() -> Self {
        Self(None)
    }

    fn tables(&self) -> Result<&Tables, StoreError> {
        self.0.as_deref().ok_or_else(|| StoreError::failed("the peer has stopped"))
    }

    /// Every slot on `key`, ascending by branch and sequence number.
    pub(crate) fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        self.places(key)?.into_iter().map(|place| self.slot(place)).collect()
    }

    pub(super) fn places(&self, key: &[u8]) -> Result<Vec<Place>, StoreError> {
        match self.tables()?.keys.get(key).map_err(store_error)? {
            Some(record) => schema::places(record.value()),
            None => Ok(Vec::new()),
        }
    }

    pub(super) fn slot(&self, place: Place) -> Result<RawSlot, StoreError> {
        let bytes =
            self.tables()?.slots.get(&schema::place_bytes(&place)[..]).map_err(store_error)?;
        // One that is missing is as good as a damaged one: only who needs it will mind.
        Ok(schema::slot(place, bytes.as_ref().map_or(&[], |guard| guard.value())))
    }

    /// Slots of `branch` with `after < seq <= upto`, ascending, lazily.
    pub(super) fn range(
        &self,
        branch: &Branch,
        after: u64,
        upto: u64,
    ) -> Result<impl Iterator<Item = Result<RawSlot, StoreError>> + use<>, StoreError> {
        let from = schema::place_bytes(&(*branch, after.saturating_add(1)));
        let to = schema::place_bytes(&(*branch, upto));
        let range =
            self.tables()?.slots.range::<&[u8]>(&from[..]..=&to[..]).map_err(store_error)?;
        Ok(range.map(|entry| {
            let (key, value) = entry.map_err(store_error)?;
            Ok(schema::slot(schema::place(key.value())?, value.value()))
        }))
    }

    pub(super) fn header(&self, place: Place) -> Result<Option<Bytes>, StoreError> {
        let bytes =
            self.tables()?.headers.get(&schema::place_bytes(&place)[..]).map_err(store_error)?;
        Ok(bytes.map(|guard| Bytes::from(guard.value())))
    }

    /// Keys from `from` on that begin with `prefix`, ascending, each with its slots.
    pub(crate) fn scan(
        &self,
        prefix: &[u8],
        from: &[u8],
    ) -> impl Iterator<Item = Result<(Vec<u8>, Vec<RawSlot>), StoreError>> + use<> {
        let view = self.clone();
        let prefix = prefix.to_vec();
        let range = self
            .tables()
            .and_then(|tables| tables.keys.range::<&[u8]>(from..).map_err(store_error));
        let (range, failed) = match range {
            Ok(range) => (Some(range), None),
            Err(e) => (None, Some(Err(e))),
        };
        let groups = range.into_iter().flatten().map_while(move |entry| {
            let (key, record) = match entry {
                Ok(entry) => entry,
                Err(e) => return Some(Err(store_error(e))),
            };
            if !key.value().starts_with(&prefix) {
                return None;
            }
            let slots = schema::places(record.value())
                .and_then(|places| places.into_iter().map(|place| view.slot(place)).collect());
            Some(slots.map(|slots| (key.value().to_vec(), slots)))
        });
        failed.into_iter().chain(groups)
    }
}
