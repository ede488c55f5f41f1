//! Faults planted in the harness: every checker must be able to fail.

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::op::{Body, Op};
use swarmkv_protocol::store::Write;

use swarmkv_protocol::plant::Plant as Fault;

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
                    && let Ok(mut op) = Op::read(&slot.op)
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

/// Seeds tried before a fault counts as missed.
const BOUND: u64 = 60;

/// The suite: every fault, and what may name it. Some faults of the core are caught by tests of its own
/// (`protocol/tests`): a root without contexts, entries that dominate all before them, digests without heads,
/// surplus logs that are not written again.
const SUITE: &[(Plant, &[&str])] = &[
    (Plant::DropWrites(8), &["whole", "signed", "honest"]),
    (Plant::ChangeValue, &["signed"]),
    (Plant::TearTransaction, &["whole"]),
    (Plant::SendBeforeSync, &["durable"]),
    (Plant::ForgetSynced, &["order", "acknowledged"]),
    (Plant::MutateHonest, &["honest"]),
    (Plant::Core(Fault::SkipRoot), &["whole", "signed", "same", "deleted"]),
    (Plant::Core(Fault::KeepOnlyWinner), &["deleted"]),
    (Plant::Core(Fault::ReuseEpoch), &["order", "converged", "signed", "whole", "acknowledged"]),
    (Plant::Core(Fault::LongerReplaces), &["kept", "acknowledged"]),
    (Plant::Core(Fault::PunishGap), &["honest"]),
    (Plant::Core(Fault::ShowAside), &["converged", "whole", "signed", "node", "deleted", "same"]),
    (Plant::Core(Fault::ScrubOff), &["converged"]),
    (Plant::Core(Fault::ShowStaged), &["whole", "signed", "same", "order"]),
    (Plant::Core(Fault::SkipSignature), &["signed", "whole", "same", "converged"]),
    (Plant::Core(Fault::NeverRepair), &["converged"]),
    (Plant::Core(Fault::IgnoreCut), &["cut", "converged"]),
    (Plant::Core(Fault::DropTombstones), &["whole", "deleted"]),
];

/// Faults that hostile seeds catch.
const HOSTILE: &[(Fault, &[&str])] = &[
    (Fault::NoQuota, &["rights"]),
    (Fault::NoPrefix, &["rights"]),
    (Fault::MixGrants, &["rights", "equal", "honest"]),
    (Fault::KeepAllEpochs, &["buffers", "equal"]),
    (Fault::PunishUnknownGrant, &["honest"]),
    (Fault::PunishGap, &["honest"]),
    (Fault::JudgeEarly, &["judged"]),
    (Fault::DropReplacedContext, &["contexts"]),
    (Fault::OnlyExactEntries, &["deleted"]),
    (Fault::SkipRoot, &["whole", "signed", "same", "deleted", "equal"]),
];

/// Runs one plan; what a checker reports.
fn report(plan: Plan) -> Option<String> {
    let run = std::panic::AssertUnwindSafe(|| crate::run(plan));
    match std::panic::catch_unwind(run) {
        Ok(Ok(_)) => None,
        Ok(Err(report)) => Some(report),
        Err(_) => Some("panic".into()),
    }
}

#[test]
fn every_planted_fault_is_caught_by_hostile_seeds() {
    let mut missed = Vec::new();
    for (fault, checkers) in HOSTILE {
        let plan = |seed| crate::hostile::planted(seed, Plant::Core(*fault));
        let caught = (1..=BOUND).find_map(|seed| Some((seed, report(plan(seed))?)));
        let named = |text: &str| checkers.iter().any(|checker| text.starts_with(checker));
        let by = caught.as_ref().map_or("-", |(_, text)| text.lines().next().unwrap_or("-"));
        println!("{fault:?}: {:?} seeds: {by}", caught.as_ref().map(|(seeds, _)| seeds));
        if !caught.as_ref().is_some_and(|(_, text)| named(text)) {
            missed.push(*fault);
        }
    }
    println!(
        "hostile: planted faults caught: {} of {}",
        HOSTILE.len() - missed.len(),
        HOSTILE.len()
    );
    assert!(missed.is_empty(), "not caught, or by the wrong checkers: {missed:?}");
}

/// How many seeds from `first` on it takes until a checker reports, and its report.
fn seeds_to_catch(plant: Plant, first: u64) -> Option<(u64, String)> {
    (0..BOUND).find_map(|n| {
        let plan = Plan::planted(first + n, plant);
        Some((n + 1, report(plan)?))
    })
}

/// `SWARMKV_SIM_TRIES=n` takes the median over that many ranges of seeds (CI: 1).
#[test]
fn every_planted_fault_is_caught() {
    let tries = crate::number("SWARMKV_SIM_TRIES").unwrap_or(1).max(1);
    let mut missed = Vec::new();
    for (plant, checkers) in SUITE {
        let caught: Vec<_> =
            (0..tries).filter_map(|n| seeds_to_catch(*plant, 1 + n * 1_000)).collect();
        let mut seeds: Vec<u64> = caught.iter().map(|(seeds, _)| *seeds).collect();
        seeds.sort_unstable();
        let named = |(_, report): &&(u64, String)| checkers.iter().any(|c| report.starts_with(c));
        let by = caught.iter().find(named).or(caught.first()).map(|(_, report)| report.as_str());
        let median = seeds.get(seeds.len() / 2);
        println!(
            "{plant:?}: median {median:?} seeds, {}/{tries}: {}",
            seeds.len(),
            by.unwrap_or("-")
        );
        if (seeds.len() as u64) < tries || !caught.iter().any(|one| named(&one)) {
            missed.push(*plant);
        }
    }
    println!("planted faults caught: {} of {}", SUITE.len() - missed.len(), SUITE.len());
    assert!(missed.is_empty(), "not caught, or by the wrong checkers: {missed:?}");
}
