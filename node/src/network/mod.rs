//! The network half of a node: finds members, moves bytes between them, lets strangers ask.
//!
//! It owns the libp2p swarm in one task. It must not know storage, merge or membership rules: it
//! is handed a member set, and no libp2p type leaves it (peers are [`DeviceId`], addresses text).

mod behaviour;
mod book;
mod call;
mod command;
mod config;
mod dialer;
mod discovery;
mod doorway;
mod event;
mod events;
mod finders;
mod frames;
mod join;
mod limits;
mod members;
mod outbox;
mod peer;
mod questions;
mod rate;
mod scoring;
mod sessions;
pub mod stranger;
mod streams;
mod sync;
mod task;
mod transport;

use swarmkv_protocol::id::DeviceId;
use tokio::sync::{mpsc, watch};

pub use call::ask_once;
pub use command::{AskError, Command, GossipToken, Verdict};
pub use config::{NetworkConfig, NetworkError};
pub use event::{Event, Source, Transport};
pub use limits::{MAX_FRAME, MAX_GOSSIP, MAX_REQUEST, MAX_RESPONSE};
pub use peer::peer_id_text;
pub use scoring::Scores;

/// A cloneable handle to a running network task.
///
/// # Who may wait on whom
/// - The network task never waits for the driver: while the event channel is full it stops reading
///   from the swarm (so peers feel back-pressure) but goes on taking commands. A driver that stays
///   away for 30 s loses its sessions.
/// - [`Network::send`] therefore returns soon, also from a driver that is not reading events just
///   then. Only a driver that leaves more than a thousand events unread is made to wait, so drive
///   both channels from one `select!`.
/// - A session's frames wait in that session's own task, one frame at a time.
/// - The task ends on [`Command::Shutdown`] or when every handle is gone; the event channel then
///   ends, and later commands go nowhere.
#[derive(Clone, Debug)]
pub struct Network {
    commands: mpsc::Sender<Command>,
    device: DeviceId,
    scores: watch::Receiver<Scores>,
}

impl Network {
    /// Binds the listen addresses and starts the task on the current tokio runtime.
    ///
    /// # Errors
    /// When an address is malformed or cannot be bound, or a transport cannot be set up.
    #[expect(clippy::unused_async, reason = "callers must be inside a tokio runtime")]
    pub async fn start(
        config: NetworkConfig,
    ) -> Result<(Self, mpsc::Receiver<Event>), NetworkError> {
        let (commands, command_rx) = mpsc::channel(limits::COMMAND_QUEUE);
        let (events, event_rx) = mpsc::channel(limits::EVENT_QUEUE);
        let (score_tx, scores) = watch::channel(Scores::new());
        let task = task::Task::new(config, command_rx, events, score_tx)?;
        let device = task.device();
        tokio::spawn(task.run());
        Ok((Self { commands, device, scores }, event_rx))
    }

    /// Hands a command to the task, waiting for room in its queue.
    pub async fn send(&self, command: Command) {
        let _ = self.commands.send(command).await;
    }

    /// Hands a command to the task if there is room.
    ///
    /// # Errors
    /// Gives the command back when the queue is full or the task has ended.
    pub fn try_send(&self, command: Command) -> Result<(), Command> {
        self.commands.try_send(command).map_err(|error| match error {
            mpsc::error::TrySendError::Full(command)
            | mpsc::error::TrySendError::Closed(command) => command,
        })
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.commands.is_closed()
    }

    /// Gossip scores as of the last tick.
    #[must_use]
    pub fn scores(&self) -> Scores {
        self.scores.borrow().clone()
    }

    /// This device.
    #[must_use]
    pub fn device(&self) -> DeviceId {
        self.device
    }

    /// This device's libp2p peer id as text, for `/p2p/` suffixes.
    #[must_use]
    pub fn peer_id_text(&self) -> String {
        peer_id_text(&self.device)
    }
}
