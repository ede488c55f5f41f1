//! An acknowledged write is never lost: at the end every replica has it, or what its own author wrote
//! on that key later.

use crate::invariants::LiveSets;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    for acked in &world.model.acked {
        let (log, seq) = (acked.version.log, acked.version.seq);
        if world.model.waived.get(&log).is_some_and(|safe| seq > *safe) {
            continue;
        }
        let mut there = live
            .iter()
            .filter(|(branch, _)| branch.log == log)
            .filter_map(|(_, slots)| slots.get(&acked.key));
        let kept = there.any(|raw| {
            let same = || raw.open().is_ok_and(|slot| slot.version() == acked.version);
            raw.seq > seq || raw.seq == seq && same()
        });
        if !kept {
            return Err(format!("acknowledged: node {n} lacks {log:?}:{seq}"));
        }
    }
    Ok(())
}
