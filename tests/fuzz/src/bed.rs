//! The test bed: an owner, two honest writers and a hostile member, made once; what an engine starts
//! from is cloned for each input.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{BranchId, DeviceId};
use swarmkv_protocol::io::{Change, Input, Output, SessionId, Token};
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::{RawSlot, Store, StoreError};
use swarmkv_protocol::time::Now;

/// Clock of everything here, in Unix milliseconds.
pub const WALL: u64 = 1_700_000_000_000;

#[derive(Clone, Default)]
pub struct Disk(pub Rc<RefCell<MemoryStore>>);

impl Store for Disk {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        self.0.borrow().slots(key)
    }

    fn slots_after(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        self.0.borrow().slots_after(branch, after, upto, max_slots, max_bytes)
    }

    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        self.0.borrow().header(branch, seq)
    }
}

/// A replica on a disk of its own.
pub struct Peer {
    pub id: DeviceId,
    pub engine: Engine<Disk>,
    pub disk: Disk,
}

/// What every input starts from.
#[derive(Clone)]
pub struct Bed {
    roster: Roster,
    /// The victim's disk, an honest peer's and the rogue's, which have more.
    disks: [MemoryStore; 3],
    /// Genuine gossip: commits and announcements that the victim lacks or has.
    pub gossip: Vec<Vec<u8>>,
    /// Genuine frames of a repair session, both directions.
    pub frames: Vec<Vec<u8>>,
}

pub fn key(n: u8) -> DeviceKey {
    DeviceKey::from_seed(&[n; 32])
}

pub fn put(key: &str, value: &str) -> Change {
    Change::put(key.as_bytes(), value.as_bytes())
}

thread_local! {
    static BED: Bed = Bed::make();
}

impl Bed {
    /// A copy of the bed.
    pub fn fresh() -> Self {
        BED.with(Clone::clone)
    }

    /// The roster and the victim's disk.
    pub fn parts(self) -> (Roster, MemoryStore) {
        let [victim, ..] = self.disks;
        (self.roster, victim)
    }

    /// A replica of the bed: 0 the victim (key 1), 1 the honest peer (key 2), 2 the rogue (key 3).
    pub fn peer(&self, n: u8) -> Peer {
        let disk = Disk(Rc::new(RefCell::new(self.disks[usize::from(n)].clone())));
        open(n + 1, self.roster.clone(), disk)
    }

    fn make() -> Self {
        let owner = key(1);
        let mut roster = Roster::found(&owner, "fuzz", "owner", [3; 16]).expect("a valid genesis");
        for n in 2..5 {
            let grant = Grant {
                device: key(n).id(),
                label: format!("device {n}"),
                role: Role::Writer,
                prefix: Bytes::default(),
                max_bytes: None,
            };
            let statement = roster.grant(&owner, grant).expect("an owner grants");
            roster.insert(&[statement]);
        }
        let mut victim = open(1, roster.clone(), Disk::default());
        let mut honest = open(2, roster.clone(), Disk::default());
        let mut rogue = open(3, roster.clone(), Disk::default());
        let mut gossip = Vec::new();
        for i in 0..8 {
            for peer in [&mut victim, &mut honest, &mut rogue] {
                let value = "v".repeat(if i == 5 { 20_000 } else { 20 });
                gossip.extend(write(peer, &format!("key {}", i % 5), &value));
            }
        }
        let mut frames = talk(&mut victim, &mut honest);
        gossip.extend(write(&mut honest, "later", "1"));
        gossip.extend(write(&mut rogue, "later", "2"));
        frames.extend(talk(&mut rogue, &mut honest));
        let disks = [victim, honest, rogue].map(|peer| peer.disk.0.borrow().clone());
        Self { roster, disks, gossip, frames }
    }
}

fn open(n: u8, roster: Roster, disk: Disk) -> Peer {
    let recovered = disk.0.borrow().recover();
    let engine = Engine::open(key(n), roster, recovered, disk.clone(), u64::from(n), false);
    Peer { id: key(n).id(), engine: engine.expect("the disk is sound"), disk }
}

fn write(peer: &mut Peer, key: &str, value: &str) -> Vec<Vec<u8>> {
    let now = Now { wall: WALL, mono: 0 };
    let mut published = Vec::new();
    for input in [Input::Write(Token(1), vec![put(key, value)]), Input::Commit] {
        peer.engine.handle(now, input).expect("a sound write");
        while let Some(output) = peer.engine.poll_output() {
            match output {
                Output::Persist(writes) => peer.disk.0.borrow_mut().apply(writes),
                Output::Publish(bytes) => published.push(bytes),
                _ => {}
            }
        }
    }
    published
}

/// Lets two honest replicas talk until both rest; the frames that passed.
pub fn talk(a: &mut Peer, b: &mut Peer) -> Vec<Vec<u8>> {
    talk_through(a, b, 0, 40, |_, frame| Some(frame))
}

/// The same from some time on, for so many rounds, with a hand in every frame (whether it is `b`'s).
pub fn talk_through(
    a: &mut Peer,
    b: &mut Peer,
    from: u64,
    rounds: u64,
    mut hand: impl FnMut(bool, Vec<u8>) -> Option<Vec<u8>>,
) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    let mut sessions: BTreeMap<(bool, SessionId), SessionId> = BTreeMap::new();
    let mut next = 1_000_001;
    let (x, y) = (a.id, b.id);
    for round in 0..rounds {
        let mut due = VecDeque::new();
        for (is_a, peer) in [(true, y), (false, x)] {
            due.push_back((is_a, if round == 0 { Input::Connected(peer) } else { Input::Tick }));
        }
        let mono = from + 10_000_000 + round * 5_000;
        let now = Now { wall: WALL + 100_000 + mono, mono };
        while let Some((is_a, input)) = due.pop_front() {
            let me = if is_a { &mut *a } else { &mut *b };
            let _ = me.engine.handle(now, input);
            while let Some(output) = me.engine.poll_output() {
                match output {
                    Output::Persist(writes) => me.disk.0.borrow_mut().apply(writes),
                    Output::OpenSession(id, _) => {
                        next += 2;
                        let other = SessionId(next);
                        sessions.insert((is_a, id), other);
                        sessions.insert((!is_a, other), id);
                        let from = if is_a { x } else { y };
                        due.push_back((!is_a, Input::SessionOpened(other, from)));
                        due.push_back((!is_a, Input::SessionReady(other)));
                        due.push_back((is_a, Input::SessionReady(id)));
                    }
                    Output::SendFrame(id, bytes) => {
                        if let Some(other) = sessions.get(&(is_a, id)) {
                            frames.push(bytes.clone());
                            if let Some(bytes) = hand(!is_a, bytes) {
                                due.push_back((!is_a, Input::SessionFrame(*other, bytes)));
                            }
                            due.push_back((is_a, Input::SessionReady(id)));
                        }
                    }
                    Output::CloseSession(id) => {
                        if let Some(other) = sessions.remove(&(is_a, id)) {
                            sessions.remove(&(!is_a, other));
                            due.push_back((!is_a, Input::SessionClosed(other)));
                        }
                    }
                    _ => {}
                }
            }
        }
        if round > 2 && a.engine.state_hash() == b.engine.state_hash() {
            break;
        }
    }
    let mono = from + 11_000_000;
    let now = Now { wall: WALL + 100_000 + mono, mono };
    for (peer, other) in [(&mut *a, y), (&mut *b, x)] {
        let _ = peer.engine.handle(now, Input::Disconnected(other));
        while let Some(output) = peer.engine.poll_output() {
            if let Output::Persist(writes) = output {
                peer.disk.0.borrow_mut().apply(writes);
            }
        }
    }
    frames
}
