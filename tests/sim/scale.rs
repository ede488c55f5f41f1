//! How repair grows with the swarm: rounds and bytes until all replicas are equal, for 50, 200 and 1,000
//! replicas of which at most 64 write.
//!
//! `cargo test -p swarmkv-tests --test sim scale_table -- --ignored --nocapture` prints the
//! table.

use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::DeviceId;
use swarmkv_protocol::io::{Change, Input, Output, SessionId, Token, Verdict};
use swarmkv_protocol::limits::REPAIR_EVERY_MS;
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::Recovered;
use swarmkv_protocol::time::Now;

use crate::disk::{Disk, Shared};
use crate::rng::Rng;

/// Members that each one is connected to.
const NEIGHBOURS: usize = 8;
const AUTHORS: usize = 64;

struct Replica {
    id: DeviceId,
    seed: [u8; 32],
    engine: Engine<Shared>,
    disk: Rc<RefCell<Disk>>,
    tick_at: u64,
    next_session: u64,
    sessions: BTreeMap<SessionId, (usize, SessionId)>,
}

enum Due {
    Tick(usize),
    Input(usize, Input),
}

struct Crowd {
    roster: Roster,
    replicas: Vec<Replica>,
    index: BTreeMap<DeviceId, usize>,
    links: Vec<(usize, usize)>,
    rng: Rng,
    time: u64,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    due: BTreeMap<u64, Due>,
    planned: u64,
    gossip: bool,
    bytes: u64,
    tokens: BTreeMap<Token, Vec<u8>>,
    next_token: u64,
}

impl Crowd {
    fn new(count: usize, gossip: bool) -> Self {
        let mut rng = Rng::new(count as u64);
        let owner = DeviceKey::from_seed(&[1; 32]);
        let mut roster = Roster::found(&owner, "crowd", "0", [7; 16]).expect("a valid genesis");
        let mut seeds = vec![[1; 32]];
        for n in 1..count {
            seeds.push(rng.bytes());
            let role = if n < AUTHORS { Role::Writer } else { Role::Reader };
            let grant = Grant {
                device: DeviceKey::from_seed(&seeds[n]).id(),
                label: n.to_string(),
                role,
                prefix: Bytes::default(),
                max_bytes: None,
            };
            let statement = roster.grant(&owner, grant).expect("an owner grants");
            roster.insert(&[statement]);
        }
        let mut crowd = Self {
            roster,
            replicas: Vec::new(),
            index: BTreeMap::new(),
            links: Vec::new(),
            rng,
            time: 0,
            agenda: BinaryHeap::new(),
            due: BTreeMap::new(),
            planned: 0,
            gossip,
            bytes: 0,
            tokens: BTreeMap::new(),
            next_token: 0,
        };
        for (n, seed) in seeds.into_iter().enumerate() {
            let disk = Rc::new(RefCell::new(Disk::default()));
            let replica = crowd.open(seed, disk);
            crowd.index.insert(replica.id, n);
            crowd.replicas.push(replica);
        }
        crowd
    }

    fn open(&mut self, seed: [u8; 32], disk: Rc<RefCell<Disk>>) -> Replica {
        let key = DeviceKey::from_seed(&seed);
        let id = key.id();
        let recovered = Recovered { caught_up: true, ..disk.borrow().visible.recover() };
        let recovered = Recovered { statements: Vec::new(), ..recovered };
        let (roster, store) = (self.roster.clone(), Shared(Rc::clone(&disk)));
        let engine = Engine::open(key, roster, recovered, store, self.rng.next(), false);
        let engine = engine.expect("memory is sound");
        let sessions = BTreeMap::new();
        Replica { id, seed, engine, disk, tick_at: u64::MAX, next_session: 1, sessions }
    }

    fn at(&mut self, pause: u64, due: Due) {
        self.agenda.push(Reverse((self.time + pause, self.planned)));
        self.due.insert(self.planned, due);
        self.planned += 1;
    }

    /// Connects everybody for whom `may` holds to a few others; a ring holds the whole together.
    fn connect(&mut self, may: impl Fn(usize, usize) -> bool) {
        let count = self.replicas.len();
        let mut links: Vec<(usize, usize)> = (0..count).map(|n| (n, (n + 1) % count)).collect();
        for n in 0..count {
            for _ in 1..NEIGHBOURS / 2 {
                links.push((n, self.rng.index(count)));
            }
        }
        for link in &mut links {
            *link = (link.0.min(link.1), link.0.max(link.1));
        }
        links.sort_unstable();
        links.dedup();
        for (a, b) in links {
            if a != b && may(a, b) && !self.links.contains(&(a, b)) {
                self.links.push((a, b));
                let (x, y) = (self.replicas[a].id, self.replicas[b].id);
                self.input(a, Input::Connected(y));
                self.input(b, Input::Connected(x));
            }
        }
    }

    fn disconnect(&mut self, which: impl Fn(usize, usize) -> bool) {
        let (gone, kept) = self.links.iter().partition(|(a, b)| which(*a, *b));
        self.links = kept;
        let gone: Vec<(usize, usize)> = gone;
        for (a, b) in gone {
            let (x, y) = (self.replicas[a].id, self.replicas[b].id);
            self.input(a, Input::Disconnected(y));
            self.input(b, Input::Disconnected(x));
            for (n, peer) in [(a, b), (b, a)] {
                self.replicas[n].sessions.retain(|_, (other, _)| *other != peer);
            }
        }
    }

    fn input(&mut self, n: usize, input: Input) {
        let now = Now { wall: 1_700_000_000_000 + self.time, mono: self.time };
        self.replicas[n].engine.handle(now, input).expect("nobody does wrong here");
        while let Some(output) = self.replicas[n].engine.poll_output() {
            self.carry_out(n, output);
        }
        let deadline = self.replicas[n].engine.next_deadline().map_or(u64::MAX, |(at, _)| at);
        if deadline < self.replicas[n].tick_at {
            self.replicas[n].tick_at = deadline;
            self.at(deadline.saturating_sub(self.time), Due::Tick(n));
        }
    }

    fn carry_out(&mut self, n: usize, output: Output) {
        let latency = 10 + self.rng.below(40);
        match output {
            Output::Persist(writes) => self.replicas[n].disk.borrow_mut().visible.apply(writes),
            Output::Publish(bytes) => self.spread(n, &bytes),
            Output::Verdict(token, Verdict::Accept) => {
                let bytes = self.tokens.remove(&token).unwrap_or_default();
                self.spread(n, &bytes);
            }
            Output::OpenSession(id, peer) => {
                let to = self.index[&peer];
                let other = SessionId(self.replicas[to].next_session);
                self.replicas[to].next_session += 2;
                self.replicas[n].sessions.insert(id, (to, other));
                self.replicas[to].sessions.insert(other, (n, id));
                let me = self.replicas[n].id;
                self.at(30, Due::Input(to, Input::SessionOpened(other, me)));
                self.at(30, Due::Input(to, Input::SessionReady(other)));
                self.at(60, Due::Input(n, Input::SessionReady(id)));
            }
            Output::SendFrame(id, bytes) => {
                let Some((to, other)) = self.replicas[n].sessions.get(&id).copied() else { return };
                self.bytes += bytes.len() as u64;
                self.at(30, Due::Input(to, Input::SessionFrame(other, bytes)));
                self.at(1, Due::Input(n, Input::SessionReady(id)));
            }
            Output::CloseSession(id) => {
                if let Some((to, other)) = self.replicas[n].sessions.remove(&id) {
                    self.at(latency, Due::Input(to, Input::SessionClosed(other)));
                }
            }
            _ => {}
        }
    }

    fn spread(&mut self, n: usize, bytes: &[u8]) {
        if !self.gossip {
            return;
        }
        let from = self.replicas[n].id;
        let ends = self.links.iter().filter(|(a, b)| *a == n || *b == n);
        let peers: Vec<usize> = ends.map(|(a, b)| if *a == n { *b } else { *a }).collect();
        for peer in peers {
            self.next_token += 1;
            let token = Token(self.next_token);
            self.tokens.insert(token, bytes.to_vec());
            self.bytes += bytes.len() as u64;
            let latency = 10 + self.rng.below(40);
            let bytes = bytes.to_vec();
            self.at(latency, Due::Input(peer, Input::Gossip { token, from, bytes }));
        }
    }

    fn run(&mut self, millis: u64) {
        let until = self.time + millis;
        while let Some(Reverse((at, number))) = self.agenda.peek().copied() {
            if at > until {
                break;
            }
            self.agenda.pop();
            self.time = at;
            match self.due.remove(&number).expect("every number has its event") {
                Due::Input(n, input) => self.input(n, input),
                Due::Tick(n) if self.replicas[n].tick_at <= at => {
                    self.replicas[n].tick_at = u64::MAX;
                    self.input(n, Input::Tick);
                }
                Due::Tick(_) => {}
            }
        }
        self.time = until;
    }

    fn write(&mut self, n: usize) {
        self.next_token += 1;
        let change = Change::put(format!("key {}", self.next_token).into_bytes(), vec![7; 256]);
        self.input(n, Input::Write(Token(self.next_token), vec![change]));
        self.input(n, Input::Commit);
    }

    fn equal(&mut self) -> bool {
        let first = self.replicas[0].engine.state_hash();
        self.replicas.iter_mut().all(|replica| replica.engine.state_hash() == first)
    }

    /// Runs until all are equal; says how many rounds and bytes a replica that took.
    fn settle(&mut self) -> (f64, u64) {
        let (began, bytes) = (self.time, self.bytes);
        while !self.equal() {
            self.run(100);
            assert!(self.time < began + 600_000, "does not converge");
        }
        let rounds = (self.time - began) as f64 / REPAIR_EVERY_MS as f64;
        (rounds, (self.bytes - bytes) / self.replicas.len() as u64)
    }

    /// Half of the processes end and come back with what they had on disk.
    fn restart_half(&mut self) {
        let half = self.replicas.len() / 2;
        self.disconnect(|a, b| a >= half || b >= half);
        for n in 0..half {
            self.write(n % half.min(AUTHORS));
        }
        for n in half..self.replicas.len() {
            let (seed, disk) = (self.replicas[n].seed, Rc::clone(&self.replicas[n].disk));
            self.replicas[n] = self.open(seed, disk);
        }
        self.connect(|_, _| true);
    }
}

/// One line of the table: replicas, and for each case rounds and bytes a replica.
fn line(count: usize) -> String {
    let mut cases = Vec::new();
    for gossip in [false, true] {
        let mut crowd = Crowd::new(count, gossip);
        crowd.connect(|_, _| true);
        for n in 0..AUTHORS.min(count) {
            crowd.write(n);
        }
        crowd.settle();
        crowd.run(2 * REPAIR_EVERY_MS);
        crowd.write(3);
        cases.push(crowd.settle());
        if gossip {
            continue;
        }
        let half = |n: usize| n % 2;
        crowd.disconnect(|a, b| half(a) != half(b));
        for n in 0..AUTHORS.min(count) {
            crowd.write(n);
        }
        crowd.run(10 * REPAIR_EVERY_MS);
        crowd.connect(|_, _| true);
        cases.push(crowd.settle());
        crowd.restart_half();
        cases.push(crowd.settle());
    }
    let [quiet, heal, restart, live] = cases[..] else { unreachable!("four cases") };
    let show = |(rounds, bytes): (f64, u64)| format!("{rounds:5.1} {bytes:8}");
    format!("{count:8} | {} | {} | {} | {}", show(quiet), show(live), show(heal), show(restart))
}

const HEADING: &str = "replicas | 1 write, repair | 1 write, gossip | partition heals | half restart\n         \
                       | rounds  bytes  | rounds  bytes   | rounds  bytes   | rounds  bytes";

#[test]
fn a_crowd_of_50_converges() {
    println!("{HEADING}\n{}", line(50));
}

#[test]
#[ignore = "takes minutes: prints the scale table"]
fn scale_table() {
    println!("{HEADING}");
    for count in [50, 200, 1_000] {
        println!("{}", line(count));
    }
}
