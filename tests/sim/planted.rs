//! Faults planted in the harness: every checker must be able to fail.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::op::{Body, Op};
use swarmkv_protocol::store::Write;

use crate::plan::{Plan, Plant};
use crate::world::World;

/// Spoils what storage is told, where the plan wants that. The owner's replica is the victim.
pub fn spoil(world: &mut World, n: usize, writes: &mut Vec<Write>) {
    if n != 0 {
        return;
    }
    match world.plan.plant {
        Plant::DropWrites(every) => {
            let rng = &mut world.rng;
            writes.retain(|write| !matches!(write, Write::Slot { .. }) || rng.below(every) != 0);
        }
        Plant::ChangeValue => {
            for write in writes {
                if let Write::Slot { slot, .. } = write
                    && let Ok(mut op) = codec::decode::<Op>(&slot.op)
                    && op.body != Body::Delete
                {
                    op.body = Body::Put(b"changed".as_slice().into());
                    slot.op = Bytes(codec::encode(&op));
                }
            }
        }
        Plant::TearTransaction => {
            let slots = writes.iter().filter(|w| matches!(w, Write::Slot { .. })).count();
            if slots > 1 {
                let last = writes.iter().rposition(|w| matches!(w, Write::Slot { .. }));
                writes.remove(last.expect("there are slots"));
            }
        }
        _ => {}
    }
}

/// Runs seeds with a fault planted until a checker reports; says which one it was.
fn caught(plant: Plant) -> Vec<String> {
    let mut reports = Vec::new();
    for seed in 1..=6 {
        let mut plan = Plan::planted(seed, plant);
        plan.kills = matches!(plant, Plant::SendBeforeSync | Plant::ForgetSynced);
        if let Err(report) = crate::run(plan) {
            reports.push(report);
        }
    }
    reports
}

fn assert_caught_by(plant: Plant, checkers: &[&str]) {
    let reports = caught(plant);
    let named = |report: &String| checkers.iter().any(|name| report.starts_with(name));
    assert!(!reports.is_empty(), "{plant:?} was never caught");
    assert!(reports.iter().any(named), "{plant:?} was caught by others: {reports:?}");
}

#[test]
fn a_forgotten_write_is_caught() {
    assert_caught_by(Plant::DropWrites(8), &["whole", "signed"]);
}

#[test]
fn a_changed_value_is_caught() {
    assert_caught_by(Plant::ChangeValue, &["signed"]);
}

#[test]
fn a_torn_transaction_is_caught() {
    assert_caught_by(Plant::TearTransaction, &["whole"]);
}

#[test]
fn speaking_before_the_disk_is_synced_is_caught() {
    assert_caught_by(Plant::SendBeforeSync, &["durable"]);
}

#[test]
fn a_disk_that_forgets_is_caught() {
    assert_caught_by(Plant::ForgetSynced, &["order", "acknowledged"]);
}

#[test]
fn a_punished_member_is_caught() {
    assert_caught_by(Plant::MutateHonest, &["honest"]);
}

#[test]
fn a_view_that_differs_is_caught() {
    assert_caught_by(Plant::SkewView, &["same"]);
}

#[test]
fn a_returned_key_is_caught() {
    assert_caught_by(Plant::Resurrect, &["deleted"]);
}

#[test]
fn a_full_buffer_is_caught() {
    assert_caught_by(Plant::CountHeld, &["bounds"]);
}

#[test]
fn a_swarm_that_does_not_converge_is_caught() {
    assert_caught_by(Plant::NoRepair, &["converged"]);
}
