//! The grammar of operations that a hostile author draws from: every tag, body and context that its rights
//! allow, and some that they do not.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::id::{DeviceId, Hash, Hash8, LogId, Version};
use swarmkv_protocol::limits::MAX_CTX;
use swarmkv_protocol::model::cell::{Cell, Tag};
use swarmkv_protocol::model::counter::{Amount, Part};
use swarmkv_protocol::op::{Body, Op, Until};

use super::author::{Granted, History};
use crate::rng::Rng;

/// What a hostile author knows of the swarm when it signs.
pub struct Sight {
    pub wall: u64,
    pub keys: u64,
    pub roster: Hash,
    /// Writes of others on cells, by index key.
    pub seen: BTreeMap<Bytes, Vec<Version>>,
    pub members: Vec<DeviceId>,
}

pub fn operation(rng: &mut Rng, world: &Sight, history: &History, grant: &Granted) -> Op {
    let cell = cell(rng, world, grant);
    let body = body(rng, history, &cell);
    let ctx = context(rng, world, history, &cell);
    let took = if rng.percent(15) { parts(rng, world, history) } else { Vec::new() };
    let expires_at = rng.percent(12).then(|| match rng.below(4) {
        0 => rng.next(),
        1 => 0,
        2 => world.wall.saturating_sub(rng.below(90_000)),
        _ => world.wall.saturating_add(rng.below(90_000)),
    });
    Op { cell, body, ctx, took, expires_at }
}

fn cell(rng: &mut Rng, world: &Sight, grant: &Granted) -> Cell {
    let name = match rng.below(10) {
        0..6 => format!("k{}", rng.below(world.keys)),
        6 => format!("c{}", rng.below(3)),
        7 => format!("u{}", rng.below(30)),
        _ => format!("h{}", rng.below(200)),
    };
    let outside = rng.percent(2);
    let key = if name.as_bytes().starts_with(&grant.prefix) || outside {
        name.into_bytes()
    } else {
        [&grant.prefix[..], name.get(1..).unwrap_or("0").as_bytes()].concat()
    };
    let tag = match rng.below(20) {
        0 => Tag::Ttl,
        1 => Tag::Set,
        2 | 3 => Tag::Map,
        _ => Tag::Value,
    };
    let field =
        tag.has_field().then(|| Bytes(vec![b'f', u8::try_from(rng.below(4)).expect("few")]));
    Cell { key: Bytes(key), tag, field }
}

fn body(rng: &mut Rng, history: &History, cell: &Cell) -> Body {
    if rng.percent(8) {
        return Body::Forget(forgotten(rng, history));
    }
    match (cell.tag, rng.below(10)) {
        (_, 0 | 1) => Body::Delete,
        (Tag::Ttl, _) => {
            Body::Until(Until { at: Some(rng.next() >> rng.below(60)), governs: Vec::new() })
        }
        (Tag::Set, _) => Body::Element,
        (_, 2) => {
            let me = Part {
                log: history.log,
                first_seq: rng.below(20),
                up: amount(rng),
                down: amount(rng),
            };
            Body::Counter(vec![me])
        }
        (_, 3) => Body::Put(Bytes(rng.below(1_000).to_string().into_bytes())),
        _ => {
            let len = if rng.percent(4) { rng.range(2_000, 30_000) } else { rng.range(0, 90) };
            Body::Put(Bytes(vec![0x68; usize::try_from(len).expect("small")]))
        }
    }
}

fn amount(rng: &mut Rng) -> Amount {
    match rng.below(4) {
        0 => Amount((1 << 96) - 1),
        1 => Amount(0),
        _ => Amount(u128::from(rng.below(1_000))),
    }
}

/// Own slots, that are there, were there, or never were.
fn forgotten(rng: &mut Rng, history: &History) -> Vec<Version> {
    let mut named: Vec<Version> = Vec::new();
    for (slot, _) in history.live.values() {
        if named.len() < 5 && rng.percent(30) {
            let mut version = slot.version();
            if rng.percent(15) {
                version.hash = Hash8::new(rng.bytes());
            }
            named.push(version);
        }
    }
    if named.is_empty() {
        let seq = rng.below(history.seq.saturating_add(20).max(1));
        named.push(Version { log: history.log, seq, hash: Hash8::new(rng.bytes()) });
    }
    named.sort_unstable();
    named
}

fn parts(rng: &mut Rng, world: &Sight, history: &History) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for _ in 0..rng.below(4) {
        let author = world.members[rng.index(world.members.len())];
        let log = LogId { author, epoch: rng.next() >> rng.below(64), shard: 0 };
        let log = if rng.percent(30) { history.log } else { log };
        parts.push(Part { log, first_seq: rng.below(9), up: amount(rng), down: amount(rng) });
    }
    parts.sort_unstable();
    parts.dedup_by_key(|part| part.id());
    parts
}

/// What a write says it has seen: true, false, of the future, of logs that are none, at most too much.
fn context(rng: &mut Rng, world: &Sight, history: &History, cell: &Cell) -> Vec<Version> {
    let mut ctx: Vec<Version> = Vec::new();
    if rng.percent(70) {
        ctx.extend(world.seen.get(&cell.index_key()).into_iter().flatten().copied());
    }
    for version in &mut ctx {
        match rng.below(14) {
            0 => version.hash = Hash8::new(rng.bytes()),
            1 => version.seq = version.seq.saturating_add(rng.below(30)),
            2 => version.seq = u64::MAX - rng.below(3),
            _ => {}
        }
    }
    let extra = match rng.below(30) {
        0 => MAX_CTX as u64,
        1..6 => rng.below(6),
        _ => 0,
    };
    for _ in 0..extra {
        let known: Option<Version> = world.seen.values().flatten().next().copied();
        let author = world.members[rng.index(world.members.len())];
        let log = LogId { author, epoch: rng.next() >> rng.below(64), shard: 0 };
        let log = known.filter(|_| rng.percent(30)).map_or(log, |known| known.log);
        ctx.push(Version { log, seq: rng.below(60), hash: Hash8::new(rng.bytes()) });
    }
    ctx.retain(|version| version.log != history.log);
    ctx.sort_unstable();
    ctx.dedup();
    ctx.truncate(MAX_CTX + usize::from(rng.percent(1)));
    ctx
}

/// An operation with numbers that only a later version has, or a context that is out of order: raw bytes.
pub fn later(rng: &mut Rng) -> Bytes {
    let (tag, body) = if rng.percent(50) { (9u8, 0u8) } else { (0, 9) };
    let nothing: Vec<u64> = Vec::new();
    let field: Option<Bytes> = None;
    let op = (
        Bytes(b"k0".to_vec()),
        tag,
        field,
        body,
        Bytes(b"later".to_vec()),
        &nothing,
        &nothing,
        None::<u64>,
    );
    Bytes(codec::encode(&op))
}
