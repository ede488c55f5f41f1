//! A whole swarm in one thread: carries out what engines say over a simulated network and disk.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::crypto::{self, Domain};
use swarmkv_protocol::id::{DeviceId, Hash, LogId};
use swarmkv_protocol::io::{Fault, Input, Output, SessionId, Token, Verdict};
use swarmkv_protocol::limits::{MAX_FRAME, MAX_GOSSIP};
use swarmkv_protocol::roster::{Grant, Role, Roster};
use swarmkv_protocol::store::Write;

use crate::event::{Agenda, Event};
use crate::invariants;
use crate::model::{Acked, Model, Signed};
use crate::node::{Node, Waiting};
use crate::plan::{Plan, Plant};
use crate::rng::Rng;

/// Events that one run may take: more means that something turns in circles.
const MAX_EVENTS: u64 = 6_000_000;

/// A repair session between two nodes.
pub struct Session {
    pub ends: [usize; 2],
    pub lives: [u64; 2],
    pub ids: [Option<SessionId>; 2],
    pub link: u64,
    pub cut: bool,
    /// When the last frame to each end arrives: streams keep their order.
    pub last: [u64; 2],
    pub sent: Vec<Vec<u8>>,
}

/// What a run comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    pub simulated_ms: u64,
    pub converged_ms: u64,
    pub commits: u64,
    pub events: u64,
    pub fingerprint: u64,
}

pub struct World {
    pub plan: Plan,
    pub rng: Rng,
    pub time: u64,
    pub agenda: Agenda,
    pub nodes: Vec<Node>,
    pub model: Model,
    pub sessions: Vec<Session>,
    /// Connections that are up, by the pair.
    pub links: BTreeMap<(usize, usize), u64>,
    /// Directions in which nothing passes, and until when.
    pub blocked: BTreeMap<(usize, usize), u64>,
    pub chaos: bool,
    pub tokens: u64,
    pub values: u64,
    pub asked: BTreeMap<Token, usize>,
    pub invites: BTreeMap<Token, (usize, [u8; 16])>,
    pub next_link: u64,
    /// Logs that an honest author may have forked, for it did not notice that its disk is an old one.
    pub forked: BTreeSet<LogId>,
    /// Nodes that somebody has revoked, whether it counted in the end or not.
    pub outcasts: BTreeSet<usize>,
    /// What was shown of forked logs when the faults ended.
    pub kept: Vec<invariants::kept::Kept>,
    pub replay: Vec<Rc<[u8]>>,
    pub events: u64,
    pub fingerprint: u64,
    /// Members that sign and send anything.
    pub hostile: BTreeMap<usize, crate::hostile::Hostile>,
    pub stage: crate::hostile::Stage,
    /// Slots sent again to the same one between honest replicas that were seen equal before.
    pub idle_slots: u64,
    /// What was sent to whom since then.
    pub sent_idle: BTreeSet<(usize, Hash)>,
    /// What happened since, by kind.
    pub kinds: BTreeMap<String, u64>,
}

impl World {
    pub fn new(plan: Plan) -> Result<Self, String> {
        let mut rng = Rng::new(plan.seed ^ 0xabcd);
        let mut nodes: Vec<Node> =
            (0..plan.nodes).map(|_| Node::new(rng.bytes(), plan.skew(&mut rng))).collect();
        for (node, memory) in nodes.iter_mut().zip(plan.memory()) {
            node.memory = *memory;
        }
        let mut world = Self {
            plan,
            rng,
            time: 0,
            agenda: Agenda::default(),
            nodes,
            model: Model::default(),
            sessions: Vec::new(),
            links: BTreeMap::new(),
            blocked: BTreeMap::new(),
            chaos: true,
            tokens: 0,
            values: 0,
            asked: BTreeMap::new(),
            invites: BTreeMap::new(),
            next_link: 0,
            forked: BTreeSet::new(),
            outcasts: BTreeSet::new(),
            kept: Vec::new(),
            replay: Vec::new(),
            events: 0,
            fingerprint: 0,
            hostile: BTreeMap::new(),
            stage: crate::hostile::Stage::default(),
            idle_slots: 0,
            sent_idle: BTreeSet::new(),
            kinds: BTreeMap::new(),
        };
        world.found()?;
        Ok(world)
    }

    /// The owner founds the swarm and grants; one device may have to come with a ticket later.
    fn found(&mut self) -> Result<(), String> {
        let owner = self.nodes[0].key();
        let mut roster =
            Roster::found(&owner, "sim", "owner", [7; 16]).map_err(|e| e.to_string())?;
        let late = self.plan.late_joiner.then_some(1);
        self.grant_hostile(&mut roster, late)?;
        let ordinary = if self.hostile.is_empty() { self.nodes.len() } else { 1 };
        for n in 1..ordinary {
            if Some(n) == late {
                continue;
            }
            let role = match n {
                2 if self.plan.reader => Role::Reader,
                _ if self.plan.revocations && n > 2 && n % 2 == 1 => Role::Admin,
                _ if self.plan.revocations && Some(n) == self.plan.rogue => Role::Admin,
                _ => Role::Writer,
            };
            let grant = Grant {
                device: self.nodes[n].id,
                label: format!("node {n}"),
                role,
                prefix: Bytes::default(),
                max_bytes: None,
            };
            let statement = roster.grant(&owner, grant).map_err(|e| e.to_string())?;
            roster.insert(&[statement]);
        }
        let statements = roster.beyond(&[]);
        for n in 0..self.nodes.len() {
            if Some(n) == late {
                let at = self.rng.range(1_000, self.plan.chaos_ms);
                self.agenda.at(at, Event::Join(n));
                continue;
            }
            // Some members know the whole roster from the start, others only what admits them.
            let known = if self.rng.percent(50) {
                statements.clone()
            } else {
                roster.path(&self.nodes[n].id)
            };
            self.prepare(n, roster.genesis_bytes().clone(), &known, n == 0);
            self.start(n, false)?;
        }
        self.agenda.at(1, Event::Chaos);
        self.agenda.at(500, Event::Check);
        Ok(())
    }

    /// Puts what a new member starts from on its disk.
    pub fn prepare(&mut self, n: usize, genesis: Bytes, statements: &[Bytes], whole: bool) {
        let named = |bytes: &Bytes| crypto::hash(Domain::StatementName, &[bytes]);
        let mut writes: Vec<Write> = statements
            .iter()
            .map(|bytes| Write::Statement { name: named(bytes), bytes: bytes.clone() })
            .collect();
        if whole {
            writes.push(Write::CaughtUp(true));
        }
        let mut disk = self.nodes[n].disk.borrow_mut();
        let upto = disk.write(writes);
        disk.sync(upto);
        drop(disk);
        self.nodes[n].genesis = Some(genesis);
    }

    pub fn start(&mut self, n: usize, fresh_epoch: bool) -> Result<(), String> {
        let entropy = self.rng.next();
        self.nodes[n].start(entropy, fresh_epoch)?;
        invariants::order::holds_over_a_restart(self, n)?;
        let pause = self.rng.below(2 * self.plan.writes_every);
        self.agenda.at(self.time + pause, Event::Load(n));
        self.drain(n)
    }

    pub fn honest(&self, n: usize) -> bool {
        self.plan.rogue != Some(n) && !self.hostile.contains_key(&n)
    }

    pub fn index(&self, device: &DeviceId) -> Option<usize> {
        self.nodes.iter().position(|node| node.id == *device)
    }

    pub fn honest_author(&self, log: &LogId) -> bool {
        !self.forked.contains(log)
            && self
                .index(&log.author)
                .is_some_and(|n| self.honest(n) && !self.outcasts.contains(&n))
    }

    pub fn outcast_author(&self, log: &LogId) -> bool {
        self.index(&log.author).is_some_and(|n| self.outcasts.contains(&n))
    }

    /// Whether a log's author has opened so many later ones that a replica drops it. An author keeps itself
    /// to one less than counts; what a rogue has opened only the replica knows.
    pub fn crowded(&self, n: usize, log: &LogId) -> bool {
        use swarmkv_protocol::limits::MAX_LOGS_PER_AUTHOR;
        let held = self.nodes[n].engine.as_ref().map(|engine| engine.heads());
        let held: BTreeSet<LogId> =
            held.iter().flat_map(|heads| heads.iter().map(|(branch, _)| branch.log)).collect();
        let theirs = |other: &&LogId| other.author == log.author;
        let later: BTreeSet<&LogId> =
            held.iter().chain(self.model.logs.keys()).filter(theirs).filter(|l| *l > log).collect();
        let rogue = self.index(&log.author) == self.plan.rogue;
        later.len() + 1 >= MAX_LOGS_PER_AUTHOR
            || rogue && held.iter().filter(theirs).count() + 1 >= MAX_LOGS_PER_AUTHOR
    }

    /// Whether a node is to take part in the end: the owner's roster tells.
    pub fn belongs(&self, n: usize) -> bool {
        let owner = self.nodes[0].engine.as_ref();
        owner.is_none_or(|e| e.roster().revocation(&self.nodes[n].id).is_none())
    }

    pub fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    /// Runs one event; false when there is none left.
    pub fn step(&mut self) -> Result<bool, String> {
        let Some((time, event)) = self.agenda.next() else { return Ok(false) };
        self.time = time;
        self.events += 1;
        if self.events > MAX_EVENTS {
            return Err("bounds: the swarm turns in circles".into());
        }
        if let Some(until) = event.node().map(|n| self.nodes[n].asleep_until)
            && until > self.time
        {
            self.agenda.at(until, event);
            return Ok(true);
        }
        if self.stage == crate::hostile::Stage::Equal {
            *self.kinds.entry(event.kind()).or_default() += 1;
        }
        self.happen(event)?;
        Ok(true)
    }

    fn happen(&mut self, event: Event) -> Result<(), String> {
        match event {
            Event::Tick(n, life) if self.nodes[n].life == life => {
                if self.nodes[n].tick_at.is_some_and(|at| at <= self.time) {
                    self.nodes[n].tick_at = None;
                    return self.input(n, Input::Tick);
                }
                Ok(())
            }
            Event::Commit(n, life) if self.nodes[n].life == life => {
                self.nodes[n].commit_planned = false;
                self.input(n, Input::Commit)
            }
            Event::Synced(n, life, upto) if self.nodes[n].life == life => {
                if self.chaos && self.plan.sync_errors && self.rng.below(2_000) == 0 {
                    // What the disk has of it is not known: a restart will tell.
                    self.kill(n);
                    return Ok(());
                }
                self.nodes[n].disk.borrow_mut().sync(upto);
                self.release(n)?;
                self.drain(n)
            }
            Event::Tick(..) | Event::Commit(..) | Event::Synced(..) => Ok(()),
            Event::Gossip { to, from, bytes } => self.gossip_arrives(to, from, bytes),
            Event::Up { node, life, peer, link } => self.link_up(node, life, peer, link),
            Event::Down { node, life, peer, link } => self.link_down(node, life, peer, link),
            Event::Opened(s) => self.session_opened(s),
            Event::Ready(s, end) => self.session_ready(s, end),
            Event::Frame(s, end, bytes) => self.frame_arrives(s, end, bytes),
            Event::Closed(s, end) => self.session_closed(s, end),
            Event::Asked { to, from, bytes } => self.asked(to, from, bytes),
            Event::Answered { to, from, bytes } => self.answered(to, from, &bytes),
            Event::Join(n) => self.join(n),
            Event::Restart(n) => self.restart(n),
            Event::Load(n) => self.load(n),
            Event::Hostile(n) => self.hostile_act(n),
            Event::Chaos => self.stir(),
            Event::Check => {
                self.agenda.at(self.time + 1_500, Event::Check);
                invariants::check(self)
            }
        }
    }

    /// Hands an engine one input and carries out what it says.
    pub fn input(&mut self, n: usize, input: Input) -> Result<(), String> {
        let Some(input) = self.intercept(n, input) else { return Ok(()) };
        self.nodes[n].ticks += u64::from(matches!(input, Input::Tick));
        let now = self.nodes[n].now(self.time);
        let Some(engine) = self.nodes[n].engine.as_mut() else { return Ok(()) };
        let result = engine.handle(now, input);
        match result {
            Ok(()) => {}
            Err(Fault::Peer { peer, reason, blame }) => {
                invariants::honest::fault(self, n, &peer, &reason, blame)?;
            }
            Err(Fault::Store(error)) => return Err(format!("node {n}: {error}")),
        }
        self.drain(n)
    }

    /// Takes every output; what follows a `Persist` waits until that is durable.
    pub fn drain(&mut self, n: usize) -> Result<(), String> {
        while let Some(output) = self.nodes[n].engine.as_mut().and_then(|e| e.poll_output()) {
            match output {
                Output::Persist(writes) => self.persist(n, writes)?,
                Output::Verdict(token, verdict) => self.verdict(n, token, verdict)?,
                other => {
                    self.judged_whole(n, &other)?;
                    let heads = match &other {
                        Output::Advanced => self.nodes[n].engine.as_ref().map(crate::node::heads),
                        _ => None,
                    };
                    let item = Waiting::Do(other, heads.unwrap_or_default());
                    self.nodes[n].waiting.push_back(item);
                }
            }
        }
        self.release(n)?;
        let Some(engine) = self.nodes[n].engine.as_ref() else { return Ok(()) };
        let (deadline, queued) = (engine.next_deadline(), engine.has_queued_writes());
        let life = self.nodes[n].life;
        if let Some((at, _)) = deadline
            && self.nodes[n].tick_at.is_none_or(|planned| planned > at)
        {
            self.nodes[n].tick_at = Some(at);
            self.agenda.at(at.max(self.time), Event::Tick(n, life));
        }
        let idle = {
            let disk = self.nodes[n].disk.borrow();
            disk.synced() == disk.handed()
        };
        if queued && idle && !self.nodes[n].commit_planned {
            self.nodes[n].commit_planned = true;
            let pause = self.rng.below(4);
            self.agenda.at(self.time + pause, Event::Commit(n, life));
        }
        Ok(())
    }

    /// A conditional write goes ahead on a complete replica only.
    fn judged_whole(&self, n: usize, output: &Output) -> Result<(), String> {
        let Output::Written(token, _) = output else { return Ok(()) };
        let complete = self.nodes[n].engine.as_ref().is_some_and(|engine| engine.caught_up());
        let changes = self.nodes[n].writes.get(token).into_iter().flatten();
        if !complete && changes.into_iter().any(|change| change.condition.is_some()) {
            return Err(format!("judged: node {n} judges a condition while it is catching up"));
        }
        Ok(())
    }

    fn persist(&mut self, n: usize, mut writes: Vec<Write>) -> Result<(), String> {
        self.learn(n, &writes)?;
        crate::planted::spoil(self, n, &mut writes);
        let upto = self.nodes[n].disk.borrow_mut().write(writes);
        self.nodes[n].waiting.push_back(Waiting::Sync(upto));
        let pause = if self.rng.percent(3) { self.rng.below(400) } else { self.rng.range(1, 12) };
        let life = self.nodes[n].life;
        self.agenda.at(self.time + pause, Event::Synced(n, life, upto));
        Ok(())
    }

    /// Tells the oracle what an engine just signed.
    fn learn(&mut self, n: usize, writes: &[Write]) -> Result<(), String> {
        let Some(own) = self.nodes[n].engine.as_ref().map(|e| e.own_log()) else { return Ok(()) };
        let header = writes.iter().find_map(|write| match write {
            Write::Header { branch, bytes, .. } if branch.log == own => Some(bytes),
            _ => None,
        });
        let Some(signed) = header else { return Ok(()) };
        let header = swarmkv_protocol::commit::SignedHeader::decode(signed)
            .map_err(|e| format!("signed: node {n} signed what does not decode: {e}"))?;
        let claim = header.claim();
        let slots = writes.iter().filter_map(|write| match write {
            Write::Slot { key, slot } if slot.branch.log == own => {
                Some(Signed { key: key.clone(), slot: slot.clone() })
            }
            _ => None,
        });
        let slots: Vec<Signed> = slots.collect();
        if self.honest_author(&own) {
            let before = claim.last_seq - u64::from(claim.count);
            invariants::contexts::hold(&own, self.model.logs.get(&own), before, &slots)?;
            let hash = crypto::hash(Domain::Header, &[signed]);
            self.model.signed(own, before, (claim.last_seq, hash), slots)?;
        }
        Ok(())
    }

    /// Carries out whatever no longer waits for the disk.
    fn release(&mut self, n: usize) -> Result<(), String> {
        loop {
            let synced = self.nodes[n].disk.borrow().synced();
            let early = self.plan.plant == Plant::SendBeforeSync;
            match self.nodes[n].waiting.front() {
                Some(Waiting::Sync(upto)) if *upto > synced && !early => return Ok(()),
                None => return Ok(()),
                Some(_) => {}
            }
            if let Some(Waiting::Do(output, heads)) = self.nodes[n].waiting.pop_front() {
                self.carry_out(n, output, heads)?;
            }
        }
    }

    fn carry_out(
        &mut self,
        n: usize,
        output: Output,
        heads: BTreeMap<LogId, u64>,
    ) -> Result<(), String> {
        match output {
            Output::Persist(_) | Output::Verdict(..) => unreachable!("taken before"),
            // What a hostile member signs it signs by its own hand.
            Output::Publish(_) if self.hostile.contains_key(&n) => {}
            Output::Publish(bytes) => {
                if bytes.len() > MAX_GOSSIP {
                    return Err(format!("bounds: a gossip message of {} bytes", bytes.len()));
                }
                invariants::durable::published(self, n, &bytes)?;
                self.spread(n, None, &bytes.into());
            }
            Output::OpenSession(id, peer) => self.open_session(n, id, &peer),
            Output::SendFrame(id, bytes) => {
                if bytes.len() > MAX_FRAME {
                    return Err(format!("bounds: a frame of {} bytes", bytes.len()));
                }
                invariants::durable::told(self, n, &bytes)?;
                self.send_frame(n, id, bytes);
            }
            Output::CloseSession(id) => self.close_session(n, id),
            Output::Answer(token, bytes) => {
                if let Some(to) = self.asked.remove(&token) {
                    let pause = self.latency();
                    self.agenda.at(self.time + pause, Event::Answered { to, from: n, bytes });
                }
            }
            Output::Ask(peer, bytes) => {
                if let Some(to) = self.index(&peer) {
                    let pause = self.latency();
                    self.agenda.at(self.time + pause, Event::Asked { to, from: n, bytes });
                }
            }
            Output::Written(token, versions) => {
                let changes =
                    self.nodes[n].writes.remove(&token).ok_or("durable: written twice")?;
                for (change, version) in changes.into_iter().zip(versions) {
                    invariants::durable::acknowledged(self, n, &version)?;
                    if self.honest_author(&version.log) {
                        self.model.acked.push(Acked { version, key: change.cell.index_key() });
                    }
                }
            }
            Output::WriteRefused(token, _) => {
                self.nodes[n].writes.remove(&token);
            }
            Output::Invited(token, result) => self.invited(n, token, result.is_ok()),
            Output::Advanced => {
                self.nodes[n].notice_set_aside();
                self.nodes[n].shown.extend(heads);
            }
            Output::MembersChanged => self.tell_members(n)?,
            Output::Admitted { .. } | Output::Revoked(..) | Output::Knocked(_) => {}
        }
        Ok(())
    }

    fn verdict(&mut self, n: usize, token: Token, verdict: Verdict) -> Result<(), String> {
        let Some((from, bytes)) = self.nodes[n].verdicts.remove(&token) else {
            return Err("honest: a verdict on nothing".into());
        };
        match verdict {
            Verdict::Accept => self.spread(n, Some(from), &bytes),
            Verdict::Reject if self.honest(n) && self.honest(from) => {
                return Err(format!("honest: node {n} rejects what honest node {from} passed on"));
            }
            Verdict::Reject | Verdict::Ignore => {}
        }
        Ok(())
    }

    /// One seed gives one course of events: a running hash of what passed over the network.
    pub fn mix(&mut self, bytes: &[u8]) {
        let hash = crypto::hash(Domain::Content, &[&self.time.to_be_bytes(), bytes]);
        let word = hash.as_bytes()[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        self.fingerprint = self.fingerprint.rotate_left(1) ^ word;
    }
}
