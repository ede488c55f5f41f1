//! redb behind the benchmark's interface. Settings: SB_CACHE_MB, SB_TWO_PHASE, SB_QUICK_REPAIR.

use std::path::Path;

use redb::{
    Database, ReadOnlyTable, ReadableDatabase as _, ReadableTable as _, TableDefinition,
    TableError, WriteTransaction,
};

use super::{Engine, NAMES, Reader, Res, Table, Visit, Writer, mebibytes, setting};

type Bytes = &'static [u8];

pub struct Redb {
    db: Database,
    two_phase: bool,
    quick_repair: bool,
}

const fn definition(table: usize) -> TableDefinition<'static, Bytes, Bytes> {
    TableDefinition::new(NAMES[table])
}

impl Redb {
    pub fn open(path: &Path) -> Res<Self> {
        let cache = mebibytes("SB_CACHE_MB", 64) as usize;
        let db = Database::builder().set_cache_size(cache).create(path)?;
        let missing = db.begin_read()?.open_table(definition(0));
        if matches!(missing, Err(TableError::TableDoesNotExist(_))) {
            let tx = db.begin_write()?;
            for table in 0..NAMES.len() {
                tx.open_table(definition(table))?;
            }
            tx.commit()?;
        }
        let (two_phase, quick_repair) = (
            setting("SB_TWO_PHASE", 0) == 1,
            setting("SB_QUICK_REPAIR", 0) == 1,
        );
        Ok(Self {
            db,
            two_phase,
            quick_repair,
        })
    }
}

impl Engine for Redb {
    fn commit(&self, body: &mut dyn FnMut(&mut dyn Writer) -> Res<()>) -> Res<()> {
        let mut tx = self.db.begin_write()?;
        tx.set_two_phase_commit(self.two_phase);
        tx.set_quick_repair(self.quick_repair);
        body(&mut Tables::open(&tx)?)?;
        Ok(tx.commit()?)
    }

    fn snapshot(&self) -> Res<Box<dyn Reader + '_>> {
        let tx = self.db.begin_read()?;
        let open = |table| tx.open_table(definition(table));
        Ok(Box::new(Snapshot([open(0)?, open(1)?, open(2)?, open(3)?])))
    }

    fn flush(&self) -> Res<()> {
        Ok(())
    }
}

struct Tables<'tx>([redb::Table<'tx, Bytes, Bytes>; 4]);

impl<'tx> Tables<'tx> {
    fn open(tx: &'tx WriteTransaction) -> Res<Self> {
        let open = |table| tx.open_table(definition(table));
        Ok(Self([open(0)?, open(1)?, open(2)?, open(3)?]))
    }
}

impl Writer for Tables<'_> {
    fn get(&mut self, table: Table, key: &[u8]) -> Res<Option<Vec<u8>>> {
        Ok(self.0[table as usize]
            .get(key)?
            .map(|value| value.value().to_vec()))
    }

    fn keys_between(&mut self, table: Table, from: &[u8], until: &[u8]) -> Res<Vec<Vec<u8>>> {
        let range = self.0[table as usize].range::<&[u8]>(from..until)?;
        range.map(|entry| Ok(entry?.0.value().to_vec())).collect()
    }

    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Res<()> {
        self.0[table as usize].insert(key, value)?;
        Ok(())
    }

    fn delete(&mut self, table: Table, key: &[u8]) -> Res<()> {
        self.0[table as usize].remove(key)?;
        Ok(())
    }
}

struct Snapshot([ReadOnlyTable<Bytes, Bytes>; 4]);

impl Reader for Snapshot {
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Res<bool> {
        let found = self.0[table as usize].get(key)?;
        if let Some(value) = &found {
            visit(value.value());
        }
        Ok(found.is_some())
    }

    fn range(&self, table: Table, from: &[u8], until: &[u8], visit: Visit) -> Res<()> {
        for entry in self.0[table as usize].range::<&[u8]>(from..until)? {
            let (key, value) = entry?;
            if !visit(key.value(), value.value())? {
                break;
            }
        }
        Ok(())
    }
}
