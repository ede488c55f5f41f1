//! The thread that brings the index up to date: checkpoints when the journal asks for them, and in idle
//! moments what was put off, so that space is given back though nobody writes any more.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError, TryLockError};

use swarmkv_protocol::store::StoreError;

use super::balance::Live;
use super::files::Files;
use super::index::Index;
use super::journal::{Journal, Sizes};
use super::layers::{Checkpoint, Layers};
use super::reclaim::{Reclaimer, Survivors};
use super::room::Room;
use super::segments::{Handles, Kind, Segments};

/// What the core, the thread that syncs and the one that makes checkpoints share.
pub(super) struct Shared {
    pub(super) files: Arc<dyn Files>,
    pub(super) handles: Arc<Handles>,
    pub(super) room: Arc<Room>,
    pub(super) index: Index,
    pub(super) layers: Layers,
    pub(super) journal: Mutex<Journal>,
    pub(super) next_segment: AtomicU32,
    pub(super) sizes: Sizes,
}

impl Shared {
    /// Runs until nobody can ask for a checkpoint any more, or one fails.
    pub(super) fn make_checkpoints(&self, todo: &Receiver<Checkpoint>) {
        let mut survivors = Survivors::default();
        // The last frame that was durable when an idle moment found nothing to do.
        let mut looked_at = None;
        let mut wait = self.sizes.idle;
        loop {
            let done = match todo.recv_timeout(wait) {
                Ok(checkpoint) => self.make(&checkpoint, &mut survivors).map(|()| false),
                Err(RecvTimeoutError::Timeout) => {
                    self.use_idle_moment(&mut survivors, &mut looked_at)
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            // Idle steps follow each other more quickly, with room for others in between.
            wait = match done {
                Ok(true) => self.sizes.idle / 10,
                Ok(false) => self.sizes.idle,
                Err(e) => return self.layers.fail(e),
            };
        }
    }

    /// Puts a memtable into the index, empties segments, and gives up those that nobody needs then.
    fn make(&self, checkpoint: &Checkpoint, survivors: &mut Survivors) -> Result<(), StoreError> {
        let segments = Arc::clone(&self.layers.lock().segments);
        let mut reclaimer = self.reclaimer(&segments, checkpoint.began.segment, survivors);
        let upto = checkpoint.upto;
        // Each gives back at least half of a full segment: twice as many as the journal has filled keep
        // pace with it, one more works off what has piled up.
        let mut left = 2 * upto.segment.saturating_sub(checkpoint.began.segment) + 1;
        let go_on = || {
            // Who stops leaves the rest to the next start.
            let go_on = left > 0 && !self.room.hurries();
            left = left.saturating_sub(1);
            go_on
        };
        let maps = checkpoint.memtable.read();
        let live = self.index.absorb(&maps, &self.layers.branches, upto, &mut reclaimer, go_on)?;
        drop(maps);
        let made = reclaimer.made;
        let gone = unneeded(&segments, &live, upto.segment, survivors);
        self.layers.absorbed(self.index.tables()?, |segments| replace(segments, made, &gone));
        Ok(())
    }

    /// Does at most one thing that was put off, a checkpoint or else the emptying of one segment; says
    /// whether there was one.
    fn use_idle_moment(
        &self,
        survivors: &mut Survivors,
        looked_at: &mut Option<u64>,
    ) -> Result<bool, StoreError> {
        let upto = self.layers.lock().upto;
        if *looked_at != Some(upto) {
            match self.worthwhile()? {
                Some(checkpoint) => return self.make(&checkpoint, survivors).map(|()| true),
                None => *looked_at = Some(upto),
            }
        }
        let (segments, began) = {
            let state = self.layers.lock();
            if state.frozen.is_some() {
                // It points to segments that the index does not know of yet.
                return Ok(false);
            }
            // The memtable points to where it begins and to what comes after it.
            (Arc::clone(&state.segments), state.began.segment)
        };
        let mut reclaimer = self.reclaimer(&segments, began, survivors);
        let live = self.index.reclaim(&self.layers.branches, &mut reclaimer)?;
        let Some(live) = live else { return Ok(false) };
        let (made, full) = (reclaimer.made, reclaimer.full);
        let gone = unneeded(&segments, &live, began, survivors);
        self.layers.reclaimed(self.index.tables()?, |segments| replace(segments, made, &gone));
        Ok(!full)
    }

    /// A checkpoint, if one would find enough to give back.
    fn worthwhile(&self) -> Result<Option<Checkpoint>, StoreError> {
        let (memtable, tables, began) = {
            let state = self.layers.lock();
            (Arc::clone(&state.memtable), Arc::clone(&state.tables), state.began)
        };
        let removed = memtable.read().removed();
        let dead = tables.bytes_at(&removed)?;
        // Who holds the journal is about to write, and may be waiting for this very thread.
        let journal = match self.journal.try_lock() {
            Ok(journal) => journal,
            Err(TryLockError::Poisoned(e)) => PoisonError::into_inner(e),
            Err(TryLockError::WouldBlock) => return Ok(None),
        };
        let upto = journal.position();
        if dead >= self.sizes.worth || upto.segment > began.segment {
            return Ok(self.layers.freeze_at_once(upto));
        }
        Ok(None)
    }

    fn reclaimer<'a>(
        &'a self,
        segments: &'a Segments,
        before: u32,
        survivors: &'a mut Survivors,
    ) -> Reclaimer<'a> {
        let (handles, next, sizes) = (&self.handles, &self.next_segment, self.sizes);
        let (made, full) = (Segments::new(), false);
        Reclaimer { handles, segments, next, sizes, before, survivors, made, full }
    }
}

/// Segments that nothing durable points to, where the memtables begin in segment `journal`.
fn unneeded(
    segments: &Segments,
    live: &Live,
    journal: u32,
    survivors: &mut Survivors,
) -> BTreeSet<u32> {
    let mut gone = BTreeSet::new();
    for (number, segment) in segments {
        if !needed(segment.kind, *number, live, journal) {
            segment.give_up();
            survivors.forget(*number);
            gone.insert(*number);
        }
    }
    gone
}

/// Whether anything durable points to a segment, where the memtables begin in segment `journal`.
pub(super) fn needed(kind: Kind, number: u32, live: &Live, journal: u32) -> bool {
    live.contains_key(&number) || kind == Kind::Log && number >= journal
}

fn replace(segments: &mut Segments, made: Segments, gone: &BTreeSet<u32>) {
    segments.extend(made);
    segments.retain(|number, _| !gone.contains(number));
}
