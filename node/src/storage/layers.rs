//! The layers of a store, newest first: what waits, what is being made durable, the memtables, the index.

use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::{RawSlot, StoreError};

use super::branches::Branches;
use super::index::Tables;
use super::journal::Position;
use super::memtable::Memtable;
use super::overlay::Overlay;
use super::segments::Segments;
use super::view::{Snapshot, View};

/// The layers, shared by the core, the thread that syncs and the one that makes checkpoints.
pub(super) struct Layers {
    state: Mutex<State>,
    /// A checkpoint was made, or failed.
    moved_on: Condvar,
    pub(super) branches: Arc<Branches>,
}

pub(super) struct State {
    /// What the core has looked up since the last write.
    pub(super) looked_up: LookedUp,
    pub(super) building: Overlay,
    pub(super) committing: Arc<Overlay>,
    pub(super) memtable: Arc<Memtable>,
    /// Where the memtable's first frame begins.
    pub(super) began: Position,
    /// The memtable that is being put into the index.
    pub(super) frozen: Option<Arc<Memtable>>,
    pub(super) tables: Arc<Tables>,
    pub(super) segments: Arc<Segments>,
    /// The last frame that is durable.
    pub(super) upto: u64,
    /// Moments that somebody may still read, oldest first.
    moments: Vec<(u64, Weak<View>)>,
    /// Readers were given a moment that has a newer form.
    stale: bool,
    /// Why no checkpoint can be made any more.
    failed: Option<StoreError>,
}

impl State {
    fn freeze(&mut self, upto: Position) -> Checkpoint {
        let memtable = std::mem::take(&mut self.memtable);
        self.frozen = Some(Arc::clone(&memtable));
        let began = std::mem::replace(&mut self.began, upto);
        Checkpoint { memtable, began, upto }
    }

    fn repointed(&mut self, tables: Tables, change: impl FnOnce(&mut Segments)) {
        self.tables = Arc::new(tables);
        self.stale = true;
        change(Arc::make_mut(&mut self.segments));
    }
}

/// Slots of keys that the core has looked up: it looks twice at each key that it writes.
#[derive(Default)]
pub(super) struct LookedUp {
    slots: HashMap<Bytes, Vec<RawSlot>>,
    bytes: usize,
}

impl LookedUp {
    /// Bytes remembered.
    const MOST: usize = 2 << 20;

    pub(super) fn find(&self, key: &[u8]) -> Option<&Vec<RawSlot>> {
        self.slots.get(key)
    }

    pub(super) fn note(&mut self, key: &[u8], slots: &[RawSlot]) {
        let bytes = 100 + key.len() + slots.iter().map(|slot| 100 + slot.op.len()).sum::<usize>();
        if self.bytes + bytes <= Self::MOST {
            self.bytes += bytes;
            self.slots.insert(Bytes::from(key), slots.to_vec());
        }
    }

    /// Something was written.
    pub(super) fn clear(&mut self) {
        self.slots.clear();
        self.bytes = 0;
    }
}

/// A memtable to put into the index.
pub(super) struct Checkpoint {
    pub(super) memtable: Arc<Memtable>,
    /// Where its first frame begins.
    pub(super) began: Position,
    /// Where the frame after its last begins.
    pub(super) upto: Position,
}

impl Layers {
    pub(super) fn new(
        tables: Tables,
        segments: Segments,
        branches: Arc<Branches>,
        memtable: Memtable,
        began: Position,
        upto: u64,
    ) -> Self {
        let state = State {
            looked_up: LookedUp::default(),
            building: Overlay::default(),
            committing: Arc::default(),
            memtable: Arc::new(memtable),
            began,
            frozen: None,
            tables: Arc::new(tables),
            segments: Arc::new(segments),
            upto,
            moments: Vec::new(),
            stale: false,
            failed: None,
        };
        Self { state: Mutex::new(state), moved_on: Condvar::new(), branches }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves whole layers behind: they are replaced, never edited in part.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the next checkpoint is due and has to wait for the one before it.
    pub(super) fn is_behind(&self, memtable: usize) -> bool {
        let state = self.lock();
        state.frozen.is_some() && state.memtable.read().bytes >= memtable
    }

    /// Whether a checkpoint is under way.
    pub(super) fn is_frozen(&self) -> bool {
        self.lock().frozen.is_some()
    }

    /// The layer to make durable, and the frame before which nobody reads any more.
    pub(super) fn to_commit(&self) -> Result<(Arc<Overlay>, Arc<Memtable>, u64), StoreError> {
        let mut state = self.lock();
        if let Some(e) = &state.failed {
            return Err(e.clone());
        }
        state.moments.retain(|(_, view)| view.strong_count() > 0);
        let oldest = state.moments.first().map_or(state.upto, |(upto, _)| *upto);
        Ok((Arc::clone(&state.committing), Arc::clone(&state.memtable), oldest))
    }

    /// The layer that was to be made durable is, in frame `upto`.
    pub(super) fn committed(&self, upto: u64) -> Snapshot {
        let mut state = self.lock();
        state.upto = upto;
        state.committing = Arc::default();
        self.moment(&mut state)
    }

    /// What is durable now.
    pub(super) fn durable(&self) -> Snapshot {
        self.moment(&mut self.lock())
    }

    /// What is durable, if it lies elsewhere since the last moment was taken.
    pub(super) fn renewed(&self) -> Option<Snapshot> {
        let mut state = self.lock();
        state.stale.then(|| self.moment(&mut state))
    }

    fn moment(&self, state: &mut State) -> Snapshot {
        state.stale = false;
        let view = Arc::new(View {
            tables: Arc::clone(&state.tables),
            frozen: state.frozen.clone(),
            memtable: Arc::clone(&state.memtable),
            upto: state.upto,
            segments: Arc::clone(&state.segments),
            branches: Arc::clone(&self.branches),
        });
        state.moments.retain(|(_, view)| view.strong_count() > 0);
        state.moments.push((state.upto, Arc::downgrade(&view)));
        Snapshot::new(view)
    }

    /// Sets the memtable aside for a checkpoint, once the one before it is done.
    pub(super) fn freeze(&self, upto: Position) -> Result<Checkpoint, StoreError> {
        let mut state = self.lock();
        while state.frozen.is_some() && state.failed.is_none() {
            state = self.moved_on.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(e) = &state.failed {
            return Err(e.clone());
        }
        Ok(state.freeze(upto))
    }

    /// As [`Layers::freeze`], if no checkpoint is under way.
    pub(super) fn freeze_at_once(&self, upto: Position) -> Option<Checkpoint> {
        let mut state = self.lock();
        (state.frozen.is_none() && state.failed.is_none()).then(|| state.freeze(upto))
    }

    /// The frozen memtable is in the index; `change` says which segments are left.
    pub(super) fn absorbed(&self, tables: Tables, change: impl FnOnce(&mut Segments)) {
        let mut state = self.lock();
        state.frozen = None;
        state.repointed(tables, change);
        self.moved_on.notify_all();
    }

    /// The index points to other segments; `change` says which are left.
    pub(super) fn reclaimed(&self, tables: Tables, change: impl FnOnce(&mut Segments)) {
        self.lock().repointed(tables, change);
    }

    /// No checkpoint can be made any more.
    pub(super) fn fail(&self, e: StoreError) {
        self.lock().failed = Some(e);
        self.moved_on.notify_all();
    }
}
