//! How a peer is started.

use std::path::PathBuf;

/// Settings of one peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Directory that holds the device key and the store. One process at a time.
    pub data_dir: PathBuf,
    /// Multiaddresses to listen on. Default: every interface, TCP and QUIC, free ports. A fixed port
    /// lets peers on other networks find this one again after a restart.
    pub listen: Vec<String>,
    /// Multiaddresses of peers to connect to, with or without `/p2p/…`. Default: none. One reachable
    /// member is enough: the others are found through it.
    pub dial: Vec<String>,
    /// Whether to find peers on the local network by multicast DNS. Default: yes. The announcement
    /// shows this device's lasting id to everyone on that network.
    pub mdns: bool,
    /// Keep data in memory only: gone when the peer stops, except where other members have it. Who is a
    /// member stays on disk. Default: no.
    pub memory: bool,
}

impl Config {
    /// The defaults for a data directory.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            listen: vec!["/ip4/0.0.0.0/tcp/0".into(), "/ip4/0.0.0.0/udp/0/quic-v1".into()],
            dial: Vec::new(),
            mdns: true,
            memory: false,
        }
    }
}
