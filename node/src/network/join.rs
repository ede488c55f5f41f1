//! The join protocol: one question, one answer, open to strangers and therefore rationed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _, StreamExt as _};
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::swarm::{DialError, Stream, SwarmEvent};
use libp2p::{Multiaddr, StreamProtocol, Swarm};
use swarmkv_protocol::id::DeviceId;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::debug;
use zeroize::Zeroizing;

use super::behaviour::JOIN_PROTOCOL;
use super::command::AskError;
use super::event::Event;
use super::frames::{read_frame, write_frame};
use super::limits;
use super::peer;
use super::rate::Bucket;
use super::streams::{OpenError, StreamEvent, Streams};
use super::task::Task;
use super::transport;

type Reply = oneshot::Sender<Result<Vec<u8>, AskError>>;

/// Questions under way, both ways.
#[derive(Debug)]
pub(super) struct Joins {
    asks: BTreeMap<u64, (Vec<u8>, Reply)>,
    next_ask: u64,
    asking: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
    members: Arc<Semaphore>,
    stranger_rate: Bucket,
    /// Strangers being answered: one question each at a time, so that none holds all places.
    busy: Arc<Mutex<BTreeSet<DeviceId>>>,
}

/// A stranger's place among those being answered; given back when dropped.
struct Place {
    busy: Arc<Mutex<BTreeSet<DeviceId>>>,
    peer: DeviceId,
}

impl Place {
    fn take(busy: &Arc<Mutex<BTreeSet<DeviceId>>>, peer: DeviceId) -> Option<Self> {
        let fresh = busy.lock().unwrap_or_else(PoisonError::into_inner).insert(peer);
        fresh.then(|| Self { busy: Arc::clone(busy), peer })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.peer);
    }
}

impl Joins {
    pub(super) fn new(now: Instant) -> Self {
        let (rate, burst) = (limits::STRANGER_ASKS_PER_SECOND, limits::STRANGER_ASKS_BURST);
        Self {
            asks: BTreeMap::new(),
            next_ask: 0,
            asking: Arc::new(Semaphore::new(limits::ASKS)),
            strangers: Arc::new(Semaphore::new(limits::JOIN_SERVED)),
            members: Arc::new(Semaphore::new(limits::JOIN_SERVED)),
            stranger_rate: Bucket::new(rate, burst, now),
            busy: Arc::default(),
        }
    }
}

impl Task {
    pub(super) fn ask(&mut self, peer: DeviceId, request: Vec<u8>, reply: Reply) {
        let refusal = if request.len() > limits::MAX_REQUEST {
            AskError::TooLarge
        } else if !self.is_connected(&peer) {
            AskError::NotConnected
        } else if self.joins.asks.len() >= limits::ASKS {
            AskError::Busy
        } else {
            self.joins.next_ask += 1;
            let id = self.joins.next_ask;
            self.joins.asks.insert(id, (request, reply));
            self.swarm.behaviour_mut().join.open(id, peer::to_peer_id(&peer));
            return;
        };
        let _ = reply.send(Err(refusal));
    }

    pub(super) fn on_join(&mut self, event: StreamEvent) {
        match event {
            StreamEvent::Inbound { peer, stream } => {
                if let Some(peer) = peer::to_device(&peer) {
                    self.serve(peer, stream);
                }
            }
            StreamEvent::Opened { id, result } => {
                let Some((request, reply)) = self.joins.asks.remove(&id) else { return };
                match (result, Arc::clone(&self.joins.asking).try_acquire_owned()) {
                    (Ok(stream), Ok(permit)) => {
                        tokio::spawn(async move {
                            let answer = timeout(limits::JOIN_TIMEOUT, exchange(stream, &request));
                            let answer = answer.await.unwrap_or(Err(AskError::Timeout));
                            let _ = reply.send(answer);
                            drop(permit);
                        });
                    }
                    (Ok(_), Err(_)) => drop(reply.send(Err(AskError::Busy))),
                    (Err(error), _) => drop(reply.send(Err(error.into()))),
                }
            }
        }
    }

    fn serve(&mut self, peer: DeviceId, stream: Stream) {
        let member = self.members.contains(&peer);
        if !member && !self.joins.stranger_rate.take(Instant::now()) {
            debug!(%peer, "too many questions of strangers");
            return;
        }
        let place = Place::take(&self.joins.busy, peer);
        if !member && place.is_none() {
            debug!(%peer, "a stranger asks again before it was answered");
            return;
        }
        let places = if member { &self.joins.members } else { &self.joins.strangers };
        let Ok(permit) = Arc::clone(places).try_acquire_owned() else {
            debug!(%peer, "too many questions at once");
            return;
        };
        let events = self.stream_events.clone();
        tokio::spawn(async move {
            if timeout(limits::JOIN_TIMEOUT, answer(peer, stream, events)).await.is_err() {
                debug!(%peer, "a question took too long");
            }
            drop((permit, place));
        });
    }
}

impl From<OpenError> for AskError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Gone => Self::NotConnected,
            OpenError::Refused => Self::Refused,
        }
    }
}

/// Reads a question, has the driver answer it, writes the answer.
async fn answer(
    peer: DeviceId,
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    events: mpsc::Sender<Event>,
) {
    let request = read_frame(&mut stream, limits::MAX_REQUEST, || ());
    let request = match timeout(limits::JOIN_REQUEST_TIMEOUT, request).await {
        Ok(Ok(Some(request))) => request,
        Ok(Ok(None)) => return,
        Ok(Err(error)) => {
            debug!(%peer, %error, "not a question");
            return;
        }
        Err(_) => {
            debug!(%peer, "a question did not come in time");
            return;
        }
    };
    let (reply, response) = oneshot::channel();
    if events.send(Event::Asked { peer, request, reply }).await.is_err() {
        return;
    }
    let Ok(response) = response.await else { return };
    if response.len() > limits::MAX_RESPONSE {
        debug!(%peer, "an answer over the limit is not sent");
        return;
    }
    if write_frame(&mut stream, &response, || ()).await.is_ok() {
        let _ = stream.close().await;
    }
}

/// Writes a question and reads its answer.
async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    request: &[u8],
) -> Result<Vec<u8>, AskError> {
    write_frame(&mut stream, request, || ()).await.map_err(|_| AskError::NoAnswer)?;
    match read_frame(&mut stream, limits::MAX_RESPONSE, || ()).await {
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
    let unreachable = |error: super::NetworkError| AskError::Unreachable(error.to_string());
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
