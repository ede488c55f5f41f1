//! The behaviours of a node, put together: the doorway first, members' protocols behind the gate,
//! the join protocol and mDNS outside it.

use std::collections::{BTreeSet, HashSet};

use libp2p::identity::Keypair;
use libp2p::swarm::behaviour::toggle::Toggle;
use libp2p::swarm::{NetworkBehaviour, StreamProtocol};
use libp2p::{PeerId, identify, kad, mdns, ping};
use swarmkv_protocol::id::{DeviceId, SwarmId};

use super::config::{NetworkConfig, NetworkError};
use super::doorway::Doorway;
use super::finders;
use super::limits;
use super::members::Gate;
use super::peer;
use super::scoring::{self, Gossip};
use super::streams::Streams;

/// The one protocol that strangers can speak.
pub(super) const JOIN_PROTOCOL: StreamProtocol = StreamProtocol::new("/swarmkv/join/1");
/// What identify says we are.
/// The repair stream's protocol, under the swarm's prefix.
pub(super) const REPAIR: &str = "repair/1";

const IDENTITY_PROTOCOL: &str = "/swarmkv/id/1";

/// Everything a node speaks.
#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    pub(super) doorway: Doorway,
    pub(super) gate: Gate<Inside>,
    pub(super) join: Streams,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// What only members are offered.
#[derive(NetworkBehaviour)]
pub(super) struct Inside {
    pub(super) gossip: Gossip,
    pub(super) kad: kad::Behaviour<kad::store::MemoryStore>,
    pub(super) identify: identify::Behaviour,
    pub(super) ping: ping::Behaviour,
    pub(super) repair: Streams,
}

impl Behaviour {
    pub(super) fn new(key: &Keypair, config: &NetworkConfig) -> Result<Self, NetworkError> {
        let me = key.public().to_peer_id();
        let members = peer_ids(&config.members);
        let mdns = if config.mdns { Some(finders::mdns(me)?) } else { None };
        Ok(Self {
            doorway: Doorway::new(members.clone(), peer_ids(&config.blocked)),
            gate: Gate::new(Inside::new(key, &config.swarm)?, members),
            join: Streams::new(JOIN_PROTOCOL, false),
            mdns: mdns.into(),
        })
    }

    /// Replaces the member set for connections to come.
    pub(super) fn set_members(&mut self, members: &BTreeSet<DeviceId>) {
        let members = peer_ids(members);
        self.doorway.set_members(members.clone());
        self.gate.set_members(members);
    }

    /// Replaces the set of peers that are refused whatever they are.
    pub(super) fn set_blocked(&mut self, blocked: &BTreeSet<DeviceId>) {
        self.doorway.set_blocked(peer_ids(blocked));
    }

    /// The members' protocols.
    pub(super) fn inside(&mut self) -> &mut Inside {
        self.gate.inner()
    }
}

impl Inside {
    fn new(key: &Keypair, swarm: &SwarmId) -> Result<Self, NetworkError> {
        let tag = peer::swarm_tag(swarm);
        let repair = protocol(format!("/swarmkv/{tag}/{REPAIR}"))?;
        let kad = protocol(format!("/swarmkv/{tag}/kad/1"))?;
        let identity = identify::Config::new(IDENTITY_PROTOCOL.into(), key.public())
            .with_agent_version(concat!("swarmkv/", env!("CARGO_PKG_VERSION")).into())
            .with_push_listen_addr_updates(true)
            .with_cache_size(0);
        let ping = ping::Config::new()
            .with_interval(limits::PING_INTERVAL)
            .with_timeout(limits::PING_TIMEOUT);
        Ok(Self {
            gossip: scoring::gossipsub(swarm)?,
            kad: finders::kademlia(key.public().to_peer_id(), kad),
            identify: identify::Behaviour::new(identity),
            ping: ping::Behaviour::new(ping),
            // Keeps members' connections open.
            repair: Streams::new(repair, true),
        })
    }
}

fn protocol(name: String) -> Result<StreamProtocol, NetworkError> {
    StreamProtocol::try_from_owned(name).map_err(|error| NetworkError::Setup(error.to_string()))
}

fn peer_ids(members: &BTreeSet<DeviceId>) -> HashSet<PeerId> {
    members.iter().map(peer::to_peer_id).collect()
}
