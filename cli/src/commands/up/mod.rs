//! `swarmkv up`: runs the peer until a signal, and says who it sees.

mod detach;
mod talk;

use std::io;
use std::time::Duration;

use swarmkv_node::{Config, DirError, Node};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::error::RecvError;

use crate::args::Up;
use crate::error::Failure;
use crate::output::Output;
use crate::settings::Settings;
use talk::Talk;

/// Longest wait for a clean stop; the store is safe without one.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Runs the peer here, or starts it in the background.
pub async fn run(args: Up, settings: &Settings, out: Output) -> Result<(), Failure> {
    if swarmkv_node::belongs_to(settings.data_dir()).is_none() {
        return Err(DirError::NoSwarm(settings.data_dir.clone()).into());
    }
    if args.detach {
        return detach::run(&args, settings, out).await;
    }
    let mut signals = Signals::install(args.background)
        .map_err(|e| Failure::io("signals cannot be handled", &e))?;
    let mut node = Node::start(config(args, settings)).await?;
    let ended = attend(&mut node, &mut signals, out).await;
    tokio::select! {
        () = node.stop() => {}
        () = tokio::time::sleep(STOP_LIMIT) => tracing::warn!("the peer did not stop in time"),
        () = signals.stop() => {}
    }
    ended
}

fn config(args: Up, settings: &Settings) -> Config {
    let mut config = Config::new(settings.data_dir());
    if !args.listen.is_empty() {
        config.listen = args.listen;
    }
    config.dial = args.peer;
    config.mdns = !args.no_mdns;
    config.memory = args.memory;
    config
}

/// Tells what happens until a signal comes (well) or the peer stops by itself (not well).
async fn attend(node: &mut Node, signals: &mut Signals, out: Output) -> Result<(), Failure> {
    let mut events = node.events();
    let Some(status) = node.handle().status().await else {
        return Err(stopped_by_itself(node.stopped().await));
    };
    let mut talk = Talk::begin(&status, out);
    loop {
        tokio::select! {
            () = signals.stop() => {
                talk.end();
                return Ok(());
            }
            why = node.stopped() => return Err(stopped_by_itself(why)),
            event = events.recv() => match event {
                Ok(event) => talk.event(&event),
                Err(RecvError::Lagged(missed)) => talk.lagged(missed),
                Err(RecvError::Closed) => return Err(stopped_by_itself(node.stopped().await)),
            },
        }
    }
}

fn stopped_by_itself(why: Result<(), String>) -> Failure {
    let why = why.err().unwrap_or_else(|| "it gave no reason".into());
    Failure::failed(format!("the peer stopped by itself: {why}"))
        .hint("See whether the disk is full or damaged, then start it again.")
}

/// The signals that end a run.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
    /// In the background, a closed terminal is no reason to stop.
    background: bool,
}

impl Signals {
    fn install(background: bool) -> io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
            background,
        })
    }

    /// Resolves when one came.
    async fn stop(&mut self) {
        loop {
            tokio::select! {
                _ = self.interrupt.recv() => return,
                _ = self.terminate.recv() => return,
                _ = self.hangup.recv() => if !self.background { return },
            }
        }
    }
}
