//! Three honest members and, one after the other, those who attack them.

use std::collections::BTreeMap;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use swarmkv_node::api::Client;
use swarmkv_node::api::wire::{Data, GetRequest, WriteOp, WriteRequest};
use swarmkv_tests::rogue::{Orders, Report};
use swarmkv_tests::{Device, connected, equal, until};

use crate::table;

/// Puts a second, while latency is measured.
const PACE: Duration = Duration::from_millis(50);
/// A score from which on nothing of a peer is taken.
const GRAYLISTED: f64 = -160.0;
/// What a victim's memory may grow by during an attack, in kB.
const MEMORY_KB: u64 = 64 * 1024;

/// How long an attack lasts when it does not say.
fn usual() -> Duration {
    let seconds = std::env::var("SWARMKV_HOSTILE_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(5))
}

/// One attack.
#[derive(Clone, Debug)]
pub struct Attack {
    name: &'static str,
    rate: u64,
    member: bool,
    time: Duration,
}

impl Attack {
    /// By a member.
    pub fn member(name: &'static str, rate: u64) -> Self {
        Self { name, rate, member: true, time: usual() }
    }

    /// By a stranger.
    pub fn stranger(name: &'static str, rate: u64) -> Self {
        Self { member: false, ..Self::member(name, rate) }
    }

    /// At least this long.
    pub fn lasting(self, seconds: u64) -> Self {
        Self { time: self.time.max(Duration::from_secs(seconds)), ..self }
    }
}

/// What an attack came to.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub sent: u64,
    /// When every victim had stopped listening to it: blocked it, or let its gossip score sink below
    /// where anything is taken.
    pub cut_off_ms: Option<u64>,
    /// The least gossip score that any victim gave the attacker, and the most offences it counted.
    pub least_score: f64,
    pub offences: usize,
    /// Victims that blocked the attacker.
    pub blocked_by: usize,
    pub latency: Latency,
    /// The most that any victim's peak memory grew by.
    pub grown_kb: u64,
}

/// What was seen of an attacker from its victims' side.
#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    cut_off_ms: Option<u64>,
    least_score: f64,
    offences: usize,
}

/// From a put on one member to its being readable on another.
#[derive(Clone, Copy, Debug, Default)]
pub struct Latency {
    pub p50: f64,
    pub p99: f64,
}

/// Three members in peace, until somebody comes.
pub struct Town {
    members: Vec<Device>,
    runtime: tokio::runtime::Runtime,
    idle: Latency,
    attackers: u8,
    puts: BTreeMap<String, String>,
    rows: Vec<Vec<String>>,
    /// The attacks so far: what a member wrote before it was taken out stays.
    past: Vec<&'static str>,
    _turn: Turn,
}

/// All that is measured here shares the cores: one at a time.
pub type Turn = MutexGuard<'static, ()>;

/// Waits until nobody else measures.
pub fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Words before a command that pin it to a core, where there are two.
pub fn pinned(core: usize) -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let there = Command::new("taskset").arg("-V").stdout(Stdio::null()).status().is_ok();
    if cores < 2 || !there {
        return Vec::new();
    }
    vec!["taskset".into(), "-c".into(), core.to_string()]
}

impl Town {
    pub fn founded() -> Self {
        let turn = turn();
        let pin = pinned(0);
        let device = |label: &str| Device::new(label).launched_by(&pin);
        let owner = device("anna").founded();
        let mut members = vec![owner];
        for label in ["bert", "cora"] {
            let mut joined = device(label).admitted_by(&members[0], &[]);
            joined.up();
            members.push(joined);
        }
        connected(&members.iter().collect::<Vec<_>>());
        let runtime = tokio::runtime::Runtime::new().expect("threads can be made");
        let mut town = Self {
            members,
            runtime,
            idle: Latency::default(),
            attackers: 0,
            puts: BTreeMap::new(),
            rows: Vec::new(),
            past: Vec::new(),
            _turn: turn,
        };
        town.idle = town.served(usual());
        town
    }

    /// Writes on one member and reads on another for a while.
    fn served(&mut self, time: Duration) -> Latency {
        let (from, to) = (self.members[0].dir().to_owned(), self.members[1].dir().to_owned());
        let first = self.puts.len();
        let taken = self.runtime.block_on(async move {
            let mut writer = Client::connect(&from).await.expect("a running peer");
            let mut reader = Client::connect(&to).await.expect("a running peer");
            let end = Instant::now() + time;
            let mut taken = Vec::new();
            while Instant::now() < end {
                let n = first + taken.len();
                let key = Data(format!("town/{n}").into_bytes());
                let value = Some(Data(format!("value {n}").into_bytes()));
                let (expires_at, if_absent, if_version) = (None, false, None);
                let op = WriteOp { key: key.clone(), value, expires_at, if_absent, if_version };
                let begun = Instant::now();
                let written = writer.write(&WriteRequest { ops: vec![op] }).await;
                let version = written.expect("the write is taken").versions.pop();
                let request = GetRequest { key, at_least: version, timeout_ms: 30_000 };
                let answer = reader.get(&request).await.expect("the write arrives");
                assert!(answer.value.is_some());
                taken.push(begun.elapsed().as_secs_f64() * 1_000.0);
                tokio::time::sleep(PACE.saturating_sub(begun.elapsed())).await;
            }
            taken
        });
        for n in first..first + taken.len() {
            self.puts.insert(format!("town/{n}"), format!("value {n}"));
        }
        let mut sorted = taken;
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let place = (sorted.len() as f64 * share) as usize;
            sorted[place.min(sorted.len() - 1)]
        };
        Latency { p50: at(0.5), p99: at(0.99) }
    }

    /// Lets somebody attack, measures meanwhile, and looks at what is left.
    pub fn attacked(&mut self, attack: &Attack) -> Outcome {
        self.attackers += 1;
        let ticket = attack.member.then(|| self.members[0].invite(&["--quota", "2000000"]));
        let victims = self.members.iter().map(|m| (m.address("tcp"), m.id())).collect();
        let orders = Orders {
            attack: attack.name.into(),
            ticket,
            swarm: self.members[0].status()["swarm_id"].as_str().expect("an id").to_owned(),
            victims,
            millis: u64::try_from(attack.time.as_millis()).expect("short"),
            rate: attack.rate,
            seed: 100 + self.attackers,
        };
        let before: Vec<u64> = self.members.iter().map(Device::peak_memory_kb).collect();
        let mut words = pinned(1);
        words.push(env!("CARGO_BIN_EXE_attacker").into());
        words.push(serde_json::to_string(&orders).expect("plain data"));
        let running = Command::new(&words[0])
            .args(&words[1..])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the attacker starts");
        let watch = self.watch(attack.time);
        let latency = self.served(attack.time);
        let watched = self.runtime.block_on(watch).expect("the watch ends");
        let done = running.wait_with_output().expect("the attacker ends");
        assert!(done.status.success(), "{attack:?}: the attacker could not begin");
        let report: Report = serde_json::from_slice(&done.stdout).expect("a report");
        let grown = self.members.iter().zip(before);
        let grown = grown.map(|(m, b)| m.peak_memory_kb().saturating_sub(b));
        let outcome = Outcome {
            sent: report.sent,
            cut_off_ms: watched.cut_off_ms,
            least_score: watched.least_score,
            offences: watched.offences,
            blocked_by: self.blocked_by(),
            latency,
            grown_kb: grown.max().unwrap_or(0),
        };
        self.rows.push(table::row(attack.name, attack.rate, attack.member, &outcome, self.idle));
        assert_eq!(report.wrongly_answered, 0, "{attack:?}");
        assert!(outcome.grown_kb <= MEMORY_KB, "{attack:?}: {outcome:?}");
        self.past.push(attack.name);
        self.peace(attack);
        outcome
    }

    /// Watches when the last victim stops listening to the attacker, from its first connection on.
    fn watch(&self, time: Duration) -> tokio::task::JoinHandle<Watched> {
        let dirs: Vec<_> = self.members.iter().map(|m| m.dir().to_owned()).collect();
        self.runtime.spawn(async move {
            let end = Instant::now() + time;
            let mut seen: Option<Instant> = None;
            let mut deaf = vec![false; dirs.len()];
            let mut watched = Watched::default();
            let mut clients = Vec::new();
            for dir in &dirs {
                clients.push(Client::connect(dir).await.expect("a running peer"));
            }
            while Instant::now() < end {
                for (client, deaf) in clients.iter_mut().zip(&mut deaf) {
                    let peers = client.peers().await.expect("a running peer");
                    let Some(rogue) = peers.into_iter().find(|p| p.device == "rogue") else {
                        continue;
                    };
                    if rogue.connected {
                        seen.get_or_insert_with(Instant::now);
                    }
                    watched.offences = watched.offences.max(rogue.offences);
                    watched.least_score = watched.least_score.min(rogue.score.unwrap_or(0.0));
                    let sunk = rogue.score.is_some_and(|score| score <= GRAYLISTED);
                    *deaf |= sunk || rogue.blocked_until.is_some();
                }
                if let Some(seen) = seen
                    && watched.cut_off_ms.is_none()
                    && deaf.iter().all(|deaf| *deaf)
                {
                    watched.cut_off_ms = u64::try_from(seen.elapsed().as_millis()).ok();
                }
                tokio::time::sleep(PACE).await;
            }
            watched
        })
    }

    /// Victims that block the last attacker.
    fn blocked_by(&self) -> usize {
        let rogue = |peer: &serde_json::Value| {
            peer["device"] == "rogue" && !peer["blocked_until"].is_null()
        };
        self.members.iter().filter(|m| m.peers().iter().any(rogue)).count()
    }

    /// Nobody honest is blamed, all that was put is everywhere, and nothing else but what members may
    /// write. Then the attacker is taken out, so that the next begins afresh.
    fn peace(&self, attack: &Attack) {
        for member in &self.members {
            for peer in member.peers() {
                let honest = peer["device"] != "rogue";
                let blamed = peer["offences"] != 0
                    || !peer["blocked_until"].is_null()
                    || peer["score"].as_f64().is_some_and(|score| score < 0.0);
                assert!(!(honest && blamed), "{attack:?}: {peer:#}");
            }
        }
        let ids: Vec<String> = self.members[0]
            .peers()
            .iter()
            .filter(|peer| peer["device"] == "rogue")
            .map(|peer| peer["device_id"].as_str().expect("an id").to_owned())
            .collect();
        for id in ids {
            let _ = self.members[0].run(["revoke", &id, "--yes"]).well();
        }
        equal(&self.members.iter().collect::<Vec<_>>());
        for member in &self.members {
            let there = || {
                let out = member.run(["ls", "--json"]).well();
                let items = out.json_lines().into_iter().map(|item| {
                    let text = |name: &str| item[name].as_str().unwrap_or_default().to_owned();
                    (text("key"), text("value"))
                });
                let mut items: BTreeMap<String, String> = items.collect();
                items.retain(|key, _| !self.past.iter().any(|past| allowed(past, key)));
                items
            };
            let what = format!("all that was put is there, and nothing else ({attack:?})");
            until(&what, || there() == self.puts);
        }
    }

    /// Prints the attack table.
    pub fn report(&self) {
        table::print(self.idle, &self.rows);
    }
}

/// What a member may write, however unkindly.
fn allowed(attack: &str, key: &str) -> bool {
    match attack {
        "flood" | "equivocation" => key.starts_with("attack/flood/"),
        "far-future" => key == "attack/forged",
        _ => false,
    }
}
