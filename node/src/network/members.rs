//! The gate: members' protocols are offered to members only.
//!
//! A connection of anyone else gets a handler that speaks nothing, and the wrapped behaviour never
//! hears of it. Membership is looked at once, when the connection is made; whoever changes the set
//! must close the connections that it concerns.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::behaviour::{ConnectionClosed, ConnectionEstablished};
use libp2p::swarm::derive_prelude::Either;
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, DialError, DialFailure, FromSwarm, NetworkBehaviour,
    NotifyHandler, THandler, THandlerInEvent, THandlerOutEvent, ToSwarm, dummy,
};

/// Wraps a behaviour so that only members' connections reach it.
pub(super) struct Gate<B> {
    inner: B,
    members: HashSet<PeerId>,
    admitted: HashMap<ConnectionId, PeerId>,
}

impl<B: NetworkBehaviour> Gate<B> {
    pub(super) fn new(inner: B, members: HashSet<PeerId>) -> Self {
        Self { inner, members, admitted: HashMap::new() }
    }

    /// Replaces the set for connections to come.
    pub(super) fn set_members(&mut self, members: HashSet<PeerId>) {
        self.members = members;
    }

    /// Whether this connection was let in.
    pub(super) fn is_admitted(&self, connection: ConnectionId) -> bool {
        self.admitted.contains_key(&connection)
    }

    /// The behaviour behind the gate.
    pub(super) fn inner(&mut self) -> &mut B {
        &mut self.inner
    }

    fn is_member(&self, peer: Option<PeerId>) -> bool {
        peer.is_some_and(|peer| self.members.contains(&peer))
    }

    fn admitted_of(&self, peer: PeerId) -> usize {
        self.admitted.values().filter(|one| **one == peer).count()
    }

    /// Tells the inner behaviour of a connection, counting only those that it knows.
    fn on_established(&mut self, event: ConnectionEstablished) {
        if !self.members.contains(&event.peer_id) {
            return;
        }
        let other_established = self.admitted_of(event.peer_id);
        self.admitted.insert(event.connection_id, event.peer_id);
        self.inner.on_swarm_event(FromSwarm::ConnectionEstablished(ConnectionEstablished {
            other_established,
            ..event
        }));
    }

    fn on_closed(&mut self, event: ConnectionClosed) {
        if self.admitted.remove(&event.connection_id).is_none() {
            return;
        }
        let remaining_established = self.admitted_of(event.peer_id);
        self.inner.on_swarm_event(FromSwarm::ConnectionClosed(ConnectionClosed {
            remaining_established,
            ..event
        }));
    }

    /// Makes sure that an event for a handler goes to one that was let in; `None` if there is none.
    fn route(&self, peer: PeerId, handler: NotifyHandler) -> Option<NotifyHandler> {
        match handler {
            NotifyHandler::One(id) => self.admitted.contains_key(&id).then_some(handler),
            NotifyHandler::Any => {
                let found = self.admitted.iter().find(|(_, one)| **one == peer)?;
                Some(NotifyHandler::One(*found.0))
            }
        }
    }
}

impl<B: NetworkBehaviour> NetworkBehaviour for Gate<B> {
    type ConnectionHandler = Either<THandler<B>, dummy::ConnectionHandler>;
    type ToSwarm = B::ToSwarm;

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        local: &Multiaddr,
        remote: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.members.contains(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner.handle_established_inbound_connection(id, peer, local, remote).map(Either::Left)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: Option<PeerId>,
        addresses: &[Multiaddr],
        role: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        if !self.is_member(peer) {
            return Ok(Vec::new());
        }
        self.inner.handle_pending_outbound_connection(id, peer, addresses, role)
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        addr: &Multiaddr,
        role: Endpoint,
        port: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        if !self.members.contains(&peer) {
            return Ok(Either::Right(dummy::ConnectionHandler));
        }
        self.inner
            .handle_established_outbound_connection(id, peer, addr, role, port)
            .map(Either::Left)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(event) => self.on_established(event),
            FromSwarm::ConnectionClosed(event) => self.on_closed(event),
            FromSwarm::AddressChange(change) => {
                if self.admitted.contains_key(&change.connection_id) {
                    self.inner.on_swarm_event(FromSwarm::AddressChange(change));
                }
            }
            FromSwarm::DialFailure(failure) => {
                if self.is_member(failure.peer_id) {
                    self.inner.on_swarm_event(FromSwarm::DialFailure(failure));
                }
            }
            FromSwarm::ListenFailure(_) | FromSwarm::NewExternalAddrOfPeer(_) => {}
            other => self.inner.on_swarm_event(other),
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        id: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        match event {
            Either::Left(event) => self.inner.on_connection_handler_event(peer, id, event),
            Either::Right(never) => unreachable_event(never),
        }
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        loop {
            let Poll::Ready(event) = self.inner.poll(cx) else { return Poll::Pending };
            match event {
                // A member's Kademlia answer may name anyone: only members are dialled.
                ToSwarm::Dial { opts } if !self.is_member(opts.get_peer_id()) => {
                    self.inner.on_swarm_event(FromSwarm::DialFailure(DialFailure {
                        peer_id: opts.get_peer_id(),
                        error: &DialError::Aborted,
                        connection_id: opts.connection_id(),
                    }));
                }
                ToSwarm::NotifyHandler { peer_id, handler, event } => {
                    if let Some(handler) = self.route(peer_id, handler) {
                        let event = Either::Left(event);
                        return Poll::Ready(ToSwarm::NotifyHandler { peer_id, handler, event });
                    }
                }
                other => return Poll::Ready(other.map_in(Either::Left)),
            }
        }
    }
}

fn unreachable_event(never: Infallible) {
    match never {}
}
