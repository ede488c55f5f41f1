//! The serving side: compares digests and streams what the other side lacks, smallest log first.

use std::collections::VecDeque;

use crate::id::{BranchId, DeviceId, Hash8, LogId};
use crate::io::{Fault, Output, SessionId};
use crate::limits::{CHUNK_BYTES, CHUNK_SLOTS, MAX_BRANCHES, MAX_LOGS, MAX_STATEMENTS};
use crate::log::branch::Branch;
use crate::log::commit::VerifiedHeader;
use crate::message::{self, Digest, End, Plan, Planned, Repair, SlotRecord, Start, Statements};
use crate::repair::digest::{self, Entry};
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

/// A branch being sent.
#[derive(Debug)]
struct Sending {
    branch: BranchId,
    /// The receiver's proven head that it goes on from; 0: it is sent whole.
    base: u64,
    head: Hash8,
    /// Whether this side knows that the branch goes through that head.
    linked: bool,
    /// Sent up to here.
    cursor: u64,
    started: bool,
}

/// One session that serves one peer.
#[derive(Debug)]
pub(crate) struct Serve {
    session: SessionId,
    pub(crate) peer: DeviceId,
    outbox: VecDeque<Vec<u8>>,
    ready: bool,
    sending: VecDeque<Sending>,
    streaming: bool,
}

impl Serve {
    pub(crate) fn new(session: SessionId, peer: DeviceId) -> Self {
        Self {
            session,
            peer,
            outbox: VecDeque::new(),
            ready: false,
            sending: VecDeque::new(),
            streaming: false,
        }
    }

    /// The session can take one more frame.
    pub(crate) fn ready<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), Fault> {
        self.ready = true;
        self.pump(replica)
    }

    fn pump<S: Store>(&mut self, replica: &mut Replica<S>) -> Result<(), Fault> {
        if !self.ready {
            return Ok(());
        }
        if self.outbox.is_empty() && self.streaming {
            self.next_chunk(replica)?;
        }
        if let Some(frame) = self.outbox.pop_front() {
            self.ready = false;
            replica.out.push_back(Output::SendFrame(self.session, frame));
        }
        Ok(())
    }

    fn say(&mut self, message: &Repair) {
        self.outbox.push_back(message::encode(message));
    }

    /// Takes one frame.
    pub(crate) fn frame<S: Store>(
        &mut self,
        bytes: &[u8],
        digest_received: &mut digest::Digest,
        replica: &mut Replica<S>,
    ) -> Result<Served, Fault> {
        let message: Repair = message::decode(bytes).map_err(|bad| {
            let damning = !matches!(bad, message::BadMessage::Version(_));
            Fault::peer(self.peer, bad, damning)
        })?;
        let mut served = Served::Nothing;
        match message {
            // One request may wait at a time: who asks on without reading the answers is cut off.
            _ if self.streaming || self.outbox.len() > 1 => {
                return Err(Fault::peer(self.peer, "request out of turn", true));
            }
            Repair::Hello(state) if state == replica.state_hash() => {
                self.say(&Repair::Same(replica.caught_up));
                served = Served::Equal;
            }
            Repair::Hello(_) => self.say(&Repair::Differs(replica.roster.hash())),
            Repair::Roster(names) if names.len() <= MAX_STATEMENTS => {
                let missing = replica.roster.beyond(&names);
                let names = replica.roster.names();
                self.say(&Repair::Statements(Statements { missing, names }));
            }
            Repair::Digest(digest) => served = self.digest(digest, digest_received, replica)?,
            _ => return Err(Fault::peer(self.peer, "request that makes no sense", true)),
        }
        self.pump(replica)?;
        Ok(served)
    }

    fn digest<S: Store>(
        &mut self,
        digest: Digest,
        digest_received: &mut digest::Digest,
        replica: &mut Replica<S>,
    ) -> Result<Served, Fault> {
        let ascending = digest.entries.windows(2).all(|pair| pair[0] < pair[1])
            && digest.only.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || digest.entries.len() > MAX_LOGS || digest.only.len() > MAX_LOGS {
            return Err(Fault::peer(self.peer, "digest is out of order or too long", true));
        }
        replica.take_statements_of(self.peer, &digest.statements)?;
        self.streaming = true;
        if !digest.only.is_empty() {
            self.plan(&digest::group(digest.entries), &digest.only, replica)?;
            return Ok(Served::Nothing);
        }
        if digest.full {
            digest_received.clear();
        }
        for (log, mut entries) in digest::group(digest.entries) {
            // Only logs that count are remembered: what a peer may make us keep is bounded.
            if replica.roster.extent(&log) != Extent::Nothing && digest_received.len() < MAX_LOGS {
                entries.truncate(MAX_BRANCHES + 1);
                digest_received.insert(log, entries);
            }
        }
        self.plan(digest_received, &[], replica)?;
        let ahead = self.look_for_news(digest_received, replica)?;
        Ok(if ahead { Served::PeerIsAhead } else { Served::Nothing })
    }

    /// Works out what to send, the log with least to send first.
    fn plan<S: Store>(
        &mut self,
        digest_received: &digest::Digest,
        only: &[LogId],
        replica: &Replica<S>,
    ) -> Result<(), Fault> {
        let mut planned = Vec::new();
        let mut whole_before = None;
        for branch in replica.logs.values().filter(|branch| branch.shown()) {
            let log = branch.id.log;
            if !only.is_empty() && only.binary_search(&log).is_err() {
                continue;
            }
            let theirs = digest_received.get(&log).map_or(&[][..], Vec::as_slice);
            let Some(mut sending) = offer(branch, theirs, replica)? else { continue };
            if sending.base == 0 && whole_before == Some(log) {
                // What the other side has staged belongs to the history that is sent before this.
                sending.cursor = 0;
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
                seq: replica.head(&s.branch),
                slots: *left.min(count),
            })
            .collect();
        self.say(&Repair::Plan(Plan { whole: replica.caught_up, logs }));
        self.sending = planned.into_iter().map(|(.., sending)| sending).collect();
        Ok(())
    }

    /// Says whether the other side has something that this one lacks, and heeds what it says of our own
    /// log.
    fn look_for_news<S: Store>(
        &self,
        digest_received: &digest::Digest,
        replica: &mut Replica<S>,
    ) -> Result<bool, Fault> {
        let mut ahead = false;
        for (log, theirs) in digest_received {
            for entry in theirs.iter().filter(|entry| entry.seq > 0) {
                let news = is_news(entry, theirs, replica)?;
                if news && *log == replica.own_log() {
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

    /// Puts the next piece of the stream into the outbox.
    fn next_chunk<S: Store>(&mut self, replica: &Replica<S>) -> Result<(), StoreError> {
        let Some(sending) = self.sending.front_mut() else {
            self.streaming = false;
            self.say(&Repair::Done);
            return Ok(());
        };
        let Some((log, head)) =
            replica.logs.get(&sending.branch).and_then(|log| Some((log, log.head.as_ref()?)))
        else {
            self.sending.pop_front();
            return self.next_chunk(replica);
        };
        let header = head.bytes().clone();
        if !sending.started {
            sending.started = true;
            let start = Start {
                log: log.id.log,
                base: sending.head,
                linked: sending.linked,
                from: sending.cursor,
                header,
            };
            self.say(&Repair::Start(start));
            return Ok(());
        }
        let (id, seq) = (log.id, log.seq());
        let chunk =
            replica.store.slots_after(&id, sending.cursor, seq, CHUNK_SLOTS, CHUNK_BYTES)?;
        if let Some(last) = chunk.last() {
            sending.cursor = last.seq;
            let mut slots = Vec::with_capacity(chunk.len());
            for raw in chunk {
                if raw.op.is_empty() {
                    return Err(StoreError::Damaged { branch: id, seq: raw.seq });
                }
                if log.is_latest(&raw, seq, &replica.store)? {
                    slots.push(SlotRecord::from(raw));
                }
            }
            if slots.is_empty() {
                return self.next_chunk(replica);
            }
            self.say(&Repair::Slots(slots));
        } else {
            let gone = log.gone_since(sending.base);
            self.sending.pop_front();
            self.say(&Repair::End(End { header, gone }));
        }
        Ok(())
    }
}

/// What to send of a branch to a side that has these entries of its log; nothing if it has it, refuses
/// it, or should first be asked what it has.
fn offer<S: Store>(
    branch: &Branch,
    theirs: &[Entry],
    replica: &Replica<S>,
) -> Result<Option<Sending>, StoreError> {
    let head = branch.head_hash().short8();
    let proven = || theirs.iter().filter(|entry| entry.seq > 0);
    let has = proven().any(|entry| entry.seq == branch.seq() && entry.head == head);
    let full = proven().filter(|entry| entry.head < head).count() >= MAX_BRANCHES;
    if has || full || theirs.iter().any(|entry| entry.refused == Some(head)) {
        return Ok(None);
    }
    let from = |entry: &Entry, linked| Sending {
        branch: branch.id,
        base: entry.seq,
        head: entry.head,
        linked,
        cursor: entry.staged.max(entry.seq),
        started: false,
    };
    if let Some(wanted) = theirs.iter().find(|entry| entry.seq == 0) {
        return Ok(Some(from(wanted, true)));
    }
    let (mut best, mut all_apart) = (None, true);
    for entry in proven() {
        match relation(branch, entry, replica)? {
            Relation::GoesOn => best = Some((true, *entry)),
            Relation::Unknown => {
                all_apart = false;
                let below = entry.seq < branch.seq();
                if below && best.is_none_or(|(linked, _)| !linked) {
                    best = Some((false, *entry));
                }
            }
            Relation::Apart => {}
        }
    }
    if let Some((linked, entry)) = best {
        return Ok(Some(from(&entry, linked)));
    }
    Ok(all_apart.then(|| from(&Entry::nothing(branch.id.log), true)))
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
    replica: &Replica<S>,
) -> Result<Relation, StoreError> {
    let is = |other: &Branch| other.seq() == entry.seq && other.head_hash().short8() == entry.head;
    if replica.shown(branch.id.log).any(is) {
        return Ok(Relation::Apart);
    }
    if entry.seq > branch.seq() {
        return Ok(Relation::Unknown);
    }
    let Some(stored) = replica.store.header(&branch.id, entry.seq)? else {
        return Ok(Relation::Unknown);
    };
    let passed = VerifiedHeader::from_store(&stored).map(|header| header.hash().short8());
    Ok(if passed == Ok(entry.head) { Relation::GoesOn } else { Relation::Apart })
}

/// Whether a history that the other side has is none of those here, nor known to be part of one.
fn is_news<S: Store>(
    entry: &Entry,
    theirs: &[Entry],
    replica: &Replica<S>,
) -> Result<bool, StoreError> {
    if replica.at_cut(entry.log) || replica.roster.extent(&entry.log) == Extent::Nothing {
        return Ok(false);
    }
    for branch in replica.shown(entry.log) {
        let head = branch.head_hash().short8();
        if branch.seq() == entry.seq && head == entry.head {
            return Ok(false);
        }
        let both = theirs.iter().any(|e| e.seq == branch.seq() && e.head == head);
        match relation(branch, entry, replica)? {
            Relation::GoesOn => return Ok(false),
            // The other side holds both: then neither is part of the other.
            Relation::Unknown if entry.seq < branch.seq() && !both => return Ok(false),
            Relation::Unknown | Relation::Apart => {}
        }
    }
    Ok(true)
}
