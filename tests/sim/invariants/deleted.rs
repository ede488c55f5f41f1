//! After convergence every key shows what the oracle says; above all, what was deleted stays deleted.

use std::collections::{BTreeMap, BTreeSet};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::RawSlot;

use crate::invariants::LiveSets;
use crate::model;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    let wall = world.nodes[n].now(world.time).wall;
    let mut keys: BTreeMap<Bytes, Vec<(RawSlot, u64)>> = BTreeMap::new();
    for (branch, head) in engine.heads().iter() {
        if world.honest_author(&branch.log) {
            for (key, raw) in world.model.live(&branch.log, head) {
                keys.entry(key.clone()).or_default().push((raw.clone(), head));
            }
        } else if let Some(slots) = live.get(branch) {
            for (key, raw) in slots {
                keys.entry(key.clone()).or_default().push((raw.clone(), head));
            }
        }
    }
    for (key, slots) in keys {
        let (siblings, shown) = model::merged(&slots, wall);
        let Some(view) = world.view(n, &key) else { return Err("same: no view".into()) };
        let first = view.values(wall).next();
        let there: BTreeSet<_> = view.siblings().map(|seen| seen.version).collect();
        if there != siblings || first.map(|seen| seen.version) != shown {
            let key = String::from_utf8_lossy(&key);
            return Err(format!("deleted: node {n} does not show what is due on {key}"));
        }
    }
    Ok(())
}
