//! A member that may only read and does all it can to keep others from repairing, short of what would have it shut
//! out: sessions that say nothing, that drip, that ask over and over, that carry junk or lies; and to those who ask
//! it, silence, a drip, or offers that nothing follows.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use swarmkv_node::network::{Command, Event, Network, Verdict};
use swarmkv_node::protocol::codec::Bytes;
use swarmkv_node::protocol::digest::{DigestKey, Entry};
use swarmkv_node::protocol::id::{DeviceId, Hash, Hash8, LogId};
use swarmkv_node::protocol::message::{
    self, Completeness, Digest, Plan, Planned, Repair, SlotRecord, Statements, Then,
};
use swarmkv_node::protocol::time::Hlc;
use tokio::sync::mpsc;

use super::forge::Forger;
use super::{Report, Rogue};

/// Between two looks at what is due.
const ROUND: Duration = Duration::from_millis(20);
/// Between two frames of a drip: within any deadline.
const DRIP: Duration = Duration::from_secs(4);
/// Sessions held open at once with each victim.
const SESSIONS: usize = 6;
/// Between two things that are held against their sender: ten in ten minutes would have it shut out.
const OFFENCE: Duration = Duration::from_secs(90);
/// Lies in one digest.
const LIES: u64 = 600;

/// How it behaves in one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    Silent,
    Drip,
    /// Asks for everything, again and again.
    Asks,
    /// Frames of later versions, for which nobody is blamed.
    Junk,
    /// Long digests full of what does not exist.
    Lies,
    /// Offers all logs at once, and sends nothing.
    Offers,
}

const OPENING: [Manner; 5] =
    [Manner::Silent, Manner::Drip, Manner::Asks, Manner::Junk, Manner::Lies];
const SERVING: [Manner; 3] = [Manner::Silent, Manner::Drip, Manner::Offers];

struct Session {
    with: DeviceId,
    manner: Manner,
    /// It may send one frame.
    ready: bool,
    /// What it will say, and from when on.
    frames: VecDeque<(Instant, Vec<u8>)>,
}

struct Reader<'a> {
    rogue: &'a Rogue,
    net: Network,
    connected: BTreeSet<DeviceId>,
    sessions: BTreeMap<u64, Session>,
    /// Logs that others have told of.
    logs: BTreeSet<LogId>,
    roster: Hash,
    next: u64,
    opened: usize,
    served: usize,
    offence_at: Instant,
    report: Report,
}

/// Attacks for the time given.
pub(super) async fn attack(rogue: &Rogue) -> Result<Report, String> {
    let (net, mut events) = super::member::connect(rogue).await?;
    let roster = rogue.roster.as_ref().ok_or("only a member can do that: give a ticket")?.hash();
    let mut reader = Reader {
        rogue,
        net,
        connected: BTreeSet::new(),
        sessions: BTreeMap::new(),
        logs: BTreeSet::new(),
        roster,
        next: 0,
        opened: 0,
        served: 0,
        offence_at: Instant::now() + OFFENCE,
        report: Report::default(),
    };
    reader.run(&mut events).await;
    reader.net.send(Command::Shutdown).await;
    Ok(reader.report)
}

impl Reader<'_> {
    async fn run(&mut self, events: &mut mpsc::Receiver<Event>) {
        let end = Instant::now() + self.rogue.time();
        let mut rounds = tokio::time::interval(ROUND);
        while Instant::now() < end {
            tokio::select! {
                event = events.recv() => match event {
                    Some(event) => self.event(event).await,
                    None => return,
                },
                _ = rounds.tick() => {
                    self.open().await;
                    self.send_due().await;
                }
            }
        }
    }

    async fn event(&mut self, event: Event) {
        match event {
            Event::Connected { peer, member: true, .. } => {
                self.connected.insert(peer);
            }
            Event::Disconnected { peer } => {
                self.connected.remove(&peer);
                self.sessions.retain(|_, session| session.with != peer);
            }
            Event::Gossip { token, .. } => {
                let verdict = Verdict::Ignore;
                self.net.send(Command::Verdict { token, verdict }).await;
            }
            Event::SessionOpened { session, peer } => {
                let manner = SERVING[self.served % SERVING.len()];
                self.served += 1;
                self.report.served += 1;
                self.begin(session, peer, manner);
            }
            Event::SessionReady { session } => {
                if let Some(session) = self.sessions.get_mut(&session) {
                    session.ready = true;
                }
            }
            Event::SessionFrame { session, frame } => self.frame(session, &frame).await,
            Event::SessionClosed { session, .. } => {
                self.sessions.remove(&session);
            }
            _ => {}
        }
    }

    fn begin(&mut self, id: u64, with: DeviceId, manner: Manner) {
        let frames = VecDeque::new();
        self.sessions.insert(id, Session { with, manner, ready: false, frames });
    }

    /// Opens sessions with each victim until it holds as many as it wants.
    async fn open(&mut self) {
        for (_, victim) in self.rogue.victims.clone() {
            let ours = self.sessions.iter().filter(|(id, s)| is_ours(**id) && s.with == victim);
            if ours.count() >= SESSIONS || !self.connected.contains(&victim) {
                continue;
            }
            let manner = OPENING[self.opened % OPENING.len()];
            (self.opened, self.next) = (self.opened + 1, self.next + 2);
            let session = self.next;
            self.report.opened += 1;
            self.begin(session, victim, manner);
            for (after, frame) in self.first_words(manner) {
                self.say(session, after, frame);
            }
            self.net.send(Command::Open { session, peer: victim }).await;
        }
    }

    /// What it says in a session of its own, without waiting for answers.
    fn first_words(&self, manner: Manner) -> Vec<(Duration, Vec<u8>)> {
        let hello = || message::encode(&Repair::Hello(Hash::new([3; 32])));
        match manner {
            Manner::Silent | Manner::Offers => Vec::new(),
            Manner::Drip => {
                let roster = message::encode(&Repair::Roster(Vec::new()));
                let part = || self.digest(0, Then::More);
                vec![
                    (Duration::ZERO, hello()),
                    (DRIP, roster),
                    (2 * DRIP, part()),
                    (3 * DRIP, part()),
                    (4 * DRIP, part()),
                ]
            }
            Manner::Asks => vec![(Duration::ZERO, self.digest(0, Then::Send))],
            Manner::Junk => vec![(Duration::ZERO, Forger::newer_version(self.next))],
            Manner::Lies => vec![
                (Duration::ZERO, self.digest(LIES, Then::More)),
                (Duration::from_millis(100), self.digest(0, Then::Send)),
            ],
        }
    }

    /// A digest that claims this many heads beyond all that exist.
    fn digest(&self, lies: u64, then: Then) -> Vec<u8> {
        let known: Vec<LogId> = self.logs.iter().copied().collect();
        let author = self.rogue.victims[0].1;
        let log = |i: u64| {
            let made_up = LogId { author, epoch: (self.next << 32) + i, shard: 0 };
            usize::try_from(i).ok().and_then(|i| known.get(i).copied()).unwrap_or(made_up)
        };
        let entry = |i: u64| Entry {
            log: log(i),
            seq: 1_000_000_000 + self.next,
            head: Hash8::new((self.next + i).to_be_bytes()),
            staged: 0,
            refused: None,
            compare: false,
        };
        let mut entries: Vec<Entry> = (0..lies).map(entry).collect();
        entries.sort_unstable();
        entries.dedup_by_key(|entry| entry.log);
        message::encode(&Repair::Digest(Digest {
            statements: Vec::new(),
            key: DigestKey([3; 16]),
            number: 1,
            since: 0,
            entries,
            only: Vec::new(),
            then,
        }))
    }

    fn say(&mut self, session: u64, after: Duration, frame: Vec<u8>) {
        if let Some(session) = self.sessions.get_mut(&session) {
            session.frames.push_back((Instant::now() + after, frame));
        }
    }

    async fn send_due(&mut self) {
        let now = Instant::now();
        for (id, session) in &mut self.sessions {
            let due = session.frames.front().is_some_and(|(at, _)| *at <= now);
            if session.ready
                && due
                && let Some((_, frame)) = session.frames.pop_front()
            {
                session.ready = false;
                self.report.sent += 1;
                self.net.send(Command::Send { session: *id, frame }).await;
            }
        }
        // One that is blamed, and rarely enough: a frame out of turn, where something else is expected.
        if self.offence_at <= now
            && let Some((id, session)) =
                self.sessions.iter_mut().find(|(id, s)| is_ours(**id) && s.ready)
        {
            session.ready = false;
            self.offence_at = now + OFFENCE;
            self.report.sent += 1;
            let frame = message::encode(&Repair::Done);
            self.net.send(Command::Send { session: *id, frame }).await;
        }
    }

    /// Answers what others ask, each in the manner of its session.
    async fn frame(&mut self, id: u64, bytes: &[u8]) {
        let Ok(frame) = message::decode::<Repair>(bytes) else { return };
        if let Repair::Digest(digest) = &frame {
            self.logs.extend(digest.entries.iter().map(|entry| entry.log).take(256));
        }
        let Some(session) = self.sessions.get(&id) else { return };
        let manner = session.manner;
        if is_ours(id) {
            // Whatever it asked for has come: it asks again, in another session.
            if manner == Manner::Asks && frame == Repair::Done {
                self.net.send(Command::Close { session: id }).await;
            }
            return;
        }
        let pause = match manner {
            Manner::Silent => return,
            Manner::Drip => DRIP,
            _ => Duration::ZERO,
        };
        let answer = match frame {
            Repair::Hello(_) => Repair::Differs(self.roster),
            Repair::Roster(names) => Repair::Statements(Statements { missing: Vec::new(), names }),
            Repair::Digest(digest) if digest.then == Then::More => return,
            Repair::Digest(_) => self.offer(),
            _ => return,
        };
        let plans = matches!(answer, Repair::Plan(_));
        self.say(id, pause, message::encode(&answer));
        if plans && manner == Manner::Drip {
            // Slots of a log that never began: no progress, and nobody's fault.
            for n in 1..8 {
                self.say(id, pause * (n + 1), message::encode(&Repair::Slots(vec![slot(n)])));
            }
        }
    }

    /// Offers all that it has heard of, further than anybody has it.
    fn offer(&self) -> Repair {
        let one = |log: &LogId| Planned {
            log: *log,
            seq: 1_000_000_000,
            head: Hash::new([9; 32]),
            slots: 1_000_000,
        };
        let logs = self.logs.iter().map(one).collect();
        Repair::Plan(Plan { complete: Completeness::Complete, logs })
    }
}

/// Whether it opened that session itself.
fn is_ours(session: u64) -> bool {
    session.is_multiple_of(2)
}

fn slot(n: u32) -> SlotRecord {
    SlotRecord { seq: u64::from(n), hlc: Hlc(u64::from(n)), op: Bytes(vec![0; 64]) }
}
