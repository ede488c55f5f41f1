//! Questions under way on the join protocol, both ways, and how many there may be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use swarmkv_protocol::id::DeviceId;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::Instant;

use super::command::AskError;
use super::limits;
use super::rate::Bucket;

pub(super) type Reply = oneshot::Sender<Result<Vec<u8>, AskError>>;

/// Questions under way, both ways.
#[derive(Debug)]
pub(super) struct Joins {
    pub(super) asks: BTreeMap<u64, (Vec<u8>, Reply)>,
    pub(super) next_ask: u64,
    pub(super) asking: Arc<Semaphore>,
    pub(super) strangers: Arc<Semaphore>,
    pub(super) members: Arc<Semaphore>,
    pub(super) stranger_rate: Bucket,
    /// Strangers being answered: one question each at a time, so that none holds all places.
    pub(super) busy: Arc<Mutex<BTreeSet<DeviceId>>>,
}

/// A stranger's place among those being answered; given back when dropped.
pub(super) struct Place {
    busy: Arc<Mutex<BTreeSet<DeviceId>>>,
    peer: DeviceId,
}

impl Place {
    pub(super) fn take(busy: &Arc<Mutex<BTreeSet<DeviceId>>>, peer: DeviceId) -> Option<Self> {
        let fresh = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        fresh.then(|| Self { busy: Arc::clone(busy), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.peer);
    }
}

impl Joins {
    pub(super) fn new(now: Instant) -> Self {
        let (rate, burst) = (limits::STRANGER_ASKS_PER_SECOND, limits::STRANGER_ASKS_BURST);
        Self {
            asks: BTreeMap::new(),
            next_ask: 0,
            asking: Arc::new(Semaphore::new(limits::ASKS)),
            strangers: Arc::new(Semaphore::new(limits::JOIN_SERVED)),
            members: Arc::new(Semaphore::new(limits::JOIN_SERVED)),
            stranger_rate: Bucket::new(rate, burst, now),
            busy: Arc::default(),
        }
    }
}
