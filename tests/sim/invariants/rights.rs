//! Of a log is shown what the grant of its head allows: keys within its prefix, bytes in its quota.

use std::collections::BTreeMap;

use swarmkv_protocol::commit::SignedHeader;
use swarmkv_protocol::id::BranchId;
use swarmkv_protocol::store::Store as _;

use crate::invariants::LiveSets;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    let heads: BTreeMap<BranchId, u64> =
        engine.heads().iter().map(|(branch, seq)| (*branch, seq)).collect();
    for (branch, slots) in live {
        // Its own logs a replica shows whatever became of its rights.
        if branch.log.author == world.nodes[n].id {
            continue;
        }
        let head = heads.get(branch).copied().unwrap_or(0);
        let header = engine.store().header(branch, head).map_err(|e| e.to_string())?;
        let header = header.and_then(|bytes| SignedHeader::decode(&bytes).ok());
        // A log beyond its author's end is shown in part: no header stands there.
        let Some(claim) = header.as_ref().map(SignedHeader::claim) else { continue };
        let Some(right) = engine.roster().right(&claim.grant) else {
            return Err(format!("rights: node {n} shows {branch:?} under a grant that is none"));
        };
        let bytes: u64 = slots.values().map(|raw| raw.op.len() as u64).sum();
        if right.max_bytes.is_some_and(|max| bytes > max || claim.live_bytes > max) {
            return Err(format!("rights: node {n} shows {bytes} bytes of {branch:?}"));
        }
        let outside = |raw: &swarmkv_protocol::store::RawSlot| {
            raw.open().is_ok_and(|slot| !slot.op.cell.key.starts_with(&right.prefix))
        };
        if slots.values().any(outside) {
            return Err(format!("rights: node {n} shows {branch:?} outside its prefix"));
        }
    }
    Ok(())
}
