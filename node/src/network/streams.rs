//! A libp2p behaviour that opens and accepts raw streams of one protocol.
//!
//! Why not `libp2p-stream`: it keeps an entry for every connection ever made (a stranger can grow
//! it without end), drops an inbound stream whenever another one waits, and dials by itself.
//! Here every open is answered exactly once and everything is freed with its connection.

use std::collections::{HashMap, VecDeque};
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::ReadyUpgrade;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm,
    NetworkBehaviour, NotifyHandler, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
    THandler, THandlerInEvent, THandlerOutEvent, ToSwarm,
};

use super::limits;

/// Why a stream did not open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum OpenError {
    /// No connection, or it broke.
    Gone,
    /// The other side does not offer this protocol to us.
    Refused,
}

/// What the behaviour reports.
#[derive(Debug)]
pub(super) enum StreamEvent {
    /// A peer opened a stream.
    Inbound { peer: PeerId, stream: Stream },
    /// The answer to [`Streams::open`].
    Opened { id: u64, result: Result<Stream, OpenError> },
}

/// Raw streams of one protocol. `keep_alive` holds every connection that it hears of open.
pub(super) struct Streams {
    protocol: StreamProtocol,
    keep_alive: bool,
    connections: HashMap<PeerId, Vec<ConnectionId>>,
    opening: HashMap<u64, (PeerId, ConnectionId)>,
    queue: VecDeque<ToSwarm<StreamEvent, u64>>,
}

impl Streams {
    pub(super) fn new(protocol: StreamProtocol, keep_alive: bool) -> Self {
        Self {
            protocol,
            keep_alive,
            connections: HashMap::new(),
            opening: HashMap::new(),
            queue: VecDeque::new(),
        }
    }

    /// Opens a stream on the newest connection to a peer: an older one may have died unnoticed.
    /// The caller bounds how many it has under way and never repeats an id.
    pub(super) fn open(&mut self, id: u64, peer: PeerId) {
        let Some(&connection) = self.connections.get(&peer).and_then(|all| all.last()) else {
            self.answer(id, Err(OpenError::Gone));
            return;
        };
        self.opening.insert(id, (peer, connection));
        self.queue.push_back(ToSwarm::NotifyHandler {
            peer_id: peer,
            handler: NotifyHandler::One(connection),
            event: id,
        });
    }

    fn answer(&mut self, id: u64, result: Result<Stream, OpenError>) {
        self.queue.push_back(ToSwarm::GenerateEvent(StreamEvent::Opened { id, result }));
    }

    fn handler(&self) -> Handler {
        Handler {
            protocol: self.protocol.clone(),
            keep_alive: self.keep_alive,
            requests: VecDeque::new(),
            queue: VecDeque::new(),
        }
    }

    fn on_closed(&mut self, peer: PeerId, connection: ConnectionId) {
        if let Some(all) = self.connections.get_mut(&peer) {
            all.retain(|one| *one != connection);
            if all.is_empty() {
                self.connections.remove(&peer);
            }
        }
        let lost: Vec<u64> =
            self.opening.iter().filter(|(_, at)| at.1 == connection).map(|(id, _)| *id).collect();
        for id in lost {
            self.opening.remove(&id);
            self.answer(id, Err(OpenError::Gone));
        }
    }
}

impl NetworkBehaviour for Streams {
    type ConnectionHandler = Handler;
    type ToSwarm = StreamEvent;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler())
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished {
                peer_id,
                connection_id,
                ..
            }) => self.connections.entry(peer_id).or_default().push(connection_id),
            FromSwarm::ConnectionClosed(ConnectionClosed { peer_id, connection_id, .. }) => {
                self.on_closed(peer_id, connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        _: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            HandlerOut::Inbound(stream) => {
                let event = StreamEvent::Inbound { peer, stream };
                self.queue.push_back(ToSwarm::GenerateEvent(event));
            }
            HandlerOut::Opened(id, result) => {
                if self.opening.remove(&id).is_some() {
                    self.answer(id, result);
                }
            }
        }
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        self.queue.pop_front().map_or(Poll::Pending, Poll::Ready)
    }
}

/// What a handler tells [`Streams`].
#[derive(Debug)]
pub(super) enum HandlerOut {
    Inbound(Stream),
    Opened(u64, Result<Stream, OpenError>),
}

/// One connection's part of [`Streams`].
pub(super) struct Handler {
    protocol: StreamProtocol,
    keep_alive: bool,
    requests: VecDeque<u64>,
    queue: VecDeque<HandlerOut>,
}

impl ConnectionHandler for Handler {
    type FromBehaviour = u64;
    type ToBehaviour = HandlerOut;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = u64;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        SubstreamProtocol::new(ReadyUpgrade::new(self.protocol.clone()), ())
    }

    fn connection_keep_alive(&self) -> bool {
        self.keep_alive
    }

    fn poll(
        &mut self,
        _: &mut Context<'_>,
    ) -> Poll<
        ConnectionHandlerEvent<Self::OutboundProtocol, Self::OutboundOpenInfo, Self::ToBehaviour>,
    > {
        if let Some(event) = self.queue.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(id) = self.requests.pop_front() {
            let upgrade = ReadyUpgrade::new(self.protocol.clone());
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest {
                protocol: SubstreamProtocol::new(upgrade, id),
            });
        }
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, id: u64) {
        self.requests.push_back(id);
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<
            Self::InboundProtocol,
            Self::OutboundProtocol,
            Self::InboundOpenInfo,
            Self::OutboundOpenInfo,
        >,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound {
                protocol: stream,
                ..
            }) if self.queue.len() < limits::STREAMS_IN_HAND => {
                // Past the bound the stream is dropped, which the opener sees as its end.
                self.queue.push_back(HandlerOut::Inbound(stream));
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound {
                protocol: stream,
                info: id,
            }) => self.queue.push_back(HandlerOut::Opened(id, Ok(stream))),
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info: id, error }) => {
                let error = match error {
                    StreamUpgradeError::NegotiationFailed => OpenError::Refused,
                    _ => OpenError::Gone,
                };
                self.queue.push_back(HandlerOut::Opened(id, Err(error)));
            }
            _ => {}
        }
    }
}
