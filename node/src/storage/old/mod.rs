//! Readers of earlier layouts, see [`super::migrate`]. They read only: not a byte of an old store changes.

mod forms;
mod layout2;
mod layout3;
mod tables;
mod untouched;

use std::path::Path;

use redb::{ReadableDatabase, TableError};
use swarmkv_protocol::store::StoreError;

pub(super) use self::forms::{Body, BranchName, Op, Place, Version, author, place, sound, version};
pub(super) use self::layout2::FILE as SINGLE_FILE;
use self::layout2::Layout2;
use self::layout3::Layout3;
use self::tables::Row;
use self::tables::open;
use super::index::guarded;
use super::schema::{Rows, index_error};

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
