//! The files of a store, behind two small traits: on disk, in memory ([`super::memory`]), or recorded by
//! a test that cuts the power in between.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory that belongs to one store alone.
pub(crate) trait Files: fmt::Debug + Send + Sync {
    /// Opens a file for reading and writing, made if it is not there.
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Opens a file that must be there.
    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>>;

    /// Names of the files, ascending.
    fn list(&self) -> io::Result<Vec<String>>;

    /// Removes a file. Who has it open goes on reading it.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes durable which files there are.
    fn sync(&self) -> io::Result<()>;

    /// Bytes that the files take up on their device.
    fn allocated(&self) -> u64;
}

/// One open file. Reads and writes at different places do not wait for each other.
pub(crate) trait File: fmt::Debug + Send + Sync {
    fn len(&self) -> io::Result<u64>;

    /// Fills `out` from `offset` on, or fails.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Cuts the file, or appends zeros.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Makes what was written durable.
    fn sync_data(&self) -> io::Result<()>;
}

/// A directory on disk. Its files are for their owner only.
#[derive(Debug)]
pub(crate) struct OnDisk {
    dir: PathBuf,
}

impl OnDisk {
    /// Makes the directory if need be.
    pub(crate) fn at(dir: &Path) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        Ok(Self { dir: dir.to_owned() })
    }
}

impl Files for OnDisk {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        Ok(Arc::new(DiskFile(options.open(self.dir.join(name))?)))
    }

    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).open(self.dir.join(name))?;
        Ok(Arc::new(DiskFile(file)))
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                names.extend(entry.file_name().into_string());
            }
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        fs::File::open(&self.dir)?.sync_all()
    }

    fn allocated(&self) -> u64 {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let files = entries.filter_map(|entry| entry.metadata().ok()).filter(fs::Metadata::is_file);
        files.map(|meta| meta.blocks() * 512).sum()
    }
}

#[derive(Debug)]
struct DiskFile(fs::File);

impl File for DiskFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
