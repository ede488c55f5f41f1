//! The thread that brings the index up to date and gives space back.

use std::collections::BTreeSet;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex};

use swarmkv_protocol::store::StoreError;

use super::files::Files;
use super::index::{Index, Live};
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
        while let Ok(checkpoint) = todo.recv() {
            if let Err(e) = self.make(&checkpoint, &mut survivors) {
                return self.layers.fail(e);
            }
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

    fn reclaimer<'a>(
        &'a self,
        segments: &'a Segments,
        before: u32,
        survivors: &'a mut Survivors,
    ) -> Reclaimer<'a> {
        let (handles, next, sizes) = (&self.handles, &self.next_segment, self.sizes);
        Reclaimer { handles, segments, next, sizes, before, survivors, made: Segments::new() }
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
