//! Simulation of whole swarms on the pure core: real engines, real signatures, one seed for everything.
//!
//! `cargo test -p swarmkv-tests --test sim` runs a fixed range of seeds, some fresh ones, and the planted
//! faults. `SWARMKV_SIM_SEED=n` replays one seed; `SWARMKV_SIM_SEEDS=n` runs that many fixed seeds. What
//! hostile members can do is in `hostile`.
//!
//! What of the core the seeds reach: with LLVM tools that fit the compiler (`rustup component add
//! llvm-tools`) and `cargo-llvm-cov`, `cargo llvm-cov -p swarmkv-tests --test sim --ignore-filename-regex tests`.

mod chaos;
mod direct;
mod disk;
mod event;
mod hostile;
mod invariants;
mod load;
mod model;
mod network;
mod node;
mod plan;
mod planted;
mod rng;
mod rogue;
mod scale;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use plan::Plan;
use world::{Outcome, World};

/// Simulated time in which everything must have converged once faults end.
const HEAL_MS: u64 = 180_000;
/// How long a converged swarm is watched.
const REST_S: u64 = 20;

/// Runs one plan: safety under chaos, then liveness.
fn run(plan: Plan) -> Result<Outcome, String> {
    let fault = match plan.plant {
        plan::Plant::Core(fault) => Some(fault),
        _ => None,
    };
    swarmkv_protocol::plant::plant(fault);
    let hostile = plan.hostility.is_some();
    let result = if hostile { hostile::course(plan) } else { course(plan) };
    swarmkv_protocol::plant::plant(None);
    result
}

fn course(plan: Plan) -> Result<Outcome, String> {
    let mut world = World::new(plan)?;
    let chaos_ms = world.plan.chaos_ms;
    run_until(&mut world, chaos_ms)?;
    world.calm()?;
    let healed = heal(&mut world, chaos_ms)?;
    let pulls = invariants::converged::pulls(&world);
    let until = world.time + REST_S * 1_000;
    run_until(&mut world, until)?;
    if let Some(lack) = invariants::converged::lacking(&mut world) {
        return Err(format!("converged: not for long: {lack}"));
    }
    invariants::converged::rests(&world, &pulls, REST_S)?;
    for n in (0..world.nodes.len()).filter(|n| world.honest(*n) && world.belongs(*n)) {
        invariants::cut::holds(&world, n)?;
        let live = invariants::live_sets(&world, n)?;
        invariants::acknowledged::holds(&world, n, &live)?;
        invariants::deleted::holds(&world, n, &live)?;
        invariants::kept::holds(&world, n)?;
    }
    Ok(Outcome {
        simulated_ms: world.time,
        converged_ms: healed,
        commits: world.model.commits,
        events: world.events,
        fingerprint: world.fingerprint,
    })
}

fn run_until(world: &mut World, until: u64) -> Result<(), String> {
    while world.time < until && world.step()? {}
    Ok(())
}

/// Lets the swarm heal; says how long that took.
fn heal(world: &mut World, from: u64) -> Result<u64, String> {
    loop {
        let next = world.time + 250;
        run_until(world, next)?;
        let Some(lack) = invariants::converged::lacking(world) else {
            return Ok(world.time - from);
        };
        if world.time > from + HEAL_MS / 3 {
            world.cut_again()?;
        }
        if world.time > from + HEAL_MS {
            return Err(format!("converged: not after {HEAL_MS} ms: {lack}"));
        }
    }
}

/// Runs a seed; a failure or panic names it.
fn run_seed(seed: u64) -> Result<Outcome, String> {
    let plan = Plan::from_seed(seed);
    let result = catch_unwind(AssertUnwindSafe(|| run(plan.clone())));
    let report = match result {
        Ok(Ok(outcome)) => return Ok(outcome),
        Ok(Err(report)) => report,
        Err(_) => "panic: see above".into(),
    };
    Err(format!(
        "seed {seed}: {report}\n  replay: SWARMKV_SIM_SEED={seed} cargo test -p swarmkv-tests --test sim\n  {plan:?}"
    ))
}

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

fn seeds() -> Vec<u64> {
    if let Some(seed) = number("SWARMKV_SIM_SEED") {
        return vec![seed];
    }
    let count = number("SWARMKV_SIM_SEEDS").unwrap_or(30);
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let fresh = (0..4).map(|i| since * 1_000 + i);
    (1..=count).chain(fresh).collect()
}

#[test]
fn every_invariant_holds_on_every_seed() {
    let began = Instant::now();
    let (mut failures, mut sum, mut slowest) = (Vec::new(), Outcome::default(), (0, 0));
    let seeds = seeds();
    println!("fresh seeds: {:?}", seeds.iter().filter(|s| **s > 1_000_000).collect::<Vec<_>>());
    for seed in &seeds {
        match run_seed(*seed) {
            Ok(one) => {
                sum.simulated_ms += one.simulated_ms;
                sum.commits += one.commits;
                sum.events += one.events;
                slowest = slowest.max((one.converged_ms, *seed));
            }
            Err(report) => {
                println!("{report}");
                failures.push(report);
            }
        }
    }
    let seconds = began.elapsed().as_secs_f64();
    let hours = sum.simulated_ms as f64 / 3_600_000.0;
    println!(
        "{} seeds in {seconds:.1} s, {:.4} simulated hours a second ({:.0} times real time), {} commits, \
         {} events, slowest convergence {} ms (seed {})",
        seeds.len(),
        hours / seconds,
        hours * 3_600.0 / seconds,
        sum.commits,
        sum.events,
        slowest.0,
        slowest.1
    );
    assert!(
        failures.is_empty(),
        "{} of {} seeds failed:\n{}",
        failures.len(),
        seeds.len(),
        failures[0]
    );
}

/// How fast the simulator is at the load that it is stated for; asserts nothing about speed.
/// `cargo test -p swarmkv-tests --test sim stated_load -- --ignored --nocapture`
#[test]
#[ignore = "prints a figure"]
fn stated_load() {
    let began = Instant::now();
    let (mut millis, mut commits) = (0, 0);
    for seed in 1..=number("SWARMKV_SIM_SEEDS").unwrap_or(40) {
        let outcome =
            run(Plan::stated(seed)).unwrap_or_else(|report| panic!("seed {seed}: {report}"));
        millis += outcome.simulated_ms;
        commits += outcome.commits;
    }
    let (simulated, real) = (millis as f64 / 1_000.0, began.elapsed().as_secs_f64());
    println!(
        "5 replicas, {:.1} commits a simulated second, faults on: {:.0} times real time",
        commits as f64 / simulated,
        simulated / real
    );
}

#[test]
fn a_seed_replays_exactly() {
    for seed in [3, 11] {
        assert_eq!(run_seed(seed), run_seed(seed));
    }
}
