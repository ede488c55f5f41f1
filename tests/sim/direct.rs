//! Faults that only a driver of one engine can show: how long a session is borne, how many run at once, what
//! is read again for nothing. And what an input costs beside many logs.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Instant;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::{self, DeviceKey, Domain};
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{Hash, Hash8};
use swarmkv_protocol::io::{Input, Output, SessionId, Token};
use swarmkv_protocol::limits::{MAX_LOGS_PER_AUTHOR, PROGRESS_BYTES, PULL_STALLED_MS};
use swarmkv_protocol::message::{self, Completeness, Plan, Planned, Repair, SlotRecord, Start};
use swarmkv_protocol::plant::{self, Plant};
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::Write;
use swarmkv_protocol::time::{Hlc, Now};

use crate::disk::{Disk, Shared};
use crate::hostile::author::{Author, Signed};

/// One engine whose peers are played by hand.
struct Lone {
    engine: Engine<Shared>,
    disk: Rc<RefCell<Disk>>,
    peers: Vec<Author>,
    keys: Vec<DeviceKey>,
    mono: u64,
    tokens: u64,
}

fn key(n: u64) -> DeviceKey {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&n.to_be_bytes());
    DeviceKey::from_seed(&seed)
}

impl Lone {
    fn new(peers: u64) -> Self {
        let owner = key(0);
        let mut roster = Roster::found(&owner, "lone", "owner", [7; 16]).expect("a genesis");
        let (mut authors, mut keys) = (Vec::new(), Vec::new());
        for n in 1..=peers {
            let grant = Grant {
                device: key(n).id(),
                label: n.to_string(),
                role: Role::Writer,
                prefix: Bytes::default(),
                max_bytes: None,
            };
            let statement = roster.grant(&owner, grant).expect("an owner grants");
            let name: Hash = crypto::hash(Domain::StatementName, &[&statement]);
            roster.insert(&[statement]);
            authors.push(Author::simple(key(n), roster.swarm(), name));
            keys.push(key(n));
        }
        let disk = Rc::new(RefCell::new(Disk::default()));
        disk.borrow_mut().write(vec![Write::CaughtUp(true)]);
        let recovered = disk.borrow().visible.recover();
        let store = Shared(Rc::clone(&disk));
        let engine = Engine::open(owner, roster, recovered, store, 1, false).expect("it opens");
        Self { engine, disk, peers: authors, keys, mono: 0, tokens: 0 }
    }

    fn input(&mut self, input: Input) -> Vec<Output> {
        let now = Now { wall: 1_700_000_000_000 + self.mono, mono: self.mono };
        let _ = self.engine.handle(now, input);
        let mut outputs = Vec::new();
        while let Some(output) = self.engine.poll_output() {
            match output {
                Output::Persist(writes) => {
                    let mut disk = self.disk.borrow_mut();
                    let upto = disk.write(writes);
                    disk.sync(upto);
                }
                other => outputs.push(other),
            }
        }
        outputs
    }

    /// Lets time pass, with every tick that is due.
    fn pass(&mut self, millis: u64) -> Vec<Output> {
        let until = self.mono + millis;
        let mut outputs = Vec::new();
        while let Some((at, _)) = self.engine.next_deadline().filter(|(at, _)| *at <= until) {
            self.mono = at.max(self.mono + 1);
            outputs.extend(self.input(Input::Tick));
        }
        self.mono = until;
        outputs
    }

    fn gossip(&mut self, from: usize, signed: &Signed) -> Vec<Output> {
        self.tokens += 1;
        let (token, from) = (Token(self.tokens), self.keys[from].id());
        self.input(Input::Gossip { token, from, bytes: signed.gossip(false) })
    }

    fn frame(&mut self, session: SessionId, message: &Repair) -> Vec<Output> {
        let outputs = self.input(Input::SessionFrame(session, message::encode(message)));
        [outputs, self.input(Input::SessionReady(session))].concat_outputs()
    }
}

trait Concat {
    fn concat_outputs(self) -> Vec<Output>;
}

impl Concat for [Vec<Output>; 2] {
    fn concat_outputs(self) -> Vec<Output> {
        self.into_iter().flatten().collect()
    }
}

fn opened(outputs: &[Output]) -> Vec<SessionId> {
    let session = |output: &Output| match output {
        Output::OpenSession(id, _) => Some(*id),
        _ => None,
    };
    outputs.iter().filter_map(session).collect()
}

/// How long a session is borne whose peer sends a junk slot every five seconds, in milliseconds.
fn drip_borne() -> u64 {
    let mut lone = Lone::new(1);
    let peer = lone.keys[0].id();
    let session = opened(&lone.input(Input::Connected(peer)))[0];
    lone.input(Input::SessionReady(session));
    let roster = lone.engine.roster().hash();
    lone.frame(session, &Repair::Differs(roster));
    let plan = Plan { complete: Completeness::Complete, logs: Vec::new() };
    lone.frame(session, &Repair::Plan(plan));
    let began = lone.mono;
    let junk = SlotRecord { seq: 1, hlc: Hlc(1), op: Bytes(vec![1]) };
    while lone.mono < began + 10 * PULL_STALLED_MS {
        let mut outputs = lone.pass(5_000);
        outputs.extend(lone.frame(session, &Repair::Slots(vec![junk.clone()])));
        if outputs.contains(&Output::CloseSession(session)) {
            break;
        }
    }
    lone.mono - began
}

/// How many of three silent members are asked within five seconds.
fn asked_at_once() -> usize {
    let mut lone = Lone::new(3);
    let mut outputs = Vec::new();
    for n in 0..3 {
        let peer = lone.keys[n].id();
        outputs.extend(lone.input(Input::Connected(peer)));
    }
    outputs.extend(lone.pass(5_000));
    opened(&outputs).len()
}

/// Whether a fourth member is asked within five minutes while three bring their logs drop by drop.
fn fourth_is_asked() -> bool {
    let mut lone = Lone::new(4);
    let mut sessions = Vec::new();
    for n in 0..3 {
        let peer = lone.keys[n].id();
        let mut outputs = lone.input(Input::Connected(peer));
        outputs.extend(lone.pass(2_000));
        let Some(session) = opened(&outputs).first().copied() else { continue };
        lone.input(Input::SessionReady(session));
        let roster = lone.engine.roster().hash();
        lone.frame(session, &Repair::Differs(roster));
        let signed = lone.peers[n].plain(1, b"large", |header| header.live_bytes = 1 << 30);
        let log = signed.header.log;
        let planned = Planned { log, seq: 1, head: signed.hash(), slots: 1 };
        let plan = Plan { complete: Completeness::Complete, logs: vec![planned] };
        lone.frame(session, &Repair::Plan(plan));
        let (base, header) = (Hash8::default(), signed.bytes.clone());
        let start = Start { log, base, linked: true, from: 0, compare: false, header };
        lone.frame(session, &Repair::Start(start));
        sessions.push(session);
    }
    let fourth = lone.keys[3].id();
    let mut outputs = lone.input(Input::Connected(fourth));
    for _ in 0..30 {
        for session in &sessions {
            outputs.extend(lone.input(Input::SessionBytes(*session, PROGRESS_BYTES)));
        }
        outputs.extend(lone.pass(10_000));
    }
    outputs.iter().any(|o| matches!(o, Output::OpenSession(_, peer) if *peer == fourth))
}

/// How many slots are read again because of one header with a false root.
fn read_again() -> u64 {
    let mut lone = Lone::new(1);
    for n in 0..300u64 {
        let signed = lone.peers[0].plain(1, &n.to_be_bytes(), |_| {});
        lone.gossip(0, &signed);
    }
    lone.pass(120_000);
    let before = lone.engine.counters().scrubbed;
    let false_root = |header: &mut swarmkv_protocol::commit::Header| {
        header.live_root = Hash::new([5; 32]);
    };
    let signed = lone.peers[0].plain(1, b"odd", false_root);
    lone.gossip(0, &signed);
    lone.pass(60_000);
    assert!(lone.engine.logs()[0].frozen.is_some(), "the log stands still");
    lone.engine.counters().scrubbed - before
}

/// What of one author's is kept after so many logs that begin with a false root, on disk.
fn kept_of_false_logs(count: u64) -> usize {
    let mut lone = Lone::new(1);
    for epoch in 1..=count {
        let false_root = |header: &mut swarmkv_protocol::commit::Header| {
            header.live_root = Hash::new([5; 32]);
        };
        let signed = lone.peers[0].plain(epoch, b"odd", false_root);
        lone.gossip(0, &signed);
    }
    lone.pass(10_000);
    let records = lone.disk.borrow().visible.recover().logs;
    records.len()
}

/// What holds of an engine by itself: each a name and whether it holds.
fn checks() -> [(&'static str, bool); 5] {
    [
        ("unproven", kept_of_false_logs(100) <= 4 * MAX_LOGS_PER_AUTHOR),
        ("drip", drip_borne() <= 2 * PULL_STALLED_MS),
        ("turns", fourth_is_asked()),
        ("at once", asked_at_once() == 3),
        ("read again", read_again() == 0),
    ]
}

#[test]
fn every_fault_planted_in_one_engine_is_caught() {
    plant::plant(None);
    for (name, holds) in checks() {
        assert!(holds, "{name} without a fault");
    }
    let suite = [
        (Plant::AnyFrameIsProgress, "drip"),
        (Plant::OneComparison, "at once"),
        (Plant::EndlessTurns, "turns"),
        (Plant::RescanFrozen, "read again"),
        (Plant::KeepUnproven, "unproven"),
    ];
    let mut caught = 0;
    for (fault, name) in suite {
        plant::plant(Some(fault));
        let failed: Vec<&str> =
            checks().into_iter().filter(|(_, holds)| !holds).map(|(name, _)| name).collect();
        plant::plant(None);
        println!("{fault:?}: {failed:?}");
        caught += usize::from(failed == [name]);
    }
    println!("direct: planted faults caught: {caught} of {}", suite.len());
    assert_eq!(caught, suite.len());
}

/// Microseconds of one tick, one commit of a peer, and one look at heads and hash, with so many logs.
fn costs(logs: u64) -> [f64; 3] {
    let each = MAX_LOGS_PER_AUTHOR as u64;
    let authors = usize::try_from(logs.div_ceil(each)).expect("few");
    let mut lone = Lone::new(authors as u64);
    for author in 0..authors {
        for epoch in 1..=each {
            let signed = lone.peers[author].plain(epoch, b"key", |_| {});
            lone.gossip(author, &signed);
        }
    }
    lone.pass(10_000);
    let there = lone.engine.heads().len() as u64;
    assert_eq!(there, authors as u64 * each, "all logs are here");
    let micros =
        |began: Instant, times: u32| began.elapsed().as_secs_f64() * 1e6 / f64::from(times);
    let began = Instant::now();
    for _ in 0..500 {
        lone.input(Input::Tick);
    }
    let tick = micros(began, 500);
    let commits: Vec<Signed> =
        (0..500u64).map(|n| lone.peers[0].plain(each, &n.to_be_bytes(), |_| {})).collect();
    let began = Instant::now();
    let mut looks = 0.0;
    for signed in &commits {
        lone.gossip(0, signed);
        let began = Instant::now();
        std::hint::black_box((lone.engine.heads(), lone.engine.state_hash()));
        looks += micros(began, 500);
    }
    [tick, micros(began, 500) - looks, looks]
}

/// `cargo test -p swarmkv-tests --test sim cost_of_an_input -- --ignored --nocapture` prints the figures.
#[test]
#[ignore = "prints figures"]
fn cost_of_an_input_does_not_grow_with_logs() {
    let (few, many) = (costs(10), costs(6_000));
    for (n, name) in ["tick", "commit of a peer", "heads and hash"].into_iter().enumerate() {
        println!("{name}: {:.1} us with 10 logs, {:.1} us with 6,000", few[n], many[n]);
    }
    for (few, many) in few.into_iter().zip(many) {
        assert!(many < 10.0 * few + 100.0, "{many} us with many logs, {few} us with few");
    }
}
