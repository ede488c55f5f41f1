//! Nothing is said before what it rests on is durable.

use swarmkv_protocol::commit::{SignedCommit, SignedHeader};
use swarmkv_protocol::id::{Hash, LogId, Version};
use swarmkv_protocol::message::{self, Gossip, Repair};

use crate::disk::header_of;
use crate::world::World;

fn is_durable(world: &World, n: usize, log: &LogId, seq: u64) -> bool {
    world.nodes[n].disk.borrow().had_durable(log, seq)
}

/// A commit of our own leaves only when it is on our disk.
pub fn published(world: &mut World, n: usize, bytes: &[u8]) -> Result<(), String> {
    if world.hostile.contains_key(&n) {
        return Ok(());
    }
    if world.hostile.contains_key(&n) {
        return Ok(());
    }
    let header = match message::decode(bytes) {
        Ok(Gossip::Announce(header)) => SignedHeader::decode(&header).ok(),
        Ok(Gossip::Commit(commit)) => {
            let swarm = world.nodes[n].engine.as_ref().map(|engine| engine.roster().swarm());
            swarm.and_then(|swarm| SignedCommit::decode(&commit, swarm).ok()).and_then(|commit| {
                let (log, seq) = (commit.claim().log, commit.claim().last_seq);
                let disk = world.nodes[n].disk.borrow();
                let stored = header_of(&disk.visible, &log, seq);
                stored.and_then(|bytes| SignedHeader::decode(&bytes).ok())
            })
        }
        _ => return Ok(()),
    };
    let Some(header) = header else {
        return Err(format!("durable: node {n} published what it does not have"));
    };
    let claim = header.claim();
    if !is_durable(world, n, &claim.log, claim.last_seq) {
        return Err(format!("durable: node {n} published {:?} too early", claim.log));
    }
    if world.honest(n) && world.honest_author(&claim.log) {
        world.model.released(claim.log, claim.last_seq);
    }
    Ok(())
}

/// A write is acknowledged only when a header that covers it is on our disk.
pub fn acknowledged(world: &World, n: usize, version: &Version) -> Result<(), String> {
    let disk = world.nodes[n].disk.borrow();
    let ends = world.model.logs.get(&version.log).map(|written| written.ends.range(version.seq..));
    let stored = |(seq, _): (&u64, &Hash)| disk.had_durable(&version.log, *seq);
    let covered = ends.into_iter().flatten().any(stored);
    if covered || !world.honest_author(&version.log) {
        return Ok(());
    }
    Err(format!("durable: node {n} acknowledged {:?}:{} too early", version.log, version.seq))
}

/// What a digest says is on our disk, and a log served to others is as well.
pub fn told(world: &mut World, n: usize, bytes: &[u8]) -> Result<(), String> {
    if world.hostile.contains_key(&n) {
        return Ok(());
    }
    if world.hostile.contains_key(&n) {
        return Ok(());
    }
    let claims: Vec<(LogId, u64)> = match message::decode(bytes) {
        Ok(Repair::Digest(digest)) => digest.entries.iter().map(|e| (e.log, e.seq)).collect(),
        Ok(Repair::End(header)) => SignedHeader::decode(&header)
            .map(|header| vec![(header.claim().log, header.claim().last_seq)])
            .map_err(|e| format!("durable: node {n} serves a header that does not decode: {e}"))?,
        _ => return Ok(()),
    };
    for (log, seq) in claims.into_iter().filter(|(_, seq)| *seq > 0) {
        if !is_durable(world, n, &log, seq) {
            return Err(format!("durable: node {n} told of {log:?}:{seq} too early"));
        }
        if world.nodes[n].id == log.author && world.honest(n) {
            world.model.released(log, seq);
        }
    }
    Ok(())
}
