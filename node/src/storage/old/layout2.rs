//! Layout 2: one redb file with everything in it. Place → slot, the user's key → places, and the small tables.

use std::path::Path;

use redb::{Database, ReadOnlyTable, ReadableDatabase, TableDefinition};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::StoreError;

use super::forms::{self, Place};
use super::tables::{self, Row, damaged, entries};
use crate::storage::schema::{Rows, index_error};

/// The file.
pub(in super::super) const FILE: &str = "swarmkv.redb";
const SLOTS: &str = "slots";

pub(in super::super) struct Layout2 {
    db: Database,
    slots: ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Layout2 {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let db = tables::open(&dir.join(FILE))?;
        let read = db.begin_read().map_err(index_error)?;
        let slots = read.open_table(TableDefinition::new(SLOTS)).map_err(index_error)?;
        Ok(Self { db, slots })
    }

    pub(super) fn rows(&self, rows: Rows) -> Result<Row, StoreError> {
        let mut all = Row::new();
        entries(&self.db, rows.name(), |key, value| {
            all.insert(key.to_vec(), Bytes::from(value));
            Ok(())
        })?;
        Ok(all)
    }

    pub(super) fn places(&self) -> Result<Vec<Place>, StoreError> {
        let mut places = Vec::new();
        entries(&self.db, SLOTS, |key, _| {
            places.push(forms::place(key).ok_or_else(damaged)?);
            Ok(())
        })?;
        Ok(places)
    }

    pub(super) fn slot(&self, place: &Place) -> Result<Vec<u8>, StoreError> {
        let stored = self.slots.get(&forms::place_bytes(place)[..]).map_err(index_error)?;
        Ok(stored.map(|guard| guard.value().to_vec()).unwrap_or_default())
    }
}
