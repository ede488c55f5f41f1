//! Data directories: one process each, as deep as one likes, stopped cleanly, copied without harm.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use swarmkv_tests::{Device, connected, equal, until};

/// Longest a clean stop may take.
const QUICK: Duration = Duration::from_secs(3);

#[test]
fn a_second_process_on_a_directory_is_told_who_the_first_is() {
    let a = Device::new("a").founded();
    let process = format!("process {}", a.pid());
    a.run(["up", "--no-mdns"]).fails(9, &process);
    a.run(["up", "--no-mdns", "--detach"]).fails(9, &process);
    let ticket = a.invite(&[]);
    a.run(["join", &ticket]).fails(9, &process);
    a.put("still", "fine");
    assert_eq!(a.get("still").as_deref(), Some("fine"));
}

#[test]
fn members_with_directories_200_characters_deep_replicate() {
    let deep = ["a deep directory"; 13].join("/");
    let a = Device::below("a", &deep).founded();
    assert!(a.dir().as_os_str().len() > 200);
    let mut b = Device::below("b", &deep).admitted_by(&a, &[]);
    b.up();
    let version = a.put("deep", "down");
    assert_eq!(b.get_at_least("deep", &version), "down");
}

#[test]
fn a_terminated_peer_ends_well_and_soon_and_starts_again() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    for round in 0..3 {
        let version = b.put("round", &round.to_string());
        let begun = Instant::now();
        assert_eq!(b.stop(), Some(0));
        assert!(begun.elapsed() < QUICK, "it took {:?}", begun.elapsed());
        assert_eq!(b.run(["status"]).code, 4);
        until("a has noticed", || a.linked().is_empty());
        b.up();
        connected(&[&a, &b]);
        assert_eq!(a.get_at_least("round", &version), round.to_string());
    }
    equal(&[&a, &b]);
    assert_eq!(b.status()["logs"].as_array().map(Vec::len), Some(1), "one log, no new epochs");
    assert_eq!(a.stop(), Some(0), "the founder, too, stops well");
}

fn epochs(device: &Device) -> BTreeSet<(String, String)> {
    let status = device.status();
    let logs = status["logs"].as_array().expect("logs").iter();
    let text = |log: &serde_json::Value, name: &str| log[name].as_str().expect("text").to_owned();
    logs.map(|log| (text(log, "author"), text(log, "epoch"))).collect()
}

#[test]
fn a_copied_device_goes_on_in_a_new_epoch_and_nothing_is_lost() {
    let a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    let before = b.put("before", "the copy");
    assert_eq!(a.get_at_least("before", &before), "the copy");
    assert_eq!(b.stop(), Some(0));
    let mut copy = b.copied("copy");
    let was = epochs(&a);

    // Both start, one after the other and then at once: one key, two processes.
    b.up();
    let original = b.put("original", "goes on");
    copy.up();
    let copied = copy.put("copied", "goes on, too");
    b.put("contended", "by the original");
    copy.put("contended", "by the copy");
    assert_eq!(a.get_at_least("original", &original), "goes on");
    assert_eq!(a.get_at_least("copied", &copied), "goes on, too");
    equal(&[&a, &b, &copy]);

    assert_eq!(b.get("copied").as_deref(), Some("goes on, too"));
    assert_eq!(copy.get("original").as_deref(), Some("goes on"));
    assert_eq!(copy.get("before").as_deref(), Some("the copy"));
    let now = epochs(&a);
    assert!(now.is_superset(&was) && now.len() == was.len() + 1, "{was:?} became {now:?}");
    for log in a.status()["logs"].as_array().expect("logs") {
        assert!(log["trouble"].is_null(), "{log}");
    }
}
