//! Buffers stay within their limits.

use swarmkv_protocol::limits::{MAX_HELD, MAX_LOGS};

use crate::world::World;

pub fn holds(world: &World, n: usize) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    let (held, logs) = (engine.held(), engine.heads().len());
    if held > MAX_HELD || logs > MAX_LOGS {
        return Err(format!("bounds: node {n} holds {held} commits and {logs} logs"));
    }
    // Epochs are opened for a reason: never as many as there are writes, and no peer can force them.
    let own = engine.heads().keys().filter(|branch| branch.log.author == world.nodes[n].id).count();
    if own > 40 {
        return Err(format!("bounds: node {n} has opened {own} epochs"));
    }
    Ok(())
}
