//! What readers see: a snapshot of the store and the heads that were durable when it was taken.
//!
//! Readers never wait for writers, and never see what is not yet on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarmkv_protocol::id::{DeviceId, Hash, Version};
use swarmkv_protocol::log::heads::Heads;
use swarmkv_protocol::model::cell::{Cell, Tag, escape};
use swarmkv_protocol::model::counter::Parts;
use swarmkv_protocol::op::{Body, Slot};
use swarmkv_protocol::store::{RawSlot, StoreError};
use swarmkv_protocol::view::{Shown, View};

use crate::api::wire::{Data, ListAnswer, ListItem, ListRequest, Sibling};
use crate::clock;
use crate::storage::Snapshot;

/// Bytes of keys and values in one page, about.
const PAGE_BYTES: usize = 1 << 20;
/// Items in one page.
const PAGE_ITEMS: usize = 4096;
/// Keys looked at for one page, deleted ones too: bounds the time one request takes.
const PAGE_KEYS: usize = 65_536;

/// One moment of the replica.
pub(crate) struct ReadState {
    pub(crate) snapshot: Snapshot,
    pub(crate) heads: Heads,
    pub(crate) labels: Arc<BTreeMap<DeviceId, String>>,
    pub(crate) caught_up: bool,
    /// Hash of roster and version digest at that moment.
    pub(crate) hash: Hash,
}

/// What readers see once a sync that runs is done.
pub(crate) struct Upcoming {
    pub(crate) heads: Heads,
    pub(crate) caught_up: bool,
    pub(crate) hash: Hash,
}

impl ReadState {
    /// The same moment under other names.
    pub(crate) fn with_labels(&self, labels: Arc<BTreeMap<DeviceId, String>>) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            heads: self.heads.clone(),
            labels,
            caught_up: self.caught_up,
            hash: self.hash,
        }
    }

    /// The same moment as it lies on disk now.
    pub(crate) fn with_snapshot(&self, snapshot: Snapshot) -> Self {
        Self { snapshot, ..self.with_labels(Arc::clone(&self.labels)) }
    }

    /// The last moment, of a peer that has stopped.
    pub(crate) fn closed(&self) -> Self {
        self.with_snapshot(Snapshot::closed())
    }

    /// Whether a write is here (or a later one of its log, which replaced it or came after it).
    pub(crate) fn covers(&self, version: &Version) -> bool {
        let there = self.heads.branches(version.log).map(|(_, seq)| seq).max();
        there.unwrap_or(0) >= version.seq
    }

    /// Whether another write stands in the place that `version` names. One that was replaced since
    /// cannot be told.
    pub(crate) fn contradicts(&self, key: &[u8], version: &Version) -> bool {
        let there = self.slots(key).unwrap_or_default();
        let place = there.iter().find(|s| s.branch.log == version.log && s.seq == version.seq);
        place.is_some_and(|raw| raw.open().is_ok_and(|slot| slot.version() != *version))
    }

    fn label(&self, device: &DeviceId) -> String {
        self.labels.get(device).cloned().unwrap_or_else(|| device.short())
    }

    /// What is stored of a key's value.
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        self.snapshot.slots(&Cell::value(key).index_key())
    }

    /// Of each branch what a reader may see of a key's value; says which slot cannot be read if there is
    /// nothing, for it may hold what is missing, and "no such key" would be wrong.
    fn visible(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        let index_key = Cell::value(key).index_key();
        let visible = self.snapshot.latest(&index_key, |branch| self.heads.of(branch))?;
        if visible.is_empty() {
            self.snapshot.slots(&index_key)?.iter().try_for_each(|slot| slot.open().map(drop))?;
        }
        Ok(visible)
    }

    /// What a key shows.
    pub(crate) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let slots = self.visible(key)?;
        let shown = View::shown_of(&slots, |branch| self.heads.of(branch), clock::wall_millis())?;
        Ok(bytes(shown))
    }

    /// What a key shows, and its undominated writes: live values first, of them the shown one.
    pub(crate) fn look(&self, key: &[u8]) -> Result<(Option<Vec<u8>>, Vec<Sibling>), StoreError> {
        let view = View::merge(&self.visible(key)?, |branch| self.heads.of(branch))?;
        let wall = clock::wall_millis();
        let one = |seen: &swarmkv_protocol::view::Seen| Sibling {
            version: seen.version.to_string(),
            value: body(&seen.slot).map(Data),
            author: self.label(&seen.slot.log.author),
            author_id: seen.slot.log.author.to_string(),
            written_at: seen.slot.hlc.millis(),
            expires_at: seen.slot.op.expires_at,
        };
        let others = view.siblings().filter(|seen| !seen.is_live(wall));
        let siblings = view.values(wall).chain(others).map(one).collect();
        Ok((bytes(view.shown(wall)), siblings))
    }

    /// One page of keys that show a value.
    pub(crate) fn list(&self, request: &ListRequest) -> Result<ListAnswer, StoreError> {
        let limit = request.limit.clamp(1, PAGE_ITEMS);
        let prefix = escape(&request.prefix.0);
        let start = request.start.as_ref().map(|start| Cell::value(start.0.clone()).index_key().0);
        let after = request.after.as_ref().map(|after| beyond(&after.0));
        let from = [start, after].into_iter().flatten().max().unwrap_or_default();
        let from = (&from).max(&prefix);
        let (mut items, mut bytes, mut next) = (Vec::new(), 0, None);
        let wall = clock::wall_millis();
        let scan = self.snapshot.scan(&prefix, from)?;
        for (looked, group) in scan.latest(self.heads.clone()).enumerate() {
            let (index_key, slots) = group?;
            // What a later version may have filed here is not shown.
            let Some(cell) = Cell::from_index_key(&index_key) else { continue };
            if cell.tag == Tag::Value
                && let Some(item) = self.item(&cell.key, &slots, wall, request.keys_only)?
            {
                bytes += item.key.0.len() + item.size;
                items.push(item);
            }
            if items.len() >= limit || bytes >= PAGE_BYTES || looked >= PAGE_KEYS {
                next = Some(Data(cell.key.0));
                break;
            }
        }
        Ok(ListAnswer { items, next })
    }

    /// A key as it is listed; `None` if it shows nothing.
    fn item(
        &self,
        key: &[u8],
        slots: &[RawSlot],
        wall: u64,
        keys_only: bool,
    ) -> Result<Option<ListItem>, StoreError> {
        let view = View::merge(slots, |branch| self.heads.of(branch))?;
        // What cannot be read is left out here: one lost value must not end every listing. Asking for the key
        // says so, and so do status and scrub.
        let Some(value) = bytes(view.shown(wall)) else { return Ok(None) };
        let first = view.values(wall).next();
        let slot = first.map(|seen| &seen.slot);
        Ok(Some(ListItem {
            key: key.into(),
            size: value.len(),
            value: (!keys_only).then_some(Data(value)),
            siblings: view.values(wall).count(),
            version: first.map_or(String::new(), |seen| seen.version.to_string()),
            author: slot.map_or(String::new(), |slot| self.label(&slot.log.author)),
            written_at: slot.map_or(0, |slot| slot.hlc.millis()),
            expires_at: slot.and_then(|slot| slot.op.expires_at),
        }))
    }
}

/// A place in the order of index keys that is beyond all cells of a key, and before those of the next.
fn beyond(key: &[u8]) -> Vec<u8> {
    let mut beyond = escape(key);
    beyond.extend([0, 2]);
    beyond
}

fn bytes(shown: Shown) -> Option<Vec<u8>> {
    match shown {
        Shown::Value(value) => Some(value.0),
        Shown::Counter(sum) => Some(sum.to_string().into_bytes()),
        Shown::Absent => None,
    }
}

fn body(slot: &Slot) -> Option<Vec<u8>> {
    match &slot.op.body {
        Body::Put(value) => Some(value.0.clone()),
        Body::Counter(parts) => {
            let mut own = Parts::default();
            own.join(parts);
            Some(own.less(&Parts::default()).unwrap_or(0).to_string().into_bytes())
        }
        Body::Element => Some(Vec::new()),
        Body::Delete | Body::Until(_) | Body::Forget(_) => None,
    }
}
