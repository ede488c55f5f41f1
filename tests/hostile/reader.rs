//! A member that may only read cannot keep the others from repairing: one of them is cut off again and again, and
//! each time it has what the others wrote meanwhile within a few rounds.
//!
//! `SWARMKV_READER_SECONDS=600 cargo test -p swarmkv-tests --test hostile reader -- --nocapture` makes it last ten
//! minutes and prints how long each repair took.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use swarmkv_node::api::Client;
use swarmkv_node::api::wire::{Data, GetRequest, WriteOp, WriteRequest};
use swarmkv_tests::rogue::{Orders, Report};
use swarmkv_tests::{Device, connected, equal, until};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use crate::town::{self, Turn, pinned};

/// Between two writes of a writer.
const PACE: Duration = Duration::from_millis(50);
/// How long the third is away each time.
const AWAY: Duration = Duration::from_secs(3);
/// Rounds of repair within which all that it missed has to be there, and how long one is at most: four seconds, give
/// or take half.
const ROUNDS: u32 = 5;
const ROUND: Duration = Duration::from_secs(6);
/// Every so many writes one is too large for gossip.
const LARGE_EVERY: u64 = 10;
/// Keys that a writer writes to in turn.
const KEYS: u64 = 500;
/// What a member's memory may grow by, in kB.
const MEMORY_KB: u64 = 64 * 1024;

fn time() -> Duration {
    let seconds = std::env::var("SWARMKV_READER_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(40))
}

/// The name of a write, and its key.
type Named = (Data, String);

/// Writes on one member without end, and remembers its last write.
struct Writer {
    paused: Arc<AtomicBool>,
    written: Arc<AtomicU64>,
    last: Arc<Mutex<Option<Named>>>,
    task: JoinHandle<()>,
}

impl Writer {
    fn on(device: &Device, label: &'static str, runtime: &Runtime) -> Self {
        let paused = Arc::new(AtomicBool::new(false));
        let written = Arc::new(AtomicU64::new(0));
        let last = Arc::new(Mutex::new(None));
        let dir = device.dir().to_owned();
        let (pausing, count, name) = (paused.clone(), written.clone(), last.clone());
        let task = runtime.spawn(async move {
            let mut client = Client::connect(&dir).await.expect("a running peer");
            loop {
                tokio::time::sleep(PACE).await;
                if pausing.load(Ordering::SeqCst) {
                    continue;
                }
                let n = count.load(Ordering::SeqCst);
                let key = Data(format!("{label}/{}", n % KEYS).into_bytes());
                let len = if n.is_multiple_of(LARGE_EVERY) { 20 * 1024 } else { 32 };
                let value = Some(Data(format!("{n:0>len$}").into_bytes()));
                let (expires_at, if_absent, if_version) = (None, false, None);
                let op = WriteOp { key: key.clone(), value, expires_at, if_absent, if_version };
                let done = client.write(&WriteRequest { ops: vec![op] }).await;
                let version = done.expect("the write is taken").versions.pop();
                let named = version.map(|version| (key, version));
                *name.lock().unwrap_or_else(PoisonError::into_inner) = named;
                count.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { paused, written, last, task }
    }

    fn pause(&self, pause: bool) {
        self.paused.store(pause, Ordering::SeqCst);
        // One may be under way.
        std::thread::sleep(4 * PACE);
    }

    fn last(&self) -> Named {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        last.clone().expect("it has written")
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::SeqCst)
    }
}

/// How long it takes until a write can be read on a device.
fn arrives(runtime: &Runtime, dir: &Path, (key, version): Named) -> Duration {
    let begun = Instant::now();
    runtime.block_on(async {
        let mut client = Client::connect(dir).await.expect("a running peer");
        let request = GetRequest { key, at_least: Some(version), timeout_ms: 120_000 };
        client.get(&request).await.expect("the write arrives");
    });
    begun.elapsed()
}

struct Siege {
    members: Vec<Device>,
    writers: Vec<Writer>,
    runtime: Runtime,
    attacker: Child,
    /// How long repair took where the others went on writing, and where they rested: then only a comparison
    /// finds what is missing.
    lively: Vec<Duration>,
    quiet: Vec<Duration>,
    /// From a write on one to its being readable on the other of the two that stay.
    between: Vec<Duration>,
    _turn: Turn,
}

impl Siege {
    fn laid() -> Self {
        let turn = town::turn();
        let device = |label: &str| Device::at_a_fixed_port(label).launched_by(&pinned(0));
        let mut members = vec![device("anna").founded()];
        for label in ["bert", "cora"] {
            let mut joined = device(label).admitted_by(&members[0], &[]);
            joined.up();
            members.push(joined);
        }
        connected(&members.iter().collect::<Vec<_>>());
        let runtime = Runtime::new().expect("threads can be made");
        let orders = Orders {
            attack: "reader".into(),
            ticket: Some(members[0].invite(&["--role", "reader"])),
            swarm: members[0].status()["swarm_id"].as_str().expect("an id").to_owned(),
            victims: members.iter().map(|m| (m.address("tcp"), m.id())).collect(),
            millis: u64::try_from(time().as_millis()).expect("short"),
            rate: 0,
            seed: 90,
        };
        let mut words = pinned(1);
        words.push(env!("CARGO_BIN_EXE_attacker").into());
        words.push(serde_json::to_string(&orders).expect("plain data"));
        let attacker = Command::new(&words[0])
            .args(&words[1..])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the attacker starts");
        until("the reader is connected to all", || {
            members.iter().all(|m| m.peer("rogue").is_some_and(|rogue| rogue["connected"] == true))
        });
        let labels = ["anna", "bert"];
        let writers = labels.iter().zip(&members);
        let writers = writers.map(|(label, member)| Writer::on(member, label, &runtime)).collect();
        let (lively, quiet, between) = (Vec::new(), Vec::new(), Vec::new());
        Self { members, writers, runtime, attacker, lively, quiet, between, _turn: turn }
    }

    /// The third is cut off, the others write, and it comes back.
    fn round(&mut self, quiet: bool) {
        self.members[2].kill();
        std::thread::sleep(AWAY);
        if quiet {
            self.writers.iter().for_each(|writer| writer.pause(true));
        }
        let missed: Vec<Named> = self.writers.iter().map(Writer::last).collect();
        // Its start counts as well: it may have caught up before it is asked.
        let begun = Instant::now();
        self.members[2].up();
        for write in missed {
            arrives(&self.runtime, self.members[2].dir(), write);
        }
        let took = begun.elapsed();
        if quiet {
            self.quiet.push(took)
        } else {
            self.lively.push(took)
        }
        self.writers.iter().for_each(|writer| writer.paused.store(false, Ordering::SeqCst));
        std::thread::sleep(4 * PACE);
        for (from, to) in [(0, 1), (1, 0)] {
            let write = self.writers[from].last();
            self.between.push(arrives(&self.runtime, self.members[to].dir(), write));
        }
    }

    /// Nobody honest was blamed, and the reader not so often that it was shut out.
    fn blameless(&self) {
        for peer in self.members.iter().flat_map(Device::peers) {
            let blamed = peer["offences"] != 0 || !peer["blocked_until"].is_null();
            assert!(peer["device"] == "rogue" || !blamed, "{peer:#}");
            assert!(peer["blocked_until"].is_null(), "an attack that was over early: {peer:#}");
        }
    }

    fn report(&mut self, attack: &Report) {
        println!("  repairs        number   p50 ms   max ms");
        for (name, times) in [
            ("others write", &mut self.lively),
            ("others rest", &mut self.quiet),
            ("between them", &mut self.between),
        ] {
            times.sort_unstable();
            let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
            println!(
                "  {name:<13} {:>7} {:>8} {:>8}",
                times.len(),
                middle.as_millis(),
                last.as_millis()
            );
        }
        let written: Vec<u64> = self.writers.iter().map(Writer::written).collect();
        println!("  written by anna and bert: {written:?}");
        println!(
            "  the reader sent {} frames, opened {} sessions, was asked in {}",
            attack.sent, attack.opened, attack.served
        );
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        // It is over already, unless the test fails.
        let _ = self.attacker.kill();
        let _ = self.attacker.wait();
    }
}

#[test]
fn a_reader_cannot_stop_repair() {
    let mut siege = Siege::laid();
    let before: Vec<u64> = siege.members.iter().map(Device::peak_memory_kb).collect();
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < time() {
        siege.round(rounds % 2 == 1);
        rounds += 1;
    }
    siege.blameless();
    let upgrade = siege.members[0].status()["upgrade"].clone();
    assert_eq!((&upgrade["what"], &upgrade["device"]), (&"message".into(), &"rogue".into()));
    let told = siege.members[0].run(["status"]).well();
    assert!(told.text().contains("Install the newest swarmkv"), "{}", told.text());
    siege.writers.iter().for_each(|writer| writer.pause(true));
    siege.writers.iter().for_each(|writer| writer.task.abort());
    equal(&siege.members.iter().collect::<Vec<_>>());
    let mut attack = Report::default();
    if let Some(mut out) = siege.attacker.stdout.take() {
        siege.attacker.wait().expect("the attacker ends");
        attack = serde_json::from_reader(&mut out).expect("a report");
    }
    siege.report(&attack);
    let grown = siege.members.iter().zip(before).take(2);
    for (member, before) in grown {
        let grown = member.peak_memory_kb().saturating_sub(before);
        println!("  memory grew by {grown} kB");
        assert!(grown <= MEMORY_KB, "{grown} kB");
    }
    assert!(attack.opened > 0 && attack.served > 0 && attack.sent > 0, "{attack:?}");
    let most = ROUNDS * ROUND;
    let all = siege.lively.iter().chain(&siege.quiet).chain(&siege.between);
    for took in all {
        assert!(*took <= most, "repair took {took:?}, more than {ROUNDS} rounds");
    }
    assert!(!siege.quiet.is_empty());
}
