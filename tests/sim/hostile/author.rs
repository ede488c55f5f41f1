//! A member that signs whatever history it likes: every field of a header and an operation is drawn, true,
//! odd or false.

use std::collections::BTreeMap;
use std::rc::Rc;

use swarmkv_protocol::codec::{self, Bytes};
use swarmkv_protocol::commit::{self, Header};
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::id::{DeviceId, Hash, LogId, SwarmId};
use swarmkv_protocol::limits::{MAX_BRANCHES, MAX_GOSSIP, MAX_LOGS_PER_AUTHOR, VERSION};
use swarmkv_protocol::live_root::Totals;
use swarmkv_protocol::message::{self, Gossip};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::op::{Body, Op, Slot};
use swarmkv_protocol::time::Hlc;

use super::grammar::{Sight, later, operation};
use crate::rng::Rng;
use crate::world::World;

/// A grant that a hostile author holds.
#[derive(Clone, Debug)]
pub struct Granted {
    pub name: Hash,
    pub prefix: Bytes,
}

/// A commit as it was signed.
#[derive(Clone)]
pub struct Signed {
    pub header: Header,
    pub bytes: Bytes,
    pub ops: Vec<Bytes>,
    slots: Vec<(Slot, Bytes)>,
}

impl Signed {
    pub fn hash(&self) -> Hash {
        crypto::hash(Domain::Header, &[&self.bytes])
    }

    /// As gossip: whole, or announced only.
    pub fn gossip(&self, announce: bool) -> Vec<u8> {
        let packed = commit::pack(&self.bytes, self.ops.clone()).ok().filter(|_| !announce);
        let whole = packed.map(|packed| message::encode(&Gossip::Commit(Bytes(packed))));
        match whole.filter(|whole| whole.len() <= MAX_GOSSIP) {
            Some(whole) => whole,
            None => message::encode(&Gossip::Announce(self.bytes.clone())),
        }
    }
}

/// A history that its author goes on with.
#[derive(Clone)]
pub struct History {
    pub log: LogId,
    grant: usize,
    pub commits: Vec<Signed>,
    pub live: BTreeMap<Bytes, (Slot, Bytes)>,
    totals: Totals,
    pub(super) seq: u64,
    hlc: u64,
}

impl History {
    fn new(log: LogId, grant: usize, seq: u64, hlc: u64) -> Self {
        Self {
            log,
            grant,
            commits: Vec::new(),
            live: BTreeMap::new(),
            totals: Totals::default(),
            seq,
            hlc,
        }
    }

    /// The first `keep` commits alone: from there another history begins.
    fn fork(&self, keep: usize) -> Self {
        let mut fork = Self::new(self.log, self.grant, 0, self.hlc);
        for signed in &self.commits[..keep] {
            fork.take(&signed.slots);
            fork.seq = signed.header.last_seq;
            fork.commits.push(signed.clone());
        }
        fork
    }

    fn take(&mut self, slots: &[(Slot, Bytes)]) {
        for pair in slots {
            if let Body::Forget(named) = &pair.0.op.body {
                for version in named {
                    let there = self.live.iter().find(|(_, (slot, _))| slot.version() == *version);
                    if let Some(cell) = there.map(|(cell, _)| cell.clone()) {
                        let (slot, _) = self.live.remove(&cell).expect("just found");
                        self.totals.remove(&slot);
                    }
                }
                continue;
            }
            self.totals.add(&pair.0);
            if let Some((older, _)) = self.live.insert(pair.0.op.cell.index_key(), pair.clone()) {
                self.totals.remove(&older);
            }
        }
    }
}

/// All that one hostile author has signed.
pub struct Author {
    me: DeviceId,
    key: DeviceKey,
    swarm: SwarmId,
    pub grants: Vec<Granted>,
    pub histories: Vec<History>,
    next_epoch: u64,
    /// How often it opens a log, and how often it signs something odd, in percent.
    opens: u64,
    odd: u64,
    /// Commits that were signed, in any order, and may be handed out again.
    pub signed: Vec<Signed>,
}

/// Histories kept at once: more would only make seeds slow.
const MOST: usize = 3 * MAX_LOGS_PER_AUTHOR;

impl Author {
    pub fn new(rng: &mut Rng, key: DeviceKey, swarm: SwarmId, grants: Vec<Granted>) -> Self {
        let (histories, signed) = (Vec::new(), Vec::new());
        let opens = [4, 12, 50][rng.index(3)];
        let odd = [10, 38, 80][rng.index(3)];
        Self {
            me: key.id(),
            key,
            swarm,
            grants,
            histories,
            next_epoch: 1 << 20,
            opens,
            odd,
            signed,
        }
    }

    /// One that signs nothing odd: see [`Author::plain`].
    pub fn simple(key: DeviceKey, swarm: SwarmId, grant: Hash) -> Self {
        let grants = vec![Granted { name: grant, prefix: Bytes::default() }];
        Self { opens: 0, odd: 0, ..Self::new(&mut Rng::new(0), key, swarm, grants) }
    }

    /// Signs a true write, next in the log of this epoch.
    pub fn plain(&mut self, epoch: u64, key: &[u8], change: impl FnOnce(&mut Header)) -> Signed {
        let log = LogId { author: self.me, epoch, shard: 0 };
        let found = self.histories.iter().position(|history| history.log == log);
        let at = found.unwrap_or_else(|| {
            self.histories.push(History::new(log, 0, 0, 1_700_000_000_000 << 16));
            self.histories.len() - 1
        });
        let before = self.histories[at].clone();
        let mut after = before.clone();
        (after.seq, after.hlc) = (before.seq + 1, before.hlc + 1);
        let (cell, body) = (Cell::value(key), Body::Put(Bytes(vec![7; 40])));
        let op = Op { cell, body, ctx: Vec::new(), took: Vec::new(), expires_at: None };
        let bytes = Bytes(codec::encode(&op));
        let size = bytes.len();
        let slots = vec![(Slot { log, seq: after.seq, hlc: Hlc(after.hlc), op, size }, bytes)];
        after.take(&slots);
        let mut header = self.header(Hash::default(), 1, &before, &after, &slots);
        change(&mut header);
        let signed = self.seal(header, slots);
        after.commits.push(signed.clone());
        self.histories[at] = after;
        signed
    }

    /// Signs one commit of some history; what it comes to is to be handed out.
    pub fn act(&mut self, rng: &mut Rng, world: &Sight) -> Option<Signed> {
        if self.grants.is_empty() {
            return None;
        }
        let at = self.choose(rng, world);
        let mut history = self.histories[at].clone();
        let grant = history.grant;
        // One log under two grants.
        let changes = rng.percent(5);
        if changes {
            history.grant = rng.index(self.grants.len());
        }
        let count = match rng.below(40) {
            0 => rng.range(257, 330),
            1..12 => rng.range(2, 7),
            _ => 1,
        };
        let mut next = history.clone();
        let slots: Vec<(Slot, Bytes)> = {
            let hlc = stamp(rng, history.hlc, world.wall);
            next.hlc = hlc;
            (1..=count)
                .filter_map(|n| self.slot(rng, world, &history, history.seq.checked_add(n)?, hlc))
                .collect()
        };
        let last_seq = history.seq.checked_add(slots.len() as u64).filter(|_| !slots.is_empty())?;
        next.seq = last_seq;
        next.take(&slots);
        let roster = if rng.percent(80) { world.roster } else { Hash::new(rng.bytes()) };
        let counted_from = if rng.percent(80) { 1 } else { rng.next() };
        let header = self.header(roster, counted_from, &history, &next, &slots);
        let (header, odd) = twist(rng, header, self, &history);
        history.grant = grant;
        let signed = self.seal(header, slots);
        next.commits.push(signed.clone());
        // A commit that nobody can take is mostly left aside; what comes after it then forks the log.
        if (odd || changes) && rng.percent(75) {
            if rng.percent(50) {
                self.histories[at] = history;
            }
        } else {
            self.histories[at] = next;
        }
        self.signed.push(signed.clone());
        Some(signed)
    }

    fn choose(&mut self, rng: &mut Rng, world: &Sight) -> usize {
        let opens = self.histories.is_empty() || rng.percent(self.opens);
        // Who opens few logs forks them the more.
        let forks = !opens && rng.percent(if self.opens < 5 { 35 } else { 12 });
        if forks {
            let of = &self.histories[rng.index(self.histories.len())];
            let fork = of.fork(rng.index(of.commits.len() + 1));
            let same = self.histories.iter().filter(|h| h.log == fork.log).count();
            if same <= 2 * MAX_BRANCHES {
                self.histories.push(fork);
            }
        } else if opens {
            self.next_epoch += 1 << rng.below(34);
            let epoch = match rng.below(12) {
                0 => u64::MAX,
                1 => u64::MAX - rng.below(8),
                2 => rng.below(4),
                3..6 => u64::MAX / 2 - self.next_epoch,
                _ => self.next_epoch,
            };
            let shard = if rng.percent(3) { 1 } else { 0 };
            let log = LogId { author: self.me, epoch, shard };
            let seq = match rng.below(20) {
                0 => u64::MAX - rng.range(2, 20),
                1 => rng.below(1 << 40),
                _ => 0,
            };
            let grant = rng.index(self.grants.len());
            self.histories.push(History::new(log, grant, seq, world.wall << 16));
        }
        if self.histories.len() > MOST {
            let gone = rng.index(self.histories.len());
            self.histories.remove(gone);
        }
        if opens || forks { self.histories.len() - 1 } else { rng.index(self.histories.len()) }
    }

    fn header(
        &self,
        roster: Hash,
        counted_from: u64,
        before: &History,
        after: &History,
        slots: &[(Slot, Bytes)],
    ) -> Header {
        let grant = self.grants[before.grant % self.grants.len()].name;
        let prev = before.commits.last().map(Signed::hash).unwrap_or_default();
        let ops: Vec<Bytes> = slots.iter().map(|(_, bytes)| bytes.clone()).collect();
        Header {
            version: VERSION,
            swarm: self.swarm,
            grant,
            log: before.log,
            last_seq: after.seq,
            count: u32::try_from(slots.len()).unwrap_or(1),
            hlc: Hlc(after.hlc),
            prev,
            ops_hash: ops_hash(&ops),
            live_root: after.totals.root(),
            live_count: after.totals.count(),
            live_bytes: after.totals.bytes(),
            roster,
            counted_from,
        }
    }

    fn seal(&self, header: Header, slots: Vec<(Slot, Bytes)>) -> Signed {
        let ops = slots.iter().map(|(_, bytes)| bytes.clone()).collect();
        let body = codec::encode(&header);
        let sig = self.key.sign(Domain::Commit, &body);
        let bytes = Bytes(codec::encode(&(Bytes(body), sig)));
        Signed { header, bytes, ops, slots }
    }

    fn slot(
        &self,
        rng: &mut Rng,
        world: &Sight,
        history: &History,
        seq: u64,
        hlc: u64,
    ) -> Option<(Slot, Bytes)> {
        let grant = &self.grants[history.grant % self.grants.len()];
        let op = operation(rng, world, history, grant);
        let mut bytes = codec::encode(&op);
        if rng.below(150) == 0 {
            let at = rng.index(bytes.len());
            bytes[at] ^= 1 << rng.below(8);
        }
        let size = bytes.len();
        Some((Slot { log: history.log, seq, hlc: Hlc(hlc), op, size }, Bytes(bytes)))
    }
}

fn ops_hash(ops: &[Bytes]) -> Hash {
    let mut parts: Vec<Vec<u8>> = Vec::new();
    for op in ops {
        parts.push((op.len() as u64).to_be_bytes().to_vec());
        parts.push(op.to_vec());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    crypto::hash(Domain::Ops, &parts)
}

/// A stamp: mostly a little later than the last.
fn stamp(rng: &mut Rng, last: u64, wall: u64) -> u64 {
    match rng.below(40) {
        0 => last,
        1 => last.saturating_sub(rng.below(1 << 30)),
        2 => u64::MAX,
        3 => rng.next(),
        4..10 => (wall << 16).max(last.saturating_add(1)),
        _ => last.saturating_add(1 + rng.below(1 << 20)),
    }
}

/// Makes one thing of a header odd or false now and then; says whether it did.
fn twist(rng: &mut Rng, mut header: Header, author: &Author, history: &History) -> (Header, bool) {
    if !rng.percent(author.odd) {
        return (header, false);
    }
    match rng.below(18) {
        0 => header.last_seq = header.last_seq.saturating_add(rng.below(9)),
        1 => header.last_seq = u64::from(header.count),
        2 => header.last_seq = u64::MAX - rng.below(3),
        3 => header.count = u32::try_from(rng.below(5)).expect("small"),
        4 => header.count = u32::MAX,
        5 => header.prev = Hash::new(rng.bytes()),
        6 => header.prev = Hash::default(),
        7 if !author.signed.is_empty() => {
            header.prev = author.signed[rng.index(author.signed.len())].hash();
        }
        8 | 9 => header.live_root = Hash::new(rng.bytes()),
        10 => header.live_bytes = u64::MAX,
        11 => header.live_bytes = header.live_bytes.saturating_add(rng.below(20_000)),
        12 => header.live_bytes = 0,
        13 => header.live_count = rng.next(),
        14 => header.grant = author.grants[rng.index(author.grants.len())].name,
        15 => header.grant = Hash::new(rng.bytes()),
        16 => header.version = 1 + u8::try_from(rng.below(2)).expect("small"),
        _ => header.hlc = Hlc(history.hlc),
    }
    (header, true)
}

impl Author {
    /// A commit with an operation of a later version.
    pub fn of_later_version(&mut self, rng: &mut Rng, world: &Sight) -> Option<Signed> {
        let grant = self.grants.first()?.name;
        let ops = vec![later(rng)];
        self.next_epoch += 1;
        let log = LogId { author: self.me, epoch: self.next_epoch, shard: 0 };
        let header = Header {
            version: VERSION,
            swarm: self.swarm,
            grant,
            log,
            last_seq: 1,
            count: 1,
            hlc: Hlc(world.wall << 16),
            prev: Hash::default(),
            ops_hash: ops_hash(&ops),
            live_root: Hash::new(rng.bytes()),
            live_count: 1,
            live_bytes: 40,
            roster: world.roster,
            counted_from: 1,
        };
        let mut signed = self.seal(header, Vec::new());
        signed.ops = ops;
        Some(signed)
    }
}

impl World {
    /// What a hostile author sees of the swarm: the replica it runs.
    pub fn sight(&self, n: usize) -> Option<Sight> {
        let engine = self.nodes[n].engine.as_ref()?;
        let mut seen = BTreeMap::new();
        let keys: Vec<Bytes> = self.nodes[n].disk.borrow().visible.keys().cloned().collect();
        for key in keys.into_iter().take(24) {
            let view = self.view(n, &key);
            let versions = view.iter().flat_map(|view| view.seen().map(|seen| seen.version));
            seen.insert(key, versions.collect());
        }
        Some(Sight {
            wall: self.nodes[n].now(self.time).wall,
            keys: self.plan.keys,
            roster: engine.roster().hash(),
            seen,
            members: self.nodes.iter().map(|node| node.id).collect(),
        })
    }

    /// Hands a message to some neighbours.
    pub fn hand_out(&mut self, n: usize, bytes: Vec<u8>, chance: u64) {
        let bytes: Rc<[u8]> = bytes.into();
        for peer in 0..self.nodes.len() {
            let linked = self.links.contains_key(&(peer.min(n), peer.max(n)));
            if peer != n && linked && self.rng.percent(chance) {
                self.post(n, peer, Rc::clone(&bytes));
            }
        }
    }
}
