//! What a driver can tell the network to do.

use std::collections::BTreeSet;

use swarmkv_protocol::id::DeviceId;
use tokio::sync::oneshot;

/// Names one received gossip message until its verdict is given. Copies are harmless: only the
/// first verdict counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GossipToken {
    pub(super) id: [u8; 20],
    pub(super) from: DeviceId,
}

/// What to do with a received gossip message. Give it within 3 s: later it has no effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Pass it on.
    Accept,
    /// Drop it and count it against the peer that sent it.
    Reject,
    /// Drop it; nobody is to blame.
    Ignore,
}

/// An order to the network task.
#[derive(Debug)]
pub enum Command {
    /// Gossip a message of at most [`MAX_GOSSIP`](super::MAX_GOSSIP) bytes. It may reach nobody;
    /// that is normal and repaired elsewhere.
    Publish(Vec<u8>),
    /// The verdict on a message of [`Event::Gossip`](super::Event::Gossip).
    Verdict {
        /// Which message.
        token: GossipToken,
        /// What to do with it.
        verdict: Verdict,
    },
    /// Replaces the member set. Peers whose membership changed are disconnected; new members are
    /// dialled.
    SetMembers(BTreeSet<DeviceId>),
    /// Replaces the set of peers that no connection is made to or taken from.
    SetBlocked(BTreeSet<DeviceId>),
    /// Dial an address as if it had been configured. A malformed one is dropped with a log line.
    Dial {
        /// A multiaddr, with or without `/p2p/`.
        addr: String,
        /// Who is expected there.
        peer: Option<DeviceId>,
    },
    /// Open a repair session with a connected member. Answered by
    /// [`Event::SessionReady`](super::Event::SessionReady) or
    /// [`Event::SessionClosed`](super::Event::SessionClosed).
    Open {
        /// An even number never used before; others are ignored.
        session: u64,
        /// The member.
        peer: DeviceId,
    },
    /// Send one frame; allowed once after each `SessionReady`. A second one, or one over
    /// [`MAX_FRAME`](super::MAX_FRAME), closes the session.
    Send {
        /// The session.
        session: u64,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Close a session after what was sent is flushed. `SessionClosed` still follows; frames that
    /// were under way may come before it.
    Close {
        /// The session.
        session: u64,
    },
    /// Ask a connected peer, member or not, one question of the join protocol.
    Ask {
        /// Whom.
        peer: DeviceId,
        /// At most [`MAX_REQUEST`](super::MAX_REQUEST) bytes.
        request: Vec<u8>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Vec<u8>, AskError>>,
    },
    /// End all connections to a peer. A member is dialled again, a stranger left alone for ten
    /// minutes.
    Disconnect {
        /// Whom.
        peer: DeviceId,
    },
    /// Close everything and end the task.
    Shutdown,
}

/// Why a question got no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// There is no connection to that peer.
    #[error("not connected to that peer")]
    NotConnected,
    /// The peer does not speak the join protocol.
    #[error("the peer does not speak the join protocol")]
    Refused,
    /// The request is over the limit.
    #[error("the request is too large")]
    TooLarge,
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer closed without an answer: it was busy, or did not want to.
    #[error("the peer closed without an answer")]
    NoAnswer,
    /// Another device answered at the given address.
    #[error("another device answers at {addr}")]
    WrongPeer {
        /// Where.
        addr: String,
    },
    /// No address could be reached.
    #[error("cannot reach the peer: {0}")]
    Unreachable(String),
    /// Too many questions are under way, or the network is stopping.
    #[error("the network is busy or stopping")]
    Busy,
}
