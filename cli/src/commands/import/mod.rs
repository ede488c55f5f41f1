//! `swarmkv import`: JSON lines into the store, in their order, with bounded memory.
//!
//! A thread reads and parses (`lines.rs`); batches go to the peer several at a time. A batch waits
//! when it holds a key of one under way, so writes of a key keep their order.

mod lines;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use serde_json::json;
use swarmkv_node::api::ClientError;
use swarmkv_node::api::wire::{Data, ErrorKind, WriteRequest};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{Receiver, channel};
use tokio::task::JoinSet;

use crate::args::Import;
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::output::Output;
use crate::settings::Settings;
use crate::text;
use lines::{Batch, Item};

/// Batches under way at once, each on a connection of its own.
const IN_FLIGHT: usize = 8;
/// Batches read ahead of those.
const READ_AHEAD: usize = 2;
/// Pause before a batch goes again to a peer that is busy.
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// Imports.
pub async fn run(args: Import, settings: &Settings, out: Output) -> Result<(), Failure> {
    let mut import = Running::start(settings, out).await?;
    let (tx, mut items) = channel(READ_AHEAD);
    let (reader, size) = lines::open(&args.file)?;
    std::thread::spawn(move || lines::read(reader, &tx));
    import.bar = progress(size, out);
    let stopped = import.feed(&mut items).await;
    let drained = import.drain().await;
    import.bar.finish_and_clear();
    match drained.and(stopped) {
        Ok(()) => import.report(out),
        Err(failure) => Err(import.account(failure)),
    }
}

fn progress(size: Option<u64>, out: Output) -> ProgressBar {
    let template = match size {
        Some(_) => "{wide_bar} {bytes}/{total_bytes} {msg} {eta}",
        None => "{spinner} {bytes} {msg} {elapsed}",
    };
    out.progress(size, template)
}

/// A batch under way.
struct Sent {
    peer: Peer,
    batch: Batch,
    outcome: Result<(), Failure>,
}

/// An import under way.
struct Running {
    idle: Vec<Peer>,
    flying: JoinSet<Sent>,
    /// Keys of the batches under way.
    busy: BTreeSet<Data>,
    /// First lines of the batches under way, with the number of their last.
    open: BTreeMap<u64, u64>,
    timeout: Duration,
    started: Instant,
    bar: ProgressBar,
    puts: u64,
    deletes: u64,
    /// Lines up to this one were handed to the peer.
    handed: u64,
    /// First line that the peer did not confirm.
    lost: Option<u64>,
}

impl Running {
    async fn start(settings: &Settings, out: Output) -> Result<Self, Failure> {
        let mut idle = Vec::with_capacity(IN_FLIGHT);
        for _ in 0..IN_FLIGHT {
            idle.push(Peer::connect(settings).await?);
        }
        Ok(Self {
            idle,
            flying: JoinSet::new(),
            busy: BTreeSet::new(),
            open: BTreeMap::new(),
            timeout: settings.timeout,
            started: Instant::now(),
            bar: out.progress(None, "{spinner}"),
            puts: 0,
            deletes: 0,
            handed: 0,
            lost: None,
        })
    }

    /// Sends batches until the lines end, one is wrong, a write fails, or a person says stop.
    async fn feed(&mut self, items: &mut Receiver<Item>) -> Result<(), Failure> {
        let signals = |e| Failure::io("signals", &e);
        let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
        loop {
            let item = tokio::select! {
                _ = interrupt.recv() => return Err(interrupted()),
                _ = terminate.recv() => return Err(interrupted()),
                item = items.recv() => item,
            };
            match item {
                None => return Ok(()),
                Some(Item::Wrong(failure)) => return Err(failure),
                Some(Item::Batch(batch)) => self.send(batch).await?,
            }
        }
    }

    async fn send(&mut self, batch: Batch) -> Result<(), Failure> {
        let shares = |busy: &BTreeSet<Data>| batch.ops.iter().any(|op| busy.contains(&op.key));
        while self.idle.is_empty() || shares(&self.busy) {
            self.land().await?;
        }
        let Some(peer) = self.idle.pop() else {
            return Err(Failure::failed("no connection to the peer is left"));
        };
        self.busy.extend(batch.ops.iter().map(|op| op.key.clone()));
        self.open.insert(batch.first, batch.last);
        self.handed = batch.last;
        self.flying.spawn(deliver(peer, batch, self.timeout));
        Ok(())
    }

    /// Waits for one batch to be confirmed or refused.
    async fn land(&mut self) -> Result<(), Failure> {
        let Some(done) = self.flying.join_next().await else { return Ok(()) };
        let Sent { peer, batch, outcome } =
            done.map_err(|e| Failure::failed(format!("a part of the import broke: {e}")))?;
        self.idle.push(peer);
        for op in &batch.ops {
            self.busy.remove(&op.key);
        }
        self.open.remove(&batch.first);
        if let Err(failure) = outcome {
            self.lost = Some(self.lost.map_or(batch.first, |first| first.min(batch.first)));
            return Err(failure);
        }
        let deletes = batch.ops.iter().filter(|op| op.value.is_none()).count() as u64;
        self.deletes += deletes;
        self.puts += batch.ops.len() as u64 - deletes;
        self.bar.set_position(self.bar.position().max(batch.end));
        self.bar.set_message(text::plural(self.puts + self.deletes, "line"));
        Ok(())
    }

    /// Waits for all batches under way; the first failure counts.
    async fn drain(&mut self) -> Result<(), Failure> {
        let mut result = Ok(());
        while !self.flying.is_empty() {
            result = result.and(self.land().await);
        }
        result
    }

    fn report(&self, out: Output) -> Result<(), Failure> {
        let lines = self.puts + self.deletes;
        let seconds = self.started.elapsed().as_secs_f64();
        if out.is_json() {
            return out.json(&json!({
                "lines": lines, "puts": self.puts, "deletes": self.deletes, "seconds": seconds,
            }));
        }
        let (puts, deletes) = (text::count(self.puts), text::count(self.deletes));
        let rate = text::count((lines as f64 / seconds.max(0.001)) as u64);
        let lines = text::plural(lines, "line");
        out.talk(format!(
            "Imported {lines}: {puts} written, {deletes} deleted, in {seconds:.1} s ({rate}/s)."
        ));
        Ok(())
    }

    /// Adds to a failure what is on disk in spite of it.
    fn account(&self, mut failure: Failure) -> Failure {
        let written = text::plural(self.puts + self.deletes, "write");
        let until = self.lost.map_or(self.handed, |lost| lost - 1);
        let account = match (self.puts + self.deletes, self.lost) {
            (0, _) => "Nothing was written.".to_owned(),
            (_, None) => format!("On disk: {written}, all of lines 1 to {until}; nothing after."),
            (_, Some(_)) => format!(
                "On disk: {written}, among them all of lines 1 to {until}; later lines in part."
            ),
        };
        failure.message = format!("{} {account}", failure.message);
        failure
    }
}

fn interrupted() -> Failure {
    Failure::new(Kind::Interrupted, "Interrupted.")
        .hint("Run it again on the same file to do the rest.")
}

async fn deliver(mut peer: Peer, batch: Batch, timeout: Duration) -> Sent {
    let request = WriteRequest { ops: batch.ops };
    let outcome = match tokio::time::timeout(timeout, write(&mut peer, &request)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(named(peer.failure(error), batch.first, batch.last)),
        Err(_) => Err(Failure::no_answer(timeout)),
    };
    Sent { peer, batch: Batch { ops: request.ops, ..batch }, outcome }
}

async fn write(peer: &mut Peer, request: &WriteRequest) -> Result<(), ClientError> {
    loop {
        match peer.try_write(request).await {
            Ok(_) => return Ok(()),
            Err(ClientError::Refused(error)) if error.kind == ErrorKind::Busy => {
                tokio::time::sleep(BUSY_PAUSE).await;
            }
            Err(error) => return Err(error),
        }
    }
}

fn named(mut failure: Failure, first: u64, last: u64) -> Failure {
    failure.message = format!("Lines {first} to {last}: {}", failure.message);
    failure
}
