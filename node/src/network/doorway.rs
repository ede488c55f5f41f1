//! Connection limits: half-open ones, established ones in all, per peer, and of strangers.
//!
//! Why not `libp2p-connection-limits`: it keeps an entry for every peer id ever seen, and it does
//! not know strangers.

use std::collections::{HashMap, HashSet};
use std::convert::Infallible;
use std::task::{Context, Poll};

use libp2p::PeerId;
use libp2p::core::transport::PortUse;
use libp2p::core::{Endpoint, Multiaddr};
use libp2p::swarm::{
    ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, THandler, THandlerInEvent,
    THandlerOutEvent, ToSwarm, dummy,
};

use super::limits;
use super::peer;

/// A connection over a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Denied(&'static str);

/// Refuses connections over the limits. Must be the first of the behaviours.
pub(super) struct Doorway {
    members: HashSet<PeerId>,
    blocked: HashSet<PeerId>,
    established: HashMap<ConnectionId, PeerId>,
    inbound: HashSet<ConnectionId>,
    outbound: HashSet<ConnectionId>,
}

impl Doorway {
    pub(super) fn new(members: HashSet<PeerId>, blocked: HashSet<PeerId>) -> Self {
        Self {
            members,
            blocked,
            established: HashMap::new(),
            inbound: HashSet::new(),
            outbound: HashSet::new(),
        }
    }

    /// Replaces the set for connections to come.
    pub(super) fn set_members(&mut self, members: HashSet<PeerId>) {
        self.members = members;
    }

    /// Replaces the set of those who are refused.
    pub(super) fn set_blocked(&mut self, blocked: HashSet<PeerId>) {
        self.blocked = blocked;
    }

    fn admit(&self, peer: PeerId) -> Result<(), Denied> {
        if peer::to_device(&peer).is_none() {
            return Err(Denied("not an Ed25519 key"));
        }
        if self.blocked.contains(&peer) {
            return Err(Denied("blocked"));
        }
        if self.established.len() >= limits::CONNECTIONS {
            return Err(Denied("too many connections"));
        }
        let same = self.established.values().filter(|one| **one == peer).count();
        if same >= limits::CONNECTIONS_PER_PEER {
            return Err(Denied("too many connections of this peer"));
        }
        if self.members.contains(&peer) {
            return Ok(());
        }
        let strangers = self.established.values().filter(|one| !self.members.contains(one)).count();
        if strangers >= limits::STRANGER_CONNECTIONS {
            return Err(Denied("too many strangers"));
        }
        Ok(())
    }

    fn established(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
    ) -> Result<dummy::ConnectionHandler, ConnectionDenied> {
        self.inbound.remove(&id);
        self.outbound.remove(&id);
        self.admit(peer).map_err(ConnectionDenied::new)?;
        Ok(dummy::ConnectionHandler)
    }
}

fn half_open(set: &mut HashSet<ConnectionId>, id: ConnectionId) -> Result<(), ConnectionDenied> {
    if set.len() >= limits::PENDING_CONNECTIONS {
        return Err(ConnectionDenied::new(Denied("too many half-open connections")));
    }
    set.insert(id);
    Ok(())
}

impl NetworkBehaviour for Doorway {
    type ConnectionHandler = dummy::ConnectionHandler;
    type ToSwarm = Infallible;

    fn handle_pending_inbound_connection(
        &mut self,
        id: ConnectionId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<(), ConnectionDenied> {
        half_open(&mut self.inbound, id)
    }

    fn handle_established_inbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id, peer)
    }

    fn handle_pending_outbound_connection(
        &mut self,
        id: ConnectionId,
        _: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        half_open(&mut self.outbound, id).map(|()| Vec::new())
    }

    fn handle_established_outbound_connection(
        &mut self,
        id: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        self.established(id, peer)
    }

    fn on_swarm_event(&mut self, event: FromSwarm) {
        match event {
            FromSwarm::ConnectionEstablished(event) => {
                self.established.insert(event.connection_id, event.peer_id);
            }
            FromSwarm::ConnectionClosed(event) => {
                self.established.remove(&event.connection_id);
            }
            FromSwarm::DialFailure(event) => {
                self.outbound.remove(&event.connection_id);
            }
            FromSwarm::ListenFailure(event) => {
                self.inbound.remove(&event.connection_id);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        _: PeerId,
        _: ConnectionId,
        never: THandlerOutEvent<Self>,
    ) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Self::ToSwarm, THandlerInEvent<Self>>> {
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use swarmkv_protocol::id::DeviceId;

    use super::*;

    fn peer(n: u16) -> PeerId {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        peer::to_peer_id(&DeviceId::new(bytes))
    }

    fn fill(door: &mut Doorway, peers: impl Iterator<Item = u16>) {
        for n in peers {
            assert_eq!(door.admit(peer(n)), Ok(()), "{n}");
            let id = ConnectionId::new_unchecked(door.established.len());
            door.established.insert(id, peer(n));
        }
    }

    #[test]
    fn strangers_fill_their_own_places_only() {
        let mut door = Doorway::new((1000..2000).map(peer).collect(), HashSet::new());
        fill(&mut door, 0..16);
        assert_eq!(door.admit(peer(16)), Err(Denied("too many strangers")));
        fill(&mut door, 1000..1240);
        assert_eq!(door.admit(peer(1240)), Err(Denied("too many connections")));
    }

    #[test]
    fn one_peer_gets_four_connections() {
        let mut door = Doorway::new([peer(1)].into(), HashSet::new());
        fill(&mut door, [1; 4].into_iter());
        assert!(door.admit(peer(1)).is_err());
    }

    #[test]
    fn whoever_is_blocked_is_refused_member_or_not() {
        let mut door = Doorway::new([peer(1)].into(), [peer(1), peer(2)].into());
        assert_eq!(door.admit(peer(1)), Err(Denied("blocked")));
        assert_eq!(door.admit(peer(2)), Err(Denied("blocked")));
        door.set_blocked(HashSet::new());
        assert_eq!(door.admit(peer(1)), Ok(()));
    }

    #[test]
    fn the_sixty_fifth_half_open_connection_is_refused() {
        let mut set = HashSet::new();
        for n in 0..limits::PENDING_CONNECTIONS {
            assert!(half_open(&mut set, ConnectionId::new_unchecked(n)).is_ok());
        }
        assert!(half_open(&mut set, ConnectionId::new_unchecked(999)).is_err());
    }
}
