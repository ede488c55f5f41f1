//! Nothing is visible that its author did not sign, byte for byte.

use swarmkv_protocol::store::RawSlot;

use crate::invariants::LiveSets;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    for (log, slots) in live.iter().filter(|(log, _)| world.honest_author(&log.log)) {
        let written = world.model.logs.get(&log.log);
        for (key, raw) in slots {
            let signed = written.and_then(|written| written.ops.get(&raw.seq));
            // The number of the branch is each replica's own affair.
            let same = |slot: &RawSlot| (slot.hlc, &slot.op) == (raw.hlc, &raw.op);
            if !signed.is_some_and(|signed| signed.key == *key && same(&signed.slot)) {
                let seq = raw.seq;
                let known = if signed.is_some() { "another" } else { "nothing" };
                return Err(format!(
                    "signed: node {n} shows {log:?}:{seq} ({} bytes), {known} was signed there",
                    raw.op.len()
                ));
            }
        }
    }
    Ok(())
}
