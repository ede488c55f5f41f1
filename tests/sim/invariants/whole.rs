//! A log shows exactly what its author had at the end of some commit: transactions are all or nothing,
//! and nothing in between is missing.

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::store::RawSlot;

use crate::invariants::LiveSets;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    for status in engine.logs() {
        if !world.honest_author(&status.branch.log) || status.seq == 0 {
            continue;
        }
        let Some(written) = world.model.logs.get(&status.branch.log) else {
            return Err(format!("whole: node {n} has a log that nobody wrote"));
        };
        if !written.ends.contains_key(&status.seq) {
            return Err(format!("whole: node {n} stopped {:?} inside a commit", status.branch));
        }
        let due = world.model.live(&status.branch.log, status.seq);
        let there = live.get(&status.branch).map_or(0, std::collections::BTreeMap::len);
        let same = |(key, raw): (&&Bytes, &&RawSlot)| {
            let there: Option<&RawSlot> = live.get(&status.branch).and_then(|l| l.get(*key));
            there.is_some_and(|t| (t.seq, t.hlc, &t.op) == (raw.seq, raw.hlc, &raw.op))
        };
        if due.len() != there || status.slots != due.len() as u64 || !due.iter().all(same) {
            return Err(format!(
                "whole: node {n} shows {there} slots of {:?} at {}, {} are due, {} are summed",
                status.branch,
                status.seq,
                due.len(),
                status.slots
            ));
        }
    }
    Ok(())
}
