//! A replica's reads and writes over an engine's tables, in each arrangement under comparison.
//!
//! A: by_key holds the operation, by_seq names its user key.
//! B: by_seq holds the operation, by_key has one empty entry a slot.
//! C: by_seq holds the operation, by_key has one entry a user key that lists its slots, so that
//!    finding a key's slots is a point read.
//! E: by_seq holds the operation; C's by_key gets changes in bulk, those not yet there are in memory
//!    and found again at a start from the logs' tails. Its scan covers what is in by_key.
//! D: by_seq holds the operation; C's by_key is in memory only and rebuilt at each start.

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Included},
    path::Path,
    sync::{PoisonError, RwLock, RwLockReadGuard},
};

use crate::{
    data::{Commit, LogId, Op, concat, escape, header, state},
    engine::{self, Engine, Reader, Res, Table, Writer, setting},
};

const CHUNK_BYTES: usize = 128 << 10;
/// A log id and a seq: what names a slot of a given user key.
const NAME: usize = 38 + 8;
const PAST_ANY_NAME: [u8; NAME + 1] = [0xff; NAME + 1];

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Arrangement {
    A,
    B,
    C,
    D,
    E,
}

/// Escaped user key → the names of its slots, one after another.
type MemoryIndex = BTreeMap<Box<[u8]>, Vec<u8>>;

pub struct Store {
    pub engine: Box<dyn Engine>,
    arrangement: Arrangement,
    lookup: bool,
    by_key: RwLock<MemoryIndex>,
}

impl Store {
    pub fn open(engine: &str, arrangement: &str, dir: &Path) -> Res<Self> {
        let arrangement = match arrangement {
            "A" => Arrangement::A,
            "B" => Arrangement::B,
            "C" => Arrangement::C,
            "D" => Arrangement::D,
            "E" => Arrangement::E,
            other => return Err(format!("no arrangement {other}").into()),
        };
        let lookup = setting("SB_LOOKUP", 1) == 1;
        let engine = engine::open(engine, dir)?;
        let by_key = match arrangement {
            Arrangement::D => rebuild(engine.as_ref())?,
            Arrangement::E => recover_tails(engine.as_ref())?,
            _ => MemoryIndex::new(),
        };
        Ok(Self {
            engine,
            arrangement,
            lookup,
            by_key: RwLock::new(by_key),
        })
    }

    pub fn commit(&self, commit: &Commit) -> Res<()> {
        let mut changed = Vec::new();
        self.engine.commit(&mut |tables| {
            for op in &commit.ops {
                self.put_slot(tables, &commit.log, op, &mut changed)?;
            }
            for seq in commit.header_seqs() {
                tables.put(Table::Headers, &by_seq(&commit.log, seq), &header(seq))?;
            }
            let last = commit.ops.last().map_or(0, |op| op.seq);
            tables.put(Table::States, &commit.log, &state(last))
        })?;
        let mut memory = self.by_key.write().unwrap_or_else(PoisonError::into_inner);
        memory.extend(changed);
        if self.arrangement == Arrangement::E && memory.len() as u64 >= setting("SB_FOLD", 32_768) {
            fold(self.engine.as_ref(), &memory)?;
            memory.clear();
        }
        Ok(())
    }

    fn memory(&self) -> RwLockReadGuard<'_, MemoryIndex> {
        self.by_key.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn put_slot(
        &self,
        tables: &mut dyn Writer,
        log: &LogId,
        op: &Op,
        changed: &mut Vec<(Box<[u8]>, Vec<u8>)>,
    ) -> Res<()> {
        let key = escape(&op.key);
        if self.arrangement == Arrangement::C {
            return put_listed_slot(tables, &key, log, op);
        }
        if matches!(self.arrangement, Arrangement::D | Arrangement::E) {
            let mut names = self.memory().get(key.as_slice()).cloned();
            if names.is_none() && self.arrangement == Arrangement::E {
                names = tables.get(Table::ByKey, &key)?;
            }
            let names = names.unwrap_or_default();
            put_operation(tables, &names, log, op)?;
            let mut names = without_log(&names, log);
            names.extend_from_slice(&by_seq(log, op.seq));
            changed.push((key.into(), names));
            return Ok(());
        }
        let prefix = concat(&[&key, log]);
        for seq in self.replaced(tables, &prefix, op)? {
            tables.delete(Table::ByKey, &concat(&[&prefix, &seq]))?;
            tables.delete(Table::BySeq, &concat(&[log, &seq]))?;
        }
        let seq = op.seq.to_be_bytes();
        let (in_key, in_seq) = (concat(&[&prefix, &seq]), concat(&[log, &seq]));
        let value = concat(&[&seq, &op.bytes]);
        if self.arrangement == Arrangement::A {
            tables.put(Table::ByKey, &in_key, &value)?;
            tables.put(Table::BySeq, &in_seq, &op.key)
        } else {
            tables.put(Table::ByKey, &in_key, &[])?;
            tables.put(Table::BySeq, &in_seq, &value)
        }
    }

    /// The seqs of the same log's older slots of this key.
    fn replaced(&self, tables: &mut dyn Writer, prefix: &[u8], op: &Op) -> Res<Vec<[u8; 8]>> {
        if !self.lookup {
            return Ok(op.replaces.map(u64::to_be_bytes).into_iter().collect());
        }
        let found = tables.keys_between(Table::ByKey, prefix, &concat(&[prefix, &[0xff; 9]]))?;
        found
            .iter()
            .map(|key| Ok(key[key.len() - 8..].try_into()?))
            .collect()
    }

    pub fn view(&self) -> Res<View<'_>> {
        let tables = self.engine.snapshot()?;
        Ok(View {
            tables,
            arrangement: self.arrangement,
            memory: &self.by_key,
        })
    }
}

fn put_listed_slot(tables: &mut dyn Writer, key: &[u8], log: &LogId, op: &Op) -> Res<()> {
    let names = tables.get(Table::ByKey, key)?.unwrap_or_default();
    put_operation(tables, &names, log, op)?;
    let mut names = without_log(&names, log);
    names.extend_from_slice(&by_seq(log, op.seq));
    tables.put(Table::ByKey, key, &names)
}

/// Replaces the log's slot among those named by the operation's own.
fn put_operation(tables: &mut dyn Writer, names: &[u8], log: &LogId, op: &Op) -> Res<()> {
    for name in names.chunks(NAME).filter(|name| name.starts_with(log)) {
        tables.delete(Table::BySeq, name)?;
    }
    let value = concat(&[&op.seq.to_be_bytes(), &op.bytes]);
    tables.put(Table::BySeq, &by_seq(log, op.seq), &value)
}

fn without_log(names: &[u8], log: &LogId) -> Vec<u8> {
    names
        .chunks(NAME)
        .filter(|name| !name.starts_with(log))
        .flatten()
        .copied()
        .collect()
}

/// Where the mark of a log is kept: the last seq that by_key knows.
fn mark(log: &[u8]) -> Vec<u8> {
    concat(&[log, b"mark"])
}

fn fold(engine: &dyn Engine, memory: &MemoryIndex) -> Res<()> {
    let mut marks = BTreeMap::<&[u8], &[u8]>::new();
    for name in memory.values().flat_map(|names| names.chunks(NAME)) {
        let seq = marks.entry(&name[..38]).or_default();
        *seq = (*seq).max(&name[38..]);
    }
    engine.commit(&mut |tables| {
        for (key, names) in memory {
            tables.put(Table::ByKey, key, names)?;
        }
        for (log, seq) in &marks {
            tables.put(Table::States, &mark(log), seq)?;
        }
        Ok(())
    })
}

fn recover_tails(engine: &dyn Engine) -> Res<MemoryIndex> {
    let (view, mut logs) = (engine.snapshot()?, Vec::new());
    view.range(Table::States, &[], &[0xff; 39], &mut |key, _| {
        if let Ok(log) = LogId::try_from(key) {
            logs.push(log);
        }
        Ok(true)
    })?;
    let mut memory = MemoryIndex::new();
    for log in logs {
        let mut known = vec![0; 8];
        view.get(Table::States, &mark(&log), &mut |seq| known = seq.to_vec())?;
        let from = concat(&[&log, &known, &[0]]);
        view.range(
            Table::BySeq,
            &from,
            &by_seq(&log, u64::MAX),
            &mut |name, value| {
                let key = escape(&value[8..32]);
                let mut names = memory.get(key.as_slice()).cloned().unwrap_or_default();
                if names.is_empty() {
                    view.get(Table::ByKey, &key, &mut |list| names = list.to_vec())?;
                }
                names = without_log(&names, &log);
                names.extend_from_slice(name);
                memory.insert(key.into(), names);
                Ok(true)
            },
        )?;
    }
    Ok(memory)
}

fn rebuild(engine: &dyn Engine) -> Res<MemoryIndex> {
    const HLC: usize = 8;
    const KEY: usize = 24;
    let mut by_key = MemoryIndex::new();
    engine
        .snapshot()?
        .range(Table::BySeq, &[], &PAST_ANY_NAME, &mut |name, value| {
            let key = escape(&value[HLC..HLC + KEY]);
            by_key
                .entry(key.into())
                .or_default()
                .extend_from_slice(name);
            Ok(true)
        })?;
    Ok(by_key)
}

fn by_seq(log: &LogId, seq: u64) -> Vec<u8> {
    concat(&[log, &seq.to_be_bytes()])
}

/// Reads of one moment.
pub struct View<'store> {
    tables: Box<dyn Reader + 'store>,
    arrangement: Arrangement,
    memory: &'store RwLock<MemoryIndex>,
}

/// Sees a slot's stored bytes: hlc, then the operation.
pub type Slot<'a> = &'a mut dyn FnMut(&[u8]);

impl View<'_> {
    /// Every slot of a user key over all logs; says how many.
    pub fn slots_of(&self, key: &[u8], slot: Slot) -> Res<u64> {
        let key = escape(key);
        if self.arrangement == Arrangement::C {
            let mut names = Vec::new();
            self.tables.get(Table::ByKey, &key, &mut |list| {
                names.extend_from_slice(list)
            })?;
            return self.listed(&names, slot);
        }
        if self.arrangement == Arrangement::D {
            let names = self
                .in_memory()
                .get(key.as_slice())
                .cloned()
                .unwrap_or_default();
            return self.listed(&names, slot);
        }
        if self.arrangement == Arrangement::E {
            let mut names = self
                .in_memory()
                .get(key.as_slice())
                .cloned()
                .unwrap_or_default();
            if names.is_empty() {
                self.tables
                    .get(Table::ByKey, &key, &mut |list| names = list.to_vec())?;
            }
            return self.listed(&names, slot);
        }
        self.by_key(&key, &concat(&[&key, &PAST_ANY_NAME]), slot)
    }

    /// Every slot in user-key order; says how many.
    pub fn scan(&self, slot: Slot) -> Res<u64> {
        if self.arrangement == Arrangement::D {
            return self.scan_from_memory(slot);
        }
        self.by_key(&[], &[0xff; 80], slot)
    }

    fn in_memory(&self) -> RwLockReadGuard<'_, MemoryIndex> {
        self.memory.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn scan_from_memory(&self, slot: Slot) -> Res<u64> {
        let (by_key, first, last) = (self.in_memory(), [].as_slice(), [0xff; 80]);
        let mut count = 0;
        for (_, names) in by_key.range::<[u8], _>((Included(first), Excluded(&last[..]))) {
            count += self.listed(names, slot)?;
        }
        Ok(count)
    }

    fn by_key(&self, from: &[u8], until: &[u8], slot: Slot) -> Res<u64> {
        let mut count = 0;
        self.tables
            .range(Table::ByKey, from, until, &mut |key, value| {
                count += match self.arrangement {
                    Arrangement::A => {
                        slot(value);
                        1
                    }
                    Arrangement::B => self.listed(&key[key.len() - NAME..], slot)?,
                    Arrangement::C | Arrangement::D | Arrangement::E => self.listed(value, slot)?,
                };
                Ok(true)
            })?;
        Ok(count)
    }

    fn listed(&self, names: &[u8], slot: Slot) -> Res<u64> {
        for name in names.chunks(NAME) {
            if !self.tables.get(Table::BySeq, name, slot)? {
                return Err("an index entry without its operation".into());
            }
        }
        Ok((names.len() / NAME) as u64)
    }

    /// One chunk of a log's slots above `after`: how many, and where the next chunk starts.
    pub fn slots_after(&self, log: &LogId, after: u64, slot: Slot) -> Res<(u64, u64)> {
        let (mut count, mut last, mut bytes) = (0, after, 0);
        let (from, until) = (by_seq(log, after + 1), by_seq(log, u64::MAX));
        self.tables
            .range(Table::BySeq, &from, &until, &mut |key, value| {
                let seq = &key[38..];
                let mut take = |found: &[u8]| {
                    bytes += found.len();
                    slot(found);
                };
                if self.arrangement == Arrangement::A {
                    let name = concat(&[&escape(value), log, seq]);
                    self.tables.get(Table::ByKey, &name, &mut take)?;
                } else {
                    take(value);
                }
                count += 1;
                last = u64::from_be_bytes(seq.try_into()?);
                Ok(bytes < CHUNK_BYTES)
            })?;
        Ok((count, last))
    }

    pub fn has_header(&self, log: &LogId, seq: u64) -> Res<bool> {
        self.tables
            .get(Table::Headers, &by_seq(log, seq), &mut |_| ())
    }
}
