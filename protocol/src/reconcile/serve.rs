//! The serving side: compares digests and streams what the other side lacks, smallest log first.

use std::collections::{BTreeMap, VecDeque};

use crate::digest::Entry;
use crate::id::{DeviceId, LogId};
use crate::io::{Fault, Output, SessionId};
use crate::limits::{CHUNK_BYTES, CHUNK_SLOTS, MAX_LOGS, MAX_STATEMENTS};
use crate::log::Log;
use crate::message::{self, Digest, End, Plan, Planned, Repair, SlotRecord, Start, Statements};
use crate::replica::Replica;
use crate::store::{Store, StoreError};

/// What a peer has told of itself on this connection.
pub(crate) type Heard = BTreeMap<LogId, Entry>;

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

/// A log being sent.
#[derive(Debug)]
struct Sending {
    log: LogId,
    /// The receiver's proven head.
    base: u64,
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
        heard: &mut Heard,
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
            Repair::Digest(digest) => served = self.digest(digest, heard, replica)?,
            _ => return Err(Fault::peer(self.peer, "request that makes no sense", true)),
        }
        self.pump(replica)?;
        Ok(served)
    }

    fn digest<S: Store>(
        &mut self,
        digest: Digest,
        heard: &mut Heard,
        replica: &mut Replica<S>,
    ) -> Result<Served, Fault> {
        let ascending = digest.entries.windows(2).all(|pair| pair[0].log < pair[1].log);
        if !ascending || digest.entries.len() > MAX_LOGS {
            return Err(Fault::peer(self.peer, "digest is out of order or too long", true));
        }
        replica.take_statements(&digest.statements, false);
        if digest.full {
            heard.clear();
        }
        for entry in digest.entries {
            // Only logs of known authors are remembered: what a peer may make us keep is bounded.
            if replica.roster.member(&entry.log.author).is_some() && heard.len() < MAX_LOGS {
                heard.insert(entry.log, entry);
            }
        }
        let ahead = self.plan(heard, replica)?;
        self.streaming = true;
        Ok(if ahead { Served::PeerIsAhead } else { Served::Nothing })
    }

    /// Works out what to send; says whether the peer has something that this side lacks.
    fn plan<S: Store>(&mut self, heard: &Heard, replica: &mut Replica<S>) -> Result<bool, Fault> {
        let mut planned = Vec::new();
        let mut forked = Vec::new();
        let mut ahead = false;
        for log in replica.logs.values().filter(|log| log.head.is_some()) {
            let theirs = heard.get(&log.id).copied();
            let base = theirs.map_or(0, |entry| entry.seq);
            ahead |= base > log.seq();
            if base == log.seq() {
                if theirs.is_some_and(|entry| entry.head != log.head_hash().short8()) {
                    forked.push(log.id);
                }
            } else if base < log.seq() {
                let cursor = theirs.map_or(0, |entry| entry.staged.max(base));
                let sending = Sending { log: log.id, base, cursor, started: false };
                planned.push((log.seq() - base, log.seq(), log.totals.count(), sending));
            }
        }
        ahead |= heard.values().any(|entry| entry.seq > 0 && !has(replica, &entry.log));
        let own = replica.own_log();
        if heard.get(&own).is_some_and(|e| e.seq > replica.logs.get(&own).map_or(0, Log::seq)) {
            replica.own_head_claimed(self.peer);
        }
        for log in forked {
            if log == own {
                replica.own_head_claimed(self.peer);
            } else {
                replica.mark_forked(&log);
            }
        }
        planned.sort_by_key(|(left, ..)| *left);
        let logs = planned
            .iter()
            .map(|(left, seq, count, s)| Planned { log: s.log, seq: *seq, slots: *left.min(count) })
            .collect();
        self.say(&Repair::Plan(Plan { whole: replica.caught_up, logs }));
        self.sending = planned.into_iter().map(|(.., sending)| sending).collect();
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
            replica.logs.get(&sending.log).and_then(|log| Some((log, log.head.as_ref()?)))
        else {
            self.sending.pop_front();
            return self.next_chunk(replica);
        };
        let header = head.bytes().clone();
        if !sending.started {
            sending.started = true;
            let link = match sending.base {
                0 => None,
                base => replica.store.header(&log.id, base)?,
            };
            let link = link.and_then(|bytes| {
                let header = crate::commit::VerifiedHeader::from_store(&bytes).ok()?;
                Some(header.hash().short8())
            });
            let start = Start { log: log.id, from: sending.cursor, link, header };
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

fn has<S>(replica: &Replica<S>, log: &LogId) -> bool {
    replica.logs.get(log).is_some_and(|log| log.head.is_some())
}
