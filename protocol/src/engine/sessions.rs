//! Repair sessions at the engine: which are begun, whom a frame is for, what a finished one means.

use std::collections::{BTreeMap, BTreeSet};

use super::Engine;
use crate::engine::timers::Timer;
use crate::id::{DeviceId, LogId};
use crate::io::{Fault, Output, SessionId};
use crate::limits::{
    GAP_PAUSE_MS, MAX_GAP_PULLS, MAX_SERVED, MAX_SERVED_PER_PEER, REPAIR_EVERY_MS,
};
use crate::plant::{self, Plant};
use crate::repair::digest;
use crate::repair::{Pull, Pulled, Serve, Served};
use crate::store::Store;
use crate::time::Now;

impl<S: Store> Engine<S> {
    /// Begins what is due: one comparison at a time, for what it brings spares the next most of its
    /// work; and beside it a few sessions that close gaps, each for certain logs only.
    pub(super) fn start_pulls(&mut self, now: Now) {
        self.start_comparison(now);
        self.start_gap_pulls(now);
        if let Some(first) = self.pulls.values().map(|pull| pull.deadline).min() {
            self.timers.set(Timer::PullStalled, first);
        } else {
            self.timers.clear(Timer::PullStalled);
        }
    }

    fn start_comparison(&mut self, now: Now) {
        if plant::is(Plant::NeverRepair) {
            self.wanted.clear();
            self.gaps.clear();
        }
        if self.pulls.values().any(|pull| !pull.gap) {
            return;
        }
        let wanted: Vec<DeviceId> =
            self.wanted.iter().filter(|p| self.peers.contains_key(p)).copied().collect();
        let pick = self.replica.random.below(wanted.len() as u64);
        let Some(peer) = wanted.get(usize::try_from(pick).unwrap_or(0)).copied() else {
            self.wanted.clear();
            return;
        };
        self.wanted.remove(&peer);
        let session = self.new_session();
        self.replica.counters.pulls += 1;
        let pull = Pull::start(session, peer, now, &mut self.replica);
        self.pulls.insert(session, pull);
    }

    fn start_gap_pulls(&mut self, now: Now) {
        let peers: Vec<DeviceId> = self.gaps.keys().copied().collect();
        for peer in peers {
            let running = self.pulls.values().filter(|pull| pull.gap);
            let busy = running.clone().any(|pull| pull.peer == peer);
            if busy || running.count() >= MAX_GAP_PULLS {
                continue;
            }
            let pause = self.gap_pause.get(&peer).copied().unwrap_or(0);
            if now.mono < pause {
                self.timers.set(Timer::Gap, pause.min(self.timers.at(Timer::Gap)));
                continue;
            }
            let gaps = self.gaps.remove(&peer).unwrap_or_default();
            let replica = &self.replica;
            let open = |(log, upto): &(&LogId, &u64)| {
                replica.seq(**log) < **upto && !replica.receiving.keys().any(|b| b.log == **log)
            };
            let logs: BTreeSet<LogId> = gaps.iter().filter(open).map(|(log, _)| *log).collect();
            if logs.is_empty() || !self.peers.contains_key(&peer) {
                continue;
            }
            let session = self.new_session();
            self.replica.counters.gap_pulls += 1;
            self.gap_pause.insert(peer, now.mono + GAP_PAUSE_MS);
            let pull = Pull::close_gaps(session, peer, &logs, now, &mut self.replica);
            self.pulls.insert(session, pull);
        }
    }

    fn new_session(&mut self) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 2;
        session
    }

    /// Breaks the pulls off that are meant.
    pub(super) fn end_pulls(&mut self, which: impl Fn(&Pull) -> bool) {
        let ended: Vec<SessionId> =
            self.pulls.values().filter(|pull| which(pull)).map(|pull| pull.session).collect();
        for session in ended {
            self.broke_off(session);
            self.replica.out.push_back(Output::CloseSession(session));
        }
    }

    /// A session broke off: whether the peer took the digest in is not known, so it gets a full one.
    fn broke_off(&mut self, session: SessionId) {
        self.replica.receiving.retain(|_, by| *by != session);
        if let Some(pull) = self.pulls.remove(&session)
            && pull.digest_sent()
            && let Some(peer) = self.peers.get_mut(&pull.peer)
        {
            peer.digest_sent_before.clear();
        }
    }

    pub(super) fn session_opened(&mut self, session: SessionId, peer: DeviceId) {
        let room = self.serving.len() < MAX_SERVED;
        match self.peers.get_mut(&peer) {
            Some(known) if room && known.served < MAX_SERVED_PER_PEER => {
                known.served += 1;
                self.serving.insert(session, Serve::new(session, peer));
            }
            _ => self.replica.out.push_back(Output::CloseSession(session)),
        }
    }

    pub(super) fn session_ready(&mut self, session: SessionId) -> Result<(), Fault> {
        if let Some(pull) = self.pulls.get_mut(&session) {
            pull.ready(&mut self.replica);
        } else if let Some(serve) = self.serving.get_mut(&session) {
            serve.ready(&mut self.replica)?;
        }
        Ok(())
    }

    pub(super) fn session_closed(&mut self, session: SessionId) {
        self.broke_off(session);
        self.stop_serving(session);
    }

    fn stop_serving(&mut self, session: SessionId) {
        if let Some(serve) = self.serving.remove(&session)
            && let Some(peer) = self.peers.get_mut(&serve.peer)
        {
            peer.served = peer.served.saturating_sub(1);
        }
    }

    pub(super) fn session_frame(
        &mut self,
        now: Now,
        session: SessionId,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        if self.pulls.contains_key(&session) {
            return self.pull_frame(now, session, bytes);
        }
        let Some(serve) = self.serving.get_mut(&session) else {
            return Ok(());
        };
        let peer = serve.peer;
        let Some(known) = self.peers.get_mut(&peer) else {
            return Ok(());
        };
        match serve.frame(bytes, &mut known.digest_received, &mut self.replica) {
            Ok(Served::PeerIsAhead) => {
                if known.retry_after <= now.mono {
                    self.wanted.insert(peer);
                }
                Ok(())
            }
            Ok(Served::Equal) => {
                self.equal(now, peer);
                Ok(())
            }
            Ok(Served::Nothing) => Ok(()),
            Err(fault) => {
                self.stop_serving(session);
                self.replica.out.push_back(Output::CloseSession(session));
                Err(self.count(fault))
            }
        }
    }

    /// Both sides have the same: then what the peer has is what is here.
    fn equal(&mut self, now: Now, peer: DeviceId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.equal_at = Some(now.mono);
            let ours = self.replica.entries().into_iter().filter(|entry| entry.seq > 0);
            for (log, entries) in digest::group(ours) {
                // What it has staged or refused is its own affair: that stays as it digest_sent_before.
                let seqs = |e: &[digest::Entry]| -> Vec<_> {
                    e.iter().filter(|e| e.seq > 0).map(|e| (e.seq, e.head)).collect()
                };
                let digest_sent_before = peer.digest_received.entry(log).or_default();
                if seqs(digest_sent_before) != seqs(&entries) {
                    let plain = |entry| digest::Entry { staged: 0, refused: None, ..entry };
                    *digest_sent_before = entries.into_iter().map(plain).collect();
                }
            }
        }
    }

    fn count(&mut self, fault: Fault) -> Fault {
        match &fault {
            Fault::Peer { damning: true, .. } => self.replica.counters.rejected += 1,
            Fault::Peer { .. } => self.replica.counters.ignored += 1,
            Fault::Store(_) => {}
        }
        fault
    }

    fn pull_frame(&mut self, now: Now, session: SessionId, bytes: &[u8]) -> Result<(), Fault> {
        let Some(mut pull) = self.pulls.remove(&session) else {
            return Ok(());
        };
        let nothing = BTreeMap::new();
        let digest_sent_before =
            self.peers.get(&pull.peer).map_or(&nothing, |peer| &peer.digest_sent_before);
        let result =
            pull.frame(bytes, now, digest_sent_before, &mut self.peer_cooldown, &mut self.replica);
        match result {
            Ok(Pulled::More) => {
                self.pulls.insert(session, pull);
                Ok(())
            }
            Ok(done) => {
                self.replica.receiving.retain(|_, by| *by != session);
                self.replica.out.push_back(Output::CloseSession(session));
                self.pull_done(now, pull, done);
                Ok(())
            }
            Err(fault) => {
                // Another peer is asked; this one comes round again in its turn.
                self.ask_another(&pull.peer);
                self.pulls.insert(session, pull);
                self.end_pulls(|pull| pull.session == session);
                Err(self.count(fault))
            }
        }
    }

    fn ask_another(&mut self, than: &DeviceId) {
        let others: Vec<DeviceId> = self.peers.keys().filter(|p| *p != than).copied().collect();
        let pick = self.replica.random.below(others.len() as u64);
        self.wanted.extend(others.get(usize::try_from(pick).unwrap_or(0)));
    }

    fn pull_done(&mut self, now: Now, pull: Pull, done: Pulled) {
        let whole = match done {
            Pulled::Equal(whole) => {
                self.replica.counters.pulls_equal += 1;
                if pull.moves == self.replica.moves() {
                    self.equal(now, pull.peer);
                }
                whole
            }
            Pulled::More | Pulled::Done => pull.makes_whole(&self.replica),
        };
        if matches!(done, Pulled::Equal(_)) || pull.complete(&self.replica) {
            self.replica.compared();
        }
        let (learned, peer) = (pull.learned, pull.peer);
        if done == Pulled::Done
            && let Some(peer) = self.peers.get_mut(&peer)
        {
            if !learned && !pull.gap {
                peer.retry_after = now.mono + REPAIR_EVERY_MS;
            }
            if let Some(digest_sent_before) = pull.digest_sent_before() {
                peer.digest_sent_before = digest_sent_before;
            }
        }
        if whole {
            self.replica.whole();
        }
        if learned {
            self.ask_another(&peer);
        }
    }
}
