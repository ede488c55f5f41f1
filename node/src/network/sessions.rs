//! The table of repair sessions: their numbers, their states, and how many there may be.

use std::collections::BTreeMap;

use swarmkv_protocol::id::DeviceId;
use tokio::sync::mpsc;

use super::limits;

/// A session from its opening until its `SessionClosed` has passed the loop.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) peer: DeviceId,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) enum State {
    /// Waits for its stream; `false` once the driver closed it.
    Opening(bool),
    Open(mpsc::Sender<Vec<u8>>),
    Closing,
}

/// All sessions. Ours have even numbers, chosen by the driver; inbound ones odd, chosen here.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    pub(super) table: BTreeMap<u64, Session>,
    inbound: u64,
}

impl Sessions {
    pub(super) fn count(&self, inbound: bool, peer: Option<DeviceId>) -> usize {
        self.table
            .iter()
            .filter(|(id, one)| is_inbound(**id) == inbound && peer.is_none_or(|p| p == one.peer))
            .count()
    }

    pub(super) fn next_inbound(&mut self) -> u64 {
        self.inbound += 1;
        2 * self.inbound - 1
    }

    pub(super) fn has_room_for(&self, peer: DeviceId) -> bool {
        self.count(true, Some(peer)) < limits::INBOUND_SESSIONS_PER_PEER
            && self.count(true, None) < limits::INBOUND_SESSIONS
    }
}

pub(super) fn is_inbound(session: u64) -> bool {
    session % 2 == 1
}
