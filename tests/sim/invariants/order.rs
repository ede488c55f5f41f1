//! A log's head never goes back, also not over a restart, as far as readers were shown it.
//! A revocation takes it back to the cut.

use crate::node::heads;
use crate::world::World;

pub fn holds(world: &mut World, n: usize) -> Result<(), String> {
    let node = &world.nodes[n];
    let Some(engine) = node.engine.as_ref() else { return Ok(()) };
    let heads = heads(engine);
    for (log, before) in node.last_heads.iter().filter(|(log, _)| due(world, log)) {
        let now = heads.get(log).copied().unwrap_or(0);
        if now < *before && !world.crowded(n, log) {
            return Err(format!("order: {log:?} went back from {before} to {now}"));
        }
    }
    world.nodes[n].last_heads = heads;
    Ok(())
}

pub fn holds_over_a_restart(world: &World, n: usize) -> Result<(), String> {
    let node = &world.nodes[n];
    let Some(engine) = node.engine.as_ref() else { return Ok(()) };
    let heads = heads(engine);
    for (log, shown) in node.shown.iter().filter(|(log, _)| due(world, log)) {
        let now = heads.get(log).copied().unwrap_or(0);
        // A start sums up what came after the last record, and may find that it does not add up.
        let aside = engine
            .logs()
            .iter()
            .any(|status| status.branch.log == *log && (status.aside || status.lost));
        if now < *shown && !aside && !world.crowded(n, log) {
            return Err(format!("order: a restart took {log:?} from {shown} back to {now}"));
        }
    }
    Ok(())
}

/// A revocation takes logs back, and so does a hostile author that opens or forks too many.
fn due(world: &World, log: &swarmkv_protocol::id::LogId) -> bool {
    let hostile = world.index(&log.author).is_some_and(|n| world.hostile.contains_key(&n));
    !hostile && !world.outcast_author(log)
}
