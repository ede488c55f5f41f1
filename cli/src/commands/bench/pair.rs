//! Two throw-away peers on loopback, each with a directory of its own on the data directory's disk.

use std::path::Path;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use swarmkv_node::api::wire::{InviteRequest, WriteOp};
use swarmkv_node::{Config, Handle, Node, Ticket};
use tokio::task::JoinSet;

use super::report::Report;
use crate::args::Bench;
use crate::error::Failure;

const AT: &str = "two peers here";
/// Longest wait for one write, and for them to meet.
const PATIENCE: Duration = Duration::from_secs(30);
/// Writes whose way is measured.
const WRITES: u64 = 200;
/// Pause between two of them.
const PAUSE: Duration = Duration::from_millis(10);
/// Keys in one transaction while loading, and transactions at once.
const BATCH: u64 = 256;
const AT_ONCE: usize = 4;

fn broke(e: impl std::fmt::Display) -> Failure {
    Failure::failed(format!("The throw-away peers failed: {e}."))
}

/// Measures with them.
pub async fn measure(
    args: &Bench,
    place: &Path,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<(), Failure> {
    let home = tempfile::Builder::new().prefix(".swarmkv-bench-").tempdir_in(place);
    let home = home.map_err(|e| Failure::io(place.display(), &e))?;
    let (first, second) = (home.path().join("first"), home.path().join("second"));
    bar.set_message("loading a throw-away peer");
    swarmkv_node::init(&first, "bench", "first")?;
    let a = start(&first, Vec::new()).await?;
    let handle = a.handle();
    let size = usize::try_from(args.size).unwrap_or(usize::MAX);
    load(&handle, args.keys, size).await?;
    bar.set_message("an empty peer catches up");
    let addrs = handle.wait_listening().await;
    let ticket = Ticket::parse(&invite(&handle).await?).map_err(broke)?;
    swarmkv_node::join(&second, &ticket, "second", PATIENCE).await?;
    let began = Instant::now();
    let b = start(&second, addrs).await?;
    // As long as it takes: the progress bar tells that it runs.
    b.handle().caught_up(Duration::from_secs(3600)).await.map_err(broke)?;
    let seconds = began.elapsed().as_secs_f64();
    report.rate(&format!("catch-up, {} keys", args.keys), AT, args.keys as f64 / seconds);
    bar.set_message("writes from one to the other");
    let times = way(&handle, &b.handle(), size).await?;
    report.times("write seen by the other", AT, times, None);
    a.stop().await;
    b.stop().await;
    Ok(())
}

async fn start(dir: &Path, dial: Vec<String>) -> Result<Node, Failure> {
    let mut config = Config::new(dir);
    config.listen = vec!["/ip4/127.0.0.1/tcp/0".into()];
    config.mdns = false;
    config.dial = dial;
    Ok(Node::start(config).await?)
}

async fn invite(handle: &Handle) -> Result<String, Failure> {
    let request = InviteRequest::writer(PATIENCE);
    Ok(handle.invite(request).await.map_err(broke)?.ticket)
}

fn key(n: u64) -> Vec<u8> {
    // Scattered over the key space, as keys are.
    format!("{:016x}{n:08x}", n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes()
}

async fn load(handle: &Handle, keys: u64, size: usize) -> Result<(), Failure> {
    let mut running = JoinSet::new();
    let step = usize::try_from(BATCH).unwrap_or(1);
    for from in (0..keys).step_by(step) {
        if running.len() >= AT_ONCE {
            running.join_next().await.transpose().map_err(broke)?.transpose().map_err(broke)?;
        }
        let op = |n: u64| WriteOp {
            key: key(n).into(),
            value: Some(vec![b'a' + u8::try_from(n % 26).unwrap_or(0); size].into()),
            ..WriteOp::default()
        };
        let ops = (from..keys.min(from + BATCH)).map(op).collect();
        let handle = handle.clone();
        running.spawn(async move { handle.write(ops).await });
    }
    while let Some(done) = running.join_next().await {
        done.map_err(broke)?.map_err(broke)?;
    }
    Ok(())
}

/// How long writes at one take to be seen at the other, durable on both.
async fn way(here: &Handle, there: &Handle, size: usize) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    for n in 0..WRITES {
        tokio::time::sleep(PAUSE).await;
        let (key, value) = (format!("way/{n:04}"), vec![b'w'; size]);
        let mut watch = there.watch();
        let began = Instant::now();
        let seen = async {
            while there.get(key.as_bytes()).map_err(broke)?.is_none() {
                if !watch.changed().await {
                    return Err(broke("one of them stopped"));
                }
            }
            Ok(began.elapsed())
        };
        let both = async { tokio::join!(here.put(key.as_bytes(), &value), seen) };
        let (put, seen) = tokio::time::timeout(PATIENCE, both).await.map_err(broke)?;
        put.map_err(broke)?;
        // The first few warm up: the peers have only just met.
        if n >= WRITES / 10 {
            times.push(seen?);
        }
    }
    Ok(times)
}
