//! The one loop: feeds the core with requests, network events and time, and carries out what it says.
//! It holds no merge and no verification rule.
//!
//! What the core wants durable is handed to storage at once and synced by a thread of its own; every
//! output that follows waits for that sync, so nothing is acknowledged, sent or shown before it is on
//! disk. While a sync runs, the loop goes on taking inputs: they share the next one.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use swarmkv_protocol::codec::Bytes;
use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::id::{DeviceId, Version};
use swarmkv_protocol::io::{
    Blame, Fault, Input, InviteRefused, Output, SessionId, Token, Verdict as CoreVerdict,
    WriteRefused,
};
use swarmkv_protocol::message;
use swarmkv_protocol::ticket::JoinAnswer;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tracing::{debug, info};

use crate::blocklist::Blocklist;
use crate::clock::{self, Clock};
use crate::data_dir::DataDir;
use crate::error::{InviteError, RevokeError, WriteError};
use crate::event::NodeEvent;
use crate::network::{AskError, Command, Event, GossipToken, Network, Source, Transport, Verdict};
use crate::readers::{ReadState, Upcoming};
use crate::request::Request;
use crate::standing::labels;
use crate::storage::{self, Addresses, Disk, SyncDone, SyncThread};

/// Inputs taken before outputs are carried out and the loop yields.
const BATCH: usize = 256;

/// Syncs quicker than this may be waited for by the loop itself.
pub(crate) const QUICK_SYNC: Duration = Duration::from_millis(2);

/// A connection as the network reported it.
pub(crate) struct Link {
    pub(crate) addr: String,
    pub(crate) source: Source,
    pub(crate) transport: Transport,
    pub(crate) member: bool,
}

/// What stays the same while the peer runs.
pub(crate) struct Identity {
    pub(crate) me: DeviceId,
    pub(crate) blocklist: Blocklist,
    pub(crate) addresses: Addresses,
    /// Where this device left its own log when it last stopped, if that is in memory.
    pub(crate) resumable: Option<Bytes>,
    /// Held, and with it the directory's lock, for as long as the loop runs.
    pub(crate) dir: DataDir,
}

pub(crate) struct Driver {
    pub(crate) engine: Engine<Disk>,
    pub(crate) disk: Disk,
    pub(crate) identity: Identity,
    pub(crate) clock: Clock,
    pub(crate) links: BTreeMap<DeviceId, Link>,
    pub(crate) listening: BTreeSet<String>,
    pub(crate) strangers_refused: u64,
    pub(crate) network: Network,
    events: broadcast::Sender<NodeEvent>,
    pub(crate) readers: watch::Sender<Arc<ReadState>>,
    pub(crate) listen_addrs: watch::Sender<Vec<String>>,
    pub(crate) labels: Arc<BTreeMap<DeviceId, String>>,
    /// The members as of the last change.
    pub(crate) known: BTreeSet<DeviceId>,
    pub(crate) sync: SyncThread,
    pub(crate) syncing: bool,
    pub(crate) dirty: bool,
    /// Bytes handed to storage since the last sync began.
    pub(crate) unsynced: usize,
    /// Outputs that wait for the sync that is running, and for the one after it.
    pub(crate) in_flight: Vec<Output>,
    pub(crate) waiting: Vec<Output>,
    /// What readers see after the running sync.
    pub(crate) upcoming: Option<Upcoming>,
    answers: mpsc::UnboundedSender<(DeviceId, Result<Vec<u8>, AskError>)>,
    pub(crate) writes: BTreeMap<Token, oneshot::Sender<Result<Vec<Version>, WriteError>>>,
    invites: BTreeMap<Token, oneshot::Sender<Result<(), InviteError>>>,
    revokes: BTreeMap<Token, oneshot::Sender<Result<(), RevokeError>>>,
    /// Who waits until nothing is to be pulled any more.
    pullers: Vec<oneshot::Sender<()>>,
    /// When a device that was taken out stops looking for the others; until then it still tells them.
    pub(crate) alone_at: Option<Instant>,
    pub(crate) gossip: BTreeMap<Token, GossipToken>,
    pub(crate) asked: BTreeMap<Token, oneshot::Sender<Vec<u8>>>,
    pub(crate) sessions: BTreeMap<SessionId, DeviceId>,
    tokens: u64,
    pub(crate) stop: Option<oneshot::Sender<()>>,
    shown_progress: Option<Instant>,
    /// When the last sync began, and what syncs take of late.
    pub(crate) sync_began: Instant,
    pub(crate) sync_cost: Duration,
    /// The disk is full, as far as was told.
    pub(crate) full: bool,
    pub(crate) commands: VecDeque<Command>,
}

/// The channels that the loop listens on.
pub(crate) struct Inbox {
    pub(crate) network: mpsc::Receiver<Event>,
    pub(crate) requests: mpsc::Receiver<Request>,
    synced: mpsc::Receiver<SyncDone>,
    answers: mpsc::UnboundedReceiver<(DeviceId, Result<Vec<u8>, AskError>)>,
}

/// What callers watch.
pub(crate) struct Watches {
    pub(crate) events: broadcast::Sender<NodeEvent>,
    pub(crate) readers: watch::Sender<Arc<ReadState>>,
    pub(crate) listen_addrs: watch::Sender<Vec<String>>,
}

impl Driver {
    pub(crate) fn new(
        engine: Engine<Disk>,
        disk: Disk,
        identity: Identity,
        clock: Clock,
        network: (Network, mpsc::Receiver<Event>),
        requests: mpsc::Receiver<Request>,
        watches: Watches,
    ) -> (Self, Inbox) {
        let (sync, synced) = SyncThread::start(disk.clone());
        let (answers_tx, answers) = mpsc::unbounded_channel();
        let labels = Arc::new(labels(&engine));
        let known = engine.roster().members().map(|m| m.device).collect();
        let driver = Self {
            known,
            engine,
            disk,
            identity,
            clock,
            links: BTreeMap::new(),
            listening: BTreeSet::new(),
            strangers_refused: 0,
            network: network.0,
            events: watches.events,
            readers: watches.readers,
            listen_addrs: watches.listen_addrs,
            labels,
            sync,
            syncing: false,
            dirty: false,
            unsynced: 0,
            in_flight: Vec::new(),
            waiting: Vec::new(),
            upcoming: None,
            answers: answers_tx,
            writes: BTreeMap::new(),
            invites: BTreeMap::new(),
            revokes: BTreeMap::new(),
            pullers: Vec::new(),
            alone_at: None,
            gossip: BTreeMap::new(),
            asked: BTreeMap::new(),
            sessions: BTreeMap::new(),
            tokens: 0,
            stop: None,
            shown_progress: None,
            sync_began: Instant::now(),
            sync_cost: QUICK_SYNC,
            full: false,
            commands: VecDeque::new(),
        };
        (driver, Inbox { network: network.1, requests, synced, answers })
    }

    /// Runs until stopped (`Ok`) or until storage fails (what to tell a person).
    pub(crate) async fn run(mut self, mut inbox: Inbox) -> Result<(), String> {
        let result = self.turn(&mut inbox).await;
        if let Err(reason) = &result {
            let message = format!("{reason}. The peer stops: nothing more is acknowledged.");
            self.tell(NodeEvent::Trouble { message });
        }
        self.network.send(Command::Shutdown).await;
        self.sync.finish();
        if result.is_ok()
            && let Err(e) = self.tidy_up()
        {
            info!("the next start has more to do: {e}");
        }
        // Whoever still holds a handle must not hold the store open.
        let closed = self.readers.borrow().closed();
        self.readers.send_replace(Arc::new(closed));
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        result
    }

    /// Writes what the next start would otherwise have to find out by itself. It can do without.
    fn tidy_up(&mut self) -> Result<(), String> {
        self.feed(Input::Flush)?;
        self.disk.stop_waiting();
        self.disk.sync().map_err(|e| e.to_string())?;
        let head = self.engine.own_head().or_else(|| self.identity.resumable.take());
        self.disk.keep_own_head(head).map_err(|e| e.to_string())?;
        self.disk.settle().map_err(|e| e.to_string())
    }

    async fn turn(&mut self, inbox: &mut Inbox) -> Result<(), String> {
        // What opening the replica itself has to say.
        self.feed(Input::Tick)?;
        if self.disk.is_damaged() {
            let message = "part of the store's journal is damaged: checking everything against what was signed";
            self.tell(NodeEvent::Trouble { message: message.to_owned() });
            self.feed(Input::Scrub)?;
        }
        self.start_sync(false)?;
        loop {
            let deadline = self.engine.next_deadline().map(|(at, _)| self.clock.instant(at));
            let sleep = async {
                match deadline {
                    Some(at) => tokio::time::sleep_until(at.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                done = inbox.synced.recv() => {
                    self.synced(done.ok_or("the thread that writes to disk has ended")?)?;
                }
                event = inbox.network.recv(), if self.has_room() => {
                    self.network_event(event.ok_or("the network has ended")?)?;
                    for _ in 0..BATCH {
                        if !self.has_room() { break }
                        let Ok(event) = inbox.network.try_recv() else { break };
                        self.network_event(event)?;
                    }
                }
                request = inbox.requests.recv(), if self.listens() => {
                    let Some(request) = request else { return Ok(()) };
                    self.request(request)?;
                    for _ in 0..BATCH {
                        if !self.listens() { break }
                        let Ok(request) = inbox.requests.try_recv() else { break };
                        self.request(request)?;
                    }
                }
                Some((peer, answer)) = inbox.answers.recv() => self.answered(peer, answer)?,
                () = sleep, if self.stop.is_none() => self.feed(Input::Tick)?,
            }
            self.send_commands().await;
            while self.commit_queued()? {
                let alone = inbox.requests.is_empty() && inbox.network.is_empty();
                self.start_sync(alone)?;
            }
            let alone = inbox.requests.is_empty() && inbox.network.is_empty();
            self.start_sync(alone)?;
            self.send_commands().await;
            self.look_around();
            if self.stop.is_some() && !self.syncing && !self.dirty {
                return Ok(());
            }
        }
    }

    async fn send_commands(&mut self) {
        while let Some(command) = self.commands.pop_front() {
            self.network.send(command).await;
        }
    }

    pub(crate) fn token(&mut self) -> Token {
        self.tokens += 1;
        Token(self.tokens)
    }

    pub(crate) fn tell(&self, event: NodeEvent) {
        let _ = self.events.send(event);
    }

    pub(crate) fn label(&self, device: &DeviceId) -> String {
        self.labels.get(device).cloned().unwrap_or_else(|| device.short())
    }

    // ---- in -----------------------------------------------------------------------------------

    /// Gives the core one input and takes its outputs.
    pub(crate) fn feed(&mut self, input: Input) -> Result<(), String> {
        match self.engine.handle(self.clock.now(), input) {
            Ok(()) => {}
            Err(Fault::Peer { peer, reason, blame: Blame::Sender }) => {
                self.offended(peer, &reason);
            }
            Err(Fault::Peer { peer, reason, blame: Blame::Nobody }) => {
                debug!(peer = %self.label(&peer), "set aside what a peer sent: {reason}");
            }
            Err(Fault::Store(e)) => return Err(e.to_string()),
        }
        while let Some(output) = self.engine.poll_output() {
            self.take(output)?;
        }
        Ok(())
    }

    fn request(&mut self, request: Request) -> Result<(), String> {
        match request {
            Request::Write(_, reply) if self.disk.is_full() => {
                let _ = reply.send(Err(WriteError::Full));
            }
            Request::Write(changes, reply) => {
                let token = self.token();
                self.writes.insert(token, reply);
                self.feed(Input::Write(token, changes))?;
            }
            Request::Invite(secret, invite, reply) => {
                let token = self.token();
                self.invites.insert(token, reply);
                self.feed(Input::Invite { token, secret, invite })?;
            }
            Request::Knocks(reply) => {
                let _ = reply.send(self.knocks());
            }
            Request::Confirm(device, same) => self.feed(Input::Confirm { device, same })?,
            Request::Members(reply) => {
                let _ = reply.send(self.members());
            }
            Request::PullAll(reply) => {
                self.feed(Input::PullAll)?;
                self.pullers.push(reply);
            }
            Request::Target(name, reply) => {
                let _ = reply.send(self.target(&name));
            }
            Request::Revoke(device, reply) => {
                let token = self.token();
                self.revokes.insert(token, reply);
                self.feed(Input::Revoke { token, device })?;
            }
            Request::Status(reply) => {
                let _ = reply.send(self.status());
            }
            Request::Peers(reply) => {
                let _ = reply.send(self.peers());
            }
            Request::Scrub(reply) => {
                self.feed(Input::Scrub)?;
                let _ = reply.send(());
            }
            Request::Suspect(branch) => self.feed(Input::Suspect(branch))?,
            Request::Stop(reply) => self.stop = Some(reply),
        }
        Ok(())
    }

    // ---- out ----------------------------------------------------------------------------------

    /// Takes one output: a write goes to storage, a verdict is passed at once, the rest waits for the
    /// sync that covers what came before it.
    fn take(&mut self, output: Output) -> Result<(), String> {
        match output {
            Output::Persist(writes) => {
                self.unsynced += writes.iter().map(storage::size).sum::<usize>();
                self.disk.apply(writes);
                self.dirty = true;
            }
            Output::Verdict(token, verdict) => self.verdict(token, verdict),
            other if self.dirty => self.waiting.push(other),
            other if self.syncing => self.in_flight.push(other),
            other => self.carry_out(other),
        }
        Ok(())
    }

    pub(crate) fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist(_) | Output::Verdict(..) | Output::Advanced => {}
            Output::Publish(bytes) => self.commands.push_back(Command::Publish(bytes)),
            Output::OpenSession(session, peer) => {
                self.sessions.insert(session, peer);
                self.commands.push_back(Command::Open { session: session.0, peer });
            }
            Output::SendFrame(session, frame) => {
                self.commands.push_back(Command::Send { session: session.0, frame });
            }
            Output::CloseSession(session) => {
                self.commands.push_back(Command::Close { session: session.0 });
            }
            Output::Answer(token, bytes) => self.answer(token, bytes),
            Output::Ask(peer, request) => self.ask(peer, request),
            Output::Written(token, versions) => {
                if let Some(reply) = self.writes.remove(&token) {
                    let _ = reply.send(Ok(versions));
                }
            }
            Output::WriteRefused(token, refused) => {
                if let Some(reply) = self.writes.remove(&token) {
                    let _ = reply.send(Err(write_error(refused)));
                }
            }
            Output::Invited(token, result) => {
                if let Some(reply) = self.invites.remove(&token) {
                    let _ = reply.send(result.map_err(invite_error));
                }
            }
            Output::Revoked(token, result) => {
                if let Some(reply) = self.revokes.remove(&token) {
                    let _ = reply.send(result.map_err(RevokeError::Refused));
                }
            }
            Output::Knocked(knock) => self
                .tell(NodeEvent::Knocked { device: knock.label, check_words: knock.check_words }),
            Output::MembersChanged => self.members_changed(),
            Output::Admitted { device, label, check_words } => {
                info!(device = %device.short(), "admitted \"{label}\"");
                self.tell(NodeEvent::Admitted { device: label, check_words });
            }
        }
    }

    fn verdict(&mut self, token: Token, verdict: CoreVerdict) {
        let verdict = match verdict {
            CoreVerdict::Accept => Verdict::Accept,
            CoreVerdict::Reject => Verdict::Reject,
            CoreVerdict::Ignore => Verdict::Ignore,
        };
        if let Some(token) = self.gossip.remove(&token) {
            self.commands.push_back(Command::Verdict { token, verdict });
        }
    }

    fn answer(&mut self, token: Token, bytes: Vec<u8>) {
        if let Ok(JoinAnswer::Refused(refusal)) = message::decode(&bytes) {
            self.strangers_refused += 1;
            self.tell(NodeEvent::StrangerRefused { what: refusal.to_string() });
        }
        if let Some(reply) = self.asked.remove(&token) {
            let _ = reply.send(bytes);
        }
    }

    fn ask(&mut self, peer: DeviceId, request: Vec<u8>) {
        let (reply, answer) = oneshot::channel();
        self.commands.push_back(Command::Ask { peer, request, reply });
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let answer = answer.await.unwrap_or(Err(AskError::NoAnswer));
            let _ = answers.send((peer, answer));
        });
    }

    /// What is looked at after every round.
    fn look_around(&mut self) {
        self.show_progress();
        self.look_at_disk();
        if !self.pullers.is_empty() && !self.engine.pulling() {
            for puller in std::mem::take(&mut self.pullers) {
                let _ = puller.send(());
            }
        }
        self.look_at_members();
    }

    fn show_progress(&mut self) {
        if self.engine.caught_up() {
            return;
        }
        let Some(progress) = self.engine.progress().filter(|p| p.planned > 0) else {
            return;
        };
        if self.shown_progress.is_none_or(|at| at.elapsed().as_millis() >= 200) {
            self.shown_progress = Some(Instant::now());
            self.tell(NodeEvent::CatchingUp {
                from: self.label(&progress.from),
                received: progress.received,
                planned: progress.planned,
            });
        }
    }
}

pub(crate) fn source_word(source: Source) -> &'static str {
    match source {
        Source::Mdns => "mdns",
        Source::Kad => "kad",
        Source::Direct => "direct",
    }
}

pub(crate) fn transport_word(transport: Transport) -> &'static str {
    match transport {
        Transport::Tcp => "tcp",
        Transport::Quic => "quic",
    }
}

fn write_error(refused: WriteRefused) -> WriteError {
    match refused {
        WriteRefused::NotAllowed(_) => WriteError::NotAllowed(refused.to_string()),
        WriteRefused::Invalid(text) => WriteError::Invalid(text),
        WriteRefused::Condition(there) => WriteError::Condition(there),
        WriteRefused::CatchingUp => WriteError::CatchingUp,
        WriteRefused::Busy | WriteRefused::Damaged => WriteError::Busy,
    }
}

fn invite_error(refused: InviteRefused) -> InviteError {
    match refused {
        InviteRefused::NotAllowed => InviteError::NotAllowed,
        InviteRefused::TooMany => InviteError::TooMany,
        InviteRefused::Invalid => InviteError::Invalid,
    }
}

/// A moment in Unix milliseconds as minutes ago.
pub(crate) fn minutes_ago(at: u64) -> u64 {
    clock::wall_millis().saturating_sub(at) / 60_000
}
