//! What an input costs beside many logs: work is counted, not timed, so that a busy machine changes nothing.

use std::cell::RefCell;
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::DeviceKey;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{BranchId, DeviceId};
use swarmkv_protocol::io::{Input, Output, SessionId, Token};
use swarmkv_protocol::memory::MemoryStore;
use swarmkv_protocol::message::{self, Completeness, Repair};
use swarmkv_protocol::meter;
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::{RawSlot, Store, StoreError, Write};
use swarmkv_protocol::time::Now;

use crate::swarm::author::Author;
use crate::swarm::put;

const WALL: u64 = 1_700_000_000_000;
/// Logs of each author.
const EACH: usize = 5;
/// How often each thing is done; the rarest work shows, too.
const TIMES: u64 = 64;

/// Counts what is read.
#[derive(Clone, Default)]
struct Counting(Rc<RefCell<(MemoryStore, u64)>>);

impl Counting {
    fn read<T>(&self, read: impl FnOnce(&MemoryStore) -> T, slots: impl FnOnce(&T) -> usize) -> T {
        let inner = &mut *self.0.borrow_mut();
        let found = read(&inner.0);
        inner.1 += 1 + slots(&found) as u64;
        found
    }
}

impl Store for Counting {
    fn slots(&self, key: &[u8]) -> Result<Vec<RawSlot>, StoreError> {
        self.read(|store| store.slots(key), |found| found.as_ref().map_or(0, Vec::len))
    }

    fn slots_after(
        &self,
        branch: &BranchId,
        after: u64,
        upto: u64,
        max_slots: usize,
        max_bytes: usize,
    ) -> Result<Vec<RawSlot>, StoreError> {
        let read =
            |store: &MemoryStore| store.slots_after(branch, after, upto, max_slots, max_bytes);
        self.read(read, |found| found.as_ref().map_or(0, Vec::len))
    }

    fn header(&self, branch: &BranchId, seq: u64) -> Result<Option<Bytes>, StoreError> {
        self.read(|store| store.header(branch, seq), |_| 0)
    }
}

/// A replica beside many logs.
struct Replica {
    engine: Engine<Counting>,
    store: Counting,
    author: Author,
    peer: DeviceId,
    mono: u64,
    tokens: u64,
}

fn key(n: usize) -> [u8; 32] {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    seed
}

impl Replica {
    fn with(logs: usize) -> Self {
        let authors = logs / EACH;
        let owner = DeviceKey::from_seed(&key(0));
        let mut roster = Roster::found(&owner, "work", "owner", [7; 16]).expect("a genesis");
        for n in 1..=authors {
            let grant = Grant {
                device: DeviceKey::from_seed(&key(n)).id(),
                label: n.to_string(),
                role: Role::Writer,
                prefix: Bytes::default(),
                max_bytes: None,
            };
            let statement = roster.grant(&owner, grant).expect("an owner grants");
            roster.insert(&[statement]);
        }
        let store = Counting::default();
        store.0.borrow_mut().0.apply(vec![Write::CaughtUp(true)]);
        let recovered = store.0.borrow().0.recover();
        let author = Author::of(&roster, key(1), EACH as u64, WALL);
        let engine = Engine::open(owner, roster.clone(), recovered, store.clone(), 1, false);
        let engine = engine.expect("memory is sound");
        let peer = author.log.author;
        let mut replica = Self { engine, store, author, peer, mono: 0, tokens: 0 };
        for (n, epoch) in (1..=authors).flat_map(|n| (1..=EACH).map(move |epoch| (n, epoch))) {
            let mut author = Author::of(&roster, key(n), epoch as u64, WALL);
            let commit = author.puts(&[&format!("key {n} {epoch}")], "value");
            replica.gossip(commit);
            if n == 1 {
                replica.author = author;
            }
        }
        replica.pass(60_000);
        assert_eq!(replica.engine.heads().len(), logs, "all logs are here");
        replica
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        self.mono += 1;
        let now = Now { wall: WALL + self.mono, mono: self.mono };
        self.engine.handle(now, input).expect("nobody is at fault");
        let mut outputs = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Persist(writes) => self.store.0.borrow_mut().0.apply(writes),
                other => outputs.push(other),
            }
        }
        outputs
    }

    /// Lets time pass, with every tick that is due.
    fn pass(&mut self, millis: u64) {
        let until = self.mono + millis;
        while let Some((at, _)) = self.engine.next_deadline().filter(|(at, _)| *at <= until) {
            self.mono = at.max(self.mono);
            self.input(Input::Tick);
        }
        self.mono = until;
    }

    fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    fn gossip(&mut self, bytes: Vec<u8>) {
        let (token, from) = (self.token(), self.peer);
        self.input(Input::Gossip { token, from, bytes });
    }

    fn write(&mut self, key: &str) {
        let token = self.token();
        self.input(Input::Write(token, vec![put(key, "value")]));
        self.input(Input::Commit);
    }

    /// A comparison that this side begins and that finds both equal.
    fn compare(&mut self, begin: Input) {
        let outputs = self.input(begin);
        let opened = |output: &Output| match output {
            Output::OpenSession(session, _) => Some(*session),
            _ => None,
        };
        let session = outputs.iter().find_map(opened).expect("a comparison begins");
        self.input(Input::SessionReady(session));
        let same = message::encode(&Repair::Same(Completeness::Complete));
        self.input(Input::SessionFrame(session, same));
    }

    /// The same, begun by the other side.
    fn serve(&mut self, session: u64) {
        let (session, peer) = (SessionId(session), self.peer);
        self.input(Input::SessionOpened(session, peer));
        self.input(Input::SessionReady(session));
        let hello = message::encode(&Repair::Hello(self.engine.state_hash()));
        self.input(Input::SessionFrame(session, hello));
        self.input(Input::SessionClosed(session));
    }

    /// What doing something so many times comes to, but the first time: hashes, bytes hashed, logs looked
    /// at, reads of the store and what they found.
    fn work(&mut self, mut once: impl FnMut(&mut Self, u64)) -> [u64; 4] {
        once(self, 0);
        let _ = meter::take();
        let before = self.store.0.borrow().1;
        for n in 1..=TIMES {
            // As readers do: the moment before stays with them.
            let _moment = self.engine.heads();
            once(self, n);
        }
        let [hashes, bytes, logs] = meter::take();
        [hashes, bytes, logs, self.store.0.borrow().1 - before]
    }
}

type Figures = Vec<(&'static str, [u64; 4])>;

fn figures(logs: usize) -> Figures {
    let mut replica = Replica::with(logs);
    let mut author = replica.author.clone();
    let commits: Vec<Vec<u8>> =
        (0..=TIMES).map(|n| author.puts(&[&format!("new {n}")], "value")).collect();
    let mut commits = commits.into_iter();
    let peer = replica.peer;
    let mut figures = vec![
        ("a tick", replica.work(|replica, _| drop(replica.input(Input::Tick)))),
        (
            "a commit of a peer",
            replica.work(|replica, _| replica.gossip(commits.next().expect("one for each time"))),
        ),
        ("an own write", replica.work(|replica, n| replica.write(&format!("own {n}")))),
        ("the same key again", replica.work(|replica, _| replica.write("own"))),
        (
            "what a sync takes",
            replica.work(|replica, _| drop((replica.engine.heads(), replica.engine.state_hash()))),
        ),
    ];
    assert_eq!(replica.engine.held(), 0, "each commit was applied when it came");
    replica.compare(Input::Connected(peer));
    figures.push((
        "a comparison of equals",
        replica.work(|replica, n| {
            replica.write(&format!("between {n}"));
            replica.compare(Input::PullAll);
        }),
    ));
    figures.push((
        "the other side of it",
        replica.work(|replica, n| {
            // Sessions may not be opened faster than that.
            replica.mono += 60_000;
            replica.write(&format!("between {n}"));
            replica.serve(2 * n + 1);
        }),
    ));
    figures
}

#[test]
fn the_work_of_an_input_does_not_grow_with_the_number_of_logs() {
    let (few, many) = (figures(10), figures(6_000));
    println!("{TIMES} times each: hashes, bytes hashed, logs looked at, reads");
    for ((name, few), (_, many)) in few.iter().zip(&many) {
        println!("{name}: {few:?} beside 10 logs, {many:?} beside 6,000");
    }
    for ((name, few), (_, many)) in few.into_iter().zip(many) {
        // One log more each time, where two stand in one leaf; and scrubbing goes on meanwhile.
        for (slack, (few, many)) in [1, 64, 1, 1].into_iter().zip(few.into_iter().zip(many)) {
            let most = 2 * few + slack * TIMES;
            assert!(many <= most, "{name}: {few} beside 10 logs, {many} beside 6,000");
        }
    }
}
