//! Three real peers in this process, on loopback, each with a data directory of its own.

use std::path::{Path, PathBuf};
use std::time::Duration;

use swarmkv_node::api::wire::{InviteRequest, Status};
use swarmkv_node::protocol::ticket::Ticket;
use swarmkv_node::{Config, Handle, Joined, Node};

use crate::error::Failure;

/// Longest wait for anything in the demo.
pub const PATIENCE: Duration = Duration::from_secs(8);
/// Pause between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// One of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Founds the swarm.
    Alice,
    /// Joins.
    Bob,
    /// Joins.
    Carol,
}

/// All three.
pub const ALL: [Who; 3] = [Who::Alice, Who::Bob, Who::Carol];

impl Who {
    /// The device's label.
    pub fn name(self) -> &'static str {
        match self {
            Self::Alice => "alice",
            Self::Bob => "bob",
            Self::Carol => "carol",
        }
    }
}

/// The three peers, running or not.
pub struct Peers {
    dir: PathBuf,
    nodes: [Option<Node>; 3],
}

impl Peers {
    /// Three that do not run yet.
    pub fn new(dir: &Path) -> Self {
        Self { dir: dir.to_owned(), nodes: [None, None, None] }
    }

    /// Makes Alice's key and the swarm.
    pub fn found(&self) -> Result<(), Failure> {
        swarmkv_node::init(&self.data_dir(Who::Alice), "demo", Who::Alice.name())?;
        Ok(())
    }

    /// Admits one on a ticket of Alice's.
    pub async fn admit(&self, who: Who) -> Result<Joined, Failure> {
        let request = InviteRequest::writer(PATIENCE);
        let answer = self.handle(Who::Alice)?.invite(request).await.map_err(broke)?;
        let ticket = Ticket::parse(&answer.ticket).map_err(broke)?;
        Ok(swarmkv_node::join(&self.data_dir(who), &ticket, who.name(), PATIENCE).await?)
    }

    /// Starts one; it is told the addresses of those that run.
    pub async fn start(&mut self, who: Who) -> Result<(), Failure> {
        let mut config = Config::new(self.data_dir(who));
        config.listen = vec!["/ip4/127.0.0.1/tcp/0".into(), "/ip4/127.0.0.1/udp/0/quic-v1".into()];
        config.mdns = false;
        for node in self.nodes.iter().flatten() {
            config.dial.extend(node.handle().wait_listening().await);
        }
        self.nodes[who as usize] = Some(Node::start(config).await?);
        Ok(())
    }

    /// Stops one.
    pub async fn stop(&mut self, who: Who) {
        if let Some(node) = self.nodes[who as usize].take() {
            node.stop().await;
        }
    }

    /// Stops all that run.
    pub async fn stop_all(&mut self) {
        for who in ALL {
            self.stop(who).await;
        }
    }

    /// A running one.
    pub fn handle(&self, who: Who) -> Result<Handle, Failure> {
        let node = self.nodes[who as usize].as_ref();
        node.map(Node::handle).ok_or_else(|| broke(format!("{} does not run", who.name())))
    }

    /// How a running one is.
    pub async fn status(&self, who: Who) -> Result<Status, Failure> {
        let status = self.handle(who)?.status().await;
        status.ok_or_else(|| broke(format!("{} has stopped", who.name())))
    }

    /// Waits until each running one is connected to all the others that run.
    pub async fn all_connected(&self) -> Result<(), Failure> {
        let wanted = self.nodes.iter().flatten().count() - 1;
        for who in self.running() {
            let met = async || {
                let status = self.status(who).await?;
                Ok(status.peers.iter().filter(|peer| peer.connected).count() == wanted)
            };
            until(&format!("{} sees {wanted} others", who.name()), met).await?;
        }
        Ok(())
    }

    /// Waits until all running ones have been whole once, so that they answer reads.
    pub async fn all_whole(&self) -> Result<(), Failure> {
        for who in self.running() {
            self.handle(who)?.caught_up(PATIENCE).await.map_err(broke)?;
        }
        Ok(())
    }

    /// Waits until all running ones hold exactly the same.
    pub async fn all_equal(&self) -> Result<(), Failure> {
        let met = async || {
            let mut states = Vec::new();
            for who in self.running() {
                states.push(self.status(who).await?.state);
            }
            Ok(states.windows(2).all(|pair| pair[0] == pair[1]))
        };
        until("all replicas are equal", met).await
    }

    fn running(&self) -> Vec<Who> {
        ALL.into_iter().filter(|who| self.nodes[*who as usize].is_some()).collect()
    }

    fn data_dir(&self, who: Who) -> PathBuf {
        self.dir.join(who.name())
    }
}

/// Looks until something holds, but not for ever.
async fn until(
    what: &str,
    mut holds: impl AsyncFnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let look = async {
        while !holds().await? {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    };
    let seconds = PATIENCE.as_secs();
    tokio::time::timeout(PATIENCE, look)
        .await
        .map_err(|_| broke(format!("after {seconds} s it does not hold that {what}")))?
}

/// Something was not as promised.
pub fn broke(what: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("Not as promised: {what}."))
        .hint("This is a bug. Run it again as: swarmkv demo -vv, and report what it says.")
}

/// Demands that something holds.
pub fn check(holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(broke(what())) }
}
