//! A log shows exactly what its author had at the end of some commit: transactions are all or nothing,
//! and nothing in between is missing.

use crate::invariants::LiveSets;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    let Some(engine) = world.nodes[n].engine.as_ref() else { return Ok(()) };
    for status in engine.logs() {
        if !world.honest_author(&status.log) || status.seq == 0 {
            continue;
        }
        let Some(written) = world.model.logs.get(&status.log) else {
            return Err(format!("whole: node {n} has a log that nobody wrote"));
        };
        if !written.ends.contains(&status.seq) {
            return Err(format!("whole: node {n} stopped {:?} inside a commit", status.log));
        }
        let due = world.model.live(&status.log, status.seq);
        let there = live.get(&status.log).map_or(0, std::collections::BTreeMap::len);
        let same = |(key, raw): (&&_, &&_)| {
            live.get(&status.log).and_then(|slots| slots.get(*key)) == Some(*raw)
        };
        if due.len() != there || status.slots != due.len() as u64 || !due.iter().all(same) {
            return Err(format!(
                "whole: node {n} shows {there} slots of {:?} at {}, {} are due, {} are summed",
                status.log,
                status.seq,
                due.len(),
                status.slots
            ));
        }
    }
    Ok(())
}
