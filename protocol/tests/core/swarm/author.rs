//! An author that signs whatever a test wants: any sequence of commits, true and false roots, any grant,
//! epoch, shard and stamp.

use std::collections::BTreeMap;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, Header};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::id::{Hash, LogId, SwarmId};
use swarmkv_protocol::limits::VERSION;
use swarmkv_protocol::live_root::Totals;
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op, Slot};
use swarmkv_protocol::roster::Roster;
use swarmkv_protocol::time::Hlc;

use super::Swarm;

/// One log in its hand.
#[derive(Clone)]
pub struct Author {
    key: [u8; 32],
    swarm: SwarmId,
    pub log: LogId,
    pub grant: Hash,
    pub seq: u64,
    pub hlc: u64,
    pub prev: Hash,
    pub totals: Totals,
    live: BTreeMap<Cell, Slot>,
}

impl Author {
    /// A log of node `n`, at its beginning, under its grant.
    pub fn new(swarm: &Swarm, n: usize, epoch: u64) -> Self {
        Self::of(swarm.nodes[0].engine.roster(), super::key(n), epoch, swarm.wall)
    }

    /// A log of the member with this key, at its beginning, under its grant.
    pub fn of(roster: &Roster, key: [u8; 32], epoch: u64, wall: u64) -> Self {
        let author = DeviceKey::from_seed(&key).id();
        Self {
            key,
            swarm: roster.swarm(),
            log: LogId { author, epoch, shard: 0 },
            grant: roster.member(&author).expect("a member").grant,
            seq: 0,
            hlc: Hlc::at(wall).0,
            prev: Hash::default(),
            totals: Totals::default(),
            live: BTreeMap::new(),
        }
    }

    /// The next commit as a gossip message. `bend` has the last word on the header before it is signed.
    pub fn commit(&mut self, ops: Vec<Op>, bend: impl FnOnce(&mut Header)) -> Vec<u8> {
        self.hlc += 1;
        let mut encoded = Vec::new();
        for op in ops {
            self.seq += 1;
            let bytes = codec::encode(&op);
            let (log, seq, hlc) = (self.log, self.seq, Hlc(self.hlc));
            if let Body::Forget(named) = &op.body {
                let gone = |slot: &Slot| named.contains(&slot.version());
                let cells: Vec<Cell> =
                    self.live.iter().filter(|(_, s)| gone(s)).map(|(c, _)| c.clone()).collect();
                for cell in cells {
                    self.totals.remove(&self.live.remove(&cell).expect("just found"));
                }
            } else {
                let slot = Slot { log, seq, hlc, op, size: bytes.len() };
                self.totals.add(&slot);
                if let Some(old) = self.live.insert(slot.op.cell.clone(), slot) {
                    self.totals.remove(&old);
                }
            }
            encoded.push(Bytes(bytes));
        }
        let mut framed = Vec::new();
        for op in &encoded {
            framed.extend((op.len() as u64).to_be_bytes());
            framed.extend_from_slice(op);
        }
        let mut header = Header {
            version: VERSION,
            swarm: self.swarm,
            grant: self.grant,
            log: self.log,
            last_seq: self.seq,
            count: u32::try_from(encoded.len()).expect("few"),
            hlc: Hlc(self.hlc),
            prev: self.prev,
            ops_hash: crypto::hash(Domain::Ops, &[&framed]),
            live_root: self.totals.root(),
            live_count: self.totals.count(),
            live_bytes: self.totals.bytes(),
            roster: Hash::default(),
            counted_from: 1,
        };
        bend(&mut header);
        let body = codec::encode(&header);
        let sig = DeviceKey::from_seed(&self.key).sign(Domain::Commit, &body);
        let sealed = codec::encode(&(Bytes(body), sig));
        self.prev = crypto::hash(Domain::Header, &[&sealed]);
        let commit = commit::pack(&sealed, encoded).expect("a header");
        message::encode(&Gossip::Commit(Bytes(commit)))
    }

    /// A commit of plain values.
    pub fn puts(&mut self, keys: &[&str], value: &str) -> Vec<u8> {
        self.commit(keys.iter().map(|key| op(key, value)).collect(), |_| ())
    }

    /// The live slot on a key.
    pub fn slot(&self, key: &str) -> &Slot {
        &self.live[&Cell::value(key.as_bytes())]
    }
}

pub fn op(key: &str, value: &str) -> Op {
    Op {
        cell: Cell::value(key.as_bytes()),
        body: Body::Put(Bytes(value.into())),
        ctx: Vec::new(),
        took: Vec::new(),
        expires_at: None,
    }
}

/// The header and operations of a gossiped commit.
pub fn parts(swarm: &Swarm, message: &[u8]) -> (Bytes, Vec<Bytes>) {
    let Ok(Gossip::Commit(commit)) = message::decode(message) else { panic!("a whole commit") };
    commit::unpack(&commit, swarm.nodes[0].engine.roster().swarm()).expect("our own form")
}
