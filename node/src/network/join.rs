//! The join protocol: one question, one answer, open to strangers and therefore rationed.

use std::sync::Arc;

use futures::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use libp2p::swarm::Stream;
use swarmkv_protocol::id::DeviceId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::call::exchange;
use super::command::AskError;
use super::event::Event;
use super::frames::{read_frame, write_frame};
use super::limits;
use super::peer;
use super::questions::{Place, Reply};
use super::streams::{OpenError, StreamEvent};
use super::task::Task;

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
    let request = read_frame(&mut stream, limits::MAX_REQUEST, |_| ());
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
