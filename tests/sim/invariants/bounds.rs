//! Buffers stay within their limits.

use std::collections::BTreeSet;

use swarmkv_protocol::id::LogId;
use swarmkv_protocol::limits::{MAX_HELD, MAX_LOGS, MAX_LOGS_PER_AUTHOR};

use crate::world::World;

pub fn holds(world: &World, n: usize) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    let heads = engine.heads();
    let (held, logs) = (engine.held(), heads.len());
    if held > MAX_HELD || logs > MAX_LOGS {
        return Err(format!("bounds: node {n} holds {held} commits and {logs} logs"));
    }
    // Epochs are opened for a reason: never as many as there are writes, and no peer can force them.
    let own = heads.iter().filter(|(branch, _)| branch.log.author == world.nodes[n].id);
    let own: BTreeSet<LogId> = own.map(|(branch, _)| branch.log).collect();
    if own.len() > MAX_LOGS_PER_AUTHOR {
        return Err(format!("bounds: node {n} shows {} epochs of its own", own.len()));
    }
    Ok(())
}
