//! Giving space back: slots that somebody still points to are moved out of segments that hold little of
//! that, and those segments are removed.
//!
//! Every segment that holds less than half of what a full one may is emptied in its turn, whether the rest
//! of it is dead or was never written. The survivors of many are appended to one segment until that is full.
//! So there are at most twice as many segments as the living slots need, and a few.
//!
//! (Garbage collection of a log-structured store: Rosenblum and Ousterhout, SOSP 1991; with the values apart
//! from the index as in WiscKey, Lu et al., FAST 2016.)

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use redb::{ReadableTable, WriteTransaction};
use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::StoreError;

use super::balance::{Balance, Live, count};
use super::branches::Branches;
use super::files::File;
use super::frame::{self, Builder, Item};
use super::journal::{self, Position, Sizes};
use super::room;
use super::schema::{self, KEYS, Numbered, Place, Pointer, SLOTS, index_error};
use super::segments::{Handles, Kind, PREFIX, Segments};

/// A frame of moved slots is closed when it holds such a part of a full segment.
const FRAMES: u64 = 32;

/// A slot on its way.
struct Moving {
    place: Place,
    spot: Numbered,
    key: Bytes,
    from: Pointer,
}

/// A slot, where it was, and where it is now.
type Moved = (Moving, Pointer);

/// What is remembered from one run to the next, while the store is open.
#[derive(Default)]
pub(super) struct Survivors {
    /// The segment that survivors are appended to.
    open: Option<Open>,
    /// Whether the one that an earlier process left half full was looked for.
    resumed: bool,
    /// Segments that could not be read whole: they stay as they are.
    unreadable: BTreeSet<u32>,
}

impl Survivors {
    /// A segment was given up: nothing is appended to it any more.
    pub(super) fn forget(&mut self, segment: u32) {
        self.open.take_if(|open| open.at.segment == segment);
    }
}

/// The segment that survivors are appended to. What an earlier process wrote there and never had pointed to
/// stays where it is; nothing is ever cut off or written over.
struct Open {
    file: Arc<dyn File>,
    /// Where the next frame goes.
    at: Position,
}

/// Empties segments, in the course of one transaction of the index.
pub(super) struct Reclaimer<'a> {
    pub(super) handles: &'a Arc<Handles>,
    pub(super) segments: &'a Segments,
    /// Numbers for new segments.
    pub(super) next: &'a AtomicU32,
    pub(super) sizes: Sizes,
    /// Of the journal's segments only those before this one: newer ones may be pointed to from elsewhere than
    /// the index.
    pub(super) before: u32,
    pub(super) survivors: &'a mut Survivors,
    /// The segments that were made.
    pub(super) made: Segments,
    /// The device has no room for copies.
    pub(super) full: bool,
}

impl Reclaimer<'_> {
    /// Whether a segment is to be emptied.
    pub(super) fn has_victim(&self, live: &Live) -> bool {
        self.victim(live).is_some()
    }

    /// Moves what is alive out of the segment with the least of it, if that is less than half of what it might
    /// hold; returns what segments gained and lost.
    pub(super) fn empty_one(
        &mut self,
        write: &WriteTransaction,
        branches: &Branches,
        live: &Live,
    ) -> Result<Option<Balance>, StoreError> {
        if !self.has_victim(live) {
            return Ok(None);
        }
        self.resume().map_err(failed)?;
        let Some((victim, bytes)) = self.victim(live) else { return Ok(None) };
        let alive = self.alive(write, branches, victim)?;
        let found: u64 = alive.iter().map(|moving| u64::from(moving.from.len)).sum();
        if found != bytes {
            // It stays where it is, and whoever needs what cannot be read will notice.
            self.survivors.unreadable.insert(victim);
            return Ok(Some(Balance::new()));
        }
        match room::without_waiting(|| self.copy(victim, alive)) {
            Ok(moved) => repoint(write, &moved).map(Some),
            // What was copied is dead. Waiting would keep back what can be given back without a copy.
            Err(e) if room::no_room(&e) => {
                self.full = true;
                Ok(Some(Balance::new()))
            }
            Err(e) => Err(failed(e)),
        }
    }

    /// The segment with the least alive in it, and how many bytes those are.
    fn victim(&self, live: &Live) -> Option<(u32, u64)> {
        if self.full {
            return None;
        }
        let open = self.survivors.open.as_ref().map(|open| open.at.segment);
        let closed = |number: &u32| match self.segments.get(number).map(|segment| segment.kind) {
            Some(Kind::Log) => *number < self.before,
            Some(Kind::Slots) => Some(*number) != open,
            None => false,
        };
        let candidates = live.iter().filter(|(number, bytes)| {
            **bytes < self.sizes.segment / 2
                && closed(number)
                && !self.survivors.unreadable.contains(number)
        });
        candidates.min_by_key(|(_, bytes)| **bytes).map(|(number, bytes)| (*number, *bytes))
    }

    /// Goes on with the segment that an earlier process appended survivors to.
    fn resume(&mut self) -> io::Result<()> {
        if std::mem::replace(&mut self.survivors.resumed, true) {
            return Ok(());
        }
        let mut newest = self.segments.iter().rev();
        let Some((number, segment)) = newest.find(|(_, s)| s.kind == Kind::Slots) else {
            return Ok(());
        };
        let file = segment.file()?;
        if file.len()? >= self.sizes.segment {
            return Ok(());
        }
        if let Some(at) = journal::frames(&*file, *number, |_, _| Ok(()))? {
            self.survivors.open = Some(Open { file, at });
        }
        Ok(())
    }

    /// What the index still points to in a segment, as far as it can be read.
    fn alive(
        &self,
        write: &WriteTransaction,
        branches: &Branches,
        victim: u32,
    ) -> Result<Vec<Moving>, StoreError> {
        let mut alive = Vec::new();
        let Some(segment) = self.segments.get(&victim) else { return Ok(alive) };
        let table = write.open_table(SLOTS).map_err(index_error)?;
        let mut index = Ok(());
        let _ = segment.file().and_then(|file| {
            journal::frames(&*file, victim, |at, body| {
                for item in frame::items(body) {
                    let Some(Item::Slot(place, bytes, within)) = item else { continue };
                    let Some(branch) = branches.find(&place.0) else { continue };
                    let from = at.pointer(within);
                    let spot = (branch, place.1);
                    let there = table.get(&schema::numbered_bytes(spot)[..]).map_err(|e| {
                        index = Err(index_error(e));
                        io::ErrorKind::Other
                    })?;
                    if there.is_some_and(|there| *there.value() == from.to_bytes())
                        && let Ok(slot) = schema::slot(place, bytes).open()
                    {
                        alive.push(Moving { place, spot, key: slot.op.cell.index_key(), from });
                    }
                }
                Ok(())
            })
        });
        index.map(|()| alive)
    }

    /// Appends slots to the survivors. Durable when this returns.
    fn copy(&mut self, victim: u32, alive: Vec<Moving>) -> io::Result<Vec<Moved>> {
        let Some(from) = self.segments.get(&victim) else { return Ok(Vec::new()) };
        let from = from.file()?;
        let frame = usize::try_from(self.sizes.segment / FRAMES).unwrap_or(usize::MAX);
        let mut moved = Vec::with_capacity(alive.len());
        let (mut builder, mut waiting) = (Builder::new(), Vec::new());
        for moving in alive {
            let mut bytes = vec![0; moving.from.len as usize];
            from.read_at(moving.from.offset.into(), &mut bytes)?;
            let within = builder.slot(&moving.place, |out| out.extend_from_slice(&bytes));
            waiting.push((moving, within));
            if builder.len() >= frame {
                self.append(
                    std::mem::replace(&mut builder, Builder::new()),
                    &mut waiting,
                    &mut moved,
                )?;
            }
        }
        self.append(builder, &mut waiting, &mut moved)?;
        if let Some(open) = &self.survivors.open {
            open.file.sync_data()?;
        }
        Ok(moved)
    }

    fn append(
        &mut self,
        builder: Builder,
        waiting: &mut Vec<(Moving, frame::Within)>,
        moved: &mut Vec<Moved>,
    ) -> io::Result<()> {
        if builder.is_empty() {
            return Ok(());
        }
        let open = self.room_for(builder.len())?;
        let bytes = builder.finish(open.at.number);
        open.file.write_at(open.at.offset, &bytes)?;
        for (moving, (within, len)) in waiting.drain(..) {
            let offset = u32::try_from(open.at.offset).map_err(io::Error::other)? + within;
            moved.push((moving, Pointer { segment: open.at.segment, offset, len }));
        }
        open.at.offset += bytes.len() as u64;
        open.at.number += 1;
        Ok(())
    }

    /// The open segment, or a new one if so many bytes would fill it beyond its size.
    fn room_for(&mut self, len: usize) -> io::Result<&mut Open> {
        let full = self.sizes.segment;
        let fits = |open: &Open| open.at.offset == PREFIX || open.at.offset + len as u64 <= full;
        let open = match self.survivors.open.take() {
            Some(open) if fits(&open) => open,
            before => {
                if let Some(before) = before {
                    before.file.sync_data()?;
                }
                self.begin()?
            }
        };
        Ok(self.survivors.open.insert(open))
    }

    fn begin(&mut self) -> io::Result<Open> {
        let segment = self.next.fetch_add(1, Ordering::Relaxed);
        let (made, file) = self.handles.create(Kind::Slots, segment)?;
        self.made.insert(segment, made);
        Ok(Open { file, at: Position { segment, offset: PREFIX, number: 1 } })
    }
}

/// Lets the index point to where slots are now.
fn repoint(write: &WriteTransaction, moved: &[Moved]) -> Result<Balance, StoreError> {
    let mut balance = Balance::new();
    let mut table = write.open_table(SLOTS).map_err(index_error)?;
    let mut by_key: BTreeMap<&Bytes, Vec<&Moved>> = BTreeMap::new();
    for slot in moved {
        let (Moving { spot, key, from, .. }, to) = slot;
        table
            .insert(&schema::numbered_bytes(*spot)[..], &to.to_bytes()[..])
            .map_err(index_error)?;
        count(&mut balance, *from, -1);
        count(&mut balance, *to, 1);
        by_key.entry(key).or_default().push(slot);
    }
    let mut keys = write.open_table(KEYS).map_err(index_error)?;
    for (key, moved) in by_key {
        let record = keys.get(&key[..]).map_err(index_error)?;
        let spots = record.map(|record| schema::spots(record.value())).transpose()?;
        let Some(mut spots) = spots else { continue };
        for (Moving { spot: place, from, .. }, to) in moved {
            let spot = spots.iter_mut().find(|s| s.place == *place && s.pointer == *from);
            if let Some(spot) = spot {
                spot.pointer = *to;
            }
        }
        keys.insert(&key[..], &schema::spots_record(&spots)[..]).map_err(index_error)?;
    }
    Ok(balance)
}

pub(super) fn failed(e: io::Error) -> StoreError {
    StoreError::failed(e)
}
