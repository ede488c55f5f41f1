//! However hostile others are: every honest author's log comes to be complete at every honest replica, and
//! once nothing new is signed all honest replicas come to have the same.

use std::collections::BTreeMap;

use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{Hash, LogId};

use crate::disk::Shared;
use crate::world::World;

/// Honest members. Who was taken out has nothing to complete: it only has to come to know.
fn honest(world: &World) -> Vec<usize> {
    (0..world.nodes.len()).filter(|n| world.honest(*n) && world.belongs(*n)).collect()
}

/// Which honest log is not complete where; `None`: each is, everywhere.
pub fn lacking(world: &mut World) -> Option<String> {
    let mut due: BTreeMap<LogId, u64> = BTreeMap::new();
    for n in honest(world) {
        let Some(engine) = world.nodes[n].engine.as_ref() else {
            return Some(format!("complete: node {n} is down"));
        };
        if !world.nodes[n].writes.is_empty() {
            return Some(format!("complete: node {n} has writes waiting"));
        }
        let own = crate::node::heads(engine);
        due.extend(own.into_iter().filter(|(log, _)| log.author == world.nodes[n].id));
    }
    for n in honest(world) {
        let heads = world.nodes[n].engine.as_ref().map(crate::node::heads).unwrap_or_default();
        let lags = due.iter().find(|(log, seq)| heads.get(log).copied().unwrap_or(0) < **seq);
        if let Some((log, seq)) = lags {
            let have = heads.get(log).copied().unwrap_or(0);
            return Some(format!("complete: node {n} has {have} of {seq} of {log:?}"));
        }
    }
    None
}

/// Whether a log of somebody who was revoked is not here as it was at its end.
pub fn lacks_a_cut(engine: &Engine<Shared>) -> bool {
    let mut gone = engine.roster().revoked().map(|(device, ..)| device);
    gone.any(|device| engine.lacks_cut(device))
}

/// What tells honest replicas apart; `None`: nothing, and all are complete.
pub fn differing(world: &mut World) -> Option<String> {
    if let Some(lack) = lacking(world) {
        return Some(lack);
    }
    for n in (0..world.nodes.len()).filter(|n| world.honest(*n) && !world.belongs(*n)) {
        let engine = world.nodes[n].engine.as_ref();
        if engine.is_some_and(|e| e.roster().revocation(&world.nodes[n].id).is_none()) {
            return Some(format!("equal: node {n} does not know that it was taken out"));
        }
    }
    let mut first: Option<(usize, Hash)> = None;
    for n in honest(world) {
        if world.nodes[n].rotten.is_some() {
            return Some(format!("equal: node {n} has not noticed that its disk is damaged"));
        }
        let engine = world.nodes[n].engine.as_mut()?;
        let state = engine.state_hash();
        if lacks_a_cut(engine) {
            return Some(format!("equal: node {n} lacks a log as it was when it was cut"));
        }
        match first {
            None => first = Some((n, state)),
            Some((other, theirs)) if theirs != state => {
                return Some(format!("equal: {}", difference(world, other, n)));
            }
            Some(_) => {}
        }
    }
    let behind = |n: &usize| world.nodes[*n].engine.as_ref().is_some_and(|e| !e.caught_up());
    honest(world).into_iter().find(behind).map(|n| format!("equal: node {n} is catching up"))
}

/// Whether all that tells two replicas apart is which histories of forked logs each has.
fn forks_only(world: &World, a: usize, b: usize) -> bool {
    let heads = |n: usize| {
        let engine = world.nodes[n].engine.as_ref();
        engine.map(crate::node::branches).unwrap_or_default()
    };
    let (mine, theirs) = (heads(a), heads(b));
    let several = |log: &LogId| {
        let here = |n: &usize| {
            let engine = world.nodes[*n].engine.as_ref();
            engine.is_some_and(|engine| engine.heads().branches(*log).count() > 1)
        };
        (0..world.nodes.len()).any(|n| here(&n))
    };
    mine.symmetric_difference(&theirs).all(|(log, _)| several(log))
}

fn difference(world: &World, a: usize, b: usize) -> String {
    let logs = |n: usize| {
        let engine = world.nodes[n].engine.as_ref();
        let roster = engine.map(|engine| engine.roster().hash());
        let mut logs: Vec<String> = Vec::new();
        for log in engine.into_iter().flat_map(|engine| engine.logs()) {
            let id = log.branch.log;
            let who = world.index(&id.author);
            logs.push(format!(
                "{who:?} {id:?} seq {} slots {} stamp {} frozen {:?} aside {}",
                log.seq, log.slots, log.stamp, log.frozen, log.aside
            ));
        }
        logs.sort();
        (roster, logs)
    };
    let ((rosters, mine), (roster, theirs)) = (logs(a), logs(b));
    let without = |of: &[String], than: &[String]| -> Vec<String> {
        of.iter().filter(|log| !than.contains(log)).cloned().collect()
    };
    let forks = if forks_only(world, a, b) { ", of forked logs only" } else { "" };
    format!(
        "nodes {a} and {b} differ{forks}, rosters equal: {}\n  {a} only: {:#?}\n  {b} only: {:#?}",
        rosters == roster,
        without(&mine, &theirs),
        without(&theirs, &mine)
    )
}
