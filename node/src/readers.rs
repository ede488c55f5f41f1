//! What readers see: a snapshot of the store and the heads that were durable when it was taken.
//!
//! Readers never wait for writers, and never see what is not yet on disk.

use std::collections::BTreeMap;
use std::sync::Arc;

use swarmkv_protocol::id::{BranchId, DeviceId, Hash, Version};
use swarmkv_protocol::op::Slot;
use swarmkv_protocol::store::StoreError;
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
    pub(crate) heads: Arc<BTreeMap<BranchId, u64>>,
    pub(crate) labels: Arc<BTreeMap<DeviceId, String>>,
    pub(crate) caught_up: bool,
    /// Hash of roster and version digest at that moment.
    pub(crate) hash: Hash,
}

impl ReadState {
    /// The same moment under other names.
    pub(crate) fn with_labels(&self, labels: Arc<BTreeMap<DeviceId, String>>) -> Self {
        Self {
            snapshot: self.snapshot.clone(),
            heads: Arc::clone(&self.heads),
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
        let there = self.heads.iter().filter(|(branch, _)| branch.log == version.log);
        there.map(|(_, seq)| *seq).max().unwrap_or(0) >= version.seq
    }

    /// Whether another write stands in the place that `version` names. One that was replaced since
    /// cannot be told.
    pub(crate) fn contradicts(&self, key: &[u8], version: &Version) -> bool {
        let there = self.snapshot.slots(key).unwrap_or_default();
        let place = there.iter().find(|s| s.branch.log == version.log && s.seq == version.seq);
        place.is_some_and(|raw| raw.open().is_ok_and(|slot| slot.version() != *version))
    }

    fn head(&self, branch: &BranchId) -> u64 {
        self.heads.get(branch).copied().unwrap_or(0)
    }

    fn label(&self, device: &DeviceId) -> String {
        self.labels.get(device).cloned().unwrap_or_else(|| device.short())
    }

    /// The merged view of a key.
    pub(crate) fn view(&self, key: &[u8]) -> Result<View, StoreError> {
        View::merge(&self.snapshot.slots(key)?, |branch| self.head(branch))
    }

    /// What a key shows.
    pub(crate) fn value(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let slots = self.snapshot.slots(key)?;
        let shown = View::shown_of(&slots, |branch| self.head(branch), clock::wall_millis())?;
        Ok(bytes(shown))
    }

    /// A key's undominated writes, the shown one first.
    pub(crate) fn siblings(&self, key: &[u8]) -> Result<Vec<Sibling>, StoreError> {
        let view = self.view(key)?;
        let one = |seen: &swarmkv_protocol::view::Seen| Sibling {
            version: seen.version.to_string(),
            value: body(&seen.slot).map(Data),
            author: self.label(&seen.slot.log.author),
            author_id: seen.slot.log.author.to_string(),
            written_at: seen.slot.hlc.millis(),
            expires_at: seen.slot.op.expires_at,
        };
        Ok(view.siblings().map(one).collect())
    }

    /// One page of keys that show a value.
    pub(crate) fn list(&self, request: &ListRequest) -> Result<ListAnswer, StoreError> {
        let limit = request.limit.clamp(1, PAGE_ITEMS);
        let from = [request.start.as_ref(), request.after.as_ref()].into_iter().flatten().max();
        let from = from.map_or(&request.prefix.0[..], |data| &data.0[..]);
        let from = from.max(&request.prefix.0[..]);
        let (mut items, mut bytes, mut next) = (Vec::new(), 0, None);
        let wall = clock::wall_millis();
        for (looked, group) in self.snapshot.scan(&request.prefix.0, from)?.enumerate() {
            let (key, raw) = group?;
            if request.after.as_ref().is_some_and(|after| key <= after.0) {
                continue;
            }
            let view = View::merge(&raw, |branch| self.head(branch))?;
            if let Some(value) = shown(&view, wall) {
                items.push(self.item(&key, value, &view, request.keys_only));
                bytes += items.last().map_or(0, |item: &ListItem| item.key.0.len() + item.size);
            }
            if items.len() >= limit || bytes >= PAGE_BYTES || looked >= PAGE_KEYS {
                next = Some(Data(key));
                break;
            }
        }
        Ok(ListAnswer { items, next })
    }

    fn item(&self, key: &[u8], value: Vec<u8>, view: &View, keys_only: bool) -> ListItem {
        let first = view.siblings().next();
        let slot = first.map(|seen| &seen.slot);
        ListItem {
            key: key.into(),
            size: value.len(),
            value: (!keys_only).then_some(Data(value)),
            siblings: view.siblings().count(),
            version: first.map_or(String::new(), |seen| seen.version.to_string()),
            author: slot.map_or(String::new(), |slot| self.label(&slot.log.author)),
            written_at: slot.map_or(0, |slot| slot.hlc.millis()),
            expires_at: slot.and_then(|slot| slot.op.expires_at),
        }
    }
}

fn shown(view: &View, wall: u64) -> Option<Vec<u8>> {
    bytes(view.shown(wall))
}

fn bytes(shown: Shown) -> Option<Vec<u8>> {
    match shown {
        Shown::Value(value) => Some(value.0),
        Shown::Counter(sum) => Some(sum.to_string().into_bytes()),
        Shown::Absent => None,
    }
}

fn body(slot: &Slot) -> Option<Vec<u8>> {
    use swarmkv_protocol::op::Body;
    match &slot.op.body {
        Body::Put(value) => Some(value.0.clone()),
        Body::Counter(part) => {
            Some((i128::from(part.up) - i128::from(part.down)).to_string().into_bytes())
        }
        Body::Delete => None,
    }
}
