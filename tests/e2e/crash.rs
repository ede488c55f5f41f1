//! A writer killed under load: what was acknowledged is there, on it and on the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::Value;
use swarmkv_tests::{Device, equal, until};

/// Kills, each at another moment of the load.
const KILLS: u64 = 10;
/// Programs that put at once.
const WRITERS: usize = 4;
/// Acknowledged puts before each kill.
const LOAD: usize = 30;

/// Puts until the peer is gone; what was acknowledged.
fn put_until_it_dies(device: &Device, prefix: &str, done: &AtomicUsize) -> Vec<(String, String)> {
    let mut acknowledged = Vec::new();
    for n in 0.. {
        let (key, value) = (format!("{prefix}/{n:04}"), format!("value {n} of {prefix}"));
        let ran = device.run(["put", &key, &value]);
        if ran.code != 0 {
            assert!([1, 4].contains(&ran.code), "{ran:?}");
            break;
        }
        done.fetch_add(1, Ordering::Relaxed);
        acknowledged.push((key, value));
    }
    acknowledged
}

fn entries(device: &Device) -> BTreeMap<String, String> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let entry = |line: Value| (text(&line["key"]), text(&line["value"]));
    device.run(["ls", "--json"]).well().json_lines().into_iter().map(entry).collect()
}

#[test]
fn what_was_acknowledged_survives_ten_kills_under_load() {
    let mut a = Device::at_a_fixed_port("a").founded();
    let mut b = Device::at_a_fixed_port("b").admitted_by(&a, &[]);
    b.up();
    let mut wanted: Vec<(String, String)> = Vec::new();
    for round in 0..KILLS {
        let done = AtomicUsize::new(0);
        let pid = a.pid();
        let acknowledged = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (a, done, prefix) = (&a, &done, format!("{round}/{writer}"));
                    scope.spawn(move || put_until_it_dies(a, &prefix, done))
                })
                .collect();
            until("the load runs", || done.load(Ordering::Relaxed) >= LOAD);
            // Not synchronisation: the kill falls at another instant of a write each time.
            std::thread::sleep(Duration::from_micros(1700 * round));
            swarmkv_tests::signal("KILL", pid);
            let all = writers.into_iter().map(|writer| writer.join().expect("a writer ends"));
            all.flatten().collect::<Vec<_>>()
        });
        a.reap();
        wanted.extend(acknowledged);
        a.up();
        let there = entries(&a);
        let lost: Vec<_> = wanted.iter().filter(|(k, v)| there.get(k) != Some(v)).collect();
        assert!(lost.is_empty(), "lost after kill {round}: {lost:?}");
    }
    equal(&[&a, &b]);
    let (here, there) = (entries(&a), entries(&b));
    assert_eq!(here, there);
    let keys: BTreeSet<&String> = wanted.iter().map(|(key, _)| key).collect();
    assert_eq!(keys.len(), wanted.len());
    assert!(wanted.iter().all(|(key, value)| there.get(key) == Some(value)));
    let troubled =
        a.status()["logs"].as_array().into_iter().flatten().any(|l| !l["trouble"].is_null());
    assert!(!troubled, "a crash must not fork a log: {}", a.status()["logs"]);
    eprintln!("{} acknowledged puts survived {KILLS} kills", wanted.len());
}
