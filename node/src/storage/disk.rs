//! A replica's store: takes the core's writes, makes them durable, answers its reads.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Bound;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{self, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{BranchId, Hash8};
use swarmkv_protocol::op;
use swarmkv_protocol::store::{RawSlot, Recovered, Store, StoreError, Write};

use super::branches::Branches;
use super::checkpoint::{self, Shared};
use super::files::{Files, OnDisk};
use super::frame::{Builder, Item, items};
use super::index::Index;
use super::journal::{self, Journal, Position, Replayed, Sizes};
use super::layers::{Checkpoint, Layers};
use super::memory::InMemory;
use super::memtable::{Maps, Memtable};
use super::merge;
use super::overlay::Overlay;
use super::reclaim::failed;
use super::room::{self, Patient, Room};
use super::schema::{self, INDEX, Pointer, Rows};
use super::segments::{self, Handles, PREFIX, Segments};
use super::view::Snapshot;

/// Slots put into the memtable before readers get their turn.
const CHUNK: usize = 16;

/// A replica's store. Clones share it.
#[derive(Clone)]
pub(crate) struct Disk(Arc<Inner>);

struct Inner {
    shared: Arc<Shared>,
    /// Frames were lost to damage: what is stored must be checked.
    damaged: bool,
    /// Where a store in memory keeps who is a member.
    kept: Option<Disk>,
    checkpoints: Option<Sender<Checkpoint>>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Opens the store in `dir`, or makes one. It must be of the present layout, see [`super::open`].
    pub(super) fn at(dir: &Path) -> Result<Self, StoreError> {
        let io = |e: io::Error| StoreError::Failed(format!("{}: {e}", dir.display()));
        Self::with(Arc::new(OnDisk::at(dir).map_err(io)?), Sizes::default())
    }

    /// A new store whose data is gone when the last clone of it is. Who is a member it takes from `kept`,
    /// and goes on keeping there.
    pub(crate) fn in_memory(kept: Self) -> Result<Self, StoreError> {
        let mut disk = Self::with(Arc::new(InMemory::default()), Sizes::default())?;
        for rows in [Rows::Meta, Rows::Statements, Rows::Addresses] {
            for (key, value) in kept.rows(rows)? {
                disk.note(rows, &key, Some(value));
            }
        }
        disk.sync()?;
        if let Some(inner) = Arc::get_mut(&mut disk.0) {
            inner.kept = Some(kept);
        }
        Ok(disk)
    }

    /// Makes durable who is a member now, if this store is in memory.
    fn keep(&self, layer: &Overlay) -> Result<(), StoreError> {
        let Some(kept) = &self.0.kept else { return Ok(()) };
        let statements = layer.rows.iter().filter(|((rows, _), _)| *rows == Rows::Statements);
        for ((rows, key), value) in statements {
            kept.note(*rows, key, value.clone());
        }
        kept.sync().map(drop)
    }

    /// Where a store in memory keeps who is a member.
    pub(super) fn kept(&self) -> Option<&Self> {
        self.0.kept.as_ref()
    }

    /// Whether data is in memory only.
    pub(crate) fn is_in_memory(&self) -> bool {
        self.0.kept.is_some()
    }

    /// Opens the store that lies in `files`, or makes one.
    pub(super) fn with(files: Arc<dyn Files>, sizes: Sizes) -> Result<Self, StoreError> {
        let room = Arc::new(Room::default());
        let files: Arc<dyn Files> = Arc::new(Patient::new(files, Arc::clone(&room)));
        let names = files.list().map_err(failed)?;
        if !names.iter().any(|name| segments::named(name).is_some())
            && names.iter().any(|n| n == INDEX)
        {
            // The journal is made after the index is: this one was never finished.
            files.remove(INDEX).map_err(failed)?;
        }
        let index = files.open(INDEX).map_err(failed)?;
        // Its name must be there before anything in it counts.
        files.sync().map_err(failed)?;
        let index = Index::open(index)?;
        let branches = Arc::new(Branches::new(index.branches()?));
        let handles = Handles::new(Arc::clone(&files), sizes.open);
        let mut segments = tidy(&files, &handles, &index)?;
        let began = index.position()?.unwrap_or(Position { segment: 0, offset: PREFIX, number: 1 });
        let mut maps = Maps::default();
        let each = |at: Position, body: &[u8]| replayed(&mut maps, &branches, at, body);
        let replayed = journal::replay(&segments, began, each).map_err(failed)?;
        let (damaged, upto) = (replayed.damaged, replayed.end.number - 1);
        let last = segments.keys().next_back().copied();
        let next_segment = AtomicU32::new(last.map_or(0, |last| last + 1));
        let journal = go_on(&handles, &mut segments, sizes, &replayed, &next_segment);
        let journal = Mutex::new(journal.map_err(failed)?);
        let memtable = Memtable::from(maps);
        let layers = Layers::new(index.tables()?, segments, branches, memtable, began, upto);
        let shared = Shared { files, handles, room, index, layers, journal, next_segment, sizes };
        let shared = Arc::new(shared);
        let (checkpoints, todo) = mpsc::channel();
        let worker = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("swarmkv-index".into())
            .spawn(move || worker.make_checkpoints(&todo))
            .map_err(failed)?;
        let (checkpoints, thread) = (Some(checkpoints), Some(thread));
        Ok(Self(Arc::new(Inner { shared, damaged, kept: None, checkpoints, thread })))
    }

    fn layers(&self) -> &Layers {
        &self.0.shared.layers
    }

    /// Takes writes over. The core's reads see them from now on; they are durable after the next
    /// [`Disk::seal`] and [`Disk::commit`].
    pub(crate) fn apply(&self, writes: Vec<Write>) {
        let gone = match self.headers_without_log(&writes) {
            Ok(gone) => gone,
            // The next commit says so.
            Err(e) => return self.layers().fail(e),
        };
        let mut state = self.layers().lock();
        state.looked_up.clear();
        for key in gone {
            state.building.row(Rows::Headers, &key, None);
        }
        state.building.apply(writes);
    }

    /// The header rows of branches that these writes remove: a branch's number may be used again.
    fn headers_without_log(&self, writes: &[Write]) -> Result<BTreeSet<Vec<u8>>, StoreError> {
        let mut gone = BTreeSet::new();
        for write in writes {
            let Write::RemoveLog { branch } = write else { continue };
            let prefix = branch.to_bytes();
            let (committing, memtables) = {
                let state = self.layers().lock();
                let memtables = [Some(Arc::clone(&state.memtable)), state.frozen.clone()];
                (Arc::clone(&state.committing), memtables)
            };
            gone.extend(schema::keys_under(&committing.rows, Rows::Headers, &prefix));
            for memtable in memtables.iter().flatten() {
                let maps = memtable.read();
                gone.extend(schema::keys_under(&maps.rows, Rows::Headers, &prefix));
            }
            gone.extend(self.0.shared.index.keys_under(Rows::Headers, &prefix)?);
        }
        Ok(gone)
    }

    /// Notes a row of our own. Durable after the next sync.
    pub(super) fn note(&self, rows: Rows, key: &[u8], value: Option<Bytes>) {
        self.layers().lock().building.row(rows, key, value);
    }

    /// Draws the line: what was taken over so far is what the next [`Disk::commit`] makes durable.
    /// One seal for each commit.
    pub(crate) fn seal(&self) {
        let mut state = self.layers().lock();
        state.committing = Arc::new(std::mem::take(&mut state.building));
    }

    /// Makes everything taken over so far durable.
    pub(crate) fn sync(&self) -> Result<Snapshot, StoreError> {
        self.seal();
        self.commit()
    }

    /// Makes what was sealed durable, in one frame; returns what is durable then. Waits for room on a full
    /// device, and for the index when that lags far behind.
    pub(crate) fn commit(&self) -> Result<Snapshot, StoreError> {
        self.commit_or_full(true)?.map_err(failed)
    }

    /// As [`Disk::commit`], but does not wait; `None` when it would have to, and nothing is durable yet.
    pub(crate) fn commit_at_once(&self) -> Result<Option<Snapshot>, StoreError> {
        if self.layers().is_behind(self.0.shared.sizes.memtable) {
            return Ok(None);
        }
        Ok(room::without_waiting(|| self.commit_or_full(false))?.ok())
    }

    /// The inner error says that the device is full.
    fn commit_or_full(&self, may_wait: bool) -> Result<io::Result<Snapshot>, StoreError> {
        match self.try_commit(may_wait) {
            Ok(snapshot) => Ok(Ok(snapshot)),
            Err(NotDone::Io(e)) if room::no_room(&e) => Ok(Err(e)),
            Err(NotDone::Io(e)) => Err(failed(e)),
            Err(NotDone::Store(e)) => Err(e),
        }
    }

    fn try_commit(&self, may_wait: bool) -> Result<Snapshot, NotDone> {
        let shared = &self.0.shared;
        // First: whoever holds it, nobody else sets the memtable aside.
        let mut journal = shared.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let (layer, memtable, oldest) = shared.layers.to_commit()?;
        let mut frame = Builder::new();
        let lie = frame.layer(&layer);
        if frame.is_empty() {
            return Ok(shared.layers.durable());
        }
        if journal.is_full_for(frame.len()) {
            let number = shared.next_segment.fetch_add(1, Ordering::Relaxed);
            let segment = journal.roll(number)?;
            Arc::make_mut(&mut shared.layers.lock().segments).insert(number, segment);
        }
        self.keep(&layer)?;
        let at = journal.append(frame)?;
        let pointers = lie.into_iter().map(|within| within.map(|within| at.pointer(within)));
        take_in(&layer, pointers, &memtable, &shared.layers.branches, at.number, oldest);
        let durable = shared.layers.committed(at.number);
        let began = shared.layers.lock().began;
        let long = journal.position().segment > began.segment + 1;
        let due = memtable.read().bytes >= shared.sizes.memtable || long;
        // The memtable may grow a little further while the one before it is put into the index.
        if due && (may_wait || !shared.layers.is_frozen()) {
            self.checkpoint(&journal)?;
        }
        Ok(durable)
    }

    /// Has the memtable put into the index.
    fn checkpoint(&self, journal: &Journal) -> Result<(), StoreError> {
        let checkpoint = self.layers().freeze(journal.position())?;
        if let Some(checkpoints) = &self.0.checkpoints {
            let _ = checkpoints.send(checkpoint);
        }
        Ok(())
    }

    /// Has everything put into the index, so that the next start finds nothing to do. It is done when the
    /// last clone of this store is gone; should it be interrupted, the next start does it.
    pub(crate) fn settle(&self) -> Result<(), StoreError> {
        let journal = self.0.shared.journal.lock().unwrap_or_else(PoisonError::into_inner);
        let empty = self.layers().lock().memtable.read().bytes == 0;
        if empty { Ok(()) } else { self.checkpoint(&journal) }
    }

    /// What is durable now.
    pub(crate) fn durable(&self) -> Snapshot {
        self.layers().durable()
    }

    /// What is durable, if it lies elsewhere since the last snapshot was taken: whoever keeps the old one
    /// keeps memory and files that nobody else needs.
    pub(crate) fn renewed(&self) -> Option<Snapshot> {
        self.layers().renewed()
    }

    /// Whether writes wait because the device is full.
    pub(crate) fn is_full(&self) -> bool {
        self.0.shared.room.is_full()
    }

    /// Gives up waiting for room.
    pub(crate) fn stop_waiting(&self) {
        self.0.shared.room.stop_waiting();
    }

    /// Whether frames were lost to damage.
    pub(crate) fn is_damaged(&self) -> bool {
        self.0.damaged
    }

    /// What a replica is opened from.
    pub(crate) fn recover(&self) -> Result<Recovered, StoreError> {
        let bad = |what: &str| StoreError::Failed(format!("{what}'s id in the store is damaged"));
        let (mut logs, mut heads) = (Vec::new(), Vec::new());
        for (key, value) in self.rows(Rows::Logs)? {
            let id = key[..].try_into().map_err(|_| bad("a log"))?;
            let branch = BranchId::from_bytes(id);
            logs.push((branch, value));
            let upto = schema::place_bytes(&(branch, u64::MAX));
            let head = self.last_row(Rows::Headers, &key, &upto)?;
            heads.extend(head.map(|head| (branch, head)));
        }
        let statements = self.rows(Rows::Statements)?.into_values().collect();
        let mut tickets = Vec::new();
        for (key, value) in self.rows(Rows::Tickets)? {
            let id = key[..].try_into().map_err(|_| bad("a ticket"))?;
            tickets.push((Hash8::new(id), value));
        }
        let caught_up = self.row(Rows::Meta, b"caught-up")?.is_some_and(|flag| flag[..] == [1]);
        Ok(Recovered { statements, logs, heads, resumable: None, tickets, caught_up })
    }

    /// Bytes that the store takes up.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.shared.files.allocated()
    }

    /// A row as of the last write taken over.
    pub(super) fn row(&self, rows: Rows, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let (waiting, memtables) = {
            let state = self.layers().lock();
            let waiting = [&state.building, &*state.committing];
            let found = waiting.iter().find_map(|layer| layer.find_row(rows, key)).cloned();
            (found, [Some(Arc::clone(&state.memtable)), state.frozen.clone()])
        };
        if let Some(row) = waiting {
            return Ok(row);
        }
        match memtables.iter().flatten().find_map(|memtable| memtable.row(rows, key)) {
            Some(row) => Ok(row),
            None => self.0.shared.index.row(rows, key),
        }
    }

    /// The last row whose key begins with `prefix` and is `upto` or less, as of the last sync.
    fn last_row(
        &self,
        rows: Rows,
        prefix: &[u8],
        upto: &[u8],
    ) -> Result<Option<Bytes>, StoreError> {
        let memtables = {
            let state = self.layers().lock();
            [Some(Arc::clone(&state.memtable)), state.frozen.clone()]
        };
        let mut upto = Bound::Included(upto.to_vec());
        loop {
            let bounds = (Bound::Included(prefix), upto.as_ref().map(|key| &key[..]));
            // The newest layer first: of those that speak of the same row it is right.
            let mut last: Option<(Vec<u8>, Option<Bytes>)> = None;
            let newer = memtables.iter().flatten().filter_map(|m| m.last_row(rows, bounds));
            let indexed = self.0.shared.index.last_row(rows, bounds)?;
            for (key, value) in newer.chain(indexed.map(|(key, value)| (key, Some(value)))) {
                if last.as_ref().is_none_or(|(greatest, _)| key > *greatest) {
                    last = Some((key, value));
                }
            }
            match last {
                Some((key, None)) => upto = Bound::Excluded(key),
                found => return Ok(found.and_then(|(_, value)| value)),
            }
        }
    }

    /// All rows of a kind, as of the last sync.
    pub(super) fn rows(&self, rows: Rows) -> Result<BTreeMap<Vec<u8>, Bytes>, StoreError> {
        let memtables = {
            let state = self.layers().lock();
            [state.frozen.clone(), Some(Arc::clone(&state.memtable))]
        };
        let mut all = BTreeMap::new();
        self.0.shared.index.each_row(rows, |key, value| {
            all.insert(key.to_vec(), Bytes::from(value));
            Ok(())
        })?;
        for memtable in memtables.iter().flatten() {
            let maps = memtable.read();
            let changed = maps.rows.range((rows, Vec::new())..);
            for ((_, key), value) in changed.take_while(|((r, _), _)| *r == rows) {
                match value {
                    Some(value) => all.insert(key.clone(), value.clone()),
                    None => all.remove(key),
                };
            }
        }
        Ok(all)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.room.stop_waiting();
        self.checkpoints = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // Snapshots may outlive the store; the directory is somebody else's from now on.
        self.shared.handles.close();
    }
}

/// Why a commit was not made.
enum NotDone {
    Io(io::Error),
    Store(StoreError),
}

impl From<io::Error> for NotDone {
    fn from(e: io::Error) -> Self {
        Self::Io(e)
    }
}

impl From<StoreError> for NotDone {
    fn from(e: StoreError) -> Self {
        Self::Store(e)
    }
}

/// The segments that are there, without what an interrupted checkpoint left behind.
fn tidy(
    files: &Arc<dyn Files>,
    handles: &Arc<Handles>,
    index: &Index,
) -> Result<Segments, StoreError> {
    let live = index.live()?;
    let journal = index.position()?.map_or(0, |at| at.segment);
    let mut there = Segments::new();
    for name in files.list().map_err(failed)? {
        let Some((kind, number)) = segments::named(&name) else { continue };
        if checkpoint::needed(kind, number, &live, journal) {
            there.insert(number, handles.segment(kind, number));
        } else {
            files.remove(&name).map_err(failed)?;
        }
    }
    Ok(there)
}

/// The journal, ready for its next frame.
fn go_on(
    handles: &Arc<Handles>,
    segments: &mut Segments,
    sizes: Sizes,
    Replayed { end, clean, .. }: &Replayed,
    next_segment: &AtomicU32,
) -> io::Result<Journal> {
    let handles = Arc::clone(handles);
    match segments.get(&end.segment).filter(|_| *clean && end.offset < sizes.segment) {
        Some(segment) => Journal::resume(handles, sizes, segment.file()?, *end),
        None => {
            let number = next_segment.fetch_add(1, Ordering::Relaxed);
            let (journal, segment) = Journal::create(handles, sizes, number, end.number)?;
            segments.insert(number, segment);
            Ok(journal)
        }
    }
}

/// Puts a durable layer into the memtable.
fn take_in(
    layer: &Overlay,
    pointers: impl Iterator<Item = Option<Pointer>>,
    memtable: &Memtable,
    branches: &Branches,
    frame: u64,
    oldest: u64,
) {
    let mut slots = layer.slots().zip(pointers).peekable();
    while slots.peek().is_some() {
        let mut maps = memtable.write();
        for (((branch, seq), (key, _)), pointer) in slots.by_ref().take(CHUNK) {
            let place = (branches.number(&branch), seq);
            maps.slot(frame, oldest, key, place, pointer);
        }
    }
    let mut maps = memtable.write();
    for ((rows, key), value) in &layer.rows {
        maps.row(*rows, key, value.clone());
    }
}

/// Puts a frame of the journal into a memtable.
fn replayed(maps: &mut Maps, branches: &Branches, at: Position, body: &[u8]) {
    for item in items(body).map_while(|item| item) {
        match item {
            Item::Slot(place, bytes, within) => {
                // Its frame was sound, so it is; without its key nobody could find it.
                let Some(key) = op::index_key_of(&schema::slot(place, bytes).op) else { continue };
                let numbered = (branches.number(&place.0), place.1);
                maps.slot(at.number, at.number, &key, numbered, Some(at.pointer(within)));
            }
            Item::NoSlot(place, key) => {
                let numbered = (branches.number(&place.0), place.1);
                maps.slot(at.number, at.number, &Bytes::from(key), numbered, None);
            }
            Item::Row(rows, key, value) => maps.row(rows, key, value),
        }
    }
}

impl Store for Disk {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        let mut state = self.layers().lock();
        if let Some(slots) = state.looked_up.find(key) {
            return Ok(slots.clone());
        }
        let mut spots = state.tables.spots(key)?;
        for memtable in state.frozen.iter().chain([&state.memtable]) {
            memtable.patch(key, u64::MAX, &mut spots);
        }
        let mut slots = BTreeMap::new();
        for spot in spots {
            let place = (self.layers().branches.branch(spot.place.0)?, spot.place.1);
            slots.insert(place, super::view::slot(&state.segments, key, place, spot.pointer));
        }
        state.committing.patch(key, &mut slots);
        state.building.patch(key, &mut slots);
        let slots: Vec<RawSlot> = slots.into_values().collect();
        state.looked_up.note(key, &slots);
        Ok(slots)
    }

    fn slots_after(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        if after >= upto {
            return Ok(Vec::new());
        }
        let state = self.layers().lock();
        let number = self.layers().branches.find(branch);
        merge::slots(&state, number, branch, (after, upto), (max_slots, max_bytes))
    }

    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        self.row(Rows::Headers, &schema::place_bytes(&(*branch, seq)))
    }
}
