//! What a network task is started with, and why a start can fail.

use std::collections::BTreeSet;

use swarmkv_protocol::id::{DeviceId, SwarmId};
use zeroize::Zeroizing;

/// How to start a [`Network`](super::Network).
#[derive(Clone)]
pub struct NetworkConfig {
    /// Ed25519 seed of the device key; wiped when dropped.
    pub seed: Zeroizing<[u8; 32]>,
    /// The swarm: names the protocols, so two swarms never mix.
    pub swarm: SwarmId,
    /// Multiaddrs to listen on. Default: every IPv4 interface, TCP and QUIC, any free port.
    /// Empty: dial only.
    pub listen: Vec<String>,
    /// Configured addresses, with or without `/p2p/PEERID`; dialled until connected. At most 64
    /// without a peer id.
    pub dial: Vec<String>,
    /// Remembered addresses of members from earlier runs; those of others are ignored.
    pub known: Vec<(DeviceId, String)>,
    /// Whether to find peers on the local network by mDNS (shows the device id there).
    pub mdns: bool,
    /// The members. Whether this device itself is among them makes no difference.
    pub members: BTreeSet<DeviceId>,
    /// Peers that no connection is made to or taken from.
    pub blocked: BTreeSet<DeviceId>,
}

impl NetworkConfig {
    /// Defaults: listen everywhere, mDNS on, nobody known.
    #[must_use]
    pub fn new(seed: Zeroizing<[u8; 32]>, swarm: SwarmId) -> Self {
        Self {
            seed,
            swarm,
            listen: vec!["/ip4/0.0.0.0/tcp/0".into(), "/ip4/0.0.0.0/udp/0/quic-v1".into()],
            dial: Vec::new(),
            known: Vec::new(),
            mdns: true,
            members: BTreeSet::new(),
            blocked: BTreeSet::new(),
        }
    }
}

/// Why a network could not start.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A listen or dial address is not a multiaddr of a transport spoken here.
    #[error("not a usable address: {0}")]
    BadAddress(String),
    /// A listen address could not be bound.
    #[error("cannot listen on {addr}: {reason}")]
    Listen {
        /// The address as configured.
        addr: String,
        /// What the system said.
        reason: String,
    },
    /// A transport or protocol could not be set up.
    #[error("cannot set up the network: {0}")]
    Setup(String),
}
