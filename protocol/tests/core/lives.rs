//! A peer in memory that starts empty over and over: it loses nothing that others have, and neither it nor they pay
//! more for its thousandth life than for its tenth.
//!
//! `SWARMKV_LIVES=2000 cargo test -p swarmkv-protocol lives -- --nocapture` makes it a long run and prints
//! what each stretch of lives costs.

#![expect(clippy::disallowed_methods, reason = "it measures what a life costs")]

use std::time::{Duration, Instant};

use swarmkv_protocol::io::{Blame, Fault};
use swarmkv_protocol::limits::MAX_LOGS_PER_AUTHOR;
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::view::View;

use crate::swarm::{Disk, Swarm};

/// Always there, always there but not heard by the one in memory, and the one in memory.
const ALWAYS: usize = 0;
const MORTAL: usize = 1;
const OTHER: usize = 2;
/// Keys that the mortal writes in turn.
const KEYS: usize = 50;
/// A key that both write in each life.
const SHARED: &str = "shared";

fn lives() -> usize {
    std::env::var("SWARMKV_LIVES").ok().and_then(|lives| lives.parse().ok()).unwrap_or(300)
}

/// What is kept of the mortal, by the one that is always there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    logs: usize,
    slots: u64,
    bytes: u64,
    /// The most that a write on the shared key names.
    names: usize,
    /// Frames that all sent since the stretch began, a life.
    frames: u64,
}

fn kept(swarm: &Swarm) -> Kept {
    let mortal = swarm.nodes[MORTAL].id;
    let logs = swarm.nodes[ALWAYS].engine.logs();
    let theirs = || logs.iter().filter(|log| log.branch.log.author == mortal);
    let heads = swarm.nodes[ALWAYS].engine.heads();
    let slots = swarm.nodes[ALWAYS].engine.store().0.borrow();
    let slots = swarmkv_protocol::store::Store::slots(&*slots, &crate::swarm::cell(SHARED));
    let view = View::merge(&slots.expect("memory does not fail"), |branch| heads.of(branch));
    let view = view.expect("slots are sound");
    Kept {
        logs: theirs().count(),
        slots: theirs().map(|log| log.slots).sum(),
        bytes: logs.iter().map(|log| log.bytes).sum(),
        names: view.seen().map(|seen| seen.slot.op.ctx.len()).max().unwrap_or(0),
        frames: swarm.frames,
    }
}

/// One life: it starts empty, learns, writes, and is gone.
fn live(swarm: &mut Swarm, life: usize) {
    swarm.put_back(MORTAL, &Disk::default(), true);
    for statement in swarm.nodes[ALWAYS].engine.roster().beyond(&[]) {
        let _ = swarm.hand_gossip(MORTAL, ALWAYS, message::encode(&Gossip::Statement(statement)));
    }
    swarm.connect(MORTAL, ALWAYS);
    swarm.pass(10_000);
    swarm.put(MORTAL, &format!("k{}", life % KEYS), &format!("v{life:06}"));
    swarm.put(MORTAL, SHARED, &format!("of the mortal {life:06}"));
    swarm.pass(10_000);
    swarm.put(ALWAYS, SHARED, &format!("of the other {life:06}"));
    swarm.pass(5_000);
    // What a test node notes is not part of a replica.
    swarm.nodes.iter_mut().for_each(|node| node.log.clear());
    swarm.nodes.iter_mut().for_each(|node| node.published.clear());
}

#[test]
fn the_last_of_many_lives_costs_what_the_early_ones_cost() {
    let lives = lives();
    let stretch = (lives / 10).max(20);
    let mut swarm = Swarm::new(3);
    swarm.connect(ALWAYS, OTHER);
    let (mut began, mut frames) = (Instant::now(), 0);
    let mut stretches: Vec<(Duration, Kept)> = Vec::new();
    println!("  lives  ms a life  logs  slots    bytes  names  frames a life");
    for life in 0..lives {
        live(&mut swarm, life);
        if (life + 1) % stretch == 0 {
            let each = began.elapsed() / u32::try_from(stretch).expect("few");
            let now = kept(&swarm);
            let sent = (now.frames - frames) / stretch as u64;
            let Kept { logs, slots, bytes, names, .. } = now;
            println!(
                "{:>7} {:>10.1} {logs:>5} {slots:>6} {bytes:>8} {names:>6} {sent:>14}",
                life + 1,
                each.as_secs_f64() * 1_000.0
            );
            stretches.push((each, Kept { frames: sent, ..now }));
            (began, frames) = (Instant::now(), now.frames);
        }
    }
    swarm.disconnect_all(MORTAL);
    swarm.pass(60_000);
    for n in [ALWAYS, OTHER] {
        for (key, last) in (0..KEYS.min(lives)).map(|k| (k, (lives - 1 - k) / KEYS * KEYS + k)) {
            let value = Some(format!("v{last:06}"));
            assert_eq!(swarm.get(n, &format!("k{key}")), value, "node {n}");
        }
        let shared = Some(format!("of the other {:06}", lives - 1));
        assert_eq!(swarm.get(n, SHARED), shared, "node {n}");
    }
    assert_eq!(swarm.hash(ALWAYS), swarm.hash(OTHER));
    let blamed = |fault: &&Fault| matches!(fault, Fault::Peer { blame: Blame::Sender, .. });
    assert_eq!(swarm.nodes.iter().flat_map(|node| &node.faults).find(blamed), None);
    // From when all keys are written on, nothing grows with the number of lives.
    let (early, late) = (stretches[2].1, stretches[stretches.len() - 1].1);
    assert!(late.logs <= MAX_LOGS_PER_AUTHOR + 2, "{late:?}");
    assert!(late.slots <= 2 * early.slots.max(KEYS as u64), "{early:?} {late:?}");
    assert!(late.bytes <= 2 * early.bytes, "{early:?} {late:?}");
    assert!(late.frames <= 2 * early.frames, "{early:?} {late:?}");
}
