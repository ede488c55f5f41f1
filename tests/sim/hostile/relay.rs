//! A member that sends any frame at any time: as the side that serves, and in sessions that it opens.

use std::collections::{BTreeMap, VecDeque};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::commit::SignedHeader;
use swarmkv_protocol::digest::{DigestKey, Entry};
use swarmkv_protocol::id::{BranchId, DeviceId, Hash, Hash8, LogId};
use swarmkv_protocol::io::SessionId;
use swarmkv_protocol::limits::{DIGEST_ENTRIES, VERSION};
use swarmkv_protocol::message::{
    self, Completeness, Digest, Plan, Planned, Repair, SlotRecord, Start, Statements, Then,
};
use swarmkv_protocol::store::Store as _;
use swarmkv_protocol::time::Hlc;

use super::author::History;
use super::compare::{self, Compared};
use crate::rng::Rng;
use crate::world::World;

/// What a session of a hostile member is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Sends nothing after so many frames.
    Silent(usize),
    /// Sends one small frame every few seconds.
    Drip,
    /// Answers at once, with lies.
    Fast,
}

/// A session in a hostile member's own hand.
pub struct Script {
    pub session: usize,
    pub end: usize,
    manner: Manner,
    /// What this side wants of it, when it opened it.
    pub ask: Option<Ask>,
    queue: VecDeque<(u64, Vec<u8>)>,
    /// Frames of the logs that are still to be sent, and what is to be compared after them.
    jobs: VecDeque<(Vec<Vec<u8>>, Option<Compared>)>,
    comparing: Option<Compared>,
    waits: bool,
    sent: usize,
    rounds: u64,
    epoch: u64,
    pub until: u64,
}

/// What a session that a hostile member opens is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    /// Everything, over and over.
    All,
    /// A digest that never ends.
    Parts,
    /// To be asked for what is not there, and to except what was not planned.
    Lies,
    /// Bytes and frames that mean nothing there.
    Junk,
    /// Nothing.
    Nothing,
    /// Greeting after greeting.
    Hellos,
    /// Single logs.
    Only,
}

const ASKS: [Ask; 7] =
    [Ask::All, Ask::Parts, Ask::Lies, Ask::Junk, Ask::Nothing, Ask::Hellos, Ask::Only];

impl Script {
    pub fn new(rng: &mut Rng, session: usize, end: usize, now: u64) -> Self {
        let manner = match rng.below(10) {
            0..3 => Manner::Silent(rng.index(9)),
            3 | 4 => Manner::Drip,
            _ => Manner::Fast,
        };
        let ask = (end == 0).then(|| ASKS[rng.index(ASKS.len())]);
        let until = now + rng.below(90_000);
        let (queue, jobs) = (VecDeque::new(), VecDeque::new());
        Self {
            session,
            end,
            manner,
            ask,
            queue,
            jobs,
            comparing: None,
            waits: false,
            sent: 0,
            rounds: 0,
            epoch: 0,
            until,
        }
    }

    fn say(&mut self, rng: &mut Rng, now: u64, frame: Vec<u8>) {
        let last = self.queue.back().map_or(now, |(at, _)| *at).max(now);
        let pause =
            if self.manner == Manner::Drip { rng.range(2_000, 6_000) } else { rng.below(20) };
        self.queue.push_back((last + pause, frame));
    }

    fn greet(&mut self, rng: &mut Rng, now: u64, truth: &Truth) {
        let hello = hello(rng, truth);
        self.say(rng, now, hello);
    }

    /// What is due now.
    pub fn due(&mut self, now: u64) -> Vec<Vec<u8>> {
        let mut due = Vec::new();
        while self.queue.front().is_some_and(|(at, _)| *at <= now) {
            let (_, frame) = self.queue.pop_front().expect("there is one");
            self.sent += 1;
            if !matches!(self.manner, Manner::Silent(after) if self.sent > after) {
                due.push(frame);
            }
        }
        due
    }

    /// What a session begins with that this side opened.
    pub fn begin(&mut self, rng: &mut Rng, now: u64, truth: &Truth) {
        let Some(ask) = self.ask else { return };
        match ask {
            Ask::All | Ask::Lies => self.greet(rng, now, truth),
            Ask::Hellos => (0..rng.below(40)).for_each(|_| self.greet(rng, now, truth)),
            Ask::Junk => (0..rng.below(6)).for_each(|_| {
                let frame = any(rng, truth);
                self.say(rng, now, frame);
            }),
            Ask::Parts | Ask::Only => self.more(rng, now, truth),
            Ask::Nothing => {}
        }
    }

    /// Goes on where the other side waits or listens.
    pub fn more(&mut self, rng: &mut Rng, now: u64, truth: &Truth) {
        if self.queue.len() > 3 || self.rounds > 60 {
            return;
        }
        self.rounds += 1;
        match self.ask {
            Some(Ask::Parts) => {
                let count = rng.below(DIGEST_ENTRIES as u64);
                let entries = (0..count).map(|_| {
                    self.epoch += 1;
                    let author = DeviceId::new([0xee; 32]);
                    let log = LogId { author, epoch: self.epoch, shard: 0 };
                    Entry { seq: 9, head: Hash8::new([1; 8]), ..nothing(log) }
                });
                let mut digest = digest(rng, entries.collect(), Then::More);
                digest.then = if rng.percent(3) { Then::Send } else { Then::More };
                self.say(rng, now, message::encode(&Repair::Digest(digest)));
            }
            Some(Ask::Only) => {
                let mut logs: Vec<LogId> = truth.logs.iter().map(|log| log.branch.log).collect();
                logs.truncate(1 + rng.index(8));
                logs.sort_unstable();
                logs.dedup();
                let entries = if rng.percent(50) { Vec::new() } else { lies(rng, truth) };
                let mut digest = digest(rng, entries, Then::Send);
                digest.only = logs;
                self.say(rng, now, message::encode(&Repair::Digest(digest)));
            }
            Some(Ask::All) => {
                let digest = digest(rng, Vec::new(), Then::Send);
                self.say(rng, now, message::encode(&Repair::Digest(digest)));
            }
            Some(Ask::Lies) => {
                let then = if rng.percent(60) { Then::Wait } else { Then::Send };
                let entries = lies(rng, truth);
                let digest = digest(rng, entries, then);
                self.say(rng, now, message::encode(&Repair::Digest(digest)));
            }
            _ => {}
        }
    }

    /// A frame arrived in a session that this side opened.
    pub fn heard(&mut self, rng: &mut Rng, now: u64, bytes: &[u8], truth: &Truth) {
        match message::decode::<Repair>(bytes) {
            Ok(Repair::Differs(_) | Repair::Done | Repair::TellAll) => self.more(rng, now, truth),
            Ok(Repair::Same(_)) if rng.percent(50) => self.more(rng, now, truth),
            Ok(Repair::Plan(plan)) => {
                let count = plan.logs.len() as u64;
                let places: Vec<u32> = match rng.below(6) {
                    0 => return,
                    1 => vec![u32::MAX],
                    2 => (0..u32::try_from(count + 3).expect("small")).collect(),
                    3 => vec![1, 0, 1, 0],
                    4 => Vec::new(),
                    _ => vec![0],
                };
                self.say(rng, now, message::encode(&Repair::Except(places)));
            }
            Ok(Repair::Sums(sums)) if sums.last || rng.percent(20) => {
                let frame = compare::ask(rng, sums.blocks.last().map_or(9, |block| block.upto));
                self.say(rng, now, frame);
            }
            Ok(Repair::Names(names)) => {
                let frame = compare::ask(rng, names.upto);
                self.say(rng, now, frame);
            }
            _ => {}
        }
    }

    /// A frame arrived in a session that the other side opened: what this one answers.
    pub fn asked(&mut self, rng: &mut Rng, now: u64, bytes: &[u8], truth: &Truth) {
        if rng.percent(6) {
            let frame = any(rng, truth);
            self.say(rng, now, frame);
        }
        match message::decode::<Repair>(bytes) {
            Ok(Repair::Hello(_)) => {
                let differs = if rng.percent(85) { truth.roster } else { Hash::new(rng.bytes()) };
                let answer = match rng.below(12) {
                    0 => Repair::Same(completeness(rng)),
                    1 => Repair::TellAll,
                    _ => Repair::Differs(differs),
                };
                self.say(rng, now, message::encode(&answer));
            }
            Ok(Repair::Roster(names)) => {
                let names = if rng.percent(80) { names } else { Vec::new() };
                let missing = if rng.percent(5) { vec![Bytes(vec![0x82; 9])] } else { Vec::new() };
                let answer = Repair::Statements(Statements { missing, names });
                self.say(rng, now, message::encode(&answer));
            }
            Ok(Repair::Digest(digest)) if digest.then != Then::More => {
                if rng.percent(12) {
                    let again = 1 + rng.below(3);
                    (0..again).for_each(|_| self.say(rng, now, message::encode(&Repair::TellAll)));
                    if rng.percent(50) {
                        return;
                    }
                }
                self.plan(rng, now, &digest, truth);
            }
            Ok(Repair::Except(places)) if self.waits => {
                let mut place = 0u32;
                self.jobs.retain(|_| {
                    place += 1;
                    !places.contains(&(place - 1))
                });
                self.stream(rng, now);
            }
            Ok(Repair::Ask(ask)) => {
                let Some(log) = self.comparing.take() else { return };
                for frame in log.answer(rng, &ask) {
                    self.say(rng, now, frame);
                }
                if ask.ranges.is_empty() {
                    self.stream(rng, now);
                } else {
                    self.comparing = Some(log);
                }
            }
            _ => {}
        }
    }

    fn plan(&mut self, rng: &mut Rng, now: u64, theirs: &Digest, truth: &Truth) {
        let mut planned = Vec::new();
        for log in &truth.logs {
            if rng.percent(35) {
                continue;
            }
            let mut plan = Planned {
                log: log.branch.log,
                seq: log.seq,
                head: log.head,
                slots: log.slots.len() as u64,
            };
            match rng.below(24) {
                0 => plan.seq = u64::MAX,
                1 => plan.head = Hash::new(rng.bytes()),
                2 => plan.slots = u64::MAX,
                3 => plan.log.epoch ^= 1,
                _ => {}
            }
            if rng.percent(94) {
                planned.push(plan);
            }
            let compared = rng.percent(25).then(|| Compared::new(log, theirs));
            let frames = match &compared {
                Some(compared) => compared.begin(rng),
                None => send(rng, log, theirs, truth),
            };
            self.jobs.push_back((frames, compared));
        }
        let plan = Plan { complete: completeness(rng), logs: planned };
        self.say(rng, now, message::encode(&Repair::Plan(plan)));
        self.waits = theirs.then == Then::Wait && rng.percent(85);
        if !self.waits {
            self.stream(rng, now);
        }
    }

    fn stream(&mut self, rng: &mut Rng, now: u64) {
        self.waits = false;
        while let Some((frames, compared)) = self.jobs.pop_front() {
            frames.into_iter().for_each(|frame| self.say(rng, now, frame));
            if compared.is_some() && rng.percent(90) {
                self.comparing = compared;
                return;
            }
        }
        if rng.percent(80) {
            self.say(rng, now, message::encode(&Repair::Done));
        }
    }
}

fn completeness(rng: &mut Rng) -> Completeness {
    rng.percent(50).into()
}

fn nothing(log: LogId) -> Entry {
    Entry { log, seq: 0, head: Hash8::default(), staged: 0, refused: None, compare: false }
}

fn hello(rng: &mut Rng, truth: &Truth) -> Vec<u8> {
    let hash = if rng.percent(20) { truth.state } else { Hash::new(rng.bytes()) };
    message::encode(&Repair::Hello(hash))
}

fn digest(rng: &mut Rng, mut entries: Vec<Entry>, then: Then) -> Digest {
    entries.sort_unstable();
    entries.dedup();
    Digest {
        statements: Vec::new(),
        key: DigestKey(rng.bytes()),
        number: rng.below(4),
        since: if rng.percent(85) { 0 } else { rng.below(5) },
        entries,
        only: Vec::new(),
        then,
    }
}

/// False heads of real logs.
fn lies(rng: &mut Rng, truth: &Truth) -> Vec<Entry> {
    let mut entries = Vec::new();
    for log in &truth.logs {
        let mut entry = nothing(log.branch.log);
        match rng.below(5) {
            0 => (entry.seq, entry.head) = (u64::MAX, Hash8::new(rng.bytes())),
            1 => (entry.seq, entry.head) = (log.seq.saturating_add(1), Hash8::new(rng.bytes())),
            2 => entry.staged = rng.next(),
            3 => {
                (entry.seq, entry.head) = (log.seq, Hash8::new(rng.bytes()));
                entry.refused = Some(Hash8::new(rng.bytes()));
            }
            _ => {}
        }
        entries.push(entry);
    }
    entries
}

/// Any frame: junk, or one that has no place there.
fn any(rng: &mut Rng, truth: &Truth) -> Vec<u8> {
    let log = truth.logs.get(rng.index(truth.logs.len().max(1)));
    let header = log.map(|log| log.header.clone()).unwrap_or_default();
    match rng.below(11) {
        8 => compare::ask(rng, 40),
        9 => compare::junk(rng),
        0 => {
            let mut bytes = vec![VERSION; 1];
            bytes.extend((0..rng.below(60)).map(|n| u8::try_from(n).expect("small")));
            bytes
        }
        1 => vec![9, 9, 9],
        2 => message::encode(&Repair::Slots(log.map(|l| l.slots.clone()).unwrap_or_default())),
        3 => message::encode(&Repair::End(header)),
        4 => message::encode(&Repair::Done),
        5 => message::encode(&Repair::TellAll),
        6 => message::encode(&Repair::Except(vec![3, 2])),
        7 => message::encode(&Repair::Slots(Vec::new())),
        _ => {
            let id = log.map_or_else(|| LogId::from_bytes(&[7; LogId::LEN]), |log| log.branch.log);
            let (base, linked) = (Hash8::new(rng.bytes()), rng.percent(50));
            message::encode(&Repair::Start(Start {
                log: id,
                base,
                linked,
                from: rng.below(9),
                compare: rng.percent(50),
                header,
            }))
        }
    }
}

/// A log as a hostile member can offer it.
pub struct Offered {
    pub branch: BranchId,
    pub seq: u64,
    pub head: Hash,
    pub header: Bytes,
    /// Genuine headers before that.
    pub older: Vec<Bytes>,
    pub slots: Vec<SlotRecord>,
}

/// What is so, as far as a hostile member knows.
pub struct Truth {
    pub roster: Hash,
    pub state: Hash,
    pub logs: Vec<Offered>,
}

/// The frames of one log: as they should be, or not.
fn send(rng: &mut Rng, log: &Offered, theirs: &Digest, truth: &Truth) -> Vec<Vec<u8>> {
    let id = log.branch.log;
    let hashes: BTreeMap<Hash8, Hash> =
        [(theirs.key.short(&log.head), log.head)].into_iter().collect();
    let entry = theirs.entries.iter().filter(|entry| entry.log == id);
    let has = entry.clone().any(|entry| hashes.contains_key(&entry.head));
    let from = entry.max_by_key(|entry| entry.seq).filter(|entry| entry.seq > 0 && !has);
    let whole = from.is_none() || rng.percent(30);
    let (base, mut cursor) = match from.filter(|_| !whole) {
        Some(entry) => (entry.head, entry.staged.max(entry.seq)),
        None => (Hash8::default(), 0),
    };
    if rng.percent(5) {
        cursor = rng.below(30);
    }
    let mut slots: Vec<SlotRecord> =
        log.slots.iter().filter(|slot| slot.seq > cursor).cloned().collect();
    let mut end = log.header.clone();
    spoil(rng, log, truth, &mut slots, &mut end);
    let linked = rng.percent(70);
    let (from, compare, header) = (cursor, rng.percent(3), log.header.clone());
    let start = Start { log: id, base, linked, from, compare, header };
    let mut frames = vec![message::encode(&Repair::Start(start))];
    let size = if rng.percent(30) { 1 } else { 50 };
    frames.extend(slots.chunks(size).map(|part| message::encode(&Repair::Slots(part.to_vec()))));
    if rng.percent(90) {
        frames.push(message::encode(&Repair::End(end)));
    }
    if rng.percent(4) {
        frames.push(any(rng, truth));
    }
    frames
}

fn spoil(
    rng: &mut Rng,
    log: &Offered,
    truth: &Truth,
    slots: &mut Vec<SlotRecord>,
    end: &mut Bytes,
) {
    let at = rng.index(slots.len().max(1));
    match rng.below(22) {
        0 if !log.older.is_empty() => *end = log.older[rng.index(log.older.len())].clone(),
        1 if !slots.is_empty() => {
            slots.remove(at);
        }
        2 if !slots.is_empty() => slots[at].hlc = Hlc(rng.next()),
        3 if !slots.is_empty() => slots[at].seq = slots[at].seq.saturating_add(rng.below(4)),
        4 if !slots.is_empty() => {
            let other = truth.logs.get(rng.index(truth.logs.len()));
            let slot = other.and_then(|other| other.slots.first());
            slots[at].op = slot.map(|slot| slot.op.clone()).unwrap_or_default();
        }
        5 => slots.truncate(at),
        6 => {
            let other = truth.logs.get(rng.index(truth.logs.len().max(1)));
            *end = other.map(|other| other.header.clone()).unwrap_or_default();
        }
        7 if slots.len() > 1 => slots.swap(0, at),
        8 if !slots.is_empty() => {
            let again = slots[at].clone();
            slots.push(again);
        }
        _ => {}
    }
}

impl History {
    /// This history as repair sends it.
    fn offered(&self) -> Option<Offered> {
        let newest = self.commits.last()?;
        let record = |(slot, op): &(_, Bytes)| {
            let slot: &swarmkv_protocol::op::Slot = slot;
            SlotRecord { seq: slot.seq, hlc: slot.hlc, op: op.clone() }
        };
        let mut slots: Vec<SlotRecord> = self.live.values().map(record).collect();
        slots.sort_by_key(|slot| slot.seq);
        let older = self.commits.iter().rev().skip(1).take(4).map(|c| c.bytes.clone()).collect();
        Some(Offered {
            branch: self.log.into(),
            seq: newest.header.last_seq,
            head: newest.hash(),
            header: newest.bytes.clone(),
            older,
            slots,
        })
    }
}

impl World {
    /// What a hostile member can offer: some of what its replica holds, and of what it signs itself.
    pub fn truth(&mut self, n: usize, histories: &[History]) -> Option<Truth> {
        let engine = self.nodes[n].engine.as_mut()?;
        let (roster, state) = (engine.roster().hash(), engine.state_hash());
        let heads = engine.heads();
        let mut logs = Vec::new();
        for (branch, seq) in heads.iter() {
            if self.rng.percent(50) {
                logs.extend(self.held(n, *branch, seq));
            }
        }
        for history in histories {
            if self.rng.percent(60) {
                logs.extend(history.offered());
            }
        }
        logs.sort_by_key(|log| (log.branch.log, log.seq));
        Some(Truth { roster, state, logs })
    }

    fn held(&self, n: usize, branch: BranchId, seq: u64) -> Option<Offered> {
        let disk = self.nodes[n].disk.borrow();
        let header = disk.visible.header(&branch, seq).ok().flatten()?;
        let signed = SignedHeader::decode(&header).ok()?;
        let all = disk.visible.slots_after(&branch, 0, seq, 400, 1 << 20).ok()?;
        let mut live: BTreeMap<Bytes, SlotRecord> = BTreeMap::new();
        for raw in all {
            let cell = raw.open().ok()?.op.cell.index_key();
            live.insert(cell, SlotRecord::from(raw));
        }
        let mut slots: Vec<SlotRecord> = live.into_values().collect();
        slots.sort_by_key(|slot| slot.seq);
        let before = seq.saturating_sub(signed.claim().count.into());
        let older = disk.visible.header(&branch, before).ok().flatten();
        use swarmkv_protocol::crypto::{self, Domain};
        Some(Offered {
            branch,
            seq,
            head: crypto::hash(Domain::Header, &[&header]),
            header,
            older: older.into_iter().collect(),
            slots,
        })
    }

    /// A hostile member opens a session of its own.
    pub fn open_hostile(&mut self, n: usize, id: SessionId) {
        let peers: Vec<DeviceId> =
            self.nodes[n].told.iter().map(|peer| self.nodes[*peer].id).collect();
        if peers.is_empty() {
            return;
        }
        let peer = peers[self.rng.index(peers.len())];
        self.open_session(n, id, &peer);
        let session = self.sessions.len() - 1;
        let script = Script::new(&mut self.rng, session, 0, self.time);
        self.hostile.get_mut(&n).expect("it is hostile").sessions.insert(id, script);
    }
}
