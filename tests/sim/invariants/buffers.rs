//! What any one author can make a replica keep is bounded, whatever it signs and whoever hands it on.

use std::collections::{BTreeMap, BTreeSet};

use swarmkv_protocol::id::{BranchId, DeviceId, LogId};
use swarmkv_protocol::limits::{MAX_BRANCHES, MAX_HELD, MAX_LOGS_PER_AUTHOR, STAGE_SLACK};

use crate::world::World;

/// Histories being fetched, judged or dropped beside those that are kept, of one log.
const TRANSIENT: usize = 4;
/// Histories of one author on a disk.
const BRANCHES: usize = (MAX_LOGS_PER_AUTHOR + 1) * (MAX_BRANCHES + TRANSIENT);

pub fn holds(world: &World, n: usize) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    if engine.held() > MAX_HELD {
        return Err(format!("buffers: node {n} holds {} commits", engine.held()));
    }
    let mut authors: BTreeMap<DeviceId, (BTreeSet<LogId>, usize)> = BTreeMap::new();
    for (id, _) in engine.heads().iter() {
        authors.entry(id.log.author).or_default().0.insert(id.log);
    }
    for log in authors.values().flat_map(|(logs, _)| logs) {
        let histories = engine.heads().branches(*log).count();
        if histories > MAX_BRANCHES {
            return Err(format!("buffers: node {n} shows {histories} histories of {log:?}"));
        }
    }
    let recovered = world.nodes[n].disk.borrow().visible.recover();
    for (id, _) in &recovered.logs {
        authors.entry(id.log.author).or_default().1 += 1;
    }
    for (author, (logs, branches)) in authors {
        let who = world.index(&author);
        if logs.len() > MAX_LOGS_PER_AUTHOR {
            return Err(format!("buffers: node {n} shows {} logs of {who:?}", logs.len()));
        }
        if branches > BRANCHES {
            return Err(format!("buffers: node {n} keeps {branches} histories of {who:?}"));
        }
    }
    staged(world, n)
}

/// Bytes above the heads, by author.
fn staged(world: &World, n: usize) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    let heads = engine.heads();
    let mut staged: BTreeMap<DeviceId, u64> = BTreeMap::new();
    let mut ids: BTreeSet<BranchId> = BTreeSet::new();
    let disk = world.nodes[n].disk.borrow();
    for key in disk.visible.keys() {
        use swarmkv_protocol::store::Store as _;
        for raw in disk.visible.slots(key).map_err(|e| e.to_string())? {
            if raw.seq > heads.of(&raw.branch) {
                *staged.entry(raw.branch.log.author).or_default() += raw.op.len() as u64;
                ids.insert(raw.branch);
            }
        }
    }
    let most = STAGE_SLACK * MAX_LOGS_PER_AUTHOR as u64;
    match staged.into_iter().find(|(_, bytes)| *bytes > most) {
        Some((author, bytes)) => {
            let who = world.index(&author);
            Err(format!("buffers: node {n} has {bytes} bytes of {who:?} staged"))
        }
        None => Ok(()),
    }
}
