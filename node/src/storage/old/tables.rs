//! Reading the tables of an old database.

use std::collections::BTreeMap;
use std::path::Path;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, TableError};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::StoreError;

use super::super::schema::index_error;
use super::untouched::Untouched;

/// What a row of a small table holds, by its key.
pub(in super::super) type Row = BTreeMap<Vec<u8>, Bytes>;

pub(super) fn open(file: &Path) -> Result<Database, StoreError> {
    let backend = Untouched::open(file).map_err(StoreError::failed)?;
    Database::builder().create_with_backend(backend).map_err(index_error)
}

/// Hands every entry of a table to `each`.
pub(super) fn entries(
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

pub(super) fn damaged() -> StoreError {
    StoreError::failed("the index of the old store is damaged")
}
