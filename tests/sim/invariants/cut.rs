//! In the end a revoked author's logs show exactly what the revocation left: the state at its cut, or
//! nothing.

use swarmkv_protocol::roster::Extent;

use crate::world::World;

pub fn holds(world: &World, n: usize) -> Result<(), String> {
    let (Some(owner), Some(engine)) =
        (world.nodes[0].engine.as_ref(), world.nodes[n].engine.as_ref())
    else {
        return Ok(());
    };
    let heads = crate::node::heads(engine);
    for (log, seq) in heads.iter().filter(|(log, _)| world.outcast_author(log)) {
        let due = match owner.roster().extent(log) {
            Extent::Open => continue,
            Extent::Nothing => 0,
            Extent::Upto(cut) => cut.seq,
        };
        // Only a rogue can know of a cut whose state no honest replica has.
        let wrong = if world.plan.rogue.is_some() { *seq > due } else { *seq != due };
        if wrong {
            return Err(format!("cut: node {n} shows {log:?} up to {seq}, it was cut at {due}"));
        }
    }
    for (device, revoked, _) in owner.roster().revoked() {
        if let Some((log, cut)) =
            revoked.cuts().find(|(log, _)| !heads.contains_key(log) && world.plan.rogue.is_none())
        {
            return Err(format!("cut: node {n} lacks {log:?} of {device:?} up to {}", cut.seq));
        }
    }
    Ok(())
}
