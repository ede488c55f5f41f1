//! fjall behind the benchmark's interface. Settings: SB_CACHE_MB, SB_MEMTABLE_MB, SB_JOURNAL_MB,
//! SB_BLOCK_KB, SB_LZ4, SB_WORKERS.

use std::path::Path;

use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode,
    Readable as _,
    config::{BlockSizePolicy, CompressionPolicy},
};

use super::{Engine, NAMES, Reader, Res, Table, Visit, Writer, mebibytes, setting};

pub struct Fjall {
    db: Database,
    keyspaces: [Keyspace; 4],
}

fn options() -> KeyspaceCreateOptions {
    let compression = match setting("SB_LZ4", 0) {
        0 => CompressionPolicy::disabled(),
        _ => CompressionPolicy::all(CompressionType::Lz4),
    };
    KeyspaceCreateOptions::default()
        .max_memtable_size(mebibytes("SB_MEMTABLE_MB", 64))
        .data_block_size_policy(BlockSizePolicy::all(
            setting("SB_BLOCK_KB", 4) as u32 * 1024,
        ))
        .data_block_compression_policy(compression)
}

impl Fjall {
    pub fn open(path: &Path) -> Res<Self> {
        let db = Database::builder(path)
            .cache_size(mebibytes("SB_CACHE_MB", 64))
            .max_journaling_size(mebibytes("SB_JOURNAL_MB", 512))
            .worker_threads(setting("SB_WORKERS", 2) as usize)
            .open()?;
        let open = |table: usize| db.keyspace(NAMES[table], options);
        let keyspaces = [open(0)?, open(1)?, open(2)?, open(3)?];
        Ok(Self { db, keyspaces })
    }
}

impl Engine for Fjall {
    fn commit(&self, body: &mut dyn FnMut(&mut dyn Writer) -> Res<()>) -> Res<()> {
        let batch = self.db.batch().durability(Some(PersistMode::SyncData));
        let mut tables = Batch {
            batch,
            keyspaces: &self.keyspaces,
        };
        body(&mut tables)?;
        Ok(tables.batch.commit()?)
    }

    fn snapshot(&self) -> Res<Box<dyn Reader + '_>> {
        Ok(Box::new(Snapshot {
            view: self.db.snapshot(),
            keyspaces: &self.keyspaces,
        }))
    }

    fn flush(&self) -> Res<()> {
        for keyspace in &self.keyspaces {
            keyspace.rotate_memtable_and_wait()?;
        }
        Ok(())
    }
}

/// Reads see what was committed before, not the batch itself.
struct Batch<'db> {
    batch: OwnedWriteBatch,
    keyspaces: &'db [Keyspace; 4],
}

impl Writer for Batch<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Res<Option<Vec<u8>>> {
        Ok(self.keyspaces[table as usize]
            .get(key)?
            .map(|value| value.to_vec()))
    }

    fn keys_between(&mut self, table: Table, from: &[u8], until: &[u8]) -> Res<Vec<Vec<u8>>> {
        let range = self.keyspaces[table as usize].range(from..until);
        range.map(|entry| Ok(entry.key()?.to_vec())).collect()
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Res<()> {
        self.batch
            .insert(&self.keyspaces[table as usize], key, value);
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Res<()> {
        self.batch.remove(&self.keyspaces[table as usize], key);
        Ok(())
    }
}

struct Snapshot<'db> {
    view: fjall::Snapshot,
    keyspaces: &'db [Keyspace; 4],
}

impl Reader for Snapshot<'_> {
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Res<bool> {
        let found = self.view.get(&self.keyspaces[table as usize], key)?;
        if let Some(value) = &found {
            visit(value);
        }
        Ok(found.is_some())
    }

    fn range(&self, table: Table, from: &[u8], until: &[u8], visit: Visit) -> Res<()> {
        for entry in self
            .view
            .range(&self.keyspaces[table as usize], from..until)
        {
            let (key, value) = entry.into_inner()?;
            if !visit(&key, &value)? {
                break;
            }
        }
        Ok(())
    }
}
