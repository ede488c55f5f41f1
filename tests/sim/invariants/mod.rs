//! What must hold: one property a file. Each reports with its own name in front.

pub mod acknowledged;
pub mod bounds;
pub mod buffers;
pub mod complete;
pub mod contexts;
pub mod converged;
pub mod cut;
pub mod deleted;
pub mod durable;
pub mod honest;
pub mod kept;
pub mod order;
pub mod rest;
pub mod rights;
pub mod same;
pub mod signed;
pub mod whole;

use std::collections::BTreeMap;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::{RawSlot, Store as _};

use crate::world::World;

/// What holds at every moment.
pub fn check(world: &mut World) -> Result<(), String> {
    for n in 0..world.nodes.len() {
        world.nodes[n].notice_set_aside();
        if world.nodes[n].engine.is_none() || !world.honest(n) || world.nodes[n].rotten.is_some() {
            continue;
        }
        order::holds(world, n)?;
        bounds::holds(world, n)?;
        buffers::holds(world, n)?;
        let live = live_sets(world, n)?;
        signed::holds(world, n, &live)?;
        whole::holds(world, n, &live)?;
        rights::holds(world, n, &live)?;
    }
    // What merges show, against the oracle: one replica at a time, for it reads everything.
    let n = usize::try_from(world.events).unwrap_or(0) % world.nodes.len();
    if world.honest(n) && world.nodes[n].rotten.is_none() {
        let live = live_sets(world, n)?;
        deleted::holds(world, n, &live)?;
    }
    same::holds(world)
}

/// What a replica shows of each log: the latest slot on each key up to the log's head.
pub type LiveSets = BTreeMap<BranchId, BTreeMap<Bytes, RawSlot>>;

/// Reads every log's live set from the replica's storage, as readers would.
pub fn live_sets(world: &World, n: usize) -> Result<LiveSets, String> {
    let mut sets = LiveSets::new();
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(sets) };
    let heads = engine.heads();
    let disk = world.nodes[n].disk.borrow();
    for key in disk.visible.keys() {
        for raw in disk.visible.slots(key).map_err(|e| e.to_string())? {
            if raw.seq <= heads.of(&raw.branch) {
                // Ascending by sequence number: the latest stays.
                sets.entry(raw.branch).or_default().insert(key.clone(), raw);
            }
        }
    }
    Ok(sets)
}
