//! What the benchmark needs of a store: four ordered tables, an atomic durable commit, snapshots.
//! It must not know how slots are arranged in them.

use std::{error::Error, path::Path};

mod fjall;
mod redb;

pub type Res<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The tables, by position in each engine's own list.
#[derive(Clone, Copy)]
pub enum Table {
    ByKey,
    BySeq,
    Headers,
    States,
}

const NAMES: [&str; 4] = ["by_key", "by_seq", "headers", "states"];

pub trait Writer {
    fn get(&mut self, table: Table, key: &[u8]) -> Res<Option<Vec<u8>>>;
    fn keys_between(&mut self, table: Table, from: &[u8], until: &[u8]) -> Res<Vec<Vec<u8>>>;
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Res<()>;
    fn delete(&mut self, table: Table, key: &[u8]) -> Res<()>;
}

/// Sees a key and its value; says whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Res<bool>;

/// One unchanging view of all tables.
pub trait Reader {
    fn get(&self, table: Table, key: &[u8], visit: &mut dyn FnMut(&[u8])) -> Res<bool>;
    fn range(&self, table: Table, from: &[u8], until: &[u8], visit: Visit) -> Res<()>;
}

pub trait Engine: Send + Sync {
    /// Runs `body` and makes what it wrote durable, all of it or nothing.
    fn commit(&self, body: &mut dyn FnMut(&mut dyn Writer) -> Res<()>) -> Res<()>;
    fn snapshot(&self) -> Res<Box<dyn Reader + '_>>;
    /// Moves what is only in memory and journal into tables, if the engine has such a step.
    fn flush(&self) -> Res<()>;
}

pub fn open(name: &str, dir: &Path) -> Res<Box<dyn Engine>> {
    std::fs::create_dir_all(dir)?;
    match name {
        "redb" => Ok(Box::new(redb::Redb::open(&dir.join("store.redb"))?)),
        "fjall" => Ok(Box::new(fjall::Fjall::open(&dir.join("store.fjall"))?)),
        other => Err(format!("no engine named {other}").into()),
    }
}

/// A setting from the environment, as a number.
pub fn setting(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

fn mebibytes(name: &str, default: u64) -> u64 {
    setting(name, default) << 20
}
