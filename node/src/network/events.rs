//! What the task makes of the swarm's events: connections, dials, gossip, pings.

use libp2p::PeerId;
use libp2p::core::ConnectedPoint;
use libp2p::gossipsub;
use libp2p::ping;
use libp2p::swarm::{ConnectionId, DialError, SwarmEvent};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use super::behaviour::{BehaviourEvent, InsideEvent};
use super::command::{GossipToken, Verdict};
use super::event::{Event, Source, Transport};
use super::limits;
use super::peer;
use super::rate::Bucket;
use super::task::{Conn, Task};

impl Task {
    pub(super) fn on_swarm(&mut self, event: SwarmEvent<BehaviourEvent>) {
        match event {
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            SwarmEvent::ConnectionEstablished { peer_id, connection_id, endpoint, .. } => {
                self.on_established(peer_id, connection_id, &endpoint);
            }
            SwarmEvent::ConnectionClosed { connection_id, cause, .. } => {
                debug!(?cause, "a connection closed");
                self.on_closed(connection_id);
            }
            SwarmEvent::OutgoingConnectionError { connection_id, error, .. } => {
                self.on_dial_failure(connection_id, &error);
            }
            SwarmEvent::IncomingConnectionError { send_back_addr, error, .. } => {
                debug!(%send_back_addr, %error, "an inbound connection failed");
            }
            SwarmEvent::NewListenAddr { listener_id, address } => {
                info!(%address, "listening");
                self.outbox.push(Event::Listening { addr: address.to_string() });
                self.listening.push((listener_id, address));
            }
            SwarmEvent::ExpiredListenAddr { listener_id, address } => {
                self.listening.retain(|one| *one != (listener_id, address.clone()));
                self.outbox.push(Event::NotListening { addr: address.to_string() });
            }
            SwarmEvent::ListenerClosed { addresses, reason, .. } => {
                warn!(?addresses, ?reason, "a listener closed");
                for address in addresses {
                    self.listening.retain(|one| one.1 != address);
                    self.outbox.push(Event::NotListening { addr: address.to_string() });
                }
            }
            SwarmEvent::ListenerError { error, .. } => warn!(%error, "a listener has trouble"),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: BehaviourEvent) {
        match event {
            BehaviourEvent::Gate(InsideEvent::Gossip(event)) => self.on_gossip(event),
            BehaviourEvent::Gate(InsideEvent::Kad(event)) => self.on_kad(event),
            BehaviourEvent::Gate(InsideEvent::Identify(event)) => self.on_identify(event),
            BehaviourEvent::Gate(InsideEvent::Ping(event)) => self.on_ping(event),
            BehaviourEvent::Gate(InsideEvent::Repair(event)) => self.on_repair(event),
            BehaviourEvent::Join(event) => self.on_join(event),
            BehaviourEvent::Mdns(event) => self.on_mdns(event),
            BehaviourEvent::Doorway(never) => match never {},
        }
        self.dial_due(Instant::now());
    }

    fn on_established(&mut self, peer: PeerId, id: ConnectionId, endpoint: &ConnectedPoint) {
        let Some(device) = peer::to_device(&peer) else { return };
        let now = Instant::now();
        let member = self.swarm.behaviour().gate.is_admitted(id);
        let before = self.conns.values().filter(|conn| conn.peer == device);
        // The first at all, or the first that a member's protocols are spoken on.
        let (known, admitted) =
            before.fold((false, false), |(_, admitted), conn| (true, admitted || conn.member));
        let first = !known || (member && !admitted);
        let remote = peer::bare(endpoint.get_remote_address());
        let dialer = endpoint.is_dialer();
        let source = self.note_connection(device, id, &remote, dialer, now);
        let transport = peer::transport_of(&remote).unwrap_or(Transport::Tcp);
        let conn = Conn { peer: device, remote, dialer, member, since: now, ping_failures: 0 };
        let addr = conn.remote.to_string();
        self.conns.insert(id, conn);
        if first {
            if known {
                self.outbox.push(Event::Disconnected { peer: device });
            }
            info!(peer = %device, %addr, ?source, member, dialer, "connected");
            let peer = device;
            let addr = addr.clone();
            self.outbox.push(Event::Connected { peer, addr, source, transport, member, dialer });
        }
        if member && dialer {
            self.outbox.push(Event::AddressLearned { peer: device, addr });
        }
        if member {
            self.look_up_soon();
        }
    }

    /// Tells the dialer of a connection, and Kademlia of an address that works.
    fn note_connection(
        &mut self,
        device: swarmkv_protocol::id::DeviceId,
        id: ConnectionId,
        remote: &libp2p::Multiaddr,
        dialer: bool,
        now: Instant,
    ) -> Source {
        let order = self.dials.remove(&id);
        if let Some(order) = &order
            && order.peer.is_none()
            && let Some(addr) = order.addrs.first()
        {
            self.dialer.named(addr, device, now);
        }
        let ours = order.is_some_and(|order| order.peer.is_some());
        if dialer && self.members.contains(&device) {
            let kad = &mut self.swarm.behaviour_mut().inside().kad;
            kad.add_address(&peer::to_peer_id(&device), remote.clone());
        }
        self.dialer.connected(device, dialer.then_some(remote), ours, now)
    }

    fn on_closed(&mut self, id: ConnectionId) {
        let Some(conn) = self.conns.remove(&id) else { return };
        let mut left = self.conns.values().filter(|other| other.peer == conn.peer);
        if conn.member && left.clone().count() > 0 && left.all(|other| !other.member) {
            // Reported as a member's connection, and what is left is none: it is made anew.
            let _ = self.swarm.disconnect_peer_id(peer::to_peer_id(&conn.peer));
            return;
        }
        if self.is_connected(&conn.peer) {
            return;
        }
        info!(peer = %conn.peer, "disconnected");
        let now = Instant::now();
        self.dialer.disconnected(conn.peer, now);
        self.gossip_budgets.remove(&conn.peer);
        self.outbox.push(Event::Disconnected { peer: conn.peer });
        self.dial_due(now);
    }

    pub(super) fn on_dial_failure(&mut self, id: ConnectionId, error: &DialError) {
        let Some(order) = self.dials.remove(&id) else { return };
        debug!(peer = ?order.peer, %error, "a dial failed");
        let now = Instant::now();
        let Some(device) = order.peer else {
            if let Some(addr) = order.addrs.first() {
                let ourselves = matches!(error, DialError::LocalPeerId { .. });
                self.dialer.failed_nameless(addr, ourselves, now);
            }
            return;
        };
        if let DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address } = error {
            self.dialer.wrong_peer(device, &peer::bare(address), now);
        }
        self.dialer.failed(device, now);
    }

    fn on_gossip(&mut self, event: gossipsub::Event) {
        match event {
            gossipsub::Event::Message { propagation_source, message, message_id } => {
                let Some(from) = peer::to_device(&propagation_source) else { return };
                // Our own id function made it: always 20 bytes.
                let Ok(id) = message_id.0.try_into() else { return };
                let token = GossipToken { id, from };
                // A connection that is just being closed after its peer lost its membership.
                let now = Instant::now();
                let full = || Bucket::new(limits::GOSSIP_PER_SECOND, limits::GOSSIP_BURST, now);
                let budget = self.gossip_budgets.entry(from).or_insert_with(full);
                let affordable = budget.take_many(message.data.len() as f64, now);
                if !affordable || !self.members.contains(&from) {
                    self.verdict(token, Verdict::Ignore);
                } else {
                    self.outbox.push(Event::Gossip { from, token, bytes: message.data });
                }
            }
            gossipsub::Event::SlowPeer { peer_id, .. } => {
                debug!(peer = %peer_id, "gossip to a slow peer was dropped");
            }
            gossipsub::Event::GossipsubNotSupported { peer_id } => {
                debug!(peer = %peer_id, "this member does not gossip with us");
            }
            _ => {}
        }
    }

    /// A connection whose peer no longer answers is closed: TCP alone would take minutes.
    fn on_ping(&mut self, event: ping::Event) {
        let Some(conn) = self.conns.get_mut(&event.connection) else { return };
        match event.result {
            Ok(_) => conn.ping_failures = 0,
            // It takes us for a stranger: not dead.
            Err(ping::Failure::Unsupported) => {}
            Err(error) => {
                conn.ping_failures += 1;
                debug!(peer = %conn.peer, %error, failures = conn.ping_failures, "no pong");
                if conn.ping_failures >= limits::PING_FAILURES {
                    self.swarm.close_connection(event.connection);
                }
            }
        }
    }
}
