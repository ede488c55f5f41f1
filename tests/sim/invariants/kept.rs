//! A fork removes nothing: whatever a replica showed of a forked log stays, unless a write that has seen
//! it, or a later one of its own history, took its place.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::{LogId, Version};
use swarmkv_protocol::time::Hlc;

use crate::world::World;

/// Something that was shown.
pub struct Kept {
    key: Bytes,
    version: Version,
    stamp: Hlc,
}

/// Notes what honest replicas show of logs that may be forked.
pub fn note(world: &mut World) {
    let mut kept = Vec::new();
    for n in (0..world.nodes.len()).filter(|n| world.honest(*n)) {
        let out = world.outcasts.contains(&n);
        if out || world.nodes[n].engine.is_none() || world.nodes[n].rotten.is_some() {
            continue;
        }
        let keys: Vec<Bytes> = world.nodes[n].disk.borrow().visible.keys().cloned().collect();
        for key in keys {
            let Some(view) = world.view(n, &key) else { continue };
            // What a hostile author opens and forks beyond bounds makes room for its own.
            let bounded = |log: &LogId| {
                world.index(&log.author).is_some_and(|n| world.hostile.contains_key(&n))
            };
            let may_fork =
                |log| !world.honest_author(log) && !world.outcast_author(log) && !bounded(log);
            let shown = view.siblings().filter(|seen| may_fork(&seen.version.log));
            kept.extend(shown.map(|seen| Kept {
                key: key.clone(),
                version: seen.version,
                stamp: seen.slot.hlc,
            }));
        }
    }
    world.kept = kept;
}

pub fn holds(world: &World, n: usize) -> Result<(), String> {
    for Kept { key, version, stamp } in &world.kept {
        if world.outcast_author(&version.log) || world.crowded(n, &version.log) {
            continue;
        }
        let there = world.view(n, key).is_some_and(|view| {
            view.seen().any(|seen| {
                let slot = &seen.slot;
                let later = slot.log == version.log && slot.seq > version.seq && slot.hlc > *stamp;
                seen.version == *version || slot.op.ctx.contains(version) || later
            })
        });
        if !there {
            let key = String::from_utf8_lossy(key);
            let log = version.log;
            let engine = world.nodes[n].engine.as_ref();
            let extent = engine.map(|e| e.roster().extent(&log));
            return Err(format!(
                "kept: node {n} lost what {log:?} had on {key} (it is {extent:?})"
            ));
        }
    }
    Ok(())
}
