//! The device key on disk: made once, readable by its owner only.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::store::StoreError;
use zeroize::Zeroizing;

use crate::clock;
use crate::data_dir::DataDir;
use crate::error::DirError;
use crate::storage::{self, Disk};

const FILE: &str = "device.key";

fn path(dir: &Path) -> PathBuf {
    dir.join(FILE)
}

/// Reads the key, or makes one if there is none.
pub(crate) fn load_or_create(dir: &Path) -> Result<DeviceKey, DirError> {
    match load(dir) {
        Err(DirError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => create(dir),
        other => other,
    }
}

/// Reads the key. Refused: a link, somebody else's file, a file that others can read.
pub(crate) fn load(dir: &Path) -> Result<DeviceKey, DirError> {
    let path = path(dir);
    let bad = |reason: &str| DirError::Key { path: path.clone(), reason: reason.to_owned() };
    let meta = fs::symlink_metadata(&path).map_err(DirError::io(&path))?;
    if !meta.is_file() {
        return Err(bad("is not a plain file"));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(bad("can be read by others; take their rights away with: chmod 600"));
    }
    if meta.uid() != fs::metadata(dir).map_err(DirError::io(dir))?.uid() {
        return Err(bad("belongs to another user than its directory"));
    }
    let mut seed = Zeroizing::new([0; 32]);
    let mut file = File::open(&path).map_err(DirError::io(&path))?;
    let opened = file.metadata().map_err(DirError::io(&path))?;
    if (opened.dev(), opened.ino()) != (meta.dev(), meta.ino()) {
        return Err(bad("was changed while it was looked at"));
    }
    file.read_exact(&mut seed[..]).map_err(|_| bad("is cut short"))?;
    if meta.len() != 32 {
        return Err(bad("has the wrong length"));
    }
    Ok(DeviceKey::from_seed(&seed))
}

/// Opens the store of a data directory. One of an earlier layout is signed anew with the key beside it.
pub(crate) fn open_store(dir: &DataDir) -> Result<Disk, StoreError> {
    storage::open(&dir.store(), || load(dir.path()).map_err(StoreError::failed))
}

fn create(dir: &Path) -> Result<DeviceKey, DirError> {
    let path = path(dir);
    let seed = Zeroizing::new(clock::random::<32>());
    // Written aside first: a crash leaves a whole key or none.
    let fresh = path.with_extension("new");
    let _ = fs::remove_file(&fresh);
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    let mut file = options.open(&fresh).map_err(DirError::io(&fresh))?;
    file.write_all(&seed[..]).map_err(DirError::io(&fresh))?;
    file.sync_all().map_err(DirError::io(&fresh))?;
    fs::hard_link(&fresh, &path).map_err(DirError::io(&path))?;
    fs::remove_file(&fresh).map_err(DirError::io(&fresh))?;
    File::open(dir).and_then(|d| d.sync_all()).map_err(DirError::io(dir))?;
    Ok(DeviceKey::from_seed(&seed))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_key_is_made_once_and_read_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let made = load_or_create(dir.path()).expect("made").id();
        assert_eq!(load_or_create(dir.path()).expect("read").id(), made);
        let mode = fs::metadata(path(dir.path())).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        load_or_create(dir.path()).expect("made");
        fs::set_permissions(path(dir.path()), fs::Permissions::from_mode(0o640)).expect("chmod");
        assert!(matches!(load(dir.path()), Err(DirError::Key { .. })));
    }

    #[test]
    fn a_linked_key_is_refused() {
        let dir = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("a directory");
        load_or_create(other.path()).expect("made");
        symlink(path(other.path()), path(dir.path())).expect("link");
        assert!(matches!(load_or_create(dir.path()), Err(DirError::Key { .. })));
    }
}
