//! Once faults have ended every honest replica comes to have the same, and then rests.

use std::collections::BTreeMap;

use swarmkv_protocol::id::{Hash, LogId};
use swarmkv_protocol::io::LogStatus;

use crate::node::heads;
use crate::world::World;

/// Why the swarm has not converged yet; `None`: it has.
pub fn lacking(world: &mut World) -> Option<String> {
    let mut first: Option<(BTreeMap<LogId, u64>, Hash)> = None;
    let states: Vec<Option<Hash>> =
        world.nodes.iter_mut().map(|node| Some(node.engine.as_mut()?.state_hash())).collect();
    let world = &*world;
    for n in (0..world.nodes.len()).filter(|n| world.honest(*n)) {
        if !world.belongs(n) {
            let engine = world.nodes[n].engine.as_ref();
            if engine.is_some_and(|e| e.roster().revocation(&world.nodes[n].id).is_none()) {
                return Some(format!("node {n} does not know that it was revoked"));
            }
            continue;
        }
        let Some(engine) = world.nodes[n].engine.as_ref() else {
            return Some(format!("node {n} is down"));
        };
        if world.nodes[n].rotten.is_some() {
            return Some(format!("node {n} has not noticed that its disk is damaged"));
        }
        if engine.logs().iter().any(|log| log.aside) {
            let logs = engine.logs();
            let aside: Vec<_> = logs.iter().filter(|log| log.aside).collect();
            return Some(format!("node {n} has something set aside: {aside:?}"));
        }
        let mut gone = engine.roster().revoked().map(|(device, ..)| device);
        if gone.any(|device| engine.lacks_cut(device)) {
            return Some(format!("node {n} lacks a log as it was when it was cut"));
        }
        if !engine.caught_up() {
            return Some(format!("node {n} is catching up"));
        }
        if !world.nodes[n].writes.is_empty() {
            return Some(format!("node {n} has writes waiting"));
        }
        let mut heads = heads(engine);
        let forked: Vec<LogId> =
            engine.logs().iter().filter(|l| l.forked).map(|l| l.branch.log).collect();
        if let Some(log) = forked.iter().find(|log| world.honest_author(log) && !rogue(world)) {
            return Some(format!("node {n} takes {log:?} for forked"));
        }
        heads.retain(|log, seq| *seq > 0 && world.honest_author(log));
        let state = if world.plan.rogue_stays && rogue(world) {
            engine.roster().hash()
        } else {
            states[n].unwrap_or_default()
        };
        match &first {
            None => first = Some((heads, state)),
            Some((other, _)) if *other != heads => {
                let odd = heads.iter().find(|(log, seq)| other.get(log) != Some(seq));
                let theirs = odd.and_then(|(log, _)| other.get(log));
                return Some(format!("nodes differ: {n} has {odd:?}, the first {theirs:?}"));
            }
            Some((_, other)) if *other != state => {
                return Some(format!("node {n}: other digest{}", difference(world, n)));
            }
            Some(_) => {}
        }
    }
    None
}

/// What tells a replica from the owner's.
fn difference(world: &World, n: usize) -> String {
    let (Some(mine), Some(theirs)) =
        (world.nodes[0].engine.as_ref(), world.nodes[n].engine.as_ref())
    else {
        return String::new();
    };
    let (a, b) = (mine.logs(), theirs.logs());
    let without = |of: &[LogStatus], than: &[LogStatus]| -> Vec<String> {
        of.iter().filter(|log| !than.contains(log)).map(|log| format!("{log:?}")).collect()
    };
    format!(
        ", rosters equal: {}\n  owner only: {:#?}\n  {n} only: {:#?}",
        mine.roster().hash() == theirs.roster().hash(),
        without(&a, &b),
        without(&b, &a)
    )
}

fn rogue(world: &World) -> bool {
    world.plan.rogue.is_some()
}

/// Converged replicas ask each other now and then, and find nothing: no talking in circles.
pub fn rests(world: &World, pulls_before: &[u64], seconds: u64) -> Result<(), String> {
    for (n, before) in pulls_before.iter().enumerate().filter(|(n, _)| world.honest(*n)) {
        let Some(engine) = world.nodes[n].engine.as_ref() else { continue };
        let pulls = engine.counters().pulls - before;
        let bound = if rogue(world) { 40 * seconds } else { seconds / 2 + 6 };
        if pulls > bound {
            return Err(format!("converged: node {n} still pulled {pulls} times in {seconds} s"));
        }
    }
    Ok(())
}

pub fn pulls(world: &World) -> Vec<u64> {
    let count = |node: &crate::node::Node| node.engine.as_ref().map_or(0, |e| e.counters().pulls);
    world.nodes.iter().map(count).collect()
}
