//! Attacks of a member: through gossip, and in repair sessions.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use swarmkv_node::network::{Command, Event, Network, NetworkConfig, Verdict, peer_id_text};
use swarmkv_node::protocol::digest::{DigestKey, Entry};
use swarmkv_node::protocol::id::{DeviceId, Hash, Hash8, LogId};
use swarmkv_node::protocol::message::{self, Digest, Repair, Then};
use tokio::sync::mpsc;

use super::forge::Forger;
use super::{Report, Rogue};

/// Between two rounds of messages.
const ROUND: Duration = Duration::from_millis(10);
/// How long a connection has to stay away to count as lost for good.
const FOR_GOOD: Duration = Duration::from_secs(2);
/// Repair sessions that are held open at once with each victim.
const SESSIONS: u64 = 6;

struct Assault<'a> {
    rogue: &'a Rogue,
    forger: Forger,
    net: Network,
    events: mpsc::Receiver<Event>,
    connected: BTreeSet<DeviceId>,
    /// Genuine messages of others.
    overheard: Vec<Vec<u8>>,
    sessions: BTreeMap<u64, DeviceId>,
    ready: Vec<u64>,
    next: u64,
    began: Option<Instant>,
    lost: Option<Instant>,
    report: Report,
}

/// Connects to all victims as a member.
pub(super) async fn connect(rogue: &Rogue) -> Result<(Network, mpsc::Receiver<Event>), String> {
    let roster = rogue.roster.as_ref().ok_or("only a member can do that: give a ticket")?;
    let mut config = NetworkConfig::new(rogue.key.seed(), rogue.swarm);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    config.mdns = false;
    config.members = roster.members().map(|m| m.device).collect();
    config.members.extend(rogue.victims.iter().map(|(_, device)| *device));
    config.dial = rogue
        .victims
        .iter()
        .map(|(addr, device)| format!("{addr}/p2p/{}", peer_id_text(device)))
        .collect();
    Network::start(config).await.map_err(|e| e.to_string())
}

/// Attacks as a member for the time given.
pub(super) async fn attack(rogue: &Rogue) -> Result<Report, String> {
    let roster = rogue.roster.as_ref().ok_or("only a member can do that: give a ticket")?;
    let (net, events) = connect(rogue).await?;
    let mut assault = Assault {
        forger: Forger::new(rogue.orders.seed, roster)?,
        rogue,
        net,
        events,
        connected: BTreeSet::new(),
        overheard: Vec::new(),
        sessions: BTreeMap::new(),
        ready: Vec::new(),
        next: 0,
        began: None,
        lost: None,
        report: Report::default(),
    };
    assault.run().await;
    assault.net.send(Command::Shutdown).await;
    Ok(assault.report)
}

impl Assault<'_> {
    async fn run(&mut self) {
        let end = Instant::now() + self.rogue.time();
        let mut rounds = tokio::time::interval(ROUND);
        let mut due = 0.0;
        while Instant::now() < end {
            tokio::select! {
                event = self.events.recv() => match event {
                    Some(event) => self.event(event).await,
                    None => break,
                },
                _ = rounds.tick() => {
                    let all = self.connected.len() == self.rogue.victims.len();
                    if self.began.is_none() && all {
                        // A moment for gossip's streams to open.
                        tokio::time::sleep(Duration::from_millis(500)).await;
                        self.began = Some(Instant::now());
                    }
                    if self.began.is_some() {
                        due += self.rogue.orders.rate as f64 * ROUND.as_secs_f64();
                        while due >= 1.0 {
                            due -= 1.0;
                            self.act().await;
                        }
                    }
                }
            }
        }
        if let (Some(began), Some(lost)) = (self.began, self.lost)
            && self.connected.is_empty()
            && lost.elapsed() >= FOR_GOOD
        {
            let millis = lost.duration_since(began).as_millis();
            self.report.cut_off_ms = u64::try_from(millis).ok();
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Connected { peer, member: true, .. } => {
                self.connected.insert(peer);
            }
            Event::Disconnected { peer } => {
                self.connected.remove(&peer);
                self.sessions.retain(|_, with| *with != peer);
                if self.connected.is_empty() {
                    self.lost = Some(Instant::now());
                }
            }
            Event::Gossip { token, bytes, .. } => {
                self.overheard.push(bytes);
                let verdict = Verdict::Ignore;
                self.net.send(Command::Verdict { token, verdict }).await;
            }
            Event::SessionReady { session } => self.ready.push(session),
            Event::SessionClosed { session, .. } => {
                self.sessions.remove(&session);
            }
            // Whoever asks gets no answer: it holds the session open and says nothing.
            _ => {}
        }
    }

    async fn act(&mut self) {
        self.next += 1;
        let n = self.next;
        let seed = self.rogue.orders.seed;
        let forger = &mut self.forger;
        let messages = match self.rogue.orders.attack.as_str() {
            "garbage" => vec![Forger::garbage(n)],
            "forged" => vec![forger.forged(n)],
            "not-granted" => vec![forger.not_granted(n)],
            "cross-swarm" => vec![forger.cross_swarm(n)],
            "not-canonical" => vec![forger.not_canonical(n)],
            "oversize" => vec![Forger::oversize(n)],
            "wrong-root" => vec![forger.wrong_root(n)],
            "unknown-grant" => vec![forger.unknown_grant(n)],
            "newer-version" => vec![Forger::newer_version(n)],
            "far-future" => vec![forger.far_future(n)],
            "flood" => forger.genuine(n, 256).into_iter().collect(),
            "equivocation" => forger.equivocation(seed, n),
            "false-ops" => {
                let pick = usize::try_from(n).unwrap_or(0) % self.overheard.len().max(1);
                let genuine = self.overheard.get(pick);
                genuine.and_then(|bytes| forger.false_ops(bytes, n)).into_iter().collect()
            }
            "replay" => {
                let pick = usize::try_from(n).unwrap_or(0) % self.overheard.len().max(1);
                self.overheard.get(pick).cloned().into_iter().collect()
            }
            "lying-digest" | "giant-digest" | "sessions" | "nonsense-frames" | "newer-frames" => {
                return self.session().await;
            }
            other => unreachable!("no such attack: {other}"),
        };
        for message in messages {
            self.report.sent += 1;
            self.net.send(Command::Publish(message)).await;
        }
    }

    /// Opens sessions, and says on each what the attack wants.
    async fn session(&mut self) {
        while let Some(session) = self.ready.pop() {
            if self.sessions.contains_key(&session) {
                let frame = self.frame();
                self.report.sent += 1;
                self.net.send(Command::Send { session, frame }).await;
            }
        }
        for (_, victim) in &self.rogue.victims {
            let open = self.sessions.values().filter(|with| *with == victim).count() as u64;
            if open < SESSIONS && self.connected.contains(victim) {
                let session = self.next * 1_000 + self.sessions.len() as u64 * 2;
                let session = session * 2;
                if self.sessions.insert(session, *victim).is_none() {
                    self.net.send(Command::Open { session, peer: *victim }).await;
                }
            }
        }
    }

    fn frame(&self) -> Vec<u8> {
        let n = self.next;
        let log = |i: u64| LogId {
            author: self.rogue.victims[usize::try_from(i).unwrap_or(0) % self.rogue.victims.len()]
                .1,
            epoch: i,
            shard: 0,
        };
        let entry = |i: u64| Entry {
            log: log(i),
            seq: 1_000_000_000 + n,
            head: Hash8::new(n.to_be_bytes()),
            staged: 0,
            refused: None,
            compare: false,
        };
        let digest = |count: u64| {
            let mut entries: Vec<Entry> = (0..count).map(entry).collect();
            entries.sort_unstable();
            Repair::Digest(Digest {
                statements: Vec::new(),
                key: DigestKey([3; 16]),
                number: 1,
                since: 0,
                entries,
                only: Vec::new(),
                then: Then::Send,
            })
        };
        match self.rogue.orders.attack.as_str() {
            "lying-digest" => message::encode(&digest(200)),
            "giant-digest" => message::encode(&digest(15_000)),
            "newer-frames" => Forger::newer_version(n),
            "sessions" => message::encode(&Repair::Hello(Hash::new([3; 32]))),
            _ => message::encode(&Repair::Done),
        }
    }
}
