//! What a device is to the swarm, by the roster: its name, and whether it is still in.

use std::collections::BTreeMap;

use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::roster::Roster;

use crate::storage::Disk;

/// `member`, `revoked` or `left`.
pub(crate) fn standing(roster: &Roster, device: &DeviceId) -> &'static str {
    match roster.revocation(device) {
        Some(revoked) if revoked.by == *device => "left",
        Some(_) => "revoked",
        None => "member",
    }
}

/// Labels of everybody who is or was a member.
pub(crate) fn labels(engine: &Engine<Disk>) -> BTreeMap<DeviceId, String> {
    let roster = engine.roster();
    let gone = roster.revoked().filter_map(|(_, _, was)| was);
    roster.members().chain(gone).map(|m| (m.device, m.label.clone())).collect()
}
