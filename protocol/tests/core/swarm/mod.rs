//! A few engines wired to each other without delay: frames and gossip arrive in order, and a test may
//! look at, change or drop each frame on the way.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{BranchId, DeviceId, Hash, Version};
use swarmkv_protocol::io::{
    Blame, Change, Fault, Input, Output, SessionId, Token, Verdict, WriteRefused,
};
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::message::{self, Repair};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::{RawSlot, Store, StoreError, Write};
use swarmkv_protocol::time::Now;

pub mod author;

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

pub struct Node {
    pub key: [u8; 32],
    pub id: DeviceId,
    pub engine: Engine<Disk>,
    pub disk: Disk,
    /// What came out and is no network traffic, in order.
    pub log: Vec<Output>,
    pub faults: Vec<Fault>,
    pub published: Vec<Vec<u8>>,
}

type Hook = Box<dyn FnMut(usize, usize, Vec<u8>) -> Option<Vec<u8>>>;

pub struct Swarm {
    pub nodes: Vec<Node>,
    pub genesis: Bytes,
    pub wall: u64,
    pub mono: u64,
    /// Whether own commits reach the connected others as gossip.
    pub gossip: bool,
    /// Sees every frame: from, to, bytes; `None` drops it.
    pub hook: Hook,
    pub frames: u64,
    /// A node whose side of repair sessions a test plays by hand: [`Swarm::opened`] lists those that others
    /// open to it.
    pub by_hand: Option<usize>,
    pub opened: Vec<SessionId>,
    links: Vec<(usize, usize)>,
    sessions: BTreeMap<(usize, SessionId), (usize, SessionId)>,
    next: u64,
}

pub fn key(n: usize) -> [u8; 32] {
    [u8::try_from(n + 1).expect("few nodes"); 32]
}

impl Swarm {
    /// An owner (node 0) and writers, all knowing the whole roster.
    pub fn new(count: usize) -> Self {
        Self::granted(count, |_, _| {})
    }

    /// As [`Swarm::new`], with a hand in what each is granted.
    pub fn granted(count: usize, change: impl Fn(usize, &mut Grant)) -> Self {
        let owner = DeviceKey::from_seed(&key(0));
        let mut roster = Roster::found(&owner, "test", "owner", [9; 16]).expect("a valid genesis");
        for n in 1..count {
            let mut grant = Grant {
                device: DeviceKey::from_seed(&key(n)).id(),
                label: format!("node {n}"),
                role: Role::Writer,
                prefix: Bytes::default(),
                max_bytes: None,
            };
            change(n, &mut grant);
            let statement = roster.grant(&owner, grant).expect("an owner grants");
            roster.insert(&[statement]);
        }
        let mut swarm = Self {
            nodes: Vec::new(),
            genesis: roster.genesis_bytes().clone(),
            wall: 1_700_000_000_000,
            mono: 0,
            gossip: false,
            hook: Box::new(|_, _, bytes| Some(bytes)),
            frames: 0,
            by_hand: None,
            opened: Vec::new(),
            links: Vec::new(),
            sessions: BTreeMap::new(),
            next: 0,
        };
        for n in 0..count {
            let disk = Disk::default();
            let named = |bytes: &Bytes| crypto::hash(Domain::StatementName, &[bytes]);
            let statements = roster.beyond(&[]).into_iter();
            disk.0.borrow_mut().apply(
                statements.map(|bytes| Write::Statement { name: named(&bytes), bytes }).collect(),
            );
            if n == 0 {
                disk.0.borrow_mut().apply(vec![Write::CaughtUp(true)]);
            }
            let node = swarm.open(key(n), disk, false);
            swarm.nodes.push(node);
        }
        swarm
    }

    pub fn open(&self, key: [u8; 32], disk: Disk, fresh_epoch: bool) -> Node {
        let device = DeviceKey::from_seed(&key);
        let roster = Roster::open(&self.genesis).expect("the genesis is valid");
        let recovered = disk.0.borrow().recover();
        let entropy = u64::from(key[0]) + self.mono + self.next;
        let id = device.id();
        let engine = Engine::open(device, roster, recovered, disk.clone(), entropy, fresh_epoch)
            .expect("the disk is sound");
        Node { key, id, engine, disk, log: Vec::new(), faults: Vec::new(), published: Vec::new() }
    }

    /// The process dies and comes back with what the disk holds.
    pub fn restart(&mut self, n: usize) {
        self.disconnect_all(n);
        self.nodes[n] = self.open(key(n), self.nodes[n].disk.clone(), false);
    }

    pub fn disconnect_all(&mut self, n: usize) {
        let links: Vec<_> =
            self.links.iter().copied().filter(|(a, b)| *a == n || *b == n).collect();
        self.links.retain(|(a, b)| *a != n && *b != n);
        self.sessions.retain(|(a, _), (b, _)| *a != n && *b != n);
        for (a, b) in links {
            let (x, y) = (self.nodes[a].id, self.nodes[b].id);
            self.input(a, Input::Disconnected(y));
            self.input(b, Input::Disconnected(x));
        }
    }

    /// Connects two nodes and lets them talk until both rest.
    pub fn connect(&mut self, a: usize, b: usize) {
        self.links.push((a, b));
        let (x, y) = (self.nodes[a].id, self.nodes[b].id);
        self.input(a, Input::Connected(y));
        self.input(b, Input::Connected(x));
    }

    pub fn token(&mut self) -> Token {
        self.next += 1;
        Token(self.next)
    }

    pub fn now(&self) -> Now {
        Now { wall: self.wall, mono: self.mono }
    }

    /// Hands in one input and everything that follows from it at this moment.
    pub fn input(&mut self, n: usize, input: Input) {
        let mut due = VecDeque::from([(n, input)]);
        let mut steps = 0;
        while let Some((n, input)) = due.pop_front() {
            steps += 1;
            assert!(steps < 200_000, "engines talk in circles: {n} {input:?}");
            let now = self.now();
            if let Err(fault) = self.nodes[n].engine.handle(now, input) {
                self.nodes[n].faults.push(fault);
            }
            while let Some(output) = self.nodes[n].engine.poll_output() {
                self.carry_out(n, output, &mut due);
            }
            if self.nodes[n].engine.next_deadline().is_some_and(|(at, _)| at <= self.mono) {
                due.push_back((n, Input::Tick));
            }
        }
    }

    fn carry_out(&mut self, n: usize, output: Output, due: &mut VecDeque<(usize, Input)>) {
        let me = self.nodes[n].id;
        match output {
            Output::Persist(ref writes) => {
                self.nodes[n].disk.0.borrow_mut().apply(writes.clone());
                self.nodes[n].log.push(output);
            }
            Output::Publish(bytes) => {
                if self.gossip {
                    for peer in self.peers(n) {
                        let (token, bytes) = (self.token(), bytes.clone());
                        due.push_back((peer, Input::Gossip { token, from: me, bytes }));
                    }
                }
                self.nodes[n].published.push(bytes);
            }
            Output::OpenSession(id, peer) => {
                let peer = self.index(&peer);
                if self.by_hand == Some(n) {
                    return;
                }
                if self.by_hand == Some(peer) {
                    self.opened.push(id);
                    due.push_back((n, Input::SessionReady(id)));
                    return;
                }
                self.next += 1;
                let other = SessionId(self.next * 2 + 1);
                self.sessions.insert((n, id), (peer, other));
                self.sessions.insert((peer, other), (n, id));
                due.push_back((peer, Input::SessionOpened(other, me)));
                due.push_back((peer, Input::SessionReady(other)));
                due.push_back((n, Input::SessionReady(id)));
            }
            Output::SendFrame(id, bytes) => {
                if let Some((peer, other)) = self.sessions.get(&(n, id)).copied() {
                    self.frames += 1;
                    if let Some(bytes) = (self.hook)(n, peer, bytes) {
                        due.push_back((peer, Input::SessionFrame(other, bytes)));
                    }
                    due.push_back((n, Input::SessionReady(id)));
                } else {
                    self.nodes[n].log.push(Output::SendFrame(id, bytes));
                }
            }
            Output::CloseSession(id) => {
                if let Some((peer, other)) = self.sessions.remove(&(n, id)) {
                    self.sessions.remove(&(peer, other));
                    due.push_back((peer, Input::SessionClosed(other)));
                }
            }
            other => self.nodes[n].log.push(other),
        }
    }

    pub fn index(&self, device: &DeviceId) -> usize {
        self.nodes.iter().position(|node| node.id == *device).expect("a node of ours")
    }

    fn peers(&self, n: usize) -> Vec<usize> {
        let other = |(a, b): &(usize, usize)| match n {
            _ if *a == n => Some(*b),
            _ if *b == n => Some(*a),
            _ => None,
        };
        self.links.iter().filter_map(other).collect()
    }

    /// Lets time pass.
    pub fn pass(&mut self, millis: u64) {
        let until = self.mono + millis;
        loop {
            let next = self
                .nodes
                .iter()
                .enumerate()
                .filter_map(|(n, node)| Some((node.engine.next_deadline()?.0, n)))
                .min();
            match next {
                Some((at, n)) if at <= until => {
                    self.wall += at.saturating_sub(self.mono);
                    self.mono = self.mono.max(at);
                    self.input(n, Input::Tick);
                }
                _ => break,
            }
        }
        self.wall += until - self.mono;
        self.mono = until;
    }

    /// Writes and commits; the names of the writes.
    pub fn write(&mut self, n: usize, changes: Vec<Change>) -> Vec<Version> {
        let token = self.token();
        self.input(n, Input::Write(token, changes));
        self.input(n, Input::Commit);
        let written = self.nodes[n].log.iter().find_map(|output| match output {
            Output::Written(t, versions) if *t == token => Some(versions.clone()),
            _ => None,
        });
        written.expect("the write is accepted")
    }

    pub fn put(&mut self, n: usize, key: &str, value: &str) -> Version {
        self.write(n, vec![put(key, value)])[0]
    }

    pub fn get(&self, n: usize, key: &str) -> Option<String> {
        use swarmkv_protocol::view::{Shown, View};
        let heads = self.nodes[n].engine.heads();
        let slots = self.nodes[n].disk.slots(&cell(key)).expect("memory does not fail");
        let view = View::merge(&slots, |branch| heads.of(branch));
        match view.expect("slots are sound").shown(self.wall) {
            Shown::Value(value) => Some(String::from_utf8_lossy(&value).into_owned()),
            Shown::Counter(sum) => Some(sum.to_string()),
            Shown::Absent => None,
        }
    }

    pub fn hand_gossip(&mut self, to: usize, from: usize, bytes: Vec<u8>) -> Verdict {
        let (token, from) = (self.token(), self.nodes[from].id);
        self.input(to, Input::Gossip { token, from, bytes });
        let verdict = self.nodes[to].log.iter().find_map(|output| match output {
            Output::Verdict(t, verdict) if *t == token => Some(*verdict),
            _ => None,
        });
        verdict.expect("every message gets a verdict")
    }

    /// As [`Swarm::write`], or why not.
    pub fn try_write(&mut self, n: usize, changes: Vec<Change>) -> Result<(), WriteRefused> {
        let token = self.token();
        self.input(n, Input::Write(token, changes));
        self.input(n, Input::Commit);
        let result = self.nodes[n].log.iter().find_map(|output| match output {
            Output::Written(t, _) if *t == token => Some(Ok(())),
            Output::WriteRefused(t, refused) if *t == token => Some(Err(refused.clone())),
            _ => None,
        });
        result.expect("every write is answered")
    }

    /// Hands everything that a node has gossiped to another.
    pub fn hand_all(&mut self, from: usize, to: usize) {
        for message in self.nodes[from].published.clone() {
            self.hand_gossip(to, from, message);
        }
    }

    /// The disk as it is now, for putting back later.
    pub fn copy(&self, n: usize) -> Disk {
        Disk(Rc::new(RefCell::new(self.nodes[n].disk.0.borrow().clone())))
    }

    /// The process dies and comes back on another disk.
    pub fn put_back(&mut self, n: usize, disk: &Disk, fresh_epoch: bool) {
        self.disconnect_all(n);
        self.mono += 1;
        let disk = Disk(Rc::new(RefCell::new(disk.0.borrow().clone())));
        self.nodes[n] = self.open(key(n), disk, fresh_epoch);
    }

    /// Hands a frame to the node that opened a session to the one played by hand.
    pub fn say(&mut self, to: usize, session: SessionId, message: &Repair) {
        let now = self.now();
        let frame = message::encode(message);
        if let Err(fault) = self.nodes[to].engine.handle(now, Input::SessionFrame(session, frame)) {
            self.nodes[to].faults.push(fault);
        }
        self.input(to, Input::SessionReady(session));
    }

    pub fn equal(&self) -> bool {
        let first = self.hash(0);
        (1..self.nodes.len()).all(|n| self.hash(n) == first)
    }

    pub fn hash(&self, n: usize) -> Hash {
        self.nodes[n].engine.state_hash()
    }

    pub fn damned(&self) -> bool {
        let damning = |fault: &Fault| matches!(fault, Fault::Peer { blame: Blame::Sender, .. });
        self.nodes.iter().any(|node| node.faults.iter().any(damning))
    }
}

pub fn put(key: &str, value: &str) -> Change {
    Change::put(key.as_bytes(), value.as_bytes())
}

pub fn delete(key: &str) -> Change {
    Change::delete(key.as_bytes())
}

/// The name under which a key's value is filed.
pub fn cell(key: &str) -> Bytes {
    Cell::value(key.as_bytes()).index_key()
}
