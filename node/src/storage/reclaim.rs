//! Giving space back: slots that somebody still points to are moved out of segments that hold little else
//! than what nobody points to any more, and those segments are removed.
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

use super::branches::Branches;
use super::files::Files;
use super::frame::{self, Builder, Item};
use super::index::{Balance, Live, count};
use super::journal::{self, Kind, PREFIX, Segment, Segments};
use super::schema::{self, KEYS, Numbered, Pointer, SLOTS, index_error};

/// Bytes of one frame of moved slots.
const FRAME: usize = 1 << 20;

/// A slot on its way.
struct Moving {
    key: Bytes,
    from: Pointer,
    to: Pointer,
}

/// Empties segments, one for each checkpoint.
pub(super) struct Reclaimer<'a> {
    pub(super) files: &'a Arc<dyn Files>,
    pub(super) segments: &'a Segments,
    /// Numbers for new segments.
    pub(super) next: &'a AtomicU32,
    /// Smaller segments are not worth the trouble.
    pub(super) worth: u64,
    /// Only segments before this one: newer ones may be pointed to from elsewhere than the index.
    pub(super) before: u32,
    /// Segments that could not be read whole: they stay as they are.
    pub(super) unreadable: &'a mut BTreeSet<u32>,
    /// The segment that was made, if one was.
    pub(super) made: Option<(u32, Segment)>,
}

impl Reclaimer<'_> {
    /// Moves what is alive out of the segment with the most to give back, if that is more than half.
    pub(super) fn empty_one(
        &mut self,
        write: &WriteTransaction,
        branches: &Branches,
        live: &Live,
    ) -> Result<Option<Balance>, StoreError> {
        let Some(victim) = self.victim(live)? else { return Ok(None) };
        let Some(moving) = self.copy(write, branches, victim)? else {
            self.unreadable.insert(victim);
            return Ok(None);
        };
        repoint(write, &moving).map(Some)
    }

    fn victim(&self, live: &Live) -> Result<Option<u32>, StoreError> {
        let mut most = None;
        let readable = live.range(..self.before).filter(|(n, _)| !self.unreadable.contains(n));
        for (number, bytes) in readable {
            let Some(segment) = self.segments.get(number) else { continue };
            let len = segment.file.len().map_err(failed)?;
            if len >= self.worth && bytes * 2 < len {
                most = most.max(Some((len - bytes, *number)));
            }
        }
        Ok(most.map(|(_, number)| number))
    }

    /// Copies what the index still points to into a new segment; `None` if some of it cannot be read: then
    /// it stays where it is, and whoever needs it will notice.
    fn copy(
        &mut self,
        write: &WriteTransaction,
        branches: &Branches,
        victim: u32,
    ) -> Result<Option<BTreeMap<Numbered, Moving>>, StoreError> {
        let Some(from) = self.segments.get(&victim) else { return Ok(None) };
        let table = write.open_table(SLOTS).map_err(index_error)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut copy = Copy {
            to: (number, journal::create(&**self.files, Kind::Slots, number).map_err(failed)?),
            offset: PREFIX,
            frames: 1,
            builder: Builder::new(),
            waiting: Vec::new(),
            moved: BTreeMap::new(),
        };
        let mut sound = true;
        let whole = journal::frames(&*from.file, victim, |at, body| {
            for item in frame::items(body) {
                let Some(Item::Slot(place, bytes, (within, len))) = item else { continue };
                let Some(branch) = branches.find(&place.0) else { continue };
                let offset = u32::try_from(at.offset).unwrap_or(u32::MAX).saturating_add(within);
                let pointer = Pointer { segment: victim, offset, len };
                let spot = (branch, place.1);
                let there =
                    table.get(&schema::numbered_bytes(spot)[..]).map_err(io::Error::other)?;
                if there.is_none_or(|there| *there.value() != pointer.to_bytes()) {
                    continue;
                }
                match schema::slot(place, bytes).open() {
                    Ok(slot) => {
                        copy.slot(&place, spot, slot.op.cell.index_key(), bytes, pointer)?
                    }
                    Err(_) => sound = false,
                }
            }
            Ok(())
        });
        let whole = whole.and_then(|whole| copy.finish().map(|()| whole)).map_err(failed)?;
        if whole && sound {
            self.made = Some(copy.to);
            Ok(Some(copy.moved))
        } else {
            self.files.remove(&journal::name(Kind::Slots, number)).map_err(failed)?;
            Ok(None)
        }
    }
}

/// A segment being filled.
struct Copy {
    to: (u32, Segment),
    offset: u64,
    frames: u64,
    builder: Builder,
    waiting: Vec<(Numbered, Bytes, Pointer, frame::Within)>,
    moved: BTreeMap<Numbered, Moving>,
}

impl Copy {
    fn slot(
        &mut self,
        place: &schema::Place,
        spot: Numbered,
        key: Bytes,
        bytes: &[u8],
        from: Pointer,
    ) -> io::Result<()> {
        let within = self.builder.slot(place, |out| out.extend_from_slice(bytes));
        self.waiting.push((spot, key, from, within));
        if self.builder.len() >= FRAME { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> io::Result<()> {
        let builder = std::mem::replace(&mut self.builder, Builder::new());
        if builder.is_empty() {
            return Ok(());
        }
        let bytes = builder.finish(self.frames);
        self.to.1.file.write_at(self.offset, &bytes)?;
        for (spot, key, from, (within, len)) in self.waiting.drain(..) {
            let offset = u32::try_from(self.offset).map_err(io::Error::other)? + within;
            let to = Pointer { segment: self.to.0, offset, len };
            self.moved.insert(spot, Moving { key, from, to });
        }
        self.offset += bytes.len() as u64;
        self.frames += 1;
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        self.flush()?;
        self.to.1.file.sync_data()
    }
}

/// Lets the index point to where slots are now.
fn repoint(
    write: &WriteTransaction,
    moving: &BTreeMap<Numbered, Moving>,
) -> Result<Balance, StoreError> {
    let mut balance = Balance::new();
    let mut table = write.open_table(SLOTS).map_err(index_error)?;
    let mut by_key: BTreeMap<&Bytes, Vec<(Numbered, &Moving)>> = BTreeMap::new();
    for (spot, moved) in moving {
        table
            .insert(&schema::numbered_bytes(*spot)[..], &moved.to.to_bytes()[..])
            .map_err(index_error)?;
        count(&mut balance, moved.from, -1);
        count(&mut balance, moved.to, 1);
        by_key.entry(&moved.key).or_default().push((*spot, moved));
    }
    let mut keys = write.open_table(KEYS).map_err(index_error)?;
    for (key, moved) in by_key {
        let record = keys.get(&key[..]).map_err(index_error)?;
        let spots = record.map(|record| schema::spots(record.value())).transpose()?;
        let Some(mut spots) = spots else { continue };
        for (place, moved) in moved {
            let spot = spots.iter_mut().find(|s| s.place == place && s.pointer == moved.from);
            if let Some(spot) = spot {
                spot.pointer = moved.to;
            }
        }
        keys.insert(&key[..], &schema::spots_record(&spots)[..]).map_err(index_error)?;
    }
    Ok(balance)
}

pub(super) fn failed(e: io::Error) -> StoreError {
    StoreError::failed(e)
}
