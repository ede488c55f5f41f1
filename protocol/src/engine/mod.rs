//! The engine: takes inputs, hands out outputs, says when it wants to be called again. It only routes.

mod backoff;
mod peers;
mod rounds;
mod sessions;
mod status;
pub mod timers;

use std::collections::{BTreeMap, BTreeSet, btree_map};

use self::backoff::Backoff;
use self::peers::Peer;
use self::timers::{Timer, Timers};
use crate::crypto::DeviceKey;
use crate::id::{BranchId, DeviceId, LogId};
use crate::io::{Blame, Fault, Input, Output, SessionId, Token, Verdict};
use crate::limits::{
    EXPIRE_EVERY_MS, INTRODUCE_EVERY_MS, MAX_GAPS, MAX_GOSSIP, MEND_WAIT_MS, SCRUB_EVERY_MS,
    SCRUB_FAST_MS, STAGED_MS,
};
use crate::log::branch::Chore;
use crate::log::digest::DigestKey;
use crate::message::Gossip;
use crate::repair::{PeerCooldown, Pull, Serve, Told};
use crate::replica::{Replica, Taken};
use crate::roster::Roster;
use crate::store::{Recovered, Store, StoreError};
use crate::time::Now;

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
    pulls: BTreeMap<SessionId, Pull>,
    /// Members to compare everything with.
    wanted: BTreeSet<DeviceId>,
    /// Members that showed that something of a log is missing here, and up to where.
    gaps: BTreeMap<DeviceId, BTreeMap<LogId, u64>>,
    /// When a session to close a gap with a member may begin again.
    gap_pause: BTreeMap<DeviceId, u64>,
    serving: BTreeMap<SessionId, Serve>,
    /// Served sessions that wait because their peer has used up what it is served at once.
    throttled: BTreeSet<SessionId>,
    peer_cooldown: PeerCooldown,
    introduced: BTreeMap<DeviceId, u64>,
    timers: Timers,
    backoff: Backoff,
    next_session: u64,
}

impl<S: Store> Engine<S> {
    /// Opens a replica from what storage holds. `entropy` seeds its choices; `fresh_epoch` says that
    /// this device may have written what storage does not know, as when the data directory is a copy, so
    /// that writing must go on in a new log.
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
        timers.set(Timer::Scrub, 0);
        if replica.logs.owes() {
            timers.set(Timer::Tidy, 0);
        }
        Ok(Self {
            replica,
            peers: BTreeMap::new(),
            pulls: BTreeMap::new(),
            wanted: BTreeSet::new(),
            gaps: BTreeMap::new(),
            gap_pause: BTreeMap::new(),
            serving: BTreeMap::new(),
            throttled: BTreeSet::new(),
            peer_cooldown: BTreeMap::new(),
            introduced: BTreeMap::new(),
            timers,
            backoff: Backoff::default(),
            next_session: 0,
        })
    }

    /// The next thing to do, in order.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.replica.fx.pop()
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
        self.replica.fx.begin();
        let result = self.route(now, input);
        let result = self.survive(result)?;
        let ticked = self.run_timers(now).and_then(|()| self.apply_held(now));
        let ticked = self.survive(ticked)?;
        self.replica.consolidate();
        if std::mem::take(&mut self.replica.ask_all) {
            self.wanted.extend(self.peers.keys());
        }
        self.replica.logs.refresh();
        self.note_progress(now);
        self.start_pulls(now);
        self.plan_chores(now);
        result.and(ticked)
    }

    /// A damaged slot costs its branch, not the replica.
    fn survive(&mut self, result: Result<(), Fault>) -> Result<Result<(), Fault>, Fault> {
        match result {
            Err(Fault::Store(StoreError::Damaged { branch, .. })) => {
                self.replica.set_aside(branch);
                self.wanted.extend(self.peers.keys());
                Ok(Ok(()))
            }
            Err(Fault::Store(failed)) => Err(Fault::Store(failed)),
            other => Ok(other),
        }
    }

    fn route(&mut self, now: Now, input: Input) -> Result<(), Fault> {
        match input {
            Input::Write(token, changes) => self.replica.enqueue(token, changes),
            Input::Commit => self.replica.commit(now)?,
            Input::Gossip { token, from, bytes } => self.gossip(now, token, from, &bytes)?,
            Input::Flush => {
                let writes = self.replica.logs.record_all();
                self.replica.fx.persist(writes);
            }
            Input::Connected(peer) => self.connected(now, peer),
            Input::Disconnected(peer) => self.disconnected(peer),
            Input::Stranger(peer) => self.stranger(now, peer),
            Input::SessionOpened(session, peer) => self.session_opened(now, session, peer),
            Input::SessionReady(session) => self.session_ready(now, session)?,
            Input::SessionBytes(session, bytes) => self.session_bytes(now, session, bytes),
            Input::SessionFrame(session, bytes) => self.session_frame(now, session, &bytes)?,
            Input::SessionClosed(session) => self.session_closed(now, session),
            Input::Asked { token, peer, bytes } => self.replica.asked(now, token, peer, &bytes),
            Input::Answered(peer, bytes) => {
                self.replica.answered(&bytes);
                self.wanted.insert(peer);
            }
            Input::Invite { token, secret, invite } => {
                self.replica.invite(now, token, secret, &invite);
            }
            Input::Confirm { device, same } => self.replica.confirm(device, same),
            Input::Revoke { token, device } => self.replica.revoke(token, device),
            Input::PullAll => self.wanted.extend(self.peers.keys()),
            Input::Scrub => self.replica.scrub_all(),
            Input::Suspect(branch) => {
                self.replica.suspects.insert(branch);
            }
            Input::Tick => {}
        }
        Ok(())
    }

    // ---- peers and timers ---------------------------------------------------------------------

    fn connected(&mut self, now: Now, peer: DeviceId) {
        // A new key for each connection: what others sign cannot be made to look the same under it.
        let halves = [self.replica.random.next(), self.replica.random.next()];
        let mut key = [0; 16];
        key[..8].copy_from_slice(&halves[0].to_be_bytes());
        key[8..].copy_from_slice(&halves[1].to_be_bytes());
        let told = Told { key: DigestKey(key), ..Told::default() };
        self.peers.insert(peer, Peer::new(told, now));
        self.wanted.insert(peer);
        self.reset_backoff(now);
    }

    fn disconnected(&mut self, peer: DeviceId) {
        self.peers.remove(&peer);
        self.wanted.remove(&peer);
        self.introduced.remove(&peer);
        self.serving.retain(|_, serve| serve.peer != peer);
        self.gaps.remove(&peer);
        self.gap_pause.remove(&peer);
        self.end_pulls_of(peer);
        if self.peers.is_empty() {
            self.timers.clear(Timer::Repair);
        }
    }

    fn stranger(&mut self, now: Now, peer: DeviceId) {
        if self.replica.roster.revocation(&self.replica.me).is_some() {
            return;
        }
        self.introduced.retain(|_, until| *until > now.mono);
        if let btree_map::Entry::Vacant(place) = self.introduced.entry(peer) {
            place.insert(now.mono + INTRODUCE_EVERY_MS);
            self.replica.introduce(peer);
        }
    }

    fn run_timers(&mut self, now: Now) -> Result<(), Fault> {
        while let Some(timer) = self.timers.due(now.mono) {
            match timer {
                Timer::Repair => self.round(now),
                Timer::PullStalled => self.end_stalled(now),
                Timer::Scrub => self.scrub(now)?,
                Timer::Serve => self.pump_throttled(now)?,
                Timer::Expire => self.expire(now),
                // Slots written in this call cannot be read yet: the next call goes on.
                Timer::Tidy if self.replica.fx.unread() => {}
                Timer::Tidy => self.tidy(now)?,
                // What is due then is begun after every call.
                Timer::Held | Timer::Gap | Timer::Retry => {}
            }
        }
        Ok(())
    }

    /// Sets the timers of what is to be done in small steps, and of what is kept for a time only.
    fn plan_chores(&mut self, now: Now) {
        if let Some(owing) = self.replica.logs.owing() {
            // Mending waits for a session that may bring the same: no need to look every millisecond.
            let log = owing.id.log;
            let waits = matches!(owing.chore, Chore::Mend(_))
                && self.replica.receiving.keys().any(|id| id.log == log);
            let at = now.mono + if waits { MEND_WAIT_MS } else { 1 };
            self.timers.set(Timer::Tidy, at.min(self.timers.at(Timer::Tidy)));
        }
        if self.replica.to_scrub() > 0 && self.timers.at(Timer::Scrub) > now.mono + SCRUB_FAST_MS {
            self.timers.set(Timer::Scrub, now.mono + SCRUB_FAST_MS);
        }
        let keeps = !self.replica.held.is_empty() || self.replica.logs.staging().next().is_some();
        if keeps && self.timers.at(Timer::Expire) == u64::MAX {
            self.timers.set(Timer::Expire, now.mono + EXPIRE_EVERY_MS);
        }
    }

    /// Drops what was held or set aside too long, without a session that brings more of it.
    fn expire(&mut self, now: Now) {
        self.replica.held.expire(now.mono);
        let old: Vec<BranchId> = self
            .replica
            .logs
            .staging()
            .filter(|branch| !self.replica.receiving.contains_key(&branch.id))
            .filter(|branch| branch.staged_at + STAGED_MS <= now.mono)
            .map(|branch| branch.id)
            .collect();
        for id in old {
            self.replica.drop_staged(id);
        }
    }

    /// One step of the tidying that some branch owes.
    fn tidy(&mut self, now: Now) -> Result<(), Fault> {
        let Some(branch) = self.replica.logs.owing() else {
            return Ok(());
        };
        let id = branch.id;
        match branch.chore {
            _ if branch.to_compare() => return Ok(self.replica.compare(id)?),
            _ if branch.dropping() => {}
            Chore::Mend(after) => return Ok(self.replica.mend(id, after)?),
            Chore::Salvage(after) => return self.replica.salvage_step(now, id, after),
            _ => {}
        }
        let (mut writes, left) = branch.tidy(&self.replica.store)?;
        match left {
            Some(chore) => {
                writes.extend(self.replica.logs.record(id, |branch| branch.chore = chore));
            }
            None => {
                self.replica.logs.remove(id);
                self.replica.comparisons.remove(&id);
            }
        }
        self.replica.fx.persist(writes);
        self.replica.note_moved(id);
        Ok(())
    }

    fn scrub(&mut self, now: Now) -> Result<(), Fault> {
        let next = self.replica.scrub();
        let pause = next.as_ref().map_or(SCRUB_EVERY_MS, |next| next.pause());
        self.timers.set(Timer::Scrub, now.mono + pause);
        next.map(|_| ()).map_err(Fault::from)
    }

    fn apply_held(&mut self, now: Now) -> Result<(), Fault> {
        if self.replica.apply_held(now)? {
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
            Err(Fault::sender(from, "message is too large for gossip"))
        } else {
            self.replica.read(from, bytes)
        };
        match decoded {
            Ok(Gossip::Commit(commit)) => {
                let taken = self.replica.take_commit(now, token, from, &commit);
                self.pull_on_gap(&taken, from);
                taken.map(|_| ())
            }
            Ok(Gossip::Announce(header)) => {
                let result = self.replica.take_announcement(token, from, &header);
                let source = match &result {
                    // Whoever passed it on may have to pull it first; the author has it for sure.
                    Ok(Taken::Gap { log, .. }) if self.peers.contains_key(&log.author) => {
                        log.author
                    }
                    _ => from,
                };
                self.pull_on_gap(&result, source);
                result.map(|_| ())
            }
            Ok(Gossip::Statement(statement)) => {
                let result = self.replica.take_statement(token, from, statement);
                if matches!(&result, Err(Fault::Peer { blame: Blame::Nobody, .. })) {
                    // What comes before it is missing here.
                    self.wanted.insert(from);
                }
                result
            }
            Err(fault) => {
                let sender = matches!(&fault, Fault::Peer { blame: Blame::Sender, .. });
                let verdict = if sender { Verdict::Reject } else { Verdict::Ignore };
                self.replica.fx.push(Output::Verdict(token, verdict));
                self.replica.fx.count(verdict);
                Err(fault)
            }
        }
    }

    fn pull_on_gap(&mut self, taken: &Result<Taken, Fault>, from: DeviceId) {
        match taken {
            Ok(Taken::Placed) | Err(Fault::Store(_)) => {}
            Ok(Taken::Gap { log, upto }) => self.note_gap(from, *log, *upto),
            Ok(Taken::Apart) => {
                self.wanted.insert(from);
            }
            // An unknown grant: the roster that explains it comes with a repair.
            Err(Fault::Peer { blame, .. }) => {
                if *blame == Blame::Nobody {
                    self.wanted.insert(from);
                }
            }
        }
    }

    fn note_gap(&mut self, source: DeviceId, log: LogId, upto: u64) {
        let gaps = self.gaps.entry(source).or_default();
        if gaps.len() < MAX_GAPS {
            let known = gaps.entry(log).or_default();
            *known = upto.max(*known);
        }
    }
}
