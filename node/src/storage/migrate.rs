//! Stores of earlier layouts.
//!
//! | layout | what it was |
//! |---|---|
//! | 2 | one redb file with everything in it, `swarmkv.redb` |
//! | 3 | journal, segments and index; keys in the index as the user wrote them |
//! | 4 | the same with cells in place of keys |
//!
//! A migration makes the new store beside the old one and lets it take its place in one step: interrupted at
//! any point it begins again, and until that step the old store is untouched.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::{StoreError, Write};
use tracing::info;

use super::disk::Disk;
use super::files::OnDisk;
use super::index::unknown_layout;
use super::journal::Sizes;
use super::schema::{self, INDEX, Place, Rows, SLOT_OVERHEAD, index_error};
use super::segments;

/// Layouts that this build brings to the present one: their signed operations would have to be read in
/// their own form.
const KNOWN: [u32; 0] = [];

/// The file of layout 2.
const OLD: &str = "swarmkv.redb";
/// Where a new store is made.
const WORKSHOP: &str = "migrating";
/// Bytes that are made durable together.
const STEP: usize = 4 << 20;

/// Brings the store in `dir` to the present layout, if there is one of an earlier one.
pub(super) fn run(dir: &Path) -> Result<(), StoreError> {
    let old = dir.join(OLD);
    if !old.exists() {
        return Ok(());
    }
    let io = |e: io::Error| StoreError::Failed(format!("migrating {}: {e}", dir.display()));
    let workshop = dir.join(WORKSHOP);
    if !dir.join(INDEX).exists() {
        if workshop.exists() {
            fs::remove_dir_all(&workshop).map_err(io)?;
        }
        for name in names(dir).map_err(io)? {
            fs::remove_file(dir.join(name)).map_err(io)?;
        }
        info!("bringing the store in {} to layout {}", dir.display(), schema::FORMAT);
        let new = Disk::with(Arc::new(OnDisk::at(&workshop).map_err(io)?), Sizes::default())?;
        copy(&old, &new)?;
        drop(new);
        for name in names(&workshop).map_err(io)? {
            fs::rename(workshop.join(&name), dir.join(&name)).map_err(io)?;
        }
        // What it points to must be there before the index is.
        sync(dir).map_err(io)?;
        fs::rename(workshop.join(INDEX), dir.join(INDEX)).map_err(io)?;
        sync(dir).map_err(io)?;
    }
    if workshop.exists() {
        fs::remove_dir_all(&workshop).map_err(io)?;
    }
    fs::remove_file(&old).map_err(io)
}

/// Names of the segments in `dir`.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        names.extend(entry?.file_name().into_string());
    }
    names.retain(|name| segments::named(name).is_some());
    Ok(names)
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}

/// Copies a store of layout 2: branch (40) ‖ seq (8) → checksum (4) ‖ stamp (8) ‖ operation, as in a
/// segment today; user's key → the places of its slots; and the same rows.
fn copy(old: &Path, new: &Disk) -> Result<(), StoreError> {
    let old = Database::open(old).map_err(index_error)?;
    let read = old.begin_read().map_err(index_error)?;
    let open = |name| read.open_table::<&[u8], &[u8]>(TableDefinition::new(name));
    let meta = open("meta").map_err(index_error)?;
    let format = meta.get(&b"format"[..]).map_err(index_error)?.map(|f| f.value().to_vec());
    let format = format.and_then(|bytes| bytes.try_into().ok()).map(u32::from_be_bytes);
    if !format.is_some_and(|number| KNOWN.contains(&number)) {
        return Err(unknown_layout(format));
    }
    for rows in Rows::ALL {
        let table = read.open_table(rows.table()).map_err(index_error)?;
        for entry in table.iter().map_err(index_error)? {
            let (key, value) = entry.map_err(index_error)?;
            if (rows, key.value()) != (Rows::Meta, b"format") {
                new.note(rows, key.value(), Some(Bytes::from(value.value())));
            }
        }
    }
    let slots = open("slots").map_err(index_error)?;
    let (mut writes, mut bytes) = (Vec::new(), 0);
    for entry in open("keys").map_err(index_error)?.iter().map_err(index_error)? {
        let (key, places) = entry.map_err(index_error)?;
        for place in places.value().chunks(schema::PLACE) {
            let stored = slots.get(place).map_err(index_error)?;
            let stored = stored.as_ref().map_or(&[][..], |guard| guard.value());
            // A damaged one stays one: it has no operation.
            let slot = schema::slot(place_of(place)?, stored);
            bytes += slot.op.len() + SLOT_OVERHEAD + key.value().len();
            writes.push(Write::Slot { key: Bytes::from(key.value()), slot });
        }
        if bytes >= STEP {
            bytes = 0;
            new.apply(std::mem::take(&mut writes));
            new.sync()?;
        }
    }
    new.apply(writes);
    new.sync().map(drop)
}

fn place_of(bytes: &[u8]) -> Result<Place, StoreError> {
    schema::place(bytes).ok_or_else(|| StoreError::failed("a place in the old store is damaged"))
}
