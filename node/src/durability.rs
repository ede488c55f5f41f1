//! The driver's hold on durability: what is signed when, synced when, and shown when it is on disk.

use std::sync::Arc;
use std::time::Instant;

use swarmkv_protocol::io::Input;

use crate::driver::{Driver, QUICK_SYNC};
use crate::error::WriteError;
use crate::event::NodeEvent;
use crate::readers::{ReadState, Upcoming};
use crate::storage::SyncDone;

/// Bytes of writes that may wait for a sync. Beyond it nothing more is taken from the network or from
/// callers until the disk has kept up: what arrives faster than it can be kept must wait elsewhere.
const UNSYNCED_BYTES: usize = 8 << 20;

impl Driver {
    /// Signs queued writes. That waits for the running sync, and whatever queues up meanwhile shares a
    /// commit; unless what waits fills one already.
    pub(crate) fn commit_queued(&mut self) -> Result<bool, String> {
        let now = if self.syncing {
            self.unsynced < UNSYNCED_BYTES && self.engine.has_full_group()
        } else {
            self.engine.has_queued_writes()
        };
        if now {
            self.feed(Input::Commit)?;
        }
        Ok(now)
    }

    /// Whether more may be taken in: the disk keeps up, and nobody asked to stop.
    pub(crate) fn has_room(&self) -> bool {
        self.unsynced < UNSYNCED_BYTES && self.stop.is_none()
    }

    /// Whether requests are taken in: on a full disk too, for they are answered with that.
    pub(crate) fn listens(&self) -> bool {
        self.has_room() || self.disk.is_full() && self.stop.is_none()
    }

    /// Begins a sync if there is something to sync and none is running. When nobody else waits, and the
    /// disk has been quick of late, it is done right here: handing it to the other thread and back costs
    /// as much as a quick disk takes.
    pub(crate) fn start_sync(&mut self, alone: bool) -> Result<(), String> {
        if self.dirty && !self.syncing {
            self.dirty = false;
            self.unsynced = 0;
            self.syncing = true;
            // Sealed here, so that what readers see then is exactly what the heads below say.
            self.disk.seal();
            self.in_flight = std::mem::take(&mut self.waiting);
            self.upcoming = Some(Upcoming {
                heads: self.engine.heads(),
                caught_up: self.engine.caught_up(),
                hash: self.engine.state_hash(),
            });
            self.sync_began = Instant::now();
            let at_once = alone && self.sync_cost < QUICK_SYNC;
            let done = if at_once { self.disk.commit_at_once() } else { Ok(None) };
            match done.transpose() {
                Some(done) => self.synced(done)?,
                None => self.sync.request(),
            }
        }
        Ok(())
    }

    pub(crate) fn synced(&mut self, done: SyncDone) -> Result<(), String> {
        let snapshot = done.map_err(|e| e.to_string())?;
        self.syncing = false;
        // The last few count: an eighth of the way from what it was to what it is now.
        self.sync_cost = (self.sync_cost * 7 + self.sync_began.elapsed()) / 8;
        if let Some(Upcoming { heads, caught_up, hash }) = self.upcoming.take() {
            let first = caught_up && !self.readers.borrow().caught_up;
            let labels = Arc::clone(&self.labels);
            self.readers.send_replace(Arc::new(ReadState {
                snapshot,
                heads,
                labels,
                caught_up,
                hash,
            }));
            if first {
                self.tell(NodeEvent::CaughtUp);
            }
        }
        for output in std::mem::take(&mut self.in_flight) {
            self.carry_out(output);
        }
        Ok(())
    }

    /// A full disk is waited for; who waits for a write is told that it is not there.
    pub(crate) fn look_at_disk(&mut self) {
        let full = self.disk.is_full();
        if full {
            for (_, reply) in std::mem::take(&mut self.writes) {
                let _ = reply.send(Err(WriteError::Full));
            }
            if self.stop.is_some() {
                self.disk.stop_waiting();
            }
        }
        if std::mem::replace(&mut self.full, full) != full {
            self.tell(NodeEvent::Full { full });
        }
        // Readers let go of what a checkpoint has made superfluous.
        if !self.syncing
            && !self.dirty
            && let Some(snapshot) = self.disk.renewed()
        {
            let state = self.readers.borrow().with_snapshot(snapshot);
            self.readers.send_replace(Arc::new(state));
        }
    }
}
