//! The pulling side: asks, sets aside what arrives, and moves a log's head when it is proven.

mod comparing;
mod receive;
mod receiving;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use self::receiving::Receiving;
use super::hold::Hold;
use super::progress::Progress;
use crate::id::{BranchId, DeviceId, Hash8, LogId};
use crate::io::{Fault, Output, SessionId};
use crate::limits::{DIGEST_ENTRIES, MAX_FRAME, MAX_LOGS, MAX_STATEMENTS, SLOW_LINE_BYTES_PER_MS};
use crate::log::branch::Branch;
use crate::log::digest::{self, DigestKey, Entry};
use crate::message::{self, Completeness, Digest, Plan, Planned, Repair, Statements, Then};
use crate::replica::Replica;
use crate::store::Store;
use crate::time::Now;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Hello,
    Roster,
    Streaming,
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Everything is compared.
    Compare,
    /// Only gaps on the live path are closed: says nothing of all else.
    CloseGaps,
}

/// How a session stands after a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pulled {
    /// Goes on.
    More,
    /// Both sides were equal; says whether the peer is complete.
    Equal(Completeness),
    /// Everything planned was dealt with.
    Done,
}

/// Logs that a peer's false offers are not accepted for, and until when.
pub(crate) type PeerCooldown = BTreeMap<(DeviceId, LogId), u64>;

/// What this side has told a peer on this connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Under which heads are cut short.
    pub(crate) key: DigestKey,
    /// Digests told.
    pub(crate) number: u64,
    /// The last of them; nothing if the peer may not know it.
    pub(crate) digest: digest::Digest,
}

/// One session that pulls from one peer.
#[derive(Debug)]
pub(crate) struct Pull {
    pub(crate) session: SessionId,
    pub(crate) peer: DeviceId,
    pub(crate) purpose: Purpose,
    /// Slots received and planned in all, for showing progress.
    pub(crate) received: u64,
    pub(crate) planned: u64,
    /// Whether a log moved.
    pub(crate) learned: bool,
    /// What had moved here when it began: what it finds equal is that.
    pub(crate) moves: u64,
    /// When it began, in monotonic milliseconds.
    pub(crate) began: u64,
    progress: Progress,
    /// Bytes here of a frame that is not whole yet.
    arrived: u64,
    phase: Phase,
    plan: Option<Plan>,
    /// Planned logs that have not begun.
    reserved: BTreeSet<LogId>,
    /// Until when they, and the one that is arriving, are this session's.
    hold: Hold,
    receiving: Option<Receiving>,
    outbox: VecDeque<Vec<u8>>,
    ready: bool,
    key: DigestKey,
    number: u64,
    telling: Vec<Entry>,
    told_all: bool,
    /// Others are pulling as well: the plan is looked at before anything is sent.
    beside_others: bool,
    /// The peer answered to a digest that is not ours: it is to be told everything again.
    misunderstood: bool,
}

impl Pull {
    pub(crate) fn start<S: Store>(
        session: SessionId,
        peer: DeviceId,
        now: Now,
        beside_others: bool,
        replica: &mut Replica<S>,
    ) -> Self {
        let hello = message::encode(&Repair::Hello(replica.state_hash()));
        let pull = Self::open(session, peer, now, hello, replica);
        Self { beside_others, ..pull }
    }

    /// A session that asks for certain logs only, at once.
    pub(crate) fn close_gaps<S: Store>(
        session: SessionId,
        peer: DeviceId,
        logs: &BTreeSet<LogId>,
        told: &Told,
        now: Now,
        replica: &mut Replica<S>,
    ) -> Self {
        let mut entries = replica.some_entries(logs, &told.key);
        entries.truncate(DIGEST_ENTRIES);
        let ask = message::encode(&Repair::Digest(Digest {
            statements: Vec::new(),
            key: told.key,
            number: 0,
            since: 0,
            entries,
            only: logs.iter().take(DIGEST_ENTRIES).copied().collect(),
            then: Then::Send,
        }));
        let pull = Self::open(session, peer, now, ask, replica);
        Self { purpose: Purpose::CloseGaps, phase: Phase::Streaming, key: told.key, ..pull }
    }

    fn open<S: Store>(
        session: SessionId,
        peer: DeviceId,
        now: Now,
        first: Vec<u8>,
        replica: &mut Replica<S>,
    ) -> Self {
        replica.fx.push(Output::OpenSession(session, peer));
        Self {
            session,
            peer,
            purpose: Purpose::Compare,
            received: 0,
            planned: 0,
            learned: false,
            moves: replica.moves(),
            began: now.mono,
            progress: Progress::new(now.mono),
            arrived: 0,
            phase: Phase::Hello,
            plan: None,
            reserved: BTreeSet::new(),
            hold: Hold::default(),
            receiving: None,
            outbox: VecDeque::from([first]),
            ready: false,
            key: DigestKey::default(),
            number: 0,
            telling: Vec::new(),
            told_all: false,
            beside_others: false,
            misunderstood: false,
        }
    }

    pub(crate) fn is_comparison(&self) -> bool {
        self.purpose == Purpose::Compare
    }

    /// Given up at this monotonic millisecond unless enough arrives.
    pub(crate) fn deadline(&self) -> u64 {
        self.progress.deadline()
    }

    /// Whether the peer has said what it could send.
    pub(crate) fn has_plan(&self) -> bool {
        self.plan.is_some()
    }

    /// The logs that are left to this session alone.
    pub(crate) fn reserved(&self, now: Now) -> impl Iterator<Item = LogId> {
        let receiving = self.receiving.iter().map(|receiving| receiving.branch.log);
        let logs = self.reserved.iter().copied().chain(receiving);
        logs.filter(move |_| now.mono < self.hold.until())
    }

    /// The session can take one more frame.
    pub(crate) fn ready<S>(&mut self, replica: &mut Replica<S>) {
        self.ready = true;
        self.pump(replica);
    }

    fn pump<S>(&mut self, replica: &mut Replica<S>) {
        if self.ready
            && let Some(frame) = self.outbox.pop_front()
        {
            self.ready = false;
            replica.fx.push(Output::SendFrame(self.session, frame));
        }
    }

    fn say<S>(&mut self, message: &Repair, replica: &mut Replica<S>) {
        self.outbox.push_back(message::encode(message));
        self.pump(replica);
    }

    /// What the peer knows of us now that this session is through.
    pub(crate) fn told(self) -> Option<Told> {
        let digest = if self.misunderstood { Vec::new() } else { self.telling };
        let told = Told { key: self.key, number: self.number, digest: digest::group(digest) };
        (self.purpose == Purpose::Compare && told.number > 0).then_some(told)
    }

    /// Whether a fresh replica is complete after this session: the peer was, and all it planned is here.
    pub(crate) fn makes_complete<S: Store>(&self, replica: &Replica<S>) -> bool {
        let complete = |plan: &Plan| plan.complete == Completeness::Complete;
        self.plan.as_ref().is_some_and(complete) && self.all_here(replica)
    }

    /// Whether everything was compared, and all that the peer planned is here.
    pub(crate) fn all_here<S: Store>(&self, replica: &Replica<S>) -> bool {
        let arrived = |planned: &Planned| replica.logs.seq(planned.log) >= planned.seq;
        let here = |plan: &Plan| plan.logs.iter().all(arrived);
        self.is_comparison() && self.plan.as_ref().is_some_and(here)
    }

    /// A frame is on its way. It counts only where slots of an accepted log are due, and no further than one
    /// frame can go.
    pub(crate) fn arriving<S: Store>(&mut self, now: Now, bytes: u64, replica: &mut Replica<S>) {
        self.arrived = self.arrived.saturating_add(bytes);
        let log = self.receiving.as_ref().map(|receiving| receiving.branch);
        let mine =
            |id: &BranchId| replica.receiving.get(id).is_some_and(|(by, _)| *by == self.session);
        if let Some(id) = log.filter(mine)
            && self.arrived <= MAX_FRAME as u64
        {
            self.progress.bytes(now.mono, bytes);
            self.hold_on(id, now, bytes, replica);
        }
    }

    /// Whether it has brought less since it began than a slow line carries.
    pub(crate) fn is_slow(&self, now: Now) -> bool {
        let time = now.mono.saturating_sub(self.began);
        self.progress.total() < time.saturating_mul(SLOW_LINE_BYTES_PER_MS)
    }

    /// Takes one frame. `taken`: the logs that other sessions are about to receive.
    pub(crate) fn frame<S: Store>(
        &mut self,
        bytes: &[u8],
        now: Now,
        told: &Told,
        taken: &BTreeSet<LogId>,
        cooldown: &mut PeerCooldown,
        replica: &mut Replica<S>,
    ) -> Result<Pulled, Fault> {
        let message: Repair = replica.read(self.peer, bytes)?;
        self.progress.other(now.mono);
        self.arrived = 0;
        match (self.phase, message) {
            (Phase::Hello, Repair::Same(complete)) => return Ok(Pulled::Equal(complete)),
            (Phase::Hello, Repair::Differs(roster)) if roster == replica.roster.hash() => {
                self.progress.step(now.mono);
                self.tell_digest(&[], true, told, replica);
            }
            (Phase::Hello, Repair::Differs(_)) => {
                self.progress.step(now.mono);
                self.phase = Phase::Roster;
                self.say(&Repair::Roster(replica.roster.names()), replica);
            }
            (Phase::Roster, Repair::Statements(Statements { missing, names })) => {
                if names.len() > MAX_STATEMENTS {
                    return Err(self.nonsense("names too many statements"));
                }
                self.progress.step(now.mono);
                replica.take_statements_of(self.peer, &missing)?;
                self.tell_digest(&names, false, told, replica);
            }
            (Phase::Streaming, Repair::TellAll) if !self.told_all && self.plan.is_none() => {
                self.progress.step(now.mono);
                let nothing = Told { digest: digest::Digest::new(), ..told.clone() };
                self.told_all = true;
                self.tell_digest(&[], true, &nothing, replica);
            }
            (Phase::Streaming, Repair::Plan(plan)) if self.plan.is_none() => {
                self.progress.step(now.mono);
                self.take_plan(plan, now, taken, replica)?;
            }
            (Phase::Streaming, Repair::Start(start)) if self.plan.is_some() => {
                self.start_log(&start, now, cooldown, replica)?;
            }
            (Phase::Streaming, Repair::Slots(slots)) => self.slots(slots, now, replica)?,
            (Phase::Streaming, Repair::Sums(sums)) => {
                self.sums(&sums, bytes.len() as u64, now, replica)?;
            }
            (Phase::Streaming, Repair::Names(names)) => {
                self.names(&names, bytes.len() as u64, now, replica)?;
            }
            (Phase::Streaming, Repair::End(end)) => self.end_log(&end, now, cooldown, replica)?,
            (Phase::Streaming, Repair::Done) if self.plan.is_some() => return Ok(Pulled::Done),
            _ => return Err(self.nonsense("message out of turn")),
        }
        Ok(Pulled::More)
    }

    fn nonsense(&self, reason: &'static str) -> Fault {
        Fault::sender(self.peer, reason)
    }

    fn tell_digest<S: Store>(
        &mut self,
        names: &[Hash8],
        same_roster: bool,
        told: &Told,
        replica: &mut Replica<S>,
    ) {
        self.phase = Phase::Streaming;
        self.key = told.key;
        self.number = told.number + 1 + u64::from(self.told_all);
        self.telling = replica.entries(&told.key);
        let since = if told.digest.is_empty() { 0 } else { told.number };
        let entries = digest::changes(&self.telling, &told.digest);
        let mut statements = if same_roster { Vec::new() } else { replica.roster.beyond(names) };
        let mut parts = entries.chunks(DIGEST_ENTRIES).peekable();
        loop {
            let part = parts.next().unwrap_or_default();
            let then = match (parts.peek().is_some(), self.beside_others) {
                (true, _) => Then::More,
                (false, true) => Then::Wait,
                (false, false) => Then::Send,
            };
            let digest = Digest {
                statements: std::mem::take(&mut statements),
                key: self.key,
                number: self.number,
                since,
                entries: part.to_vec(),
                only: Vec::new(),
                then,
            };
            self.say(&Repair::Digest(digest), replica);
            if then != Then::More {
                return;
            }
        }
    }

    fn take_plan<S: Store>(
        &mut self,
        plan: Plan,
        now: Now,
        taken: &BTreeSet<LogId>,
        replica: &mut Replica<S>,
    ) -> Result<(), Fault> {
        if plan.logs.len() > MAX_LOGS {
            return Err(self.nonsense("plans too many logs"));
        }
        let wait = self.beside_others && self.is_comparison();
        let unwanted = |p: &Planned| taken.contains(&p.log) || is_unwanted(p, replica);
        let places = (0u32..).zip(&plan.logs);
        let except: Vec<u32> =
            places.filter(|(_, p)| wait && unwanted(p)).map(|(place, _)| place).collect();
        let places = || (0u32..).zip(&plan.logs);
        let mine = || places().filter(|(n, _)| except.binary_search(n).is_err()).map(|(_, p)| p);
        self.planned = mine().map(|p| p.slots).fold(0, u64::saturating_add);
        self.reserved = mine().map(|p| p.log).collect();
        self.hold = Hold::planned(now.mono);
        self.plan = Some(plan);
        if wait {
            self.say(&Repair::Except(except), replica);
        }
        Ok(())
    }
}

/// Whether what is planned would not be taken, as far as can be said before it begins.
fn is_unwanted<S: Store>(planned: &Planned, replica: &Replica<S>) -> bool {
    let known = |b: &Branch| b.frozen == Some(planned.head) || b.head_hash() == planned.head;
    replica.logs.branches(planned.log).any(known)
        || replica.logs.at_cut(planned.log)
        || !replica.log_counts(planned.log)
        || !replica.has_room(planned.log, &planned.head)
}
