//! One question to one peer: asked over a stream that is there, or from outside any swarm.

use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, StreamExt as _};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, Stream, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm};
use swarmkv_protocol::id::DeviceId;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::behaviour::JOIN_PROTOCOL;
use super::command::AskError;
use super::config::NetworkError;
use super::frames::{read_frame, write_frame};
use super::limits;
use super::peer;
use super::streams::{OpenError, StreamEvent, Streams};
use super::transport;

/// Writes a question and reads its answer.
pub(super) async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<Vec<u8>, AskError> {
    write_frame(&mut stream, request, || ()).await.map_err(|_| AskError::NoAnswer)?;
    match read_frame(&mut stream, limits::MAX_RESPONSE, |_| ()).await {
        Ok(Some(response)) => Ok(response),
        Ok(None) | Err(_) => Err(AskError::NoAnswer),
    }
}

/// One question to one peer without being in any swarm: `join`, before this device belongs
/// anywhere. Dials the addresses, makes sure that `peer` answers there, asks, and hangs up.
///
/// # Errors
/// [`AskError::WrongPeer`] when another device answers and no other address leads to `peer`;
/// [`AskError::Unreachable`] when nobody answers; else as for a question to a connected peer.
pub async fn ask_once(
    seed: &Zeroizing<[u8; 32]>,
    peer: DeviceId,
    addrs: &[String],
    request: Vec<u8>,
    time: Duration,
) -> Result<Vec<u8>, AskError> {
    ask_on(JOIN_PROTOCOL, seed, peer, addrs, request, time).await
}

/// [`ask_once`] on any protocol.
pub(super) async fn ask_on(
    protocol: StreamProtocol,
    seed: &Zeroizing<[u8; 32]>,
    peer: DeviceId,
    addrs: &[String],
    request: Vec<u8>,
    time: Duration,
) -> Result<Vec<u8>, AskError> {
    if request.len() > limits::MAX_REQUEST {
        return Err(AskError::TooLarge);
    }
    let addrs = targets(peer, addrs)?;
    let unreachable = |error: NetworkError| AskError::Unreachable(error.to_string());
    let key = transport::keypair(seed).map_err(unreachable)?;
    let swarm = transport::swarm(key, Streams::new(protocol, false)).map_err(unreachable)?;
    let mut caller = Caller { swarm, peer, addrs, wrong: None, connected: false };
    match timeout(time, caller.ask(&request)).await {
        Ok(answer) => answer,
        Err(_) if caller.connected => Err(AskError::Timeout),
        Err(_) => Err(caller.failure("no answer in time".into())),
    }
}

/// The usable addresses, if any; those that name another peer are not.
fn targets(peer: DeviceId, addrs: &[String]) -> Result<Vec<Multiaddr>, AskError> {
    let mut good = Vec::new();
    let mut failure = AskError::Unreachable("no address given".into());
    for text in addrs.iter().take(limits::ADDRESSES_PER_REPORT) {
        match peer::parse_addr(text) {
            Some((addr, named)) if named.is_none_or(|named| named == peer) => good.push(addr),
            Some(_) => failure = AskError::WrongPeer { addr: text.clone() },
            None => failure = AskError::Unreachable(format!("not a usable address: {text}")),
        }
    }
    if good.is_empty() { Err(failure) } else { Ok(good) }
}

/// The one-question swarm.
struct Caller {
    swarm: Swarm<Streams>,
    peer: DeviceId,
    addrs: Vec<Multiaddr>,
    wrong: Option<Multiaddr>,
    connected: bool,
}

impl Caller {
    async fn ask(&mut self, request: &[u8]) -> Result<Vec<u8>, AskError> {
        let stream = self.connect().await?;
        let mut exchange = std::pin::pin!(exchange(stream, request));
        loop {
            tokio::select! {
                answer = &mut exchange => return answer,
                _ = self.swarm.select_next_some() => {}
            }
        }
    }

    async fn connect(&mut self) -> Result<Stream, AskError> {
        let peer = peer::to_peer_id(&self.peer);
        self.dial()?;
        loop {
            match self.swarm.select_next_some().await {
                SwarmEvent::ConnectionEstablished { peer_id, .. } if peer_id == peer => {
                    self.connected = true;
                    self.swarm.behaviour_mut().open(0, peer);
                }
                SwarmEvent::Behaviour(StreamEvent::Opened { result, .. }) => {
                    return result.map_err(|error| match error {
                        OpenError::Gone => AskError::NoAnswer,
                        OpenError::Refused => AskError::Refused,
                    });
                }
                SwarmEvent::OutgoingConnectionError { error, .. } => self.on_failure(error)?,
                _ => {}
            }
        }
    }

    fn dial(&mut self) -> Result<(), AskError> {
        let options = DialOpts::peer_id(peer::to_peer_id(&self.peer))
            .condition(PeerCondition::Always)
            .addresses(self.addrs.clone())
            .allocate_new_port()
            .build();
        self.swarm.dial(options).or_else(|error| self.on_failure(error))
    }

    /// All addresses are dialled at once and a wrong peer may have been the fastest to answer:
    /// then the others get their turn.
    fn on_failure(&mut self, error: DialError) -> Result<(), AskError> {
        let (DialError::WrongPeerId { address, .. } | DialError::LocalPeerId { address }) = &error
        else {
            return Err(self.failure(peer::dial_reason(&error)));
        };
        let address = peer::bare(address);
        let before = self.addrs.len();
        self.addrs.retain(|addr| *addr != address);
        self.wrong = Some(address);
        if self.addrs.is_empty() || self.addrs.len() == before {
            return Err(self.failure(peer::dial_reason(&error)));
        }
        self.dial()
    }

    fn failure(&self, reason: String) -> AskError {
        match &self.wrong {
            Some(addr) => AskError::WrongPeer { addr: addr.to_string() },
            None => AskError::Unreachable(reason),
        }
    }
}
