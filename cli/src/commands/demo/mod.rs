//! `swarmkv demo`: what swarmkv promises, done and checked on this machine in a few seconds.
//! `story.rs` says and checks, `peers.rs` starts and stops, `tale.rs` words it.

mod peers;
mod story;
mod tale;

use std::time::Duration;

use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Failure, Kind};
use crate::output::Output;
use peers::Peers;
use tale::Tale;

/// Looks at whether the directory can be removed, when peers were cut short.
const REMOVALS: u32 = 40;
/// Pause between these.
const REMOVE_AGAIN: Duration = Duration::from_millis(50);

/// Tells the story. Whatever happens, nothing stays on this machine.
pub async fn run(out: Output) -> Result<(), Failure> {
    let broken = |e: std::io::Error| Failure::io("the demo cannot be set up", &e);
    let mut terminate = signal(SignalKind::terminate()).map_err(broken)?;
    let dir = tempfile::Builder::new().prefix("swarmkv-demo-").tempdir().map_err(broken)?;
    let mut tale = Tale::begin(dir.path(), out)?;
    let mut peers = Peers::new(dir.path());
    let told = tokio::select! {
        told = story::tell(&mut peers, &mut tale) => told,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Kind::Interrupted, "Interrupted.")),
        _ = terminate.recv() => Err(Failure::new(Kind::Interrupted, "Interrupted.")),
    };
    peers.stop_all().await;
    let removed = remove(dir).await;
    told.and(removed)?;
    tale.end()
}

/// Removes the directory; a peer's last thread may still be writing to it.
async fn remove(dir: TempDir) -> Result<(), Failure> {
    let path = dir.keep();
    for _ in 1..REMOVALS {
        if std::fs::remove_dir_all(&path).is_ok() {
            return Ok(());
        }
        tokio::time::sleep(REMOVE_AGAIN).await;
    }
    std::fs::remove_dir_all(&path).map_err(|e| Failure::io(path.display(), &e))
}
