//! A peer killed at random instants under a load of transactions: whatever it acknowledged is there when it
//! starts again, and it never needs help to start.
//!
//! `SWARMKV_KILLS=1000` for the full run, best in release.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use swarmkv_node::api::Client;
use swarmkv_node::api::wire::{Data, GetRequest, WriteOp, WriteRequest};
use swarmkv_tests::Device;

/// Programs that write at once.
const WRITERS: usize = 4;
/// Keys of each, overwritten again and again.
const KEYS: usize = 300;
/// Operations in a transaction.
const OPS: usize = 12;

fn kills() -> u64 {
    std::env::var("SWARMKV_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(20)
}

/// What one writer knows: for each key the last number acknowledged, and the last one tried.
type Known = BTreeMap<usize, (u64, u64)>;

async fn connected(device: &Device) -> Client {
    loop {
        if let Ok(client) = Client::connect(device.dir()).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn key(writer: usize, key: usize) -> Data {
    Data::from(format!("{writer}/{key:04}").into_bytes())
}

/// A value that says its number and is long enough to fill segments.
fn value(number: u64) -> Data {
    Data::from(
        format!("{number:012}{}", "v".repeat(usize::try_from(number % 900).unwrap_or(0)))
            .into_bytes(),
    )
}

/// Writes transactions until the peer is gone.
async fn write(
    dir: std::path::PathBuf,
    writer: usize,
    known: Arc<Mutex<Known>>,
    done: Arc<AtomicUsize>,
) {
    let Ok(mut client) = Client::connect(&dir).await else { return };
    let mut number =
        known.lock().expect("whole").values().map(|(_, tried)| *tried).max().unwrap_or(0);
    loop {
        number += 1;
        let start = usize::try_from(number).unwrap_or(0) * OPS % KEYS;
        let keys: Vec<usize> = (start..start + OPS).map(|key| key % KEYS).collect();
        for key in &keys {
            known.lock().expect("whole").entry(*key).or_default().1 = number;
        }
        let op = |of: &usize| WriteOp {
            key: key(writer, *of),
            value: Some(value(number)),
            ..WriteOp::default()
        };
        let ops = keys.iter().map(op).collect();
        if client.write(&WriteRequest { ops }).await.is_err() {
            return;
        }
        for key in &keys {
            known.lock().expect("whole").entry(*key).or_default().0 = number;
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

/// Every key shows at least what was acknowledged, at most what was tried.
async fn check(client: &mut Client, writer: usize, known: &Known, round: u64) {
    for (of, (acknowledged, tried)) in known {
        let got = client.get(&GetRequest { key: key(writer, *of), ..GetRequest::default() }).await;
        let shown = got.expect("answered").value;
        let number = shown.as_ref().map_or(0, |value| {
            let digits = std::str::from_utf8(&value.0[..12]).expect("a number");
            digits.parse::<u64>().expect("a number")
        });
        assert!(
            number >= *acknowledged && number <= *tried,
            "after kill {round}: {writer}/{of} shows {number}, acknowledged was {acknowledged}, tried {tried}"
        );
        if let Some(shown) = shown {
            assert_eq!(shown, value(number), "a value is whole");
        }
    }
}

#[test]
fn what_was_acknowledged_survives_random_kills() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let mut a = Device::new("a").founded();
    let known: Vec<Arc<Mutex<Known>>> = (0..WRITERS).map(|_| Arc::default()).collect();
    let done = Arc::new(AtomicUsize::new(0));
    for round in 0..kills() {
        runtime.block_on(async {
            drop(connected(&a).await);
            let writers = known.iter().enumerate().map(|(writer, known)| {
                tokio::spawn(write(
                    a.dir().to_owned(),
                    writer,
                    Arc::clone(known),
                    Arc::clone(&done),
                ))
            });
            let writers: Vec<_> = writers.collect();
            // Not synchronisation: any instant will do, and it is another one each time.
            tokio::time::sleep(Duration::from_micros(round.wrapping_mul(2_654_435_761) % 120_000))
                .await;
            swarmkv_tests::signal("KILL", a.pid());
            for writer in writers {
                writer.await.expect("a writer ends");
            }
        });
        a.reap();
        a.start(&[]);
        runtime.block_on(async {
            let mut client = connected(&a).await;
            for (writer, known) in known.iter().enumerate() {
                let known = known.lock().expect("whole").clone();
                check(&mut client, writer, &known, round).await;
            }
        });
    }
    let trouble =
        a.status()["logs"].as_array().into_iter().flatten().any(|log| !log["trouble"].is_null());
    assert!(!trouble, "a kill must not fork a log: {}", a.status()["logs"]);
    let transactions = done.load(Ordering::Relaxed);
    eprintln!("{transactions} acknowledged transactions of {OPS} survived {} kills", kills());
    assert!(transactions as u64 > kills());
}
