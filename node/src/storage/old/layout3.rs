//! Layout 3: journal, segments and index as today, but for the names of branches, which have 40 bytes, and the
//! keys of the index, which are the user's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::StoreError;
use tracing::warn;

use super::forms::{BRANCH, BranchName, Place};
use super::tables::{self, Row, damaged, entries};
use crate::storage::files::{Files, OnDisk};
use crate::storage::frame;
use crate::storage::journal::{self, Position};
use crate::storage::reclaim::failed;
use crate::storage::schema::{self, INDEX, Pointer, Rows};
use crate::storage::segments::{self, Handles, OPEN_SEGMENTS, PREFIX, Segments};

pub(in super::super) struct Layout3 {
    segments: Segments,
    rows: BTreeMap<Rows, Row>,
    slots: BTreeMap<Place, Pointer>,
}

impl Layout3 {
    pub(super) fn open(dir: &Path) -> Result<Self, StoreError> {
        let files: Arc<dyn Files> = Arc::new(OnDisk::at(dir).map_err(failed)?);
        let handles = Handles::new(Arc::clone(&files), OPEN_SEGMENTS);
        let mut segments = Segments::new();
        for name in files.list().map_err(failed)? {
            if let Some((kind, number)) = segments::named(&name) {
                segments.insert(number, handles.segment(kind, number));
            }
        }
        let mut old = Self { segments, rows: BTreeMap::new(), slots: BTreeMap::new() };
        let began = old.read_index(dir)?;
        let segments = old.segments.clone();
        let replayed = journal::replay(&segments, began, |at, body| old.replay(at, body));
        if replayed.map_err(failed)?.damaged {
            warn!("the journal of the old store is damaged: some of what it held is lost");
        }
        Ok(old)
    }

    /// Takes in what the index holds; says from where on the journal goes beyond it.
    fn read_index(&mut self, dir: &Path) -> Result<Position, StoreError> {
        let db = tables::open(&dir.join(INDEX))?;
        for rows in Rows::ALL {
            let of_kind = self.rows.entry(rows).or_default();
            entries(&db, rows.name(), |key, value| {
                of_kind.insert(key.to_vec(), Bytes::from(value));
                Ok(())
            })?;
        }
        let mut branches: BTreeMap<u32, BranchName> = BTreeMap::new();
        entries(&db, "branches", |branch, number| {
            let number = number.try_into().map_err(|_| damaged())?;
            branches.insert(u32::from_be_bytes(number), branch.try_into().map_err(|_| damaged())?);
            Ok(())
        })?;
        entries(&db, "slots", |place, pointer| {
            let (branch, seq) = schema::numbered(place)?;
            let branch = branches.get(&branch).ok_or_else(damaged)?;
            self.slots.insert((*branch, seq), Pointer::from_bytes(pointer)?);
            Ok(())
        })?;
        let began = self.rows.get(&Rows::Meta).and_then(|meta| meta.get(&b"journal"[..]));
        let began = began.and_then(|bytes| Position::from_bytes(bytes));
        Ok(began.unwrap_or(Position { segment: 0, offset: PREFIX, number: 1 }))
    }

    fn replay(&mut self, at: Position, body: &[u8]) {
        let mut reader = Reader { rest: body, length: body.len(), branch: None };
        while let Some(item) = reader.item() {
            match item {
                Item::Slot(place, within) => {
                    self.slots.insert(place, at.pointer(within));
                }
                Item::NoSlot(place) => {
                    self.slots.remove(&place);
                }
                Item::Row(rows, key, value) => {
                    let of_kind = self.rows.entry(rows).or_default();
                    match value {
                        Some(value) => of_kind.insert(key, value),
                        None => of_kind.remove(&key),
                    };
                }
            }
        }
    }

    pub(super) fn rows(&self, rows: Rows) -> Row {
        self.rows.get(&rows).cloned().unwrap_or_default()
    }

    pub(super) fn places(&self) -> Vec<Place> {
        self.slots.keys().copied().collect()
    }

    pub(super) fn slot(&self, place: &Place) -> Vec<u8> {
        self.read(place).unwrap_or_default()
    }

    fn read(&self, place: &Place) -> Option<Vec<u8>> {
        let pointer = self.slots.get(place)?;
        let file = self.segments.get(&pointer.segment)?.file().ok()?;
        if u64::from(pointer.offset) + u64::from(pointer.len) > file.len().ok()? {
            return None;
        }
        let mut bytes = vec![0; pointer.len as usize];
        file.read_at(pointer.offset.into(), &mut bytes).ok()?;
        Some(bytes)
    }
}

/// One thing that a frame says, see [`frame`].
enum Item {
    Slot(Place, frame::Within),
    NoSlot(Place),
    Row(Rows, Vec<u8>, Option<Bytes>),
}

struct Reader<'a> {
    rest: &'a [u8],
    length: usize,
    branch: Option<BranchName>,
}

impl<'a> Reader<'a> {
    fn item(&mut self) -> Option<Item> {
        let mut tag = self.take(1)?[0];
        if tag == 1 {
            self.branch = self.take(BRANCH)?.try_into().ok();
            tag = self.take(1)?[0];
        }
        match tag {
            2 => {
                let place = self.place()?;
                let len = self.number()?;
                let start = u32::try_from(frame::HEAD + self.length - self.rest.len()).ok()?;
                self.take(len as usize)?;
                Some(Item::Slot(place, (start, len)))
            }
            3 => {
                let place = self.place()?;
                self.key()?;
                Some(Item::NoSlot(place))
            }
            4 | 5 => {
                let rows = Rows::from_number(self.take(1)?[0])?;
                let key = self.key()?.to_vec();
                let value = match tag {
                    4 => {
                        let len = self.number()?;
                        Some(Bytes::from(self.take(len as usize)?))
                    }
                    _ => None,
                };
                Some(Item::Row(rows, key, value))
            }
            _ => None,
        }
    }

    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }

    fn number(&mut self) -> Option<u32> {
        Some(u32::from_be_bytes(self.take(4)?.try_into().ok()?))
    }

    fn place(&mut self) -> Option<Place> {
        let seq = u64::from_be_bytes(self.take(8)?.try_into().ok()?);
        Some((self.branch?, seq))
    }

    fn key(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_be_bytes(self.take(2)?.try_into().ok()?);
        self.take(len.into())
    }
}
