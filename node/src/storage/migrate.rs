//! Stores of earlier layouts.
//!
//! | layout | what it was |
//! |---|---|
//! | 2 | one redb file with everything in it, `swarmkv.redb` |
//! | 3 | journal, segments and index; keys in the index as the user wrote them |
//! | 4 | the same with cells in place of keys, and operations signed in another form |
//!
//! A new store is made in a workshop beside the old one. When it is finished the workshop gets another name,
//! and from then on it takes the old one's place, which is kept. Interrupted before that it begins again, and
//! after that it goes on; no byte of the old store is changed.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::store::StoreError;
use tracing::info;

use super::carry::carry;
use super::disk::Disk;
use super::files::OnDisk;
use super::index::unknown_layout;
use super::journal::Sizes;
use super::old::{self, OldStore};
use super::schema::{FORMAT, INDEX};
use super::segments;

/// Layouts that this build brings to the present one.
const KNOWN: [u32; 2] = [2, 3];

/// Where a new store is made.
const WORKSHOP: &str = "migrating";
/// Says where the old store is.
const NOTE: &str = "README";

/// The directories of a migration from one layout.
struct Places<'a> {
    dir: &'a Path,
    layout: u32,
    /// A new store that is finished.
    finished: PathBuf,
    /// The old one while it is being moved.
    moving: PathBuf,
    /// The old one when it is out of the way.
    kept: PathBuf,
}

impl<'a> Places<'a> {
    fn new(dir: &'a Path, layout: u32) -> Self {
        let finished = dir.join(format!("migrated-from-{layout}"));
        let moving = dir.join(format!("layout-{layout}-moving"));
        let kept = dir.join(format!("layout-{layout}-kept"));
        Self { dir, layout, finished, moving, kept }
    }

    /// What failed, and where.
    fn failed(&self, e: &io::Error) -> StoreError {
        StoreError::Failed(format!("migrating {}: {e}", self.dir.display()))
    }
}

/// Opens the store in `dir`, or makes one. One of an earlier layout is brought to the present one first; `key`
/// is asked for then, for what this device wrote there is signed anew.
pub(crate) fn open(
    dir: &Path,
    key: impl FnOnce() -> Result<DeviceKey, StoreError>,
) -> Result<Disk, StoreError> {
    run(dir, key)?;
    Disk::at(dir)
}

/// Brings the store in `dir` to the present layout, if there is one of an earlier one.
pub(super) fn run(
    dir: &Path,
    key: impl FnOnce() -> Result<DeviceKey, StoreError>,
) -> Result<(), StoreError> {
    run_with(dir, key, &mut |from, to| fs::rename(from, to))
}

/// How a file or directory gets another name.
type Rename<'a> = &'a mut dyn FnMut(&Path, &Path) -> io::Result<()>;

/// [`run`], for tests that cut it short.
pub(super) fn run_with(
    dir: &Path,
    key: impl FnOnce() -> Result<DeviceKey, StoreError>,
    rename: Rename<'_>,
) -> Result<(), StoreError> {
    let begun = KNOWN.map(|layout| Places::new(dir, layout));
    let begun = begun.into_iter().find(|places| places.finished.exists());
    let places = match begun {
        Some(places) => places,
        None => {
            let Some(layout) = layout_in(dir)? else { return Ok(()) };
            let places = Places::new(dir, layout);
            if places.kept.exists() {
                let kept = places.kept.display();
                return Err(StoreError::Failed(format!(
                    "{kept} would hold the store as it is now, but is there already: move it away"
                )));
            }
            make(&places, &key()?, rename)?;
            places
        }
    };
    take_place(&places, rename).map_err(|e| places.failed(&e))
}

/// The earlier layout that the store in `dir` has.
fn layout_in(dir: &Path) -> Result<Option<u32>, StoreError> {
    for file in [dir.join(INDEX), dir.join(old::SINGLE_FILE)] {
        if !file.exists() {
            continue;
        }
        match old::layout_of(&file) {
            Ok(Some(FORMAT)) => return Ok(None),
            Ok(Some(layout)) if KNOWN.contains(&layout) => return Ok(Some(layout)),
            Ok(Some(layout)) => return Err(unknown_layout(Some(layout))),
            // Never finished, or damaged: whoever opens it says so.
            Ok(None) | Err(_) => {}
        }
    }
    Ok(None)
}

/// Makes the new store, and says that it is finished.
fn make(places: &Places<'_>, key: &DeviceKey, rename: Rename<'_>) -> Result<(), StoreError> {
    let failed = |e: io::Error| places.failed(&e);
    let (dir, layout) = (places.dir, places.layout);
    info!("bringing the store in {} from layout {layout} to layout {FORMAT}", dir.display());
    let workshop = dir.join(WORKSHOP);
    if workshop.exists() {
        fs::remove_dir_all(&workshop).map_err(failed)?;
    }
    let new = Disk::with(Arc::new(OnDisk::at(&workshop).map_err(failed)?), Sizes::default())?;
    let report = carry(&OldStore::open(dir, layout)?, &new, key)?;
    drop(new);
    info!("{report}");
    info!("the store as it was is kept in {}", places.kept.display());
    sync(&workshop).map_err(failed)?;
    rename(&workshop, &places.finished).map_err(failed)?;
    sync(dir).map_err(failed)
}

/// Puts the finished store in the old one's place, from wherever that was interrupted.
fn take_place(places: &Places<'_>, rename: Rename<'_>) -> io::Result<()> {
    let Places { dir, finished, moving, kept, .. } = places;
    if !kept.exists() {
        fs::create_dir_all(moving)?;
        for name in names(dir)? {
            rename(&dir.join(&name), &moving.join(&name))?;
        }
        fs::write(dir.join(NOTE), note(places.layout))?;
        sync(moving)?;
        sync(dir)?;
        rename(moving, kept)?;
        sync(dir)?;
    }
    // What the index points to must be there before the index is.
    let (last, first): (Vec<_>, Vec<_>) = names(finished)?.into_iter().partition(|n| n == INDEX);
    for names in [first, last] {
        for name in names {
            rename(&finished.join(&name), &dir.join(&name))?;
        }
        sync(dir)?;
    }
    fs::remove_dir(finished)?;
    sync(dir)
}

fn note(layout: u32) -> String {
    format!(
        "layout-{layout}-kept is this store as an earlier version of swarmkv left it (layout {layout}).\n\
         This device has written its own values again for the present version. The values of other devices\n\
         come from them once they run it too. Nothing reads layout-{layout}-kept any more: remove it when all\n\
         devices are up to date and nothing is missed.\n"
    )
}

/// Names of a store's files in `dir`.
fn names(dir: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            names.extend(entry.file_name().into_string());
        }
    }
    let single = [INDEX, old::SINGLE_FILE];
    names.retain(|name| single.contains(&&name[..]) || segments::named(name).is_some());
    Ok(names)
}

fn sync(dir: &Path) -> io::Result<()> {
    fs::File::open(dir)?.sync_all()
}
