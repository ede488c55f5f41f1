//! A data directory: made private, locked by one process, and able to tell whether it is a copy.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::DirError;

const SWARM: &str = "swarm";
/// Where systems keep an id of the machine: systemd, and D-Bus without it.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

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

    /// A text that changes when the directory is copied or restored, and stays when it is moved or the
    /// machine starts again: this machine, and the inode and birth time of a file inside the store.
    ///
    /// Not the device's number: many machines number their devices anew at every start. So a snapshot of
    /// a whole file system or disk, put in the place of the original, cannot be told from it by this.
    pub(crate) fn fingerprint(&self) -> Result<String, DirError> {
        let path = self.store().join("identity");
        if !path.exists() {
            fs::write(&path, "tells a copied store from the original\n")
                .map_err(DirError::io(&path))?;
        }
        let meta = fs::metadata(&path).map_err(DirError::io(&path))?;
        // Some file systems do not note it; the inode has to do there.
        let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |born| born.as_nanos());
        Ok(format!("{}/{}/{born}", machine(), meta.ino()))
    }
}

/// The id of this machine, where it has one.
fn machine() -> String {
    let read = |path: &&str| fs::read_to_string(path).map(|id| id.trim().to_owned()).ok();
    // An image that was never started has the second word in place of an id.
    let some = |id: &String| !id.is_empty() && id != "uninitialized";
    MACHINE_IDS.iter().filter_map(read).find(some).unwrap_or_default()
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

    /// The fingerprint of the directory at `path`, as a process finds it that starts there.
    fn found(path: &Path) -> String {
        DataDir::open(path).expect("free").fingerprint().expect("readable")
    }

    fn made(path: &Path) -> String {
        let held = DataDir::create(path).expect("free");
        fs::create_dir(held.store()).expect("made");
        held.fingerprint().expect("readable")
    }

    /// As `cp -a` does it, times included. Not by a process of its own: while one is being started it holds
    /// the locks of the tests beside this one.
    fn copied(from: &Path, to: &Path) {
        fs::create_dir(to).expect("made");
        for entry in fs::read_dir(from).expect("listed") {
            let from = entry.expect("an entry").path();
            let to = to.join(from.file_name().expect("named"));
            let meta = fs::metadata(&from).expect("there");
            if meta.is_dir() {
                copied(&from, &to);
            } else {
                fs::copy(&from, &to).expect("copied");
                let file = OpenOptions::new().write(true).open(&to).expect("there");
                file.set_modified(meta.modified().expect("known")).expect("changed");
            }
        }
    }

    #[test]
    fn a_directory_is_known_again() {
        let dir = tempfile::tempdir().expect("a directory");
        let (here, there) = (dir.path().join("here"), dir.path().join("there/below"));
        let before = made(&here);
        assert_eq!(found(&here), before);
        // However it is used meanwhile, and wherever it is moved.
        let identity = here.join("store/identity");
        fs::set_permissions(&identity, fs::Permissions::from_mode(0o400)).expect("changed");
        File::open(&identity).expect("there").set_modified(UNIX_EPOCH).expect("changed");
        fs::create_dir(dir.path().join("there")).expect("made");
        fs::rename(&here, &there).expect("moved");
        assert_eq!(found(&there), before);
    }

    #[test]
    fn a_directory_is_known_by_machine_inode_and_birth_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let fingerprint = made(&dir.path().join("here"));
        let meta = fs::metadata(dir.path().join("here/store/identity")).expect("there");
        let parts: Vec<&str> = fingerprint.split('/').collect();
        let born = meta.created().ok().and_then(|born| born.duration_since(UNIX_EPOCH).ok());
        let born = born.map_or(0, |born| born.as_nanos()).to_string();
        assert_eq!(parts, [&machine(), &meta.ino().to_string(), &born]);
    }

    #[test]
    fn a_copied_directory_is_another() {
        let dir = tempfile::tempdir().expect("a directory");
        let (here, copy) = (dir.path().join("here"), dir.path().join("copy"));
        let before = made(&here);
        copied(&here, &copy);
        assert_ne!(found(&copy), before);
        assert_eq!(found(&here), before);
        // Restored in the place of the original.
        fs::remove_dir_all(&here).expect("removed");
        copied(&copy, &here);
        assert_ne!(found(&here), before);
    }
}
