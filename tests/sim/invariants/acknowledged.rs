//! An acknowledged write is never lost: at the end every replica has it, or what its own author wrote
//! on that key later.

use swarmkv_protocol::id::Version;
use swarmkv_protocol::op::Body;
use swarmkv_protocol::store::RawSlot;

use crate::invariants::LiveSets;
use crate::model::Acked;
use crate::world::World;

pub fn holds(world: &World, n: usize, live: &LiveSets) -> Result<(), String> {
    for acked in &world.model.acked {
        let (log, seq) = (acked.version.log, acked.version.seq);
        // What a revoked author wrote beyond the cut is lost to the swarm, and that is so by design.
        if world.outcast_author(&log) {
            continue;
        }
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
        if !kept && !written_again(world, n, live, acked) {
            return Err(format!("acknowledged: node {n} lacks {log:?}:{seq}"));
        }
    }
    Ok(())
}

/// What an author whose own log was set aside had there that nobody else had is written again in a later
/// epoch, or was replaced there since. So is what still lives in a log that makes room for later ones; what
/// somebody has overwritten by then, and deletes, need not be.
fn written_again(world: &World, n: usize, live: &LiveSets, acked: &Acked) -> bool {
    let author = acked.version.log.author;
    let aside = world.index(&author).is_some_and(|n| world.nodes[n].ever_aside);
    let later =
        |raw: &RawSlot| raw.branch.log != acked.version.log && raw.branch.log.author == author;
    let there = || live.values().filter_map(|slots| slots.get(&acked.key));
    let crowded = world.crowded(n, &acked.version.log);
    (aside || crowded) && there().any(later) || crowded && not_needed(world, acked, there())
}

fn not_needed<'a>(
    world: &World,
    acked: &Acked,
    mut there: impl Iterator<Item = &'a RawSlot>,
) -> bool {
    let Version { log, seq, .. } = acked.version;
    let overwrites = |raw: &RawSlot| {
        raw.open().is_ok_and(|slot| slot.op.ctx.iter().any(|e| e.log == log && e.seq >= seq))
    };
    let signed = world.model.logs.get(&log).and_then(|written| written.ops.get(&seq));
    let deletes = |raw: &RawSlot| raw.open().is_ok_and(|slot| slot.op.body == Body::Delete);
    signed.is_some_and(|signed| deletes(&signed.slot)) || there.any(overwrites)
}
