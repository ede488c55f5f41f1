//! Honest members in trouble: a slow link, a wrong clock, a full disk, a roster that lags. Whatever befalls
//! them, nobody ever blames them.
//!
//! `SWARMKV_HONEST_SECONDS=600` makes it last ten minutes.

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::Value;
use swarmkv_tests::{Device, SmallDisk, connected, equal, until, until_within};

use crate::lan::{Host, lan};

/// Bytes of the disk that fills up.
const SMALL_DISK: &str = "4m";
/// Longest wait for a swarm with a slow member to agree at the end.
const AGREED: Duration = Duration::from_secs(180);

fn lasting() -> Duration {
    let seconds = std::env::var("SWARMKV_HONEST_SECONDS").ok().and_then(|s| s.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// Where the library is that lies about the time, if it is installed (Debian: `faketime`).
fn faketime() -> Option<String> {
    let found = Command::new("sh").args(["-c", "ls /usr/lib/*/faketime/libfaketime.so.1"]).output();
    let found = String::from_utf8(found.ok()?.stdout).ok()?;
    found.lines().next().map(str::to_owned)
}

/// A device whose clock is more than a year ahead.
fn with_a_wrong_clock(host: &Host) -> Device {
    match faketime() {
        Some(library) => {
            let words = ["env", &format!("LD_PRELOAD={library}"), "FAKETIME=+400d"];
            host.device_behind("clock", &words.map(str::to_owned))
        }
        None => {
            eprintln!("SKIPPED in part: libfaketime is not installed, no clock is wrong");
            host.device("clock")
        }
    }
}

fn blamed(at: &Device) -> Vec<Value> {
    let guilty = |peer: &Value| {
        peer["offences"] != 0
            || !peer["blocked_until"].is_null()
            || peer["score"].as_f64().is_some_and(|score| score < 0.0)
    };
    at.peers().into_iter().filter(guilty).collect()
}

#[test]
fn nobody_honest_is_ever_punished() {
    let Some(lan) = lan() else { return };
    let switch = lan.switch("switch");
    let host = |n: u8, name: &str| -> Host {
        let host = lan.host(name);
        host.plug("eth0", &switch, &format!("10.81.0.{n}/24"));
        host
    };
    let hosts = ["anna", "bert", "slow", "clock", "late", "disk"];
    let hosts: Vec<Host> = hosts.iter().zip(1..).map(|(name, n)| host(n, name)).collect();
    let anna = hosts[0].device("anna").founded();
    let others: Vec<Device> = ["bert", "slow", "clock", "late", "disk"]
        .into_iter()
        .zip(&hosts[1..])
        .map(
            |(label, host)| {
                if label == "clock" { with_a_wrong_clock(host) } else { host.device(label) }
            },
        )
        .collect();
    let small = SmallDisk::under(others[4].dir(), SMALL_DISK);
    if small.is_none() {
        eprintln!("SKIPPED in part: nothing can be mounted here, no disk is full");
    }
    let mut others: Vec<Device> =
        others.into_iter().map(|device| device.admitted_by(&anna, &[])).collect();
    hosts[2].shape("eth0", "1024kbit");
    for other in &mut others {
        other.up();
    }
    let mut all = vec![&anna];
    all.extend(&others);
    connected(&all);
    // One does not hear of a new member, who writes meanwhile.
    let _ = others[3].stop();
    let mut newcomer = hosts[1].device("newcomer").admitted_by(&anna, &[]);
    newcomer.up();
    newcomer.put("newcomer", "says hello");
    others[3].up();

    trouble(&anna, &others, &newcomer, small.is_some());
    let rest: Vec<&Device> = [&anna, &newcomer].into_iter().chain(&others[..4]).collect();
    let hash = || rest.iter().map(|device| device.state()).collect::<Vec<_>>();
    until_within(AGREED, "all but the full disk agree", || {
        hash().windows(2).all(|pair| pair[0] == pair[1])
    });
    equal(&rest);
    for at in &rest {
        assert_eq!(blamed(at), Vec::<Value>::new());
        assert_eq!(at.counter("rejected"), 0);
    }
    until("the newcomer's word is everywhere", || {
        rest.iter().all(|device| device.get("newcomer").is_some())
    });
}

/// Everybody writes, and nobody is blamed, for as long as the test lasts.
fn trouble(anna: &Device, others: &[Device], newcomer: &Device, small_disk: bool) {
    let began = Instant::now();
    let value = "x".repeat(1_000);
    let mut puts = 0;
    let mut full = false;
    while began.elapsed() < lasting() {
        let writers = [anna, &others[0], &others[1], &others[2], &others[3], newcomer];
        for (n, writer) in writers.into_iter().enumerate() {
            writer.put(&format!("k{}", (puts + n) % 400), &value);
        }
        puts += writers.len();
        if puts % 24 < writers.len() {
            anna.put(&format!("big{puts}"), &"y".repeat(100_000));
        }
        for at in [anna, &others[0], &others[1], newcomer] {
            assert_eq!(blamed(at), Vec::<Value>::new(), "after {:?}", began.elapsed());
        }
        full |= small_disk && others[4].run(["status"]).code != 0;
    }
    println!("{puts} puts in {:?}, disk full: {full}; honest peers punished: 0", began.elapsed());
}
