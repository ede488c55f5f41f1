//! Readers of earlier layouts, see [`super::migrate`]. They read only: not a byte of an old store changes.

mod forms;
mod layout2;
mod layout3;
mod untouched;

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::StoreError;

pub(super) use self::forms::{Body, BranchName, Op, Place, Version, author, place, sound, version};
pub(super) use self::layout2::FILE as SINGLE_FILE;
use self::layout2::Layout2;
use self::layout3::Layout3;
use self::untouched::Untouched;
use super::index::guarded;
use super::schema::{Rows, index_error};

/// What a row of a small table holds, by its key.
pub(super) type Row = BTreeMap<Vec<u8>, Bytes>;

/// A store of an earlier layout.
pub(super) enum OldStore {
    Two(Layout2),
    Three(Layout3),
}

impl OldStore {
    /// Opens the store of this layout in `dir`.
    pub(super) fn open(dir: &Path, layout: u32) -> Result<Self, StoreError> {
        guarded(|| match layout {
            2 => Layout2::open(dir).map(Self::Two),
            _ => Layout3::open(dir).map(Self::Three),
        })
    }

    /// The rows of a small table.
    pub(super) fn rows(&self, rows: Rows) -> Result<Row, StoreError> {
        guarded(|| match self {
            Self::Two(old) => old.rows(rows),
            Self::Three(old) => Ok(old.rows(rows)),
        })
    }

    /// Where slots are: by branch, and by their places in it.
    pub(super) fn places(&self) -> Result<Vec<Place>, StoreError> {
        guarded(|| match self {
            Self::Two(old) => old.places(),
            Self::Three(old) => Ok(old.places()),
        })
    }

    /// A slot's bytes: checksum, stamp, operation. Empty if they cannot be read.
    pub(super) fn slot(&self, place: &Place) -> Result<Vec<u8>, StoreError> {
        guarded(|| match self {
            Self::Two(old) => old.slot(place),
            Self::Three(old) => Ok(old.slot(place)),
        })
    }
}

/// The layout that a database of ours says it has; `None` if it says nothing.
pub(super) fn layout_of(file: &Path) -> Result<Option<u32>, StoreError> {
    guarded(|| {
        let read = open(file)?.begin_read().map_err(index_error)?;
        let meta = match read.open_table(Rows::Meta.table()) {
            Ok(meta) => meta,
            Err(TableError::TableDoesNotExist(_)) => return Ok(None),
            Err(e) => return Err(index_error(e)),
        };
        let format = meta.get(&b"format"[..]).map_err(index_error)?;
        Ok(format.and_then(|guard| guard.value().try_into().ok()).map(u32::from_be_bytes))
    })
}

fn open(file: &Path) -> Result<Database, StoreError> {
    let backend = Untouched::open(file).map_err(StoreError::failed)?;
    Database::builder().create_with_backend(backend).map_err(index_error)
}

/// Hands every entry of a table to `each`.
fn entries(
    db: &Database,
    table: &str,
    mut each: impl FnMut(&[u8], &[u8]) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let read = db.begin_read().map_err(index_error)?;
    let definition: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new(table);
    let table = match read.open_table(definition) {
        Ok(table) => table,
        Err(TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(e) => return Err(index_error(e)),
    };
    for entry in table.iter().map_err(index_error)? {
        let (key, value) = entry.map_err(index_error)?;
        each(key.value(), value.value())?;
    }
    Ok(())
}

fn damaged() -> StoreError {
    StoreError::failed("the index of the old store is damaged")
}
