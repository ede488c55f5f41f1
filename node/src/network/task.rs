//! The task that owns the swarm: one loop over commands, swarm, stream tasks and the clock.
//!
//! It carries things between them and keeps the table of connections; decisions live in the files
//! beside it. It never waits for the driver, nor for any peer.

use std::collections::{BTreeSet, HashMap};

use futures::StreamExt as _;
use libp2p::core::transport::ListenerId;
use libp2p::gossipsub::{IdentTopic, MessageAcceptance, MessageId};
use libp2p::swarm::ConnectionId;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, Swarm};
use swarmkv_protocol::id::DeviceId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};
use tracing::{debug, info, warn};

use super::behaviour::Behaviour;
use super::book::Origin;
use super::command::{Command, GossipToken, Verdict};
use super::config::{NetworkConfig, NetworkError};
use super::dialer::{Dialer, Order};
use super::event::Event;
use super::limits;
use super::outbox::Outbox;
use super::peer;
use super::questions::Joins;
use super::rate::Bucket;
use super::scoring::{self, Scores};
use super::sessions::Sessions;
use super::transport;

/// One established connection.
#[derive(Debug)]
pub(super) struct Conn {
    pub(super) peer: DeviceId,
    pub(super) remote: Multiaddr,
    pub(super) dialer: bool,
    pub(super) member: bool,
    pub(super) since: Instant,
    pub(super) ping_failures: u8,
}

/// The network's state. Handlers for swarm events, sessions, questions and discovery extend it in
/// their own files.
pub(super) struct Task {
    pub(super) device: DeviceId,
    pub(super) swarm: Swarm<Behaviour>,
    pub(super) members: BTreeSet<DeviceId>,
    pub(super) conns: HashMap<ConnectionId, Conn>,
    pub(super) listening: Vec<(ListenerId, Multiaddr)>,
    pub(super) dialer: Dialer,
    /// Dials of ours under way; those of Kademlia are not among them.
    pub(super) dials: HashMap<ConnectionId, Order>,
    pub(super) lookup_at: Instant,
    pub(super) sessions: Sessions,
    pub(super) joins: Joins,
    pub(super) outbox: Outbox,
    pub(super) stream_events: mpsc::Sender<Event>,
    /// Peers admitted while connected as strangers, and when those connections end: not before the
    /// answer that told them so has gone out.
    promoted: HashMap<DeviceId, Instant>,
    from_streams: mpsc::Receiver<Event>,
    commands: mpsc::Receiver<Command>,
    topic: IdentTopic,
    scores: watch::Sender<Scores>,
    /// What each connected peer may still gossip.
    pub(super) gossip_budgets: HashMap<DeviceId, Bucket>,
    tick: Interval,
    /// The next tick is a quiet one.
    quiet: bool,
}

impl Task {
    /// Builds the swarm and binds the listen addresses.
    pub(super) fn new(
        config: NetworkConfig,
        commands: mpsc::Receiver<Command>,
        events: mpsc::Sender<Event>,
        scores: watch::Sender<Scores>,
    ) -> Result<Self, NetworkError> {
        let key = transport::keypair(&config.seed)?;
        let device = peer::to_device(&key.public().to_peer_id())
            .ok_or_else(|| NetworkError::Setup("the device key is not Ed25519".into()))?;
        let behaviour = Behaviour::new(&key, &config)?;
        let mut swarm = transport::swarm(key, behaviour)?;
        for addr in &config.listen {
            let (parsed, _) =
                peer::parse_addr(addr).ok_or_else(|| NetworkError::BadAddress(addr.clone()))?;
            let cannot = |reason: String| NetworkError::Listen { addr: addr.clone(), reason };
            peer::check_free(&parsed).map_err(|error| cannot(error.to_string()))?;
            swarm.listen_on(parsed).map_err(|error| cannot(peer::innermost(&error)))?;
        }
        let now = Instant::now();
        let mut tick = interval(limits::TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (stream_events, from_streams) = mpsc::channel(limits::STREAM_QUEUE);
        let mut task = Self {
            device,
            swarm,
            conns: HashMap::new(),
            listening: Vec::new(),
            dialer: Dialer::new(device, config.members.clone(), now),
            members: config.members,
            dials: HashMap::new(),
            lookup_at: now + limits::LOOKUP_MISSING,
            sessions: Sessions::default(),
            joins: Joins::new(now),
            outbox: Outbox::new(events),
            stream_events,
            promoted: HashMap::new(),
            from_streams,
            commands,
            topic: scoring::topic(),
            scores,
            gossip_budgets: HashMap::new(),
            tick,
            quiet: false,
        };
        task.remember(config.known, now);
        for addr in config.dial {
            let (parsed, named) =
                peer::parse_addr(&addr).ok_or_else(|| NetworkError::BadAddress(addr.clone()))?;
            task.configured(parsed, named, now);
        }
        Ok(task)
    }

    /// This device.
    pub(super) fn device(&self) -> DeviceId {
        self.device
    }

    /// Runs until told to stop, or until nobody is left to tell.
    pub(super) async fn run(mut self) {
        self.dial_due(Instant::now());
        loop {
            tokio::select! {
                open = self.outbox.pump(), if !self.outbox.is_empty() => {
                    if !open {
                        break;
                    }
                }
                command = self.commands.recv(), if self.outbox.len() < limits::BACKLOG_HARD => {
                    match command {
                        None | Some(Command::Shutdown) => break,
                        Some(command) => self.on_command(command),
                    }
                }
                Some(event) = self.from_streams.recv(),
                    if self.outbox.streamed() < limits::BACKLOG_STREAMS =>
                {
                    self.on_stream_task(event);
                }
                event = self.swarm.select_next_some(),
                    if self.outbox.len() < limits::BACKLOG =>
                {
                    self.on_swarm(event);
                }
                _ = self.tick.tick() => {
                    self.on_tick();
                    self.quiet = !self.is_busy();
                    let pause = if self.quiet { limits::QUIET_TICK } else { limits::TICK };
                    self.tick.reset_after(pause);
                }
            }
        }
        self.shut_down().await;
    }

    /// Whether any connection to this peer exists.
    pub(super) fn is_connected(&self, device: &DeviceId) -> bool {
        self.conns.values().any(|conn| conn.peer == *device)
    }

    /// Whether something is due before a quiet tick.
    fn is_busy(&self) -> bool {
        let next = Instant::now() + limits::QUIET_TICK;
        !self.promoted.is_empty() || self.lookup_at <= next || self.dialer.waits_until(next)
    }

    /// Carries out the dials that are due.
    pub(super) fn dial_due(&mut self, now: Instant) {
        if self.quiet && self.is_busy() {
            self.quiet = false;
            self.tick.reset_after(limits::TICK);
        }
        for order in self.dialer.due(now) {
            let options = match order.peer {
                Some(device) => DialOpts::peer_id(peer::to_peer_id(&device))
                    .condition(PeerCondition::Always)
                    .addresses(order.addrs.clone())
                    // The listen port as source makes simultaneous dials collide, and a quick
                    // redial meet the remains of the last connection.
                    .allocate_new_port()
                    .build(),
                None => match order.addrs.first() {
                    Some(addr) => DialOpts::unknown_peer_id()
                        .address(addr.clone())
                        .allocate_new_port()
                        .build(),
                    None => continue,
                },
            };
            let id = options.connection_id();
            debug!(peer = ?order.peer, addrs = ?order.addrs, "dialling");
            self.dials.insert(id, order);
            if let Err(error) = self.swarm.dial(options) {
                self.on_dial_failure(id, &error);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Publish(bytes) => self.publish(bytes),
            Command::Verdict { token, verdict } => self.verdict(token, verdict),
            Command::SetMembers(members) => self.set_members(members),
            Command::SetBlocked(blocked) => self.set_blocked(&blocked),
            Command::Dial { addr, peer } => self.dial(&addr, peer),
            Command::Open { session, peer } => self.open_session(session, peer),
            Command::Send { session, frame } => self.send_frame(session, frame),
            Command::Close { session } => self.close_session(session),
            Command::Ask { peer, request, reply } => self.ask(peer, request, reply),
            Command::Disconnect { peer } => self.disconnect(&peer),
            // The loop has taken it already.
            Command::Shutdown => {}
        }
    }

    fn publish(&mut self, bytes: Vec<u8>) {
        if bytes.len() > limits::MAX_GOSSIP {
            warn!(len = bytes.len(), "a gossip message over the limit is not published");
            return;
        }
        let topic = self.topic.hash();
        // Nobody there, queues full: normal, and repair covers it.
        if let Err(error) = self.swarm.behaviour_mut().inside().gossip.publish(topic, bytes) {
            debug!(%error, "gossip did not take a message");
        }
    }

    pub(super) fn verdict(&mut self, token: GossipToken, verdict: Verdict) {
        let acceptance = match verdict {
            Verdict::Accept => MessageAcceptance::Accept,
            Verdict::Reject => MessageAcceptance::Reject,
            Verdict::Ignore => MessageAcceptance::Ignore,
        };
        let id = MessageId::from(token.id.to_vec());
        let from = peer::to_peer_id(&token.from);
        let gossip = &mut self.swarm.behaviour_mut().inside().gossip;
        if !gossip.report_message_validation_result(&id, &from, acceptance) {
            debug!(?verdict, "a verdict came too late");
        }
    }

    fn set_members(&mut self, members: BTreeSet<DeviceId>) {
        let now = Instant::now();
        let changed: Vec<DeviceId> = self.members.symmetric_difference(&members).copied().collect();
        if changed.is_empty() {
            return;
        }
        self.swarm.behaviour_mut().set_members(&members);
        self.dialer.set_members(members.clone(), now);
        self.members = members;
        for device in &changed {
            if self.members.contains(device) {
                self.promoted.insert(*device, now + limits::PROMOTION_GRACE);
            } else {
                let kad = &mut self.swarm.behaviour_mut().inside().kad;
                kad.remove_peer(&peer::to_peer_id(device));
                self.disconnect(device);
            }
        }
        self.look_up_soon();
        self.dial_due(now);
    }

    fn set_blocked(&mut self, blocked: &BTreeSet<DeviceId>) {
        self.swarm.behaviour_mut().set_blocked(blocked);
        blocked.iter().for_each(|device| self.disconnect(device));
    }

    /// Scores change slowly: they are looked at with every tick, for whoever asks.
    fn look_at_scores(&mut self) {
        let gossip = &self.swarm.behaviour_mut().inside().gossip;
        let members = self.conns.values().filter(|conn| conn.member);
        let score =
            |conn: &Conn| Some((conn.peer, gossip.peer_score(&peer::to_peer_id(&conn.peer))?));
        self.scores.send_replace(members.filter_map(score).collect());
    }

    fn dial(&mut self, addr: &str, device: Option<DeviceId>) {
        let now = Instant::now();
        let Some((parsed, named)) = peer::parse_addr(addr) else {
            warn!(addr, "not a usable address");
            return;
        };
        if device.is_some() && named.is_some() && device != named {
            warn!(addr, "the address names another peer");
            return;
        }
        self.configured(parsed, device.or(named), now);
        self.dial_due(now);
    }

    fn disconnect(&mut self, device: &DeviceId) {
        // An error only says that there is no connection.
        let _ = self.swarm.disconnect_peer_id(peer::to_peer_id(device));
    }

    fn configured(&mut self, addr: Multiaddr, device: Option<DeviceId>, now: Instant) {
        match device {
            Some(device) => self.dialer.learn(device, addr, Origin::Configured, now),
            None => self.dialer.learn_nameless(addr, now),
        }
    }

    fn remember(&mut self, known: Vec<(DeviceId, String)>, now: Instant) {
        let member = |one: &(DeviceId, String)| self.members.contains(&one.0);
        let usable: Vec<_> = known
            .into_iter()
            .filter(member)
            .take(limits::MEMBERS_IN_BOOK * limits::ADDRESSES_PER_PEER)
            .filter_map(|(device, text)| Some((device, peer::parse_addr(&text)?)))
            .filter(|(device, (_, named))| named.is_none_or(|named| named == *device))
            .collect();
        for (device, (addr, _)) in usable {
            self.dialer.learn(device, addr, Origin::Known, now);
        }
    }

    /// Ends connections of those who were strangers when they connected and are members now.
    fn end_promoted(&mut self, now: Instant) {
        let due: Vec<DeviceId> =
            self.promoted.iter().filter(|(_, at)| **at <= now).map(|(device, _)| *device).collect();
        for device in due {
            self.promoted.remove(&device);
            let stale = self.conns.iter().filter(|(_, conn)| conn.peer == device && !conn.member);
            let stale: Vec<ConnectionId> = stale.map(|(id, _)| *id).collect();
            for id in stale {
                self.swarm.close_connection(id);
            }
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        self.end_promoted(now);
        self.look_at_scores();
        let overdue = |conn: &&ConnectionId| {
            self.conns.get(*conn).is_some_and(|conn| {
                !conn.member && now.duration_since(conn.since) >= limits::STRANGER_LIFETIME
            })
        };
        let ended: Vec<ConnectionId> = self.conns.keys().filter(overdue).copied().collect();
        for id in ended {
            debug!("a stranger's time is up");
            self.swarm.close_connection(id);
        }
        self.look_up(now);
        self.dial_due(now);
    }

    /// Closes all connections, so that peers know at once.
    async fn shut_down(mut self) {
        info!("the network stops");
        let peers: Vec<_> = self.swarm.connected_peers().copied().collect();
        for peer in peers {
            let _ = self.swarm.disconnect_peer_id(peer);
        }
        let _ = timeout(limits::SHUTDOWN_GRACE, async {
            while self.swarm.network_info().num_peers() > 0 {
                self.swarm.select_next_some().await;
            }
        })
        .await;
    }
}
