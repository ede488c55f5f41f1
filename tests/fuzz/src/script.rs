//! Reads bytes as a script for one engine, runs it, and checks what must hold at every step and after.

use std::collections::BTreeMap;

use swarmkv_protocol::id::{DeviceId, LogId};
use swarmkv_protocol::io::{Fault, Input, Output, SessionId, Token};
use swarmkv_protocol::limits::{MAX_HELD, MAX_LOGS};
use swarmkv_protocol::message::{self, Repair, Then};
use swarmkv_protocol::model::cell::Cell;
use swarmkv_protocol::roster::Role;
use swarmkv_protocol::store::{RawSlot, Store as _};
use swarmkv_protocol::ticket::Invite;
use swarmkv_protocol::time::Now;

use crate::bed::{Bed, Peer, WALL, key, put, talk_through};

/// Which inputs a script may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mix {
    Session,
    Everything,
}

/// Steps that one script may take.
const STEPS: usize = 200;

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        let shift = u32::from(self.byte() % 8) * 8;
        u64::from(self.byte()) << shift.min(56)
    }

    fn bytes(&mut self, most: usize) -> Vec<u8> {
        let length = usize::from(self.byte()).min(most).min(self.0.len());
        let (taken, rest) = self.0.split_at(length);
        self.0 = rest;
        taken.to_vec()
    }

    fn pick<'b, T>(&mut self, of: &'b [T]) -> Option<&'b T> {
        of.get(usize::from(self.byte()) % of.len().max(1))
    }
}

struct Course<'a> {
    input: Reader<'a>,
    bed: Bed,
    victim: Peer,
    rogue: DeviceId,
    now: Now,
    /// Sessions that the victim opened or was offered.
    sessions: Vec<SessionId>,
    next: u64,
}

pub fn run(data: &[u8], mix: Mix) {
    let bed = Bed::fresh();
    let victim = bed.peer(0);
    let now = Now { wall: WALL, mono: 0 };
    let rogue = key(3).id();
    let input = Reader(data);
    let mut course = Course { input, bed, victim, rogue, now, sessions: Vec::new(), next: 1 };
    course.feed(Input::Connected(rogue));
    for _ in 0..STEPS {
        if course.input.0.is_empty() {
            break;
        }
        course.step(mix);
    }
    course.after();
}

impl Course<'_> {
    fn step(&mut self, mix: Mix) {
        let count = if mix == Mix::Session { 8 } else { 17 };
        match self.input.byte() % count {
            6 | 7 => self.converse(),
            0 => {
                self.next += 2;
                let session = SessionId(self.next);
                self.sessions.push(session);
                self.feed(Input::SessionOpened(session, self.rogue));
            }
            1 | 2 => self.frame(),
            3 => self.on_session(Input::SessionReady),
            4 => self.on_session(Input::SessionClosed),
            5 => self.pass(),
            14 | 15 => self.gossip(),
            8 => {
                let changes = (0..1 + self.input.byte() % 3)
                    .map(|_| put(&format!("key {}", self.input.byte() % 8), "mine"))
                    .collect();
                self.feed(Input::Write(Token(self.next), changes));
            }
            9 => self.feed(Input::Commit),
            16 => self.feed(Input::Flush),
            10 => {
                let peer = key(2 + self.input.byte() % 3).id();
                let connect = self.input.byte() % 2 == 0;
                self.feed(if connect { Input::Connected(peer) } else { Input::Disconnected(peer) });
                if !connect {
                    self.sessions.clear();
                }
                self.feed(Input::Connected(self.rogue));
            }
            11 => {
                let (token, peer) = (Token(self.next), key(9).id());
                let bytes = self.input.bytes(255);
                self.feed(Input::Asked { token, peer, bytes });
            }
            12 => {
                let bytes = self.input.bytes(255);
                self.feed(Input::Answered(self.rogue, bytes));
            }
            _ => {
                let invite = Invite {
                    role: Role::Writer,
                    prefix: Default::default(),
                    max_bytes: None,
                    expires_at: WALL + self.input.number(),
                    uses: u32::from(self.input.byte()),
                    confirm: self.input.byte() > 127,
                };
                self.feed(Input::Invite { token: Token(1), secret: [5; 16], invite });
                self.feed(Input::Scrub);
                if self.input.byte() > 200 {
                    let (token, device) = (Token(2), self.rogue);
                    self.feed(Input::PullAll);
                    self.feed(Input::Revoke { token, device });
                }
            }
        }
    }

    fn on_session(&mut self, input: impl Fn(SessionId) -> Input) {
        if let Some(session) = self.input.pick(&self.sessions.clone()) {
            self.feed(input(*session));
        }
    }

    /// A frame: noise, a genuine one of another time, or a genuine one changed where it has meaning.
    fn frame(&mut self) {
        let sessions = self.sessions.clone();
        let Some(session) = self.input.pick(&sessions).copied() else { return };
        let frames = std::mem::take(&mut self.bed.frames);
        let frame = match self.input.byte() % 4 {
            0 => self.input.bytes(255),
            1 => self.input.pick(&frames).cloned().unwrap_or_default(),
            2 => {
                let mut frame = self.input.pick(&frames).cloned().unwrap_or_default();
                let at = usize::from(self.input.byte()) * frame.len() / 256;
                if let Some(byte) = frame.get_mut(at) {
                    *byte ^= 1 << (self.input.byte() % 8);
                }
                frame
            }
            _ => {
                let frame = self.input.pick(&frames).cloned().unwrap_or_default();
                match message::decode::<Repair>(&frame) {
                    Ok(mut repair) => {
                        Twister(&mut self.input).twist(&mut repair);
                        message::encode(&repair)
                    }
                    Err(_) => frame,
                }
            }
        };
        self.bed.frames = frames;
        self.feed(Input::SessionFrame(session, frame));
    }

    fn gossip(&mut self) {
        let genuine = self.bed.gossip.clone();
        let mut bytes = self.input.pick(&genuine).cloned().unwrap_or_default();
        match self.input.byte() % 3 {
            0 => {
                let at = usize::from(self.input.byte()) * bytes.len() / 256;
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = self.input.byte();
                }
            }
            1 => {}
            _ => bytes = self.input.bytes(255),
        }
        let token = Token(self.next);
        self.feed(Input::Gossip { token, from: self.rogue, bytes });
    }

    /// A rogue that speaks the protocol well, and twists a frame now and then.
    fn converse(&mut self) {
        let mut rogue = self.bed.peer(2);
        let script = self.input.bytes(64);
        let mut script = Reader(&script);
        let mut noise = Twister(&mut script);
        let from = self.now.mono;
        talk_through(&mut self.victim, &mut rogue, from, 4, |from_rogue, frame| {
            if from_rogue { noise.frame(frame) } else { Some(frame) }
        });
        self.now.mono += 12_000_000;
        self.now.wall += 12_000_000;
        self.sessions.clear();
        self.feed(Input::Connected(self.rogue));
    }

    /// Time passes, sometimes to the next deadline only.
    fn pass(&mut self) {
        let pause = self.input.number() % 100_000;
        self.now.mono += pause;
        self.now.wall = self.now.wall.saturating_add(pause);
        self.feed(Input::Tick);
        for _ in 0..10_000 {
            match self.victim.engine.next_deadline() {
                Some((at, _)) if at <= self.now.mono => self.feed(Input::Tick),
                _ => return,
            }
        }
        panic!("deadlines do not move on: {:?}", self.victim.engine.next_deadline());
    }

    fn feed(&mut self, input: Input) {
        let before = self.honest_heads();
        match self.victim.engine.handle(self.now, input) {
            Ok(()) | Err(Fault::Peer { .. }) => {}
            Err(Fault::Store(e)) => panic!("a peer broke the store: {e}"),
        }
        while let Some(output) = self.victim.engine.poll_output() {
            match output {
                Output::Persist(writes) => self.victim.disk.0.borrow_mut().apply(writes),
                Output::OpenSession(session, _) => self.sessions.push(session),
                Output::CloseSession(session) => self.sessions.retain(|s| *s != session),
                _ => {}
            }
        }
        let after = self.honest_heads();
        for (log, seq) in before {
            let now = after.get(&log).copied().unwrap_or(0);
            assert!(now >= seq, "{log:?} went back from {seq} to {now}");
        }
        assert!(self.victim.engine.held() <= MAX_HELD);
        assert!(self.victim.engine.logs().len() <= MAX_LOGS);
        assert_eq!(self.victim.engine.counters().set_aside, 0, "nothing is damaged here");
    }

    fn honest_heads(&self) -> BTreeMap<LogId, u64> {
        let honest = [key(1).id(), key(2).id()];
        let mut heads = BTreeMap::new();
        for (branch, seq) in self.victim.engine.heads().iter() {
            if honest.contains(&branch.log.author) {
                let head = heads.entry(branch.log).or_insert(0);
                *head = seq.max(*head);
            }
        }
        heads
    }

    /// The attacker is gone: what is shown of honest authors is what they signed, and an honest peer
    /// and the victim agree in the end.
    fn after(mut self) {
        self.feed(Input::Disconnected(self.rogue));
        self.sessions.clear();
        for n in [2, 4] {
            self.feed(Input::Disconnected(key(n).id()));
        }
        let mut honest = self.bed.peer(1);
        self.now.mono += 120_000;
        self.feed(Input::Tick);
        talk_through(&mut self.victim, &mut honest, self.now.mono, 60, |_, frame| Some(frame));
        let (ours, theirs) = (self.victim.engine.state_hash(), honest.engine.state_hash());
        assert_eq!(ours, theirs, "they do not agree");
        let heads = self.victim.engine.heads();
        for n in 0..5 {
            let key = Cell::value(format!("key {n}").as_bytes()).index_key();
            for raw in self.victim.disk.slots(&key).expect("memory does not fail") {
                if raw.seq > heads.of(&raw.branch) {
                    continue;
                }
                raw.open().expect("what is shown decodes");
                let same = honest.disk.slots(&key).expect("memory does not fail");
                let place =
                    |other: &&RawSlot| (other.branch.log, other.seq) == (raw.branch.log, raw.seq);
                if let Some(other) = same.iter().find(place) {
                    assert_eq!((raw.hlc, &raw.op), (other.hlc, &other.op), "not what was signed");
                }
            }
        }
    }
}

/// Changes frames as the script says.
struct Twister<'a, 'b>(&'a mut Reader<'b>);

impl Twister<'_, '_> {
    /// Mostly lets a frame pass.
    fn frame(&mut self, frame: Vec<u8>) -> Option<Vec<u8>> {
        match self.0.byte() % 6 {
            1 | 2 => {
                let mut repair = message::decode::<Repair>(&frame).ok()?;
                self.twist(&mut repair);
                Some(message::encode(&repair))
            }
            3 if self.0.byte() % 4 == 0 => None,
            _ => Some(frame),
        }
    }

    fn twist_comparison(&mut self, repair: &mut Repair) {
        let number = self.0.number();
        match repair {
            Repair::Sums(sums) => match self.0.byte() % 3 {
                0 => sums.last = !sums.last,
                1 => sums.blocks.iter_mut().for_each(|block| block.upto ^= number),
                _ => sums.blocks.iter_mut().for_each(|block| block.sum = Default::default()),
            },
            Repair::Ask(ask) => match self.0.byte() % 3 {
                0 => ask.ranges.iter_mut().for_each(|range| range.upto = number),
                1 => ask.wanted.push(number),
                _ => ask.ranges.clear(),
            },
            Repair::Names(names) => match self.0.byte() % 3 {
                0 => names.upto = number,
                1 => names.names.iter_mut().for_each(|named| named.seq ^= number),
                _ => names.names.iter_mut().for_each(|named| named.name = Default::default()),
            },
            _ => {}
        }
    }

    fn twist(&mut self, repair: &mut Repair) {
        let number = self.0.number();
        match repair {
            Repair::Slots(slots) => {
                let at = usize::from(self.0.byte()) % slots.len().max(1);
                match self.0.byte() % 6 {
                    0 => slots.truncate(at),
                    4 => drop(slots.drain(at..(at + 1).min(slots.len()))),
                    5 => slots[at].op.0.iter_mut().rev().take(3).for_each(|byte| *byte ^= 1),
                    1 => slots.iter_mut().skip(at).for_each(|slot| slot.seq = number),
                    2 => slots.swap(0, at),
                    _ => slots.iter_mut().for_each(|slot| slot.hlc.0 ^= number),
                }
            }
            Repair::End(header) => {
                let at = usize::from(self.0.byte()) % header.len().max(1);
                header.0.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1);
            }
            Repair::Start(start) => match self.0.byte() % 4 {
                3 => start.compare = !start.compare,
                0 => start.from = number,
                1 => start.base = Default::default(),
                _ => start.linked = !start.linked,
            },
            Repair::Digest(digest) => {
                for entry in &mut digest.entries {
                    match self.0.byte() % 5 {
                        0 => entry.seq = number,
                        1 => entry.staged = number,
                        2 => entry.head = Default::default(),
                        3 => entry.refused = Some(entry.head),
                        _ => {}
                    }
                }
                match self.0.byte() % 4 {
                    0 => digest.since = 0,
                    1 => digest.since = number,
                    2 => digest.number = number,
                    _ => {}
                }
                digest.then = match self.0.byte() % 6 {
                    0 => Then::More,
                    1 => Then::Send,
                    2 => Then::Wait,
                    _ => digest.then,
                };
                if self.0.byte() % 3 == 0 {
                    digest.only = digest.entries.iter().map(|entry| entry.log).collect();
                }
            }
            Repair::Plan(plan) => plan.logs.iter_mut().for_each(|planned| planned.seq = number),
            Repair::Except(places) => places.push(self.0.byte().into()),
            Repair::Sums(_) | Repair::Ask(_) | Repair::Names(_) => self.twist_comparison(repair),
            Repair::Hello(_)
            | Repair::Differs(_)
            | Repair::Done
            | Repair::Same(_)
            | Repair::TellAll => {}
            Repair::Roster(names) => names.reverse(),
            Repair::Statements(statements) => statements.missing.push(self.0.bytes(200).into()),
        }
    }
}
