//! Writes and reads on the running peer, through its local API.

use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use swarmkv_node::api::wire::{Data, GetRequest, ListRequest, WriteOp, WriteRequest};
use tokio::task::JoinSet;

use super::report::Report;
use crate::args::Bench;
use crate::client::Peer;
use crate::error::{Failure, Kind};
use crate::settings::Settings;

/// Where everything is written.
pub(super) const PREFIX: &str = ".swarmkv-bench/";
/// Numbers of clients that write at once.
const CLIENTS: [usize; 3] = [1, 16, 256];
/// Keys of each client, written again and again.
const KEYS: u64 = 64;
/// Deletes in one transaction of the clean-up.
const DELETES: usize = 500;

/// Writes by ever more clients, then reads.
pub async fn measure(
    args: &Bench,
    settings: &Settings,
    bar: &ProgressBar,
    report: &mut Report,
) -> Result<(), Failure> {
    for clients in CLIENTS {
        bar.set_message(format!("writes, {clients} clients"));
        let (times, seconds) = together(args, settings, clients, true).await?;
        let plural = if clients == 1 { "client" } else { "clients" };
        report.times(&format!("writes, {clients} {plural}"), "this device", times, Some(seconds));
    }
    for clients in [1, 16] {
        bar.set_message(format!("reads, {clients} clients"));
        let (times, seconds) = together(args, settings, clients, false).await?;
        let plural = if clients == 1 { "client" } else { "clients" };
        report.times(&format!("reads, {clients} {plural}"), "this device", times, Some(seconds));
    }
    Ok(())
}

/// So many clients for so long; what each operation took.
async fn together(
    args: &Bench,
    settings: &Settings,
    clients: usize,
    writes: bool,
) -> Result<(Vec<Duration>, f64), Failure> {
    let mut peers = Vec::with_capacity(clients);
    for _ in 0..clients {
        peers.push(Peer::connect(settings).await?);
    }
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let mut tasks = JoinSet::new();
    for (client, peer) in peers.into_iter().enumerate() {
        let size = usize::try_from(args.size).unwrap_or(usize::MAX);
        tasks.spawn(one(peer, client, size, until, writes));
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done.map_err(|e| Failure::failed(e.to_string()))??);
    }
    Ok((times, began.elapsed().as_secs_f64()))
}

async fn one(
    mut peer: Peer,
    client: usize,
    size: usize,
    until: Instant,
    writes: bool,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    let mut n = 0;
    while Instant::now() < until {
        let key = Data::from(format!("{PREFIX}{client:03}/{:02}", n % KEYS).into_bytes());
        let began = Instant::now();
        if writes {
            let value = Some(Data::from(vec![b'a' + u8::try_from(n % 26).unwrap_or(0); size]));
            peer.write(&WriteRequest { ops: vec![WriteOp { key, value, ..WriteOp::default() }] })
                .await?;
        } else {
            peer.get(GetRequest { key, ..GetRequest::default() }).await?;
        }
        times.push(began.elapsed());
        n += 1;
    }
    Ok(times)
}

/// Deletes everything that a bench has written here.
pub async fn clean(settings: &Settings) -> Result<(), Failure> {
    let mut peer = Peer::connect(settings).await?;
    loop {
        let mut request = ListRequest {
            prefix: Data::from(PREFIX.as_bytes()),
            start: None,
            after: None,
            limit: DELETES,
            keys_only: true,
            timeout_ms: 0,
        };
        let page = peer.list(&mut request).await?;
        if page.items.is_empty() {
            return Ok(());
        }
        let delete = |item: swarmkv_node::api::wire::ListItem| WriteOp {
            key: item.key,
            ..WriteOp::default()
        };
        let request = WriteRequest { ops: page.items.into_iter().map(delete).collect() };
        match peer.write(&request).await {
            Ok(_) => {}
            // What another device writes under it at the same time is that one's to delete.
            Err(failure) if failure.kind == Kind::NotAllowed => return Ok(()),
            Err(failure) => return Err(failure),
        }
    }
}
