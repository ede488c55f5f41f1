//! Messages with one thing wrong, and genuine ones that nobody honest would send so many of.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use swarmkv_node::protocol::codec::{self, Bytes};
use swarmkv_node::protocol::commit::{self, Header, SignedHeader};
use swarmkv_node::protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_node::protocol::engine::Engine;
use swarmkv_node::protocol::id::{BranchId, DeviceId, Hash, LogId, SwarmId};
use swarmkv_node::protocol::io::{Change, Input, Output, Token};
use swarmkv_node::protocol::limits::VERSION;
use swarmkv_node::protocol::live_root::Totals;
use swarmkv_node::protocol::memory::MemoryStore;
use swarmkv_node::protocol::message::{self, Gossip};
use swarmkv_node::protocol::model::cell::Cell;
use swarmkv_node::protocol::op::{Body, Op, Slot};
use swarmkv_node::protocol::roster::Roster;
use swarmkv_node::protocol::store::{RawSlot, Recovered, Store, StoreError};
use swarmkv_node::protocol::time::{Hlc, Now};

use super::bytes;

/// Seconds from 1970 to 2100.
const FAR_FUTURE_S: u64 = 4_102_444_800;

/// Signs whatever it is told to.
pub(super) struct Forger {
    key: DeviceKey,
    swarm: SwarmId,
    roster: Roster,
    /// An honest engine in a dishonest hand: what it signs is genuine.
    engine: Engine<Shared>,
    disk: Shared,
    mono: u64,
}

impl Forger {
    pub(super) fn new(seed: u8, roster: &Roster) -> Result<Self, String> {
        let key = DeviceKey::from_seed(&[seed; 32]);
        let disk = Shared::default();
        Ok(Self {
            engine: engine(seed, roster, 1, &disk)?,
            disk,
            swarm: roster.swarm(),
            roster: roster.clone(),
            key,
            mono: 0,
        })
    }

    /// A commit of one write in a log of its own, signed by this key, with the fields as given.
    fn commit(&self, n: u64, author: DeviceId, grant: Hash, change: impl Fn(&mut Header)) -> Bytes {
        let log = LogId { author, epoch: n, shard: 0 };
        let op = put("attack/forged", bytes(n, 40));
        let encoded = codec::encode(&op);
        let hlc = Hlc((FAR_FUTURE_S * 1_000) << 16 | n);
        let mut totals = Totals::default();
        totals.add(&Slot { log, seq: 1, hlc, op, size: encoded.len() });
        let size = (encoded.len() as u64).to_be_bytes();
        let mut header = Header {
            version: VERSION,
            swarm: self.swarm,
            grant,
            log,
            last_seq: 1,
            count: 1,
            hlc,
            prev: Hash::default(),
            ops_hash: crypto::hash(Domain::Ops, &[&size, &encoded]),
            live_root: totals.root(),
            live_count: 1,
            live_bytes: encoded.len() as u64,
            roster: self.roster.hash(),
            counted_from: 1,
        };
        change(&mut header);
        let body = codec::encode(&header);
        let sig = self.key.sign(Domain::Commit, &body);
        let sealed = codec::encode(&(Bytes(body), sig));
        Bytes(commit::pack(&sealed, vec![Bytes(encoded)]).expect("a header"))
    }

    fn mine(&self) -> (DeviceId, Hash) {
        let me = self.key.id();
        (me, self.roster.member(&me).map(|m| m.grant).unwrap_or_default())
    }

    fn owner(&self) -> (DeviceId, Hash) {
        let owner = self.roster.genesis().owner;
        (owner, self.roster.member(&owner).map(|m| m.grant).unwrap_or_default())
    }

    /// Random-looking bytes.
    pub(super) fn garbage(n: u64) -> Vec<u8> {
        let mut out = vec![VERSION];
        out.extend(noise(n));
        out
    }

    /// A write in the owner's name.
    pub(super) fn forged(&self, n: u64) -> Vec<u8> {
        let (author, grant) = self.owner();
        message::encode(&Gossip::Commit(self.commit(n, author, grant, |_| {})))
    }

    /// A write of this device under the owner's grant.
    pub(super) fn not_granted(&self, n: u64) -> Vec<u8> {
        let (author, grant) = (self.mine().0, self.owner().1);
        message::encode(&Gossip::Commit(self.commit(n, author, grant, |_| {})))
    }

    /// A write that was signed for another swarm.
    pub(super) fn cross_swarm(&self, n: u64) -> Vec<u8> {
        let (author, grant) = self.mine();
        let other = |header: &mut Header| header.swarm = SwarmId::new([7; 32]);
        message::encode(&Gossip::Commit(self.commit(n, author, grant, other)))
    }

    /// A genuine write with a byte after its end.
    pub(super) fn not_canonical(&self, n: u64) -> Vec<u8> {
        let (author, grant) = self.mine();
        let mut out = message::encode(&Gossip::Commit(self.commit(n, author, grant, |_| {})));
        out.push(0);
        out
    }

    /// A message over the limit.
    pub(super) fn oversize(n: u64) -> Vec<u8> {
        message::encode(&Gossip::Commit(bytes(n, 62 * 1024)))
    }

    /// A genuine header of somebody else's over other operations.
    pub(super) fn false_ops(&self, genuine: &[u8], n: u64) -> Option<Vec<u8>> {
        let Ok(Gossip::Commit(commit)) = message::decode(genuine) else { return None };
        let (header, mut ops) = commit::unpack(&commit, self.roster.swarm()).ok()?;
        SignedHeader::decode(&header).ok()?;
        *ops.first_mut()? = Bytes(codec::encode(&put("attack/false-ops", bytes(n, 20))));
        Some(message::encode(&Gossip::Commit(Bytes(commit::pack(&header, ops).ok()?))))
    }

    /// A header with a wrong live root: its author's fault, nobody else's.
    pub(super) fn wrong_root(&self, n: u64) -> Vec<u8> {
        let (author, grant) = self.mine();
        let wrong = |header: &mut Header| header.live_root = Hash::new([9; 32]);
        message::encode(&Gossip::Commit(self.commit(n, author, grant, wrong)))
    }

    /// A write under a grant that nobody knows.
    pub(super) fn unknown_grant(&self, n: u64) -> Vec<u8> {
        let author = self.mine().0;
        message::encode(&Gossip::Commit(self.commit(n, author, Hash::new([8; 32]), |_| {})))
    }

    /// A message of a protocol version to come.
    pub(super) fn newer_version(n: u64) -> Vec<u8> {
        let mut out = Self::garbage(n);
        out[0] = VERSION + 1;
        out
    }

    /// A genuine write, stamped in the far future.
    pub(super) fn far_future(&self, n: u64) -> Vec<u8> {
        let (author, grant) = self.mine();
        message::encode(&Gossip::Commit(self.commit(n % 4, author, grant, |_| {})))
    }

    /// Genuine writes: `ops` operations in one commit, always on the same keys.
    pub(super) fn genuine(&mut self, n: u64, ops: u64) -> Option<Vec<u8>> {
        genuine(&mut self.engine, &self.disk, &mut self.mono, n, ops)
    }

    /// Two genuine commits for the same place of one log.
    pub(super) fn equivocation(&self, seed: u8, n: u64) -> Vec<Vec<u8>> {
        let twins = (0..2).filter_map(|twin| {
            let disk = Shared::default();
            let mut engine = engine(seed, &self.roster, 100 + n % 3, &disk).ok()?;
            genuine(&mut engine, &disk, &mut 0, 2 * n + twin, 1)
        });
        twins.collect()
    }
}

/// An operation that sets a key, and has seen nothing.
fn put(key: &str, value: Bytes) -> Op {
    Op {
        cell: Cell::value(key.as_bytes()),
        body: Body::Put(value),
        ctx: Vec::new(),
        took: Vec::new(),
        expires_at: None,
    }
}

/// A store that both the engine and whoever drives it hold.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<MemoryStore>>);

impl Shared {
    fn get(&self) -> MutexGuard<'_, MemoryStore> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Shared {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        self.get().slots(key)
    }

    fn slots_after(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        self.get().slots_after(branch, after, upto, max_slots, max_bytes)
    }

    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        self.get().header(branch, seq)
    }
}

fn engine(
    seed: u8,
    roster: &Roster,
    entropy: u64,
    disk: &Shared,
) -> Result<Engine<Shared>, String> {
    let key = DeviceKey::from_seed(&[seed; 32]);
    let nothing = Recovered::default();
    Engine::open(key, roster.clone(), nothing, disk.clone(), entropy, false)
        .map_err(|e| e.to_string())
}

fn genuine(
    engine: &mut Engine<Shared>,
    disk: &Shared,
    mono: &mut u64,
    n: u64,
    ops: u64,
) -> Option<Vec<u8>> {
    let change = |i: u64| Change::put(format!("attack/flood/{i}").into_bytes(), bytes(n, 100));
    *mono += 1;
    let wall = wall_millis();
    for input in [Input::Write(Token(n), (0..ops).map(change).collect()), Input::Commit] {
        engine.handle(Now { wall, mono: *mono }, input).ok()?;
    }
    let mut published = None;
    while let Some(output) = engine.poll_output() {
        match output {
            Output::Publish(bytes) => published = Some(bytes),
            Output::Persist(writes) => disk.get().apply(writes),
            _ => {}
        }
    }
    published
}

fn wall_millis() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Bytes that differ for every number and look like nothing.
fn noise(n: u64) -> Vec<u8> {
    let mut x = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let step = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x.to_be_bytes()[3]
    };
    (0..200).map(step).collect()
}
