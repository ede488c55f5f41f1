//! A store's files in memory, for short-lived peers and tests: gone when the peer is.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::files::{File, Files};

/// A directory in memory.
#[derive(Debug, Default)]
pub(crate) struct InMemory {
    files: Mutex<BTreeMap<String, Arc<MemoryFile>>>,
}

impl InMemory {
    fn files(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Arc<MemoryFile>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Files for InMemory {
    fn open(&self, name: &str) -> io::Result<Arc<dyn File>> {
        Ok(Arc::clone(self.files().entry(name.to_owned()).or_default()) as Arc<dyn File>)
    }

    fn reopen(&self, name: &str) -> io::Result<Arc<dyn File>> {
        let file = self.files().get(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        Ok(file)
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.files().keys().cloned().collect())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.files().remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }

    fn allocated(&self) -> u64 {
        self.files().values().map(|file| file.len().unwrap_or(0)).sum()
    }
}

#[derive(Debug, Default)]
struct MemoryFile(RwLock<Vec<u8>>);

fn place(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge.into())
}

impl File for MemoryFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.read().unwrap_or_else(PoisonError::into_inner).len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let from = place(offset)?;
        let end = from.checked_add(out.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        out.copy_from_slice(bytes.get(from..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut bytes = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let from = place(offset)?;
        let end = from.checked_add(data.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[from..end].copy_from_slice(data);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let len = place(len)?;
        self.0.write().unwrap_or_else(PoisonError::into_inner).resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }
}
