//! A data directory: made private, locked by one process, and able to tell whether it is a copy.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::error::DirError;

const SWARM: &str = "swarm";

/// A data directory that this process holds the lock of.
#[derive(Debug)]
pub(crate) struct DataDir {
    path: PathBuf,
    /// Locked for as long as this lives; the system frees it even after a kill.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if need be and takes its lock.
    pub(crate) fn create(path: &Path) -> Result<Self, DirError> {
        if !path.is_dir() {
            let mut builder = DirBuilder::new();
            builder.recursive(true).mode(0o700).create(path).map_err(DirError::io(path))?;
        }
        Self::open(path)
    }

    /// Takes the lock of a directory that must exist.
    pub(crate) fn open(path: &Path) -> Result<Self, DirError> {
        if !path.is_dir() {
            return Err(DirError::NoSwarm(path.to_owned()));
        }
        let path = fs::canonicalize(path).map_err(DirError::io(path))?;
        let mode = fs::metadata(&path).map_err(DirError::io(&path))?.mode();
        if mode & 0o077 != 0 {
            let private = fs::Permissions::from_mode(0o700);
            fs::set_permissions(&path, private).map_err(DirError::io(&path))?;
        }
        let lock = lock(&path)?;
        Ok(Self { path, _lock: lock })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Notes the swarm's name where [`belongs_to`] finds it. The store has the truth.
    pub(crate) fn note_swarm(&self, name: &str) -> Result<(), DirError> {
        let path = self.path.join(SWARM);
        fs::write(&path, format!("{name}\n")).map_err(DirError::io(path))
    }

    /// A text that changes when the directory is copied or restored: this machine, and the device and
    /// inode of a file inside the store.
    pub(crate) fn fingerprint(&self) -> Result<String, DirError> {
        let path = self.store().join("identity");
        if !path.exists() {
            fs::write(&path, "tells a copied store from the original\n")
                .map_err(DirError::io(&path))?;
        }
        let meta = fs::metadata(&path).map_err(DirError::io(&path))?;
        let machine = fs::read_to_string("/etc/machine-id").unwrap_or_default();
        Ok(format!("{}/{}/{}", machine.trim(), meta.dev(), meta.ino()))
    }
}

/// The name of the swarm that a directory belongs to, if any. Needs no lock: a peer may be running.
#[must_use]
pub fn belongs_to(data_dir: &Path) -> Option<String> {
    fs::read_to_string(data_dir.join(SWARM)).ok().map(|name| name.trim().to_owned())
}

fn lock(dir: &Path) -> Result<File, DirError> {
    let path = dir.join("lock");
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(DirError::io(&path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut pid = String::new();
            let _ = file.read_to_string(&mut pid);
            return Err(DirError::Locked { dir: dir.to_owned(), pid: pid.trim().parse().ok() });
        }
        Err(TryLockError::Error(e)) => return Err(DirError::io(&path)(e)),
    }
    let pid = format!("{}\n", std::process::id());
    file.set_len(0).map_err(DirError::io(&path))?;
    file.rewind().map_err(DirError::io(&path))?;
    file.write_all(pid.as_bytes()).map_err(DirError::io(&path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let first = DataDir::create(dir.path()).expect("free");
        let second = DataDir::open(dir.path());
        let me = std::process::id();
        assert!(matches!(second, Err(DirError::Locked { pid: Some(pid), .. }) if pid == me));
        drop(first);
        DataDir::open(dir.path()).expect("free again");
    }

    #[test]
    fn a_copied_store_has_another_fingerprint() {
        let dir = tempfile::tempdir().expect("a directory");
        let held = DataDir::create(dir.path()).expect("free");
        fs::create_dir(held.store()).expect("made");
        let before = held.fingerprint().expect("readable");
        assert_eq!(held.fingerprint().expect("readable"), before);
        let file = held.store().join("identity");
        let copy = held.store().join("copy");
        fs::copy(&file, &copy).expect("copied");
        fs::rename(&copy, &file).expect("moved over");
        assert_ne!(held.fingerprint().expect("readable"), before);
    }
}
