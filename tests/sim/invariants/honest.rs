//! No honest member is ever blamed.

use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::io::Blame;

use crate::world::World;

pub fn fault(
    world: &World,
    n: usize,
    peer: &DeviceId,
    reason: &str,
    blame: Blame,
) -> Result<(), String> {
    let from = world.index(peer);
    let innocent = from.is_some_and(|from| world.honest(from));
    if blame == Blame::Sender && innocent && world.honest(n) {
        return Err(format!("honest: node {n} blames honest node {from:?}: {reason}"));
    }
    // Without a rogue there is nothing to complain of, but for rosters that lag.
    let lags = ["grant", "predecessor", "revo"].iter().any(|word| reason.contains(word));
    if world.plan.rogue.is_none() && !lags {
        return Err(format!("honest: node {n} complains of node {from:?}: {reason}"));
    }
    Ok(())
}
