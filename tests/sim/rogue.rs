//! A member that lies: changed bytes, forged signatures, replays, floods, and as a relay omissions,
//! inventions and false digests.

use std::rc::Rc;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, Header};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::digest::Entry;
use swarmkv_protocol::id::{Hash, Hash8, LogId};
use swarmkv_protocol::limits::{MAX_GOSSIP, VERSION};
use swarmkv_protocol::live_root::Totals;
use swarmkv_protocol::message::{self, Gossip, Plan, Repair};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op, Slot};
use swarmkv_protocol::time::Hlc;

use crate::rng::Rng;
use crate::world::World;

/// Changes bytes in one of the ways that carry no meaning.
fn mangle(rng: &mut Rng, bytes: &mut Vec<u8>) {
    if bytes.is_empty() {
        return;
    }
    let at = rng.index(bytes.len());
    match rng.below(4) {
        0 => bytes[at] ^= 1 << rng.below(8),
        1 => bytes.truncate(at),
        2 => bytes.push(0),
        _ => {
            bytes.insert(at, 0x18);
        }
    }
}

/// What a rogue makes of a message that it ought to pass on.
pub fn gossip(world: &mut World, n: usize, bytes: &Rc<[u8]>) -> Rc<[u8]> {
    let mut out = bytes.to_vec();
    match world.rng.below(12) {
        0 | 1 => mangle(&mut world.rng, &mut out),
        2 => out = vec![0; MAX_GOSSIP + 1],
        3 if !world.replay.is_empty() => {
            let pick = world.rng.index(world.replay.len());
            return Rc::clone(&world.replay[pick]);
        }
        4 => out = message::encode(&Gossip::Statement(Bytes(vec![0x82; 40]))),
        // Hostile members sign by their own hand: one that answers each message with a new one makes a storm.
        5 | 6 if world.hostile.is_empty() => out = forged(world, n),
        _ => {}
    }
    out.into()
}

/// A commit that its author signs, with one thing wrong: grant, author, root, stamp.
fn forged(world: &mut World, n: usize) -> Vec<u8> {
    let rng = &mut world.rng;
    let node = &world.nodes[n];
    let Some(engine) = node.engine.as_ref() else { return Vec::new() };
    let victim = world.nodes[0].id;
    let author = if rng.percent(50) { node.id } else { victim };
    let log = LogId { author, epoch: rng.next(), shard: 0 };
    let grant = match rng.below(3) {
        0 => Hash::new(rng.bytes()),
        _ => engine.roster().member(&author).map(|m| m.grant).unwrap_or_default(),
    };
    let op = Op {
        cell: Cell::value(b"k0".as_slice()),
        body: Body::Put(b"forged".as_slice().into()),
        ctx: Vec::new(),
        took: Vec::new(),
        expires_at: None,
    };
    let hlc = Hlc(rng.next());
    let bytes = codec::encode(&op);
    let mut totals = Totals::default();
    totals.add(&Slot { log, seq: 1, hlc, op, size: bytes.len() });
    // The root is right now and then: then only the signature is not.
    let live_root = if rng.percent(70) { totals.root() } else { Hash::new(rng.bytes()) };
    let op = bytes;
    let size = (op.len() as u64).to_be_bytes();
    let header = Header {
        version: VERSION,
        swarm: engine.roster().swarm(),
        grant,
        log,
        last_seq: 1,
        count: 1,
        hlc,
        prev: Hash::default(),
        ops_hash: crypto::hash(Domain::Ops, &[&size, &op]),
        live_root,
        live_count: 1,
        live_bytes: op.len() as u64,
        roster: engine.roster().hash(),
        counted_from: 1 + rng.below(2),
    };
    let body = codec::encode(&header);
    let sig = DeviceKey::from_seed(&node.seed).sign(Domain::Commit, &body);
    let sealed = codec::encode(&(Bytes(body), sig));
    message::encode(&Gossip::Commit(Bytes(
        commit::pack(&sealed, vec![Bytes(op)]).expect("a header"),
    )))
}

/// What a rogue makes of a frame; `None`: keeps silent.
pub fn frame(world: &mut World, s: usize, bytes: Vec<u8>) -> Option<Vec<u8>> {
    if world.rng.percent(60) {
        world.sessions[s].sent.push(bytes.clone());
        return Some(bytes);
    }
    let rng = &mut world.rng;
    match rng.below(10) {
        0 => return None,
        1 => {
            let mut out = bytes;
            mangle(rng, &mut out);
            return Some(out);
        }
        2 => {
            let old = &world.sessions[s].sent;
            let pick = world.rng.index(old.len().max(1));
            return Some(world.sessions[s].sent.get(pick).cloned().unwrap_or(bytes));
        }
        _ => {}
    }
    let Ok(mut repair) = message::decode::<Repair>(&bytes) else { return Some(bytes) };
    twist(rng, &mut repair);
    Some(message::encode(&repair))
}

/// Changes the meaning of a frame.
fn twist(rng: &mut Rng, repair: &mut Repair) {
    match repair {
        Repair::Slots(slots) => {
            let at = rng.index(slots.len());
            match rng.below(5) {
                0 => {
                    slots.remove(at);
                }
                1 => slots[at].hlc = Hlc(slots[at].hlc.0.wrapping_add(1)),
                2 => slots[at].seq = slots[at].seq.saturating_add(rng.below(1 << 40)),
                3 => slots.truncate(at),
                _ => change_value(rng, &mut slots[at].op),
            }
        }
        Repair::End(header) => mangle(rng, &mut header.0),
        Repair::Start(start) => match rng.below(4) {
            3 => start.compare = !start.compare,
            0 => start.from = rng.below(100),
            1 => start.base = Hash8::new(rng.bytes()),
            _ => start.log.epoch ^= 1,
        },
        Repair::Digest(digest) => {
            match rng.below(10) {
                0..3 => digest.since = 0,
                3 => digest.since = rng.below(5),
                4 => digest.number = rng.below(5),
                _ => {}
            }
            for entry in &mut digest.entries {
                lie(rng, entry);
            }
            if rng.percent(10) {
                let log = |epoch| LogId { epoch, ..LogId::from_bytes(&[0xee; LogId::LEN]) };
                let entry = |epoch| Entry {
                    log: log(epoch),
                    seq: 9,
                    head: Hash8::default(),
                    staged: 0,
                    refused: None,
                    compare: false,
                };
                digest.entries = (0..9_000).map(entry).collect();
            }
        }
        Repair::Plan(plan) => {
            if rng.percent(50) {
                plan.logs.clear();
            } else {
                *plan = Plan {
                    complete: plan.complete,
                    logs: vec![plan.logs.first().copied(); 3].into_iter().flatten().collect(),
                };
            }
        }
        Repair::Hello(hash) | Repair::Differs(hash) => *hash = Hash::new(rng.bytes()),
        Repair::Statements(statements) => {
            statements.missing.push(Bytes(vec![0x82; 64]));
            statements.names.reverse();
        }
        Repair::Roster(names) => names.reverse(),
        Repair::Except(places) => places.extend([0, u32::MAX]),
        Repair::Sums(_) | Repair::Ask(_) | Repair::Names(_) => twist_comparison(rng, repair),
        Repair::Done | Repair::Same(_) | Repair::TellAll => {}
    }
}

/// The same for the frames of a comparison.
fn twist_comparison(rng: &mut Rng, repair: &mut Repair) {
    match repair {
        Repair::Sums(sums) => match rng.below(4) {
            0 => sums.last = !sums.last,
            1 => sums.blocks.reverse(),
            _ => sums.blocks.iter_mut().for_each(|block| block.sum = Hash8::new(rng.bytes())),
        },
        Repair::Ask(ask) => match rng.below(4) {
            0 => ask.ranges.clear(),
            1 => ask.wanted.clear(),
            2 => ask.wanted.extend([0, u64::MAX]),
            _ => ask
                .ranges
                .iter_mut()
                .for_each(|range| range.upto = range.upto.saturating_add(rng.below(9))),
        },
        Repair::Names(names) => match rng.below(4) {
            0 => names.upto = rng.below(100),
            1 => names.names.reverse(),
            2 => names.names.truncate(1),
            _ => names.names.iter_mut().for_each(|named| named.name = Hash8::new(rng.bytes())),
        },
        _ => {}
    }
}

fn lie(rng: &mut Rng, entry: &mut Entry) {
    match rng.below(6) {
        0 => entry.seq = entry.seq.saturating_add(rng.below(1_000)),
        1 => entry.seq = entry.seq.saturating_sub(rng.below(20)),
        2 => entry.staged = rng.next(),
        3 => entry.head = Hash8::new(rng.bytes()),
        _ => {}
    }
}

fn change_value(rng: &mut Rng, bytes: &mut Bytes) {
    if let Ok(mut op) = Op::read(bytes) {
        match rng.below(3) {
            // As long as before: only the root can tell.
            0 => op.ctx.iter_mut().for_each(|named| named.hash = Hash8::new(rng.bytes())),
            1 => op.body = Body::Delete,
            _ => op.body = Body::Put(b"false".as_slice().into()),
        }
        *bytes = Bytes(codec::encode(&op));
    }
}

/// What a rogue does of its own accord.
pub fn act(world: &mut World, n: usize) {
    if world.nodes[n].engine.is_none() || !world.rng.percent(20) {
        return;
    }
    let bytes: Rc<[u8]> = forged(world, n).into();
    for peer in 0..world.nodes.len() - 1 {
        if world.links.contains_key(&(peer.min(n), peer.max(n))) {
            world.post(n, peer, Rc::clone(&bytes));
        }
    }
}
