//! What the network tells its driver.

use swarmkv_protocol::id::DeviceId;
use tokio::sync::oneshot;

use super::command::GossipToken;

/// How a peer was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By mDNS on the local network.
    Mdns,
    /// Through other members.
    Kad,
    /// Its address was configured or remembered, or it dialled us.
    Direct,
}

/// What carries a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP with Noise and Yamux.
    Tcp,
    /// QUIC.
    Quic,
}

/// Something that happened. For one peer, everything else lies between `Connected` and
/// `Disconnected`, except that sessions may end and questions may still be delivered a little
/// after `Disconnected`.
#[derive(Debug)]
pub enum Event {
    /// We can be reached here (concrete interface addresses, without `/p2p/`).
    Listening {
        /// A multiaddr.
        addr: String,
    },
    /// We can no longer be reached here.
    NotListening {
        /// A multiaddr.
        addr: String,
    },
    /// The first connection to a peer.
    Connected {
        /// Who.
        peer: DeviceId,
        /// The remote address.
        addr: String,
        /// How it was found.
        source: Source,
        /// Over what.
        transport: Transport,
        /// Whether the connection was let through the members' gate.
        member: bool,
        /// Whether we dialled.
        dialer: bool,
    },
    /// The last connection to a peer is gone.
    Disconnected {
        /// Who.
        peer: DeviceId,
    },
    /// A gossip message waits for its verdict.
    Gossip {
        /// The member that sent or forwarded it.
        from: DeviceId,
        /// For the verdict.
        token: GossipToken,
        /// The message.
        bytes: Vec<u8>,
    },
    /// A member opened a session with us. A `SessionReady` follows at once.
    SessionOpened {
        /// An odd number.
        session: u64,
        /// Who.
        peer: DeviceId,
    },
    /// One frame may be sent on this session.
    SessionReady {
        /// Which.
        session: u64,
    },
    /// More of a frame that is not whole yet has come: said every few seconds on a slow line.
    SessionBytes {
        /// Which.
        session: u64,
        /// How much more.
        bytes: usize,
    },
    /// A frame came.
    SessionFrame {
        /// Which.
        session: u64,
        /// The frame.
        frame: Vec<u8>,
    },
    /// A session ended: the last word about it, said exactly once, also after our own `Close`.
    SessionClosed {
        /// Which.
        session: u64,
        /// The other side does not speak repair with us: it takes us for a stranger.
        refused: bool,
    },
    /// Somebody, possibly a stranger, asks by the join protocol. Dropping `reply` ends the
    /// exchange without an answer; ten seconds end it too.
    Asked {
        /// Who.
        peer: DeviceId,
        /// The question.
        request: Vec<u8>,
        /// Where the answer goes.
        reply: oneshot::Sender<Vec<u8>>,
    },
    /// Where a member can likely be reached: worth remembering.
    AddressLearned {
        /// Who.
        peer: DeviceId,
        /// A multiaddr without `/p2p/`.
        addr: String,
    },
}
