//! The serving side: compares digests and streams what the other side lacks, smallest log first.

mod sending;
mod streaming;

use std::collections::VecDeque;

use self::sending::Sending;
use crate::codec::Bytes;
use crate::id::{DeviceId, LogId};
use crate::io::{Fault, Output, SessionId};
use crate::limits::{DIGEST_ENTRIES, MAX_BRANCHES, MAX_LOGS, MAX_STATEMENTS};
use crate::log::branch::Branch;
use crate::log::commit::VerifiedHeader;
use crate::log::digest::{self, DigestKey, Entry};
use crate::message::{self, Digest, Plan, Planned, Repair, Statements, Then};
use crate::plant::{self, Plant};
use crate::replica::Replica;
use crate::roster::Extent;
use crate::store::{Store, StoreError};

/// What a frame taught the serving side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Served {
    /// Nothing.
    Nothing,
    /// Both sides are equal.
    Equal,
    /// The other side has something that this one lacks: pull from it.
    PeerIsAhead,
}

/// What a peer has told of itself on this connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// Under which its heads are cut short.
    pub(crate) key: DigestKey,
    /// Which of its digests this is; 0: none.
    pub(crate) number: u64,
    pub(crate) digest: digest::Digest,
    /// What was here when it was last brought in line with what is here, see
    /// [`crate::log::log_set::LogSet::changed_since`]; 0: not since it was told.
    pub(crate) aligned: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Answers requests.
    Answering,
    /// Has planned, and waits to hear what is not wanted.
    Waiting,
    /// Sends what is planned.
    Streaming,
    /// Has told of a live set, and waits to hear what of it is wanted.
    Comparing,
}

/// One session that serves one peer.
#[derive(Debug)]
pub(crate) struct Serve {
    session: SessionId,
    pub(crate) peer: DeviceId,
    outbox: VecDeque<Vec<u8>>,
    ready: bool,
    sending: VecDeque<Sending>,
    phase: Phase,
    /// The parts of a digest that have come so far.
    entries: Vec<Entry>,
    /// Under which names are cut short.
    key: DigestKey,
    /// Bytes of slots sent or summed up since they were last asked for.
    sent: u64,
}

impl Serve {
    pub(crate) fn new(session: SessionId, peer: DeviceId) -> Self {
        Self {
            session,
            peer,
            outbox: VecDeque::new(),
            ready: false,
            sending: VecDeque::new(),
            phase: Phase::Answering,
            entries: Vec::new(),
            key: DigestKey::default(),
            sent: 0,
        }
    }

    /// The session can take one more frame.
    pub(crate) fn set_ready(&mut self) {
        self.ready = true;
    }

    /// Whether what it would send next are slots: that is what a peer's budget is for.
    pub(crate) fn is_streaming(&self) -> bool {
        self.phase == Phase::Streaming && self.outbox.is_empty()
    }

    /// Bytes of slots sent since this was last asked.
    pub(crate) fn take_sent(&mut self) -> u64 {
        std::mem::take(&mut self.sent)
    }

    /// Sends the next frame if the session can take one.
    pub(crate) fn pump<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), Fault> {
        if !self.ready {
            return Ok(());
        }
        if self.is_streaming() {
            self.next_chunk(replica)?;
        }
        if let Some(frame) = self.outbox.pop_front() {
            self.ready = false;
            replica.fx.push(Output::SendFrame(self.session, frame));
        }
        Ok(())
    }

    fn say(&mut self, message: &Repair) {
        self.outbox.push_back(message::encode(message));
    }

    fn nonsense(&self, reason: &'static str) -> Fault {
        Fault::sender(self.peer, reason)
    }

    /// Takes one frame; what it asks for is sent by [`Serve::pump`].
    pub(crate) fn frame<S: Store>(
        &mut self,
        bytes: &[u8],
        heard: &mut Heard,
        replica: &mut Replica<S>,
    ) -> Result<Served, Fault> {
        let message: Repair = replica.read(self.peer, bytes)?;
        match (self.phase, message) {
            // Who asks on without waiting for the answers is cut off. Whether it came too soon depends on how
            // fast this side is, so it is not held against it.
            (Phase::Answering, _) if self.outbox.len() > 1 => {
                return Err(Fault::nobody(self.peer, "asks on without waiting for the answers"));
            }
            (
                Phase::Streaming | Phase::Waiting | Phase::Comparing,
                Repair::Hello(_) | Repair::Roster(_) | Repair::Digest(_),
            ) => {
                return Err(Fault::nobody(self.peer, "asks on without waiting for the answers"));
            }
            (Phase::Answering, Repair::Hello(state)) if state == replica.state_hash() => {
                self.say(&Repair::Same(replica.complete.into()));
                return Ok(Served::Equal);
            }
            (Phase::Answering, Repair::Hello(_)) => {
                self.say(&Repair::Differs(replica.roster.hash()));
            }
            (Phase::Answering, Repair::Roster(names)) if names.len() <= MAX_STATEMENTS => {
                let missing = replica.roster.beyond(&names);
                let names = replica.roster.names();
                self.say(&Repair::Statements(Statements { missing, names }));
            }
            (Phase::Answering, Repair::Digest(digest)) => {
                return self.digest(digest, heard, replica);
            }
            (Phase::Waiting, Repair::Except(places)) if places.len() <= self.sending.len() => {
                let mut place = 0u32;
                self.sending.retain(|_| {
                    place += 1;
                    places.binary_search(&(place - 1)).is_err()
                });
                self.phase = Phase::Streaming;
            }
            (Phase::Comparing, Repair::Ask(ask)) if self.asked(&ask) => {
                self.phase = Phase::Streaming;
            }
            _ => return Err(self.nonsense("request that makes no sense")),
        }
        Ok(Served::Nothing)
    }

    fn digest<S: Store>(
        &mut self,
        mut digest: Digest,
        heard: &mut Heard,
        replica: &mut Replica<S>,
    ) -> Result<Served, Fault> {
        let ascending = digest.entries.windows(2).all(|pair| pair[0] < pair[1])
            && digest.only.windows(2).all(|pair| pair[0] < pair[1])
            && self.entries.last().zip(digest.entries.first()).is_none_or(|(a, b)| a < b);
        let most = DIGEST_ENTRIES.max(digest.only.len() * (MAX_BRANCHES + 1));
        let few = digest.entries.len() <= most
            && digest.only.len() <= DIGEST_ENTRIES
            && self.entries.len() + digest.entries.len() <= MAX_LOGS * (MAX_BRANCHES + 1);
        if !ascending || !few {
            return Err(self.nonsense("digest is out of order or too long"));
        }
        replica.take_statements_of(self.peer, &digest.statements)?;
        if !digest.only.is_empty() {
            self.phase = Phase::Streaming;
            let asked = digest::group(digest.entries);
            self.plan(&asked, &digest.key, &digest.only, replica)?;
            return Ok(Served::Nothing);
        }
        self.entries.append(&mut digest.entries);
        if digest.then == Then::More {
            return Ok(Served::Nothing);
        }
        let entries = std::mem::take(&mut self.entries);
        let known = heard.number == digest.since && heard.key == digest.key;
        if digest.since != 0 && !known {
            // It goes on from what was told on a connection that this side has lost.
            self.say(&Repair::TellAll);
            return Ok(Served::Nothing);
        }
        self.remember(&digest, entries, heard, replica);
        self.phase = if digest.then == Then::Wait { Phase::Waiting } else { Phase::Streaming };
        self.plan(&heard.digest, &heard.key, &[], replica)?;
        let ahead = self.look_for_news(heard, replica)?;
        Ok(if ahead { Served::PeerIsAhead } else { Served::Nothing })
    }

    /// Only logs that count are remembered, and not more than there can be: what a peer may make us keep is bounded.
    fn remember<S: Store>(
        &self,
        digest: &Digest,
        entries: Vec<Entry>,
        heard: &mut Heard,
        replica: &Replica<S>,
    ) {
        if digest.since == 0 {
            heard.digest.clear();
        }
        (heard.key, heard.number, heard.aligned) = (digest.key, digest.number, 0);
        for (log, mut entries) in digest::group(entries) {
            let counts = replica.roster.extent(&log) != Extent::Nothing && replica.log_counts(log);
            let room = heard.digest.len() < MAX_LOGS || heard.digest.contains_key(&log);
            if counts && room {
                entries.truncate(MAX_BRANCHES + 1);
                heard.digest.insert(log, entries);
            }
        }
    }

    /// Works out what to send, the log with least to send first.
    fn plan<S: Store>(
        &mut self,
        theirs: &digest::Digest,
        key: &DigestKey,
        only: &[LogId],
        replica: &Replica<S>,
    ) -> Result<(), Fault> {
        self.key = *key;
        let mut planned = Vec::new();
        let mut whole_before = None;
        let everything = only.is_empty().then(|| replica.logs.iter());
        let asked = only.iter().flat_map(|log| replica.logs.branches(*log));
        for branch in everything.into_iter().flatten().chain(asked).filter(|b| b.shown()) {
            let log = branch.id.log;
            let entries = theirs.get(&log).map_or(&[][..], Vec::as_slice);
            let Some(mut sending) = offer(branch, entries, key, replica)? else { continue };
            if sending.base == 0 && whole_before == Some(log) {
                // What the other side has staged belongs to the history that is sent before this.
                sending.start_over();
            }
            if sending.base == 0 {
                whole_before = Some(log);
            }
            planned.push((branch.seq() - sending.base, branch.totals.count(), sending));
        }
        planned.sort_by_key(|(left, _, sending)| (*left, sending.branch.log));
        let logs = planned
            .iter()
            .map(|(left, count, s)| Planned {
                log: s.branch.log,
                seq: replica.logs.head(&s.branch),
                head: replica.logs.get(&s.branch).map(Branch::head_hash).unwrap_or_default(),
                slots: *left.min(count),
            })
            .collect();
        self.say(&Repair::Plan(Plan { complete: replica.complete.into(), logs }));
        self.sending = planned.into_iter().map(|(.., sending)| sending).collect();
        Ok(())
    }

    /// Says whether the other side has something that this one lacks, and heeds what it says of our own
    /// log.
    fn look_for_news<S: Store>(
        &self,
        heard: &Heard,
        replica: &mut Replica<S>,
    ) -> Result<bool, Fault> {
        let mut ahead = false;
        for (log, theirs) in &heard.digest {
            for entry in theirs.iter().filter(|entry| entry.seq > 0) {
                let news = is_news(entry, theirs, &heard.key, replica)?;
                if news && *log == replica.writer.log() {
                    replica.own_head_claimed(self.peer);
                }
                ahead |= news;
            }
            let refused = theirs.iter().any(|entry| entry.refused.is_some());
            if refused && log.author == replica.me {
                replica.root_disputed(self.peer, *log);
            }
        }
        Ok(ahead)
    }
}

/// What to send of a branch to a side that has these entries of its log; nothing if it has it, refuses
/// it, or should first be asked what it has.
fn offer<S: Store>(
    branch: &Branch,
    theirs: &[Entry],
    key: &DigestKey,
    replica: &Replica<S>,
) -> Result<Option<Sending>, StoreError> {
    let head = key.short(&branch.head_hash());
    let proven = || theirs.iter().filter(|entry| entry.seq > 0);
    let has = proven().any(|entry| entry.seq == branch.seq() && entry.head == head);
    if has || theirs.iter().any(|entry| entry.refused == Some(head)) {
        return Ok(None);
    }
    if let Some(wanted) = theirs.iter().find(|entry| entry.seq == 0) {
        let compare = wanted.compare || proven().next().is_some();
        return Ok(Some(Sending::new(branch.id, wanted, true, compare)));
    }
    let (mut best, mut all_apart) = (None, true);
    for entry in proven() {
        match relation(branch, entry, key, replica)? {
            Relation::GoesOn => best = Some((true, *entry)),
            Relation::Unknown => {
                // Who keeps as many histories as there may be does not take what it may lag behind of.
                let full = replica.logs.shown(branch.id.log).count() >= MAX_BRANCHES;
                all_apart &= full && !plant::is(Plant::FullLags);
                let below = entry.seq < branch.seq();
                if below && best.is_none_or(|(linked, _)| !linked) {
                    best = Some((false, *entry));
                }
            }
            Relation::Apart => {}
        }
    }
    if let Some((linked, entry)) = best {
        return Ok(Some(Sending::new(branch.id, &entry, linked, false)));
    }
    let compare = proven().next().is_some();
    let whole = || Sending::new(branch.id, &Entry::nothing(branch.id.log), true, compare);
    Ok(all_apart.then(whole))
}

/// How a branch here stands to a history that the other side has.
enum Relation {
    /// It goes on from it.
    GoesOn,
    /// Each holds something that the other does not.
    Apart,
    /// This side cannot tell.
    Unknown,
}

fn relation<S: Store>(
    branch: &Branch,
    entry: &Entry,
    key: &DigestKey,
    replica: &Replica<S>,
) -> Result<Relation, StoreError> {
    let is = |b: &Branch| b.seq() == entry.seq && key.short(&b.head_hash()) == entry.head;
    if replica.logs.shown(branch.id.log).any(is) {
        return Ok(Relation::Apart);
    }
    if entry.seq > branch.seq() {
        return Ok(Relation::Unknown);
    }
    let Some(stored) = replica.store.header(&branch.id, entry.seq)? else {
        return Ok(Relation::Unknown);
    };
    let passed = header_hash(&stored).map(|hash| key.short(&hash));
    Ok(if passed == Some(entry.head) { Relation::GoesOn } else { Relation::Apart })
}

fn header_hash(stored: &Bytes) -> Option<crate::id::Hash> {
    VerifiedHeader::from_store(stored).ok().map(|header| header.hash())
}

/// Whether a history that the other side has is none of those here, nor known to be part of one.
fn is_news<S: Store>(
    entry: &Entry,
    theirs: &[Entry],
    key: &DigestKey,
    replica: &Replica<S>,
) -> Result<bool, StoreError> {
    let gone = replica.roster.extent(&entry.log) == Extent::Nothing;
    if gone || replica.logs.at_cut(entry.log) || !replica.log_counts(entry.log) {
        return Ok(false);
    }
    if replica
        .logs
        .branches(entry.log)
        .any(|b| b.frozen.is_some_and(|h| key.short(&h) == entry.head))
    {
        return Ok(false);
    }
    // It keeps as many histories as there may be, those with the least hashes: it may lag behind in none of them
    // and hold one that is to be kept here as well.
    let proven = theirs.iter().filter(|entry| entry.seq > 0).count();
    let full = proven >= MAX_BRANCHES && !plant::is(Plant::FullLags);
    for branch in replica.logs.shown(entry.log) {
        let head = key.short(&branch.head_hash());
        if branch.seq() == entry.seq && head == entry.head {
            return Ok(false);
        }
        let both = theirs.iter().any(|e| e.seq == branch.seq() && e.head == head);
        match relation(branch, entry, key, replica)? {
            Relation::GoesOn => return Ok(false),
            // The other side holds both: then neither is part of the other.
            Relation::Unknown if entry.seq < branch.seq() && !both && !full => return Ok(false),
            Relation::Unknown | Relation::Apart => {}
        }
    }
    Ok(true)
}
