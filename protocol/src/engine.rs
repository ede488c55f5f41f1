//! The engine: takes inputs, hands out outputs, says when it wants to be called again. It only routes.

use std::collections::{BTreeMap, BTreeSet, btree_map};

use crate::crypto::DeviceKey;
use crate::digest::Entry;
use crate::id::{DeviceId, LogId};
use crate::io::{Counters, Fault, Input, LogStatus, Output, SessionId, Token, Verdict};
use crate::limits::{
    CHORE_SLOTS, INTRODUCE_EVERY_MS, MAX_GOSSIP, MAX_SERVED, MAX_SERVED_PER_PEER, REPAIR_EVERY_MS,
};
use crate::log::Chore;
use crate::message::{self, Gossip};
use crate::reconcile::{Pull, Pulled, Serve, Served};
use crate::replica::{Replica, Taken};
use crate::roster::Roster;
use crate::store::{Recovered, Store, StoreError, Write};
use crate::time::Now;
use crate::timer::{Timer, Timers};

/// What is known of a connected member.
#[derive(Debug, Default)]
struct Peer {
    /// What it was told of this replica on this connection.
    told: BTreeMap<LogId, Entry>,
    /// What it told of itself.
    heard: BTreeMap<LogId, Entry>,
    served: usize,
    /// When both sides were last seen equal, in monotonic milliseconds.
    equal_at: Option<u64>,
    /// What it is ahead of us with we could not use: not asked again before this.
    fruitless_until: u64,
}

/// How far a connected member is behind this replica and ahead of it, by what it last said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerStatus {
    /// The member.
    pub device: DeviceId,
    /// Operations that this replica has and the peer, when it last told, had not.
    pub behind: u64,
    /// Operations that the peer has and this replica has not.
    pub ahead: u64,
    /// Monotonic millisecond when both were last seen equal.
    pub equal_at: Option<u64>,
}

/// How a running catch-up stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The member pulled from.
    pub from: DeviceId,
    /// Slots received in this session.
    pub received: u64,
    /// Slots that the peer said it would send, about.
    pub planned: u64,
}

/// A replica as a state machine.
///
/// Driving it: call [`Engine::handle`] with one input and the time, which never runs backwards in its
/// monotonic part; then carry out [`Engine::poll_output`] until it is empty, in order; then wait for
/// the next input, at most until [`Engine::next_deadline`], and call with [`Input::Tick`] when that
/// passes. Spurious ticks and repeated closing inputs are harmless. An error says who is to blame; the
/// outputs are to be drained all the same. After [`Fault::Store`] the engine must be dropped.
///
/// Reads through [`Store`] must see the writes of every `Persist` handed out, durable or not.
pub struct Engine<S> {
    replica: Replica<S>,
    peers: BTreeMap<DeviceId, Peer>,
    pull: Option<Pull>,
    wanted: BTreeSet<DeviceId>,
    serving: BTreeMap<SessionId, Serve>,
    distrust: BTreeMap<(DeviceId, LogId), u64>,
    introduced: BTreeMap<DeviceId, u64>,
    timers: Timers,
    next_session: u64,
}

impl<S: Store> Engine<S> {
    /// Opens a replica from what storage holds. `entropy` seeds its choices; `fresh_epoch` says that
    /// the data directory may be a copy, so that writing must go on in a new log.
    ///
    /// # Errors
    /// When what is stored is damaged.
    pub fn open(
        key: DeviceKey,
        roster: Roster,
        recovered: Recovered,
        store: S,
        entropy: u64,
        fresh_epoch: bool,
    ) -> Result<Self, StoreError> {
        let replica = Replica::open(key, roster, recovered, store, entropy, fresh_epoch)?;
        let mut timers = Timers::default();
        if replica.logs.values().any(|log| log.chore != Chore::None) {
            timers.set(Timer::Tidy, 0);
        }
        Ok(Self {
            replica,
            peers: BTreeMap::new(),
            pull: None,
            wanted: BTreeSet::new(),
            serving: BTreeMap::new(),
            distrust: BTreeMap::new(),
            introduced: BTreeMap::new(),
            timers,
            next_session: 0,
        })
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.replica.out.pop_front()
    }

    /// When to call with [`Input::Tick`] if nothing else happens, in monotonic milliseconds, and why.
    #[must_use]
    pub fn next_deadline(&self) -> Option<(u64, Timer)> {
        self.timers.next()
    }

    /// Takes one input.
    ///
    /// # Errors
    /// [`Fault::Peer`]: what a peer sent was refused. [`Fault::Store`]: stop.
    pub fn handle(&mut self, now: Now, input: Input) -> Result<(), Fault> {
        self.replica.begin();
        let result = self.route(now, input);
        if let Err(Fault::Store(_)) = result {
            return result;
        }
        let ticked = self.run_timers(now).and_then(|()| self.apply_held(now));
        self.start_pull(now);
        self.plan_tidying(now);
        result.and(ticked)
    }

    fn route(&mut self, now: Now, input: Input) -> Result<(), Fault> {
        match input {
            Input::Write(token, changes) => self.replica.enqueue(token, changes),
            Input::Commit => self.replica.commit(now)?,
            Input::Gossip { token, from, bytes } => self.gossip(now, token, from, &bytes)?,
            Input::Connected(peer) => self.connected(now, peer),
            Input::Disconnected(peer) => self.disconnected(peer),
            Input::Stranger(peer) => self.stranger(now, peer),
            Input::SessionOpened(session, peer) => self.session_opened(session, peer),
            Input::SessionReady(session) => self.session_ready(session)?,
            Input::SessionFrame(session, bytes) => self.session_frame(now, session, &bytes)?,
            Input::SessionClosed(session) => self.session_closed(session),
            Input::Asked { token, peer, bytes } => self.replica.asked(now, token, peer, &bytes),
            Input::Answered(peer, bytes) => {
                self.replica.answered(&bytes);
                self.wanted.insert(peer);
            }
            Input::Invite { token, secret, invite } => {
                self.replica.invite(now, token, secret, &invite);
            }
            Input::Tick => {}
        }
        Ok(())
    }

    // ---- peers and timers ---------------------------------------------------------------------

    fn connected(&mut self, now: Now, peer: DeviceId) {
        self.peers.insert(peer, Peer::default());
        self.wanted.insert(peer);
        let pause = self.replica.random.jitter(REPAIR_EVERY_MS);
        self.timers.set(Timer::Repair, now.mono + pause);
    }

    fn disconnected(&mut self, peer: DeviceId) {
        self.peers.remove(&peer);
        self.wanted.remove(&peer);
        self.introduced.remove(&peer);
        self.serving.retain(|_, serve| serve.peer != peer);
        if self.pull.as_ref().is_some_and(|pull| pull.peer == peer) {
            self.end_pull();
        }
        if self.peers.is_empty() {
            self.timers.clear(Timer::Repair);
        }
    }

    fn stranger(&mut self, now: Now, peer: DeviceId) {
        self.introduced.retain(|_, until| *until > now.mono);
        if let btree_map::Entry::Vacant(place) = self.introduced.entry(peer) {
            place.insert(now.mono + INTRODUCE_EVERY_MS);
            self.replica.introduce(peer);
        }
    }

    fn run_timers(&mut self, now: Now) -> Result<(), Fault> {
        while let Some(timer) = self.timers.due(now.mono) {
            match timer {
                Timer::Repair => {
                    let pick = self.replica.random.below(self.peers.len() as u64);
                    let pick = usize::try_from(pick).unwrap_or(0);
                    self.wanted.extend(self.peers.keys().nth(pick));
                    let pause = self.replica.random.jitter(REPAIR_EVERY_MS);
                    self.timers.set(Timer::Repair, now.mono + pause);
                }
                Timer::PullStalled => {
                    let stalled = self.pull.as_ref().is_some_and(|p| p.deadline <= now.mono);
                    if stalled {
                        self.end_pull();
                    } else if let Some(pull) = &self.pull {
                        self.timers.set(Timer::PullStalled, pull.deadline);
                    }
                }
                // Slots written in this call cannot be read yet: the next call goes on.
                Timer::Tidy if self.replica.unread() => {}
                Timer::Tidy => self.tidy()?,
                Timer::Held => {}
            }
        }
        Ok(())
    }

    fn plan_tidying(&mut self, now: Now) {
        if self.replica.logs.values().any(|log| log.chore != Chore::None) {
            self.timers.set(Timer::Tidy, now.mono + 1);
        }
    }

    fn tidy(&mut self) -> Result<(), Fault> {
        let owed = self.replica.logs.values().find(|log| log.chore != Chore::None).map(|l| l.id);
        let Some(log) = owed.and_then(|id| self.replica.logs.get_mut(&id)) else {
            return Ok(());
        };
        let (mut writes, left) = log.tidy(CHORE_SLOTS, &self.replica.store)?;
        log.chore = left;
        let id = log.id;
        writes.push(log.write());
        self.replica.persist(writes);
        self.replica.note_moved(id);
        Ok(())
    }

    fn apply_held(&mut self, now: Now) -> Result<(), Fault> {
        if self.replica.apply_held()? {
            self.timers.set(Timer::Held, now.mono);
        }
        Ok(())
    }

    // ---- live path ----------------------------------------------------------------------------

    fn gossip(
        &mut self,
        now: Now,
        token: Token,
        from: DeviceId,
        bytes: &[u8],
    ) -> Result<(), Fault> {
        let decoded = if bytes.len() > MAX_GOSSIP {
            Err(("message is too large for gossip".to_owned(), true))
        } else {
            message::decode(bytes).map_err(|bad| {
                let damning = !matches!(bad, message::BadMessage::Version(_));
                (bad.to_string(), damning)
            })
        };
        match decoded {
            Ok(Gossip::Commit(commit)) => {
                let taken = self.replica.take_commit(now, token, from, &commit);
                self.pull_on_gap(&taken, from);
                taken.map(|_| ())
            }
            Ok(Gossip::Announce(header)) => {
                let result = self.replica.take_announcement(token, from, &header);
                if matches!(&result, Err(Fault::Peer { damning: false, .. })) {
                    self.wanted.insert(from);
                }
                let (taken, author) = result?;
                if taken == Taken::Gap {
                    // Whoever passed it on may have to pull it first; the author has it for sure.
                    let source = if self.peers.contains_key(&author) { author } else { from };
                    self.wanted.insert(source);
                }
                Ok(())
            }
            Ok(Gossip::Statement(statement)) => {
                let result = self.replica.take_statement(token, from, statement);
                if matches!(&result, Err(Fault::Peer { damning: false, .. })) {
                    // What comes before it is missing here.
                    self.wanted.insert(from);
                }
                result
            }
            Err((reason, damning)) => {
                let verdict = if damning { Verdict::Reject } else { Verdict::Ignore };
                self.replica.out.push_back(Output::Verdict(token, verdict));
                if damning {
                    self.replica.counters.rejected += 1;
                } else {
                    self.replica.counters.ignored += 1;
                }
                Err(Fault::peer(from, reason, damning))
            }
        }
    }

    fn pull_on_gap(&mut self, taken: &Result<Taken, Fault>, from: DeviceId) {
        let lacking = match taken {
            Ok(taken) => *taken == Taken::Gap,
            // An unknown grant: the roster that explains it comes with a repair.
            Err(Fault::Peer { damning, .. }) => !damning,
            Err(Fault::Store(_)) => false,
        };
        if lacking {
            self.wanted.insert(from);
        }
    }

    // ---- repair sessions ----------------------------------------------------------------------

    /// One pull at a time: what it brings spares the next most of its work.
    fn start_pull(&mut self, now: Now) {
        if self.pull.is_some() {
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
        let session = SessionId(self.next_session);
        self.next_session += 2;
        self.replica.counters.pulls += 1;
        let pull = Pull::start(session, peer, now, &mut self.replica);
        self.timers.set(Timer::PullStalled, pull.deadline);
        self.pull = Some(pull);
    }

    fn end_pull(&mut self) {
        if let Some(pull) = self.pull.take() {
            self.timers.clear(Timer::PullStalled);
            self.forget_told(&pull);
            self.replica.out.push_back(Output::CloseSession(pull.session));
        }
    }

    fn session_opened(&mut self, session: SessionId, peer: DeviceId) {
        let room = self.serving.len() < MAX_SERVED;
        match self.peers.get_mut(&peer) {
            Some(known) if room && known.served < MAX_SERVED_PER_PEER => {
                known.served += 1;
                self.serving.insert(session, Serve::new(session, peer));
            }
            _ => self.replica.out.push_back(Output::CloseSession(session)),
        }
    }

    fn session_ready(&mut self, session: SessionId) -> Result<(), Fault> {
        if let Some(pull) = self.pull.as_mut().filter(|pull| pull.session == session) {
            pull.ready(&mut self.replica);
        } else if let Some(serve) = self.serving.get_mut(&session) {
            serve.ready(&mut self.replica)?;
        }
        Ok(())
    }

    fn session_closed(&mut self, session: SessionId) {
        if let Some(pull) = self.pull.take_if(|pull| pull.session == session) {
            self.timers.clear(Timer::PullStalled);
            self.forget_told(&pull);
        }
        self.stop_serving(session);
    }

    /// A session broke off: whether the peer took the digest in is not known, so it gets a full one.
    fn forget_told(&mut self, pull: &Pull) {
        if pull.digest_sent()
            && let Some(peer) = self.peers.get_mut(&pull.peer)
        {
            peer.told.clear();
        }
    }

    fn stop_serving(&mut self, session: SessionId) {
        if let Some(serve) = self.serving.remove(&session)
            && let Some(peer) = self.peers.get_mut(&serve.peer)
        {
            peer.served = peer.served.saturating_sub(1);
        }
    }

    fn session_frame(&mut self, now: Now, session: SessionId, bytes: &[u8]) -> Result<(), Fault> {
        if self.pull.as_ref().is_some_and(|pull| pull.session == session) {
            return self.pull_frame(now, bytes);
        }
        let Some(serve) = self.serving.get_mut(&session) else {
            return Ok(());
        };
        let peer = serve.peer;
        let Some(known) = self.peers.get_mut(&peer) else {
            return Ok(());
        };
        match serve.frame(bytes, &mut known.heard, &mut self.replica) {
            Ok(Served::PeerIsAhead) => {
                if known.fruitless_until <= now.mono {
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
            for ours in self.replica.entries().filter(|entry| entry.seq > 0) {
                // What it has staged is its own affair: that stays as it told.
                let entry = peer.heard.entry(ours.log).or_insert(Entry { staged: 0, ..ours });
                (entry.seq, entry.head) = (ours.seq, ours.head);
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

    fn pull_frame(&mut self, now: Now, bytes: &[u8]) -> Result<(), Fault> {
        let Some(mut pull) = self.pull.take() else {
            return Ok(());
        };
        let nothing = BTreeMap::new();
        let told = self.peers.get(&pull.peer).map_or(&nothing, |peer| &peer.told);
        match pull.frame(bytes, now, told, &mut self.distrust, &mut self.replica) {
            Ok(Pulled::More) => {
                self.timers.set(Timer::PullStalled, pull.deadline);
                self.pull = Some(pull);
                Ok(())
            }
            Ok(done) => {
                self.timers.clear(Timer::PullStalled);
                self.replica.out.push_back(Output::CloseSession(pull.session));
                self.pull_done(now, &pull, done);
                Ok(())
            }
            Err(fault) => {
                // Another peer is asked; this one comes round again in its turn.
                let others: Vec<DeviceId> =
                    self.peers.keys().filter(|p| **p != pull.peer).copied().collect();
                let pick = self.replica.random.below(others.len() as u64);
                self.wanted.extend(others.get(usize::try_from(pick).unwrap_or(0)));
                self.pull = Some(pull);
                self.end_pull();
                Err(self.count(fault))
            }
        }
    }

    fn pull_done(&mut self, now: Now, pull: &Pull, done: Pulled) {
        let whole = match done {
            Pulled::Equal(whole) => {
                self.replica.counters.pulls_equal += 1;
                self.equal(now, pull.peer);
                whole
            }
            Pulled::More | Pulled::Done => {
                if let Some(peer) = self.peers.get_mut(&pull.peer) {
                    if !pull.learned {
                        peer.fruitless_until = now.mono + REPAIR_EVERY_MS;
                    }
                    peer.told = pull.told().iter().map(|entry| (entry.log, *entry)).collect();
                }
                pull.makes_whole(&self.replica)
            }
        };
        if whole && !self.replica.caught_up {
            self.replica.caught_up = true;
            self.replica.persist(vec![Write::CaughtUp]);
            self.replica.out.push_back(Output::Advanced);
        }
        if pull.learned {
            let others: Vec<DeviceId> =
                self.peers.keys().filter(|peer| **peer != pull.peer).copied().collect();
            let pick = self.replica.random.below(others.len() as u64);
            self.wanted.extend(others.get(usize::try_from(pick).unwrap_or(0)));
        }
    }

    // ---- looking in ---------------------------------------------------------------------------

    /// Whether local writes wait for [`Input::Commit`].
    #[must_use]
    pub fn has_queued_writes(&self) -> bool {
        self.replica.has_queued()
    }

    /// The roster.
    #[must_use]
    pub fn roster(&self) -> &Roster {
        &self.replica.roster
    }

    /// Last proven sequence number of every log: what readers may see.
    #[must_use]
    pub fn heads(&self) -> BTreeMap<LogId, u64> {
        self.replica.heads()
    }

    /// Whether this replica has once been whole. Until then readers are told that it is catching up.
    #[must_use]
    pub fn caught_up(&self) -> bool {
        self.replica.caught_up
    }

    /// A hash of roster and version digest: equal replicas, equal hashes.
    #[must_use]
    pub fn state_hash(&self) -> crate::id::Hash {
        self.replica.state_hash()
    }

    /// How each log stands.
    #[must_use]
    pub fn logs(&self) -> Vec<LogStatus> {
        self.replica.log_status()
    }

    /// The log that local writes go to.
    #[must_use]
    pub fn own_log(&self) -> LogId {
        self.replica.own_log()
    }

    /// How each connected member stands.
    #[must_use]
    pub fn peers(&self) -> Vec<PeerStatus> {
        let ours = self.replica.heads();
        let one = |(device, peer): (&DeviceId, &Peer)| {
            let theirs = |log| peer.heard.get(log).map_or(0, |entry| entry.seq);
            let behind = ours.iter().map(|(log, seq)| seq.saturating_sub(theirs(log))).sum();
            let mine = |log| ours.get(log).copied().unwrap_or(0);
            let ahead =
                peer.heard.values().map(|entry| entry.seq.saturating_sub(mine(&entry.log))).sum();
            PeerStatus { device: *device, behind, ahead, equal_at: peer.equal_at }
        };
        self.peers.iter().map(one).collect()
    }

    /// How the running pull stands.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        let pull = self.pull.as_ref()?;
        Some(Progress { from: pull.peer, received: pull.received, planned: pull.planned })
    }

    /// Running totals.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.replica.counters
    }

    /// Commits held while their predecessors are on the way.
    #[must_use]
    pub fn held(&self) -> usize {
        self.replica.held()
    }

    /// Storage, for reading.
    #[must_use]
    pub fn store(&self) -> &S {
        &self.replica.store
    }
}
