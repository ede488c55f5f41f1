//! One replica as a process: engine, disk, outputs that wait for the disk, connections.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{DeviceId, Hash, LogId};
use swarmkv_protocol::io::{Change, Output, SessionId, Token};
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::roster::Roster;
use swarmkv_protocol::store::{RawSlot, Store as _};
use swarmkv_protocol::time::Now;

use crate::disk::{Disk, Shared};

/// What waits in the order that the engine gave.
pub enum Waiting {
    /// Everything behind this waits until so many `Persist`s are durable.
    Sync(u64),
    /// Carried out when its turn comes; heads as they were when it was handed out.
    Do(Output, BTreeMap<LogId, u64>),
}

pub struct Node {
    pub seed: [u8; 32],
    pub id: DeviceId,
    pub engine: Option<Engine<Shared>>,
    pub disk: Rc<RefCell<Disk>>,
    pub old_copy: Option<MemoryStore>,
    /// Counts starts: what belongs to an earlier life is dropped.
    pub life: u64,
    pub genesis: Option<Bytes>,
    pub skew: i64,
    pub waiting: VecDeque<Waiting>,
    /// Connections by peer.
    pub links: BTreeMap<usize, BTreeSet<u64>>,
    /// Peers that the engine was told of.
    pub told: BTreeSet<usize>,
    pub seen: BTreeSet<Hash>,
    pub verdicts: BTreeMap<Token, (usize, Rc<[u8]>)>,
    pub sessions: BTreeMap<SessionId, usize>,
    pub next_session: u64,
    pub writes: BTreeMap<Token, Vec<Change>>,
    pub tick_at: Option<u64>,
    pub commit_planned: bool,
    /// Heads that readers were shown, over all lives.
    pub shown: BTreeMap<LogId, u64>,
    /// Heads at the last check of this life.
    pub last_heads: BTreeMap<LogId, u64>,
    /// A slot on its disk is damaged: its cell's index key, and its place.
    pub rotten: Option<(Bytes, RawSlot)>,
    /// Histories set aside in this life, as last seen.
    pub set_aside: u64,
    /// Something was once set aside here.
    pub ever_aside: bool,
    /// The machine sleeps until then.
    pub asleep_until: u64,
    /// Ticks that its engine was given.
    pub ticks: u64,
    /// Its data is in memory: gone whenever it stops.
    pub memory: bool,
    /// Where a peer in memory left its own log when it last stopped in good order.
    pub resumable: Option<Bytes>,
}

impl Node {
    pub fn new(seed: [u8; 32], skew: i64) -> Self {
        Self {
            id: DeviceKey::from_seed(&seed).id(),
            seed,
            engine: None,
            disk: Rc::new(RefCell::new(Disk::default())),
            old_copy: None,
            life: 0,
            genesis: None,
            skew,
            waiting: VecDeque::new(),
            links: BTreeMap::new(),
            told: BTreeSet::new(),
            seen: BTreeSet::new(),
            verdicts: BTreeMap::new(),
            sessions: BTreeMap::new(),
            next_session: 1,
            writes: BTreeMap::new(),
            tick_at: None,
            commit_planned: false,
            shown: BTreeMap::new(),
            last_heads: BTreeMap::new(),
            rotten: None,
            set_aside: 0,
            ever_aside: false,
            asleep_until: 0,
            ticks: 0,
            memory: false,
            resumable: None,
        }
    }

    /// What is set aside goes back, and that is right.
    pub fn notice_set_aside(&mut self) {
        // What was replaced or dropped unread cannot be noticed any more.
        let disk = Rc::clone(&self.disk);
        let there = |(key, slot): &(Bytes, RawSlot)| {
            let slots = disk.borrow().visible.slots(key).unwrap_or_default();
            slots.iter().any(|one| (one.branch, one.seq) == (slot.branch, slot.seq))
        };
        self.rotten = self.rotten.take().filter(there);
        let Some(engine) = self.engine.as_ref() else { return };
        let now = engine.counters().set_aside;
        if now > self.set_aside {
            self.set_aside = now;
            self.rotten = None;
            self.ever_aside = true;
            self.shown.clear();
            self.last_heads.clear();
        }
    }

    pub fn key(&self) -> DeviceKey {
        DeviceKey::from_seed(&self.seed)
    }

    pub fn now(&self, time: u64) -> Now {
        const START: u64 = 1_700_000_000_000;
        Now { wall: (START + time).saturating_add_signed(self.skew), mono: time }
    }

    /// Opens the engine on what the disk holds.
    pub fn start(&mut self, entropy: u64, fresh_epoch: bool) -> Result<(), String> {
        let genesis = self.genesis.as_ref().expect("a node starts after it joined");
        let roster = Roster::open(genesis).map_err(|e| e.to_string())?;
        let mut recovered = self.disk.borrow().visible.recover();
        recovered.resumable = self.resumable.clone();
        let fresh_epoch = fresh_epoch || self.memory;
        let store = Shared(Rc::clone(&self.disk));
        let engine = Engine::open(self.key(), roster, recovered, store, entropy, fresh_epoch);
        self.engine = Some(engine.map_err(|e| e.to_string())?);
        self.life += 1;
        Ok(())
    }

    /// The process is gone; what was not synced goes with it, save the first few by luck.
    pub fn kill(&mut self, lucky: u64) {
        self.engine = None;
        self.life += 1;
        self.waiting.clear();
        self.links.clear();
        self.told.clear();
        self.seen.clear();
        self.verdicts.clear();
        self.sessions.clear();
        self.writes.clear();
        self.tick_at = None;
        self.commit_planned = false;
        self.last_heads.clear();
        self.set_aside = 0;
        self.disk.borrow_mut().crash(lucky);
    }
}

/// Last proven sequence number of every log; of a forked one that of its longest history.
pub fn heads(engine: &Engine<Shared>) -> BTreeMap<LogId, u64> {
    let mut heads = BTreeMap::new();
    for (branch, seq) in engine.heads().iter() {
        let head = heads.entry(branch.log).or_default();
        *head = seq.max(*head);
    }
    heads
}

/// What is shown of every history: its log and where it ends.
pub fn branches(engine: &Engine<Shared>) -> BTreeSet<(LogId, u64)> {
    engine.heads().iter().map(|(branch, seq)| (branch.log, seq)).collect()
}
