//! Repair sessions at the engine: which are begun, whom a frame is for, what a finished one means.

use std::collections::BTreeSet;

use super::Engine;
use crate::engine::timers::Timer;
use crate::id::{DeviceId, LogId};
use crate::io::{Blame, Fault, Output, SessionId};
use crate::limits::{
    COMPARISON_TURN_MS, GAP_PAUSE_MS, MAX_COMPARISONS, MAX_GAP_PULLS, MAX_SERVED,
    MAX_SERVED_PER_PEER, PLAN_WAIT_MS, PULL_STALLED_MS, REPAIR_EVERY_MS,
};
use crate::log::digest::{self, Entry};
use crate::message::Completeness;
use crate::plant::{self, Plant};
use crate::repair::{Pull, Pulled, Serve, Served, Told};
use crate::store::Store;
use crate::time::Now;

impl<S: Store> Engine<S> {
    /// Begins what is due: a few comparisons at once, with different members; and beside them a few
    /// sessions that close gaps, each for certain logs only.
    pub(super) fn start_pulls(&mut self, now: Now) {
        if plant::is(Plant::NeverRepair) {
            self.wanted.clear();
            self.gaps.clear();
        }
        while self.start_comparison(now) {}
        self.start_gap_pulls(now);
        match self.pulls.values().map(Pull::deadline).min() {
            Some(first) => self.timers.set(Timer::PullStalled, first),
            None => self.timers.clear(Timer::PullStalled),
        }
    }

    /// Ends the oldest comparison that is slow and has had its turn, where another member waits for its own: what
    /// it brought is kept, and it goes on when it is asked again.
    fn end_turn(&mut self, now: Now) -> bool {
        let had_turn = |pull: &&Pull| {
            let turn = if plant::is(Plant::EndlessTurns) { u64::MAX } else { COMPARISON_TURN_MS };
            pull.is_comparison() && pull.began.saturating_add(turn) <= now.mono
        };
        let slow = self.pulls.values().filter(had_turn).filter(|pull| pull.is_slow(now));
        let Some(session) = slow.min_by_key(|pull| pull.began).map(|pull| pull.session) else {
            return false;
        };
        if let Some(peer) = self.break_off(session)
            && let Some(known) = self.peers.get_mut(&peer)
        {
            known.disappointed(now);
            self.wanted.insert(peer);
        }
        self.replica.fx.push(Output::CloseSession(session));
        true
    }

    /// When to look again whether a slow comparison has had its turn.
    fn next_turn(&self, now: Now) -> Option<u64> {
        let running = self.pulls.values().filter(|pull| pull.is_comparison());
        let oldest = running.map(|pull| pull.began).min()?;
        Some((oldest + COMPARISON_TURN_MS).max(now.mono + REPAIR_EVERY_MS))
    }

    /// Begins one comparison; false when none is due. A member that disappointed is asked last, and the next
    /// one begins only when it is known what those that run will bring.
    fn start_comparison(&mut self, now: Now) -> bool {
        let running = || self.pulls.values().filter(|pull| pull.is_comparison());
        let most = if plant::is(Plant::OneComparison) { 1 } else { MAX_COMPARISONS };
        let unclear = running().filter(|pull| !pull.has_plan());
        let began = unclear.map(|pull| pull.deadline() - PULL_STALLED_MS).max();
        let clear_at = began.map(|began| began + PLAN_WAIT_MS).filter(|at| *at > now.mono);
        self.wanted.retain(|peer| self.peers.contains_key(peer));
        let busy: BTreeSet<DeviceId> = running().map(|pull| pull.peer).collect();
        let waiting = self.wanted.iter().filter(|peer| !busy.contains(peer));
        let after = |peer: &DeviceId| self.peers.get(peer).map_or(0, |peer| peer.retry_after);
        let due: Vec<DeviceId> =
            waiting.clone().filter(|p| after(p) <= now.mono).copied().collect();
        let retry = waiting.map(after).filter(|at| *at > now.mono).min();
        if busy.len() >= most && !due.is_empty() && self.end_turn(now) {
            return true;
        }
        if busy.len() >= most || clear_at.is_some() || due.is_empty() {
            let full = busy.len() >= most;
            let at = match due.is_empty() {
                true => retry,
                false if full => self.next_turn(now),
                false => clear_at,
            };
            match at.filter(|_| !full || !due.is_empty()) {
                Some(at) => self.timers.set(Timer::Retry, at),
                None => self.timers.clear(Timer::Retry),
            }
            return false;
        }
        let pick = self.replica.random.below(due.len() as u64);
        let Some(peer) = usize::try_from(pick).ok().and_then(|n| due.get(n)).copied() else {
            return false;
        };
        self.wanted.remove(&peer);
        let session = self.new_session();
        self.replica.fx.counters.pulls += 1;
        // Of what another session brings, one that closes a gap as well, nothing is to be sent twice: on a slow
        // line the two would halve each other's pace until both are too slow to keep their log.
        let beside = !self.pulls.is_empty() || self.replica.logs.is_crowded();
        let pull = Pull::start(session, peer, now, beside, &mut self.replica);
        self.pulls.insert(session, pull);
        true
    }

    fn start_gap_pulls(&mut self, now: Now) {
        let peers: Vec<DeviceId> = self.gaps.keys().copied().collect();
        for peer in peers {
            let running = self.pulls.values().filter(|pull| !pull.is_comparison());
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
            let taken = self.taken(now);
            let replica = &self.replica;
            let open = |(log, upto): &(&LogId, &u64)| {
                replica.logs.seq(**log) < **upto && !taken.contains(*log)
            };
            let logs: BTreeSet<LogId> = gaps.iter().filter(open).map(|(log, _)| *log).collect();
            let Some(told) = self.peers.get(&peer).map(|peer| peer.told.clone()) else { continue };
            if logs.is_empty() {
                continue;
            }
            let session = self.new_session();
            self.replica.fx.counters.gap_pulls += 1;
            self.gap_pause.insert(peer, now.mono + GAP_PAUSE_MS);
            let pull = Pull::close_gaps(session, peer, &logs, &told, now, &mut self.replica);
            self.pulls.insert(session, pull);
        }
    }

    /// The logs that running sessions are about to receive.
    fn taken(&self, now: Now) -> BTreeSet<LogId> {
        self.pulls.values().flat_map(|pull| pull.reserved(now)).collect()
    }

    fn new_session(&mut self) -> SessionId {
        let session = SessionId(self.next_session);
        self.next_session += 2;
        session
    }

    /// Breaks the pulls off that have brought too little for too long.
    pub(super) fn end_stalled(&mut self, now: Now) {
        let stalled: Vec<SessionId> = self
            .pulls
            .values()
            .filter(|pull| pull.deadline() <= now.mono)
            .map(|pull| pull.session)
            .collect();
        for session in stalled {
            if let Some(peer) = self.break_off(session) {
                self.disappointed(now, peer);
            }
            self.replica.fx.push(Output::CloseSession(session));
        }
    }

    /// Breaks off every pull from a peer.
    pub(super) fn end_pulls_of(&mut self, peer: DeviceId) {
        let theirs = self.pulls.values().filter(|pull| pull.peer == peer);
        let theirs: Vec<SessionId> = theirs.map(|pull| pull.session).collect();
        for session in theirs {
            self.break_off(session);
            self.replica.fx.push(Output::CloseSession(session));
        }
    }

    /// Forgets a pull and what it was receiving; says from whom. Whether the peer took the digest in is not
    /// known, and need not be: the next one says what it goes on from.
    fn break_off(&mut self, session: SessionId) -> Option<DeviceId> {
        self.replica.receiving.retain(|_, (by, _)| *by != session);
        self.pulls.remove(&session).map(|pull| pull.peer)
    }

    fn disappointed(&mut self, now: Now, peer: DeviceId) {
        if let Some(known) = self.peers.get_mut(&peer) {
            known.disappointed(now);
            self.wanted.insert(peer);
        }
        self.ask_another(&peer);
    }

    pub(super) fn session_opened(&mut self, now: Now, session: SessionId, peer: DeviceId) {
        let room = self.serving.len() < MAX_SERVED;
        let known = self.peers.get_mut(&peer).filter(|p| room && p.served < MAX_SERVED_PER_PEER);
        if let Some(known) = known
            && known.may_open(now)
        {
            known.served += 1;
            self.serving.insert(session, Serve::new(session, peer));
        } else {
            self.replica.fx.push(Output::CloseSession(session));
        }
    }

    pub(super) fn session_bytes(&mut self, now: Now, session: SessionId, bytes: u64) {
        if let Some(pull) = self.pulls.get_mut(&session) {
            pull.arriving(now, bytes, &mut self.replica);
        }
    }

    pub(super) fn session_ready(&mut self, now: Now, session: SessionId) -> Result<(), Fault> {
        if let Some(pull) = self.pulls.get_mut(&session) {
            pull.ready(&mut self.replica);
        } else if let Some(serve) = self.serving.get_mut(&session) {
            serve.set_ready();
            self.pump(now, session)?;
        }
        Ok(())
    }

    /// Lets a session that is served send its next frame, unless its peer has used up what it is served at
    /// once.
    pub(super) fn pump(&mut self, now: Now, session: SessionId) -> Result<(), Fault> {
        let Some(serve) = self.serving.get_mut(&session) else { return Ok(()) };
        let Some(peer) = self.peers.get_mut(&serve.peer) else { return Ok(()) };
        if serve.is_streaming() {
            let wait = peer.wait(now, self.replica.logs.bytes());
            if wait > 0 {
                self.throttled.insert(session);
                let at = (now.mono + wait).min(self.timers.at(Timer::Serve));
                self.timers.set(Timer::Serve, at);
                return Ok(());
            }
        }
        let result = serve.pump(&mut self.replica);
        peer.spend(serve.take_sent());
        result
    }

    pub(super) fn pump_throttled(&mut self, now: Now) -> Result<(), Fault> {
        for session in std::mem::take(&mut self.throttled) {
            self.pump(now, session)?;
        }
        Ok(())
    }

    pub(super) fn session_closed(&mut self, now: Now, session: SessionId) {
        if let Some(peer) = self.break_off(session) {
            // It was not this side that ended it.
            self.disappointed(now, peer);
        }
        self.stop_serving(session);
    }

    fn stop_serving(&mut self, session: SessionId) {
        self.throttled.remove(&session);
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
        match serve.frame(bytes, &mut known.heard, &mut self.replica) {
            Ok(served) => {
                match served {
                    Served::PeerIsAhead if known.news_after <= now.mono => {
                        self.wanted.insert(peer);
                    }
                    Served::Equal => self.equal(now, peer),
                    Served::PeerIsAhead | Served::Nothing => {}
                }
                self.pump(now, session)
            }
            Err(fault) => {
                self.stop_serving(session);
                self.replica.fx.push(Output::CloseSession(session));
                Err(self.count(fault))
            }
        }
    }

    /// Both sides have the same: then what the peer has is what is here.
    fn equal(&mut self, now: Now, peer: DeviceId) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        peer.satisfied();
        peer.equal_at = Some(now.mono);
        let changed = self.replica.logs.changed_since(peer.heard.aligned);
        let ours = self.replica.some_entries(&changed, &peer.heard.key);
        peer.heard.aligned = self.replica.logs.changes();
        for (log, entries) in digest::group(ours.into_iter().filter(|entry| entry.seq > 0)) {
            // What it has staged or refused is its own affair: that stays as it told.
            let seqs = |e: &[Entry]| -> Vec<_> {
                e.iter().filter(|e| e.seq > 0).map(|e| (e.seq, e.head)).collect()
            };
            let theirs = peer.heard.digest.entry(log).or_default();
            if seqs(theirs) != seqs(&entries) {
                let plain = |entry| Entry { staged: 0, refused: None, ..entry };
                *theirs = entries.into_iter().map(plain).collect();
            }
        }
    }

    fn count(&mut self, fault: Fault) -> Fault {
        match &fault {
            Fault::Peer { blame: Blame::Sender, .. } => self.replica.fx.counters.rejected += 1,
            Fault::Peer { .. } => self.replica.fx.counters.ignored += 1,
            Fault::Store(_) => {}
        }
        fault
    }

    fn pull_frame(&mut self, now: Now, session: SessionId, bytes: &[u8]) -> Result<(), Fault> {
        let Some(mut pull) = self.pulls.remove(&session) else {
            return Ok(());
        };
        // Only a plan is held against what others bring.
        let taken = if pull.has_plan() { BTreeSet::new() } else { self.taken(now) };
        let nothing = Told::default();
        let told = self.peers.get(&pull.peer).map_or(&nothing, |peer| &peer.told);
        let cooldown = &mut self.peer_cooldown;
        match pull.frame(bytes, now, told, &taken, cooldown, &mut self.replica) {
            Ok(Pulled::More) => {
                self.pulls.insert(session, pull);
                Ok(())
            }
            Ok(done) => {
                self.replica.receiving.retain(|_, (by, _)| *by != session);
                self.replica.fx.push(Output::CloseSession(session));
                self.pull_done(now, pull, done);
                Ok(())
            }
            Err(fault) => {
                // Another peer is asked; this one comes round again when it is its turn.
                let peer = pull.peer;
                self.replica.receiving.retain(|_, (by, _)| *by != session);
                self.replica.fx.push(Output::CloseSession(session));
                self.disappointed(now, peer);
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
        let complete = match done {
            Pulled::Equal(complete) => {
                self.replica.fx.counters.pulls_equal += 1;
                if pull.moves == self.replica.moves() {
                    self.equal(now, pull.peer);
                }
                complete == Completeness::Complete
            }
            Pulled::More | Pulled::Done => pull.makes_complete(&self.replica),
        };
        if matches!(done, Pulled::Equal(_)) || pull.all_here(&self.replica) {
            self.replica.compared_with_peer();
        }
        let (learned, comparison, peer) = (pull.learned, pull.is_comparison(), pull.peer);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.satisfied();
            if done == Pulled::Done {
                if !learned && comparison {
                    known.news_after = now.mono + REPAIR_EVERY_MS;
                }
                if let Some(told) = pull.told() {
                    known.told = told;
                }
            }
        }
        if complete {
            self.replica.become_complete();
        }
        if learned {
            self.ask_another(&peer);
        }
    }
}
