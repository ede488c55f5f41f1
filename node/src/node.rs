//! Starting and stopping a peer.

use std::collections::BTreeSet;
use std::sync::Arc;

use swarmkv_protocol::engine::Engine;
use swarmkv_protocol::roster::Roster;
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::api;
use crate::blocklist::Blocklist;
use crate::clock::{self, Clock};
use crate::config::Config;
use crate::data_dir::DataDir;
use crate::driver::{Driver, Identity, Watches};
use crate::error::{DirError, StartError};
use crate::event::NodeEvent;
use crate::handle::Handle;
use crate::keystore;
use crate::network::{Network, NetworkConfig};
use crate::ports;
use crate::readers::ReadState;
use crate::request::Request;
use crate::standing::labels;
use crate::storage::{Addresses, Disk};

/// Requests that wait for the loop.
const REQUESTS: usize = 4096;
/// Events kept for a slow watcher.
const EVENTS: usize = 1024;

/// A running peer. Dropping it ends it where it stands, as a crash would: nothing acknowledged is
/// lost. [`Node::stop`] finishes what is under way and waits.
pub struct Node {
    handle: Handle,
    events: broadcast::Sender<NodeEvent>,
    /// The loop, until somebody has waited for its end.
    driver: Option<JoinHandle<Result<(), String>>>,
    api: JoinHandle<()>,
}

impl Node {
    /// Starts the peer of a data directory: opens its store, joins the network, serves the local API.
    ///
    /// # Errors
    /// When the directory is in use, belongs to no swarm or is damaged, or an address cannot be
    /// listened on.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let dir = DataDir::open(&config.data_dir)?;
        let mut disk = keystore::open_store(&dir).map_err(DirError::Store)?;
        let genesis = disk.genesis().map_err(DirError::Store)?;
        let genesis = genesis.ok_or_else(|| DirError::NoSwarm(config.data_dir.clone()))?;
        let key = keystore::load(dir.path())?;
        let seed = key.seed();
        let me = key.id();
        let roster = Roster::open(&genesis).map_err(|e| damaged(&e))?;
        let swarm = roster.swarm();
        dir.note_swarm(&roster.genesis().name)?;
        let fingerprint = dir.fingerprint()?;
        // Who may have written what it does not know of goes on in a new epoch: a copy, a peer in memory,
        // a store whose journal has lost frames.
        let moved = disk.moved(&fingerprint).map_err(DirError::Store)?;
        let own_head = disk.take_own_head().map_err(DirError::Store)?;
        let forgetful = moved || config.memory || disk.is_damaged();
        let mut recovered = disk.recover().map_err(DirError::Store)?;
        // The original of a copy goes on there as well.
        recovered.resumable = own_head.filter(|_| !moved && !disk.is_damaged());
        let resumable = recovered.resumable.clone();
        if config.memory {
            if !recovered.logs.is_empty() {
                return Err(StartError::HasData);
            }
            disk = Disk::in_memory(disk).map_err(DirError::Store)?;
        }
        let entropy = u64::from_be_bytes(clock::random());
        let engine = Engine::open(key, roster, recovered, disk.clone(), entropy, forgetful)
            .map_err(DirError::Store)?;

        let addresses = Addresses::load(&disk).map_err(DirError::Store)?;
        let blocklist = disk.blocklist().map_err(DirError::Store)?;
        let blocklist = Blocklist::from_bytes(&blocklist, clock::wall_millis());
        let network = NetworkConfig {
            seed,
            swarm,
            listen: config.listen.iter().map(|a| ports::again(a, |t| disk.port(t))).collect(),
            dial: config.dial,
            known: addresses.all(),
            mdns: config.mdns,
            blocked: blocklist.peers(),
            members: match engine.roster().member(&me) {
                Some(_) => engine.roster().members().map(|m| m.device).collect(),
                // Nobody talks to a device that was taken out.
                None => BTreeSet::new(),
            },
        };
        let network =
            Network::start(network).await.map_err(|e| StartError::Network(e.to_string()))?;

        let state = first_moment(&disk, &engine);
        let (requests, todo) = mpsc::channel(REQUESTS);
        let (events, _) = broadcast::channel(EVENTS);
        let (readers, reading) = watch::channel(Arc::new(state));
        let (listen_addrs, listening) = watch::channel(Vec::new());
        let handle = Handle { requests, readers: reading, listen_addrs: listening, me, swarm };
        let socket = api::listen(dir.path()).map_err(DirError::io(dir.path()))?;
        let api = tokio::spawn(api::serve(socket, handle.clone()));
        // Durable together with the epoch that a copied directory opens.
        disk.set_fingerprint(&fingerprint);
        let identity = Identity { me, dir, blocklist, addresses, resumable };
        let watches = Watches { events: events.clone(), readers, listen_addrs };
        let (driver, inbox) =
            Driver::new(engine, disk, identity, Clock::start(), network, todo, watches);
        let driver = tokio::spawn(driver.run(inbox));
        Ok(Self { handle, events, driver: Some(driver), api })
    }

    /// A client of this peer.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<NodeEvent> {
        self.events.subscribe()
    }

    /// Resolves when the peer stops by itself.
    ///
    /// # Errors
    /// Says what went wrong: storage failed, and nothing more is acknowledged.
    pub async fn stopped(&mut self) -> Result<(), String> {
        let Some(driver) = &mut self.driver else {
            return Ok(());
        };
        let result = match driver.await {
            Ok(result) => result,
            Err(e) => Err(format!("the peer's loop ended: {e}")),
        };
        self.driver = None;
        result
    }

    /// Stops the peer: what is under way is finished and durable when this returns.
    pub async fn stop(mut self) {
        if let Some(driver) = self.driver.take() {
            let (reply, done) = oneshot::channel();
            if self.handle.requests.send(Request::Stop(reply)).await.is_ok() {
                let _ = done.await;
            }
            let _ = driver.await;
        }
        self.api.abort();
        let _ = (&mut self.api).await;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.api.abort();
        if let Some(driver) = &self.driver {
            driver.abort();
        }
    }
}

/// What readers see before anything has happened.
fn first_moment(disk: &Disk, engine: &Engine<Disk>) -> ReadState {
    ReadState {
        snapshot: disk.durable(),
        heads: engine.heads(),
        labels: Arc::new(labels(engine)),
        caught_up: engine.caught_up(),
        hash: engine.state_hash(),
    }
}

fn damaged(e: &swarmkv_protocol::roster::BadStatement) -> DirError {
    DirError::Store(swarmkv_protocol::store::StoreError::Failed(format!(
        "the genesis is damaged: {e}"
    )))
}
