//! A peer that was killed and is back: it fetches what it lacks, not what happened.

use std::fmt::Write;

use swarmkv_tests::{Device, PATIENCE, connected, equal, until, until_within};

fn line(key: &str, value: Option<&str>) -> String {
    format!("{}\n", serde_json::json!({ "key": key, "value": value }))
}

/// 300 keys put, one write each; every third of them later deleted.
const KEYS: usize = 300;

#[test]
fn a_killed_peer_fetches_what_is_missing_and_not_the_history() {
    let mut b = Device::new("b");
    let a = Device::new("a").founded();
    b = b.admitted_by(&a, &[]);
    b.up();
    let key = |n: usize| format!("key/{n:03}");
    let both: String = (0..KEYS).map(|n| line(&key(n), Some("old"))).collect();
    a.import(&both);
    equal(&[&a, &b]);

    b.kill();
    for round in 0..30 {
        let ten = (0..10).map(|n| line(&format!("hot/{n}"), Some(&format!("round {round}"))));
        a.import(&ten.collect::<String>());
    }
    let mut changes = String::new();
    for n in 0..KEYS {
        match n % 3 {
            0 => changes += &line(&key(n), None),
            1 => changes += &line(&key(n), Some("new")),
            _ => {}
        }
        write!(changes, "{}", line(&format!("fresh/{n}"), Some("fresh"))).expect("text grows");
    }
    a.import(&changes);
    let signed = a.counter("commits_signed");

    b.up();
    equal(&[&a, &b]);
    assert_eq!(a.export(), b.export());
    assert_eq!(b.get("hot/7").as_deref(), Some("round 29"));
    for n in 0..6 {
        let wanted = [None, Some("new"), Some("old")][n % 3];
        assert_eq!(b.get(&key(n)).as_deref(), wanted, "{}", key(n));
    }
    // 10 hot keys, 200 changed, 300 fresh: what differs, and nothing of the 290 writes between.
    let live = 10 + 200 + KEYS as u64;
    let received = b.counter("slots_received");
    assert!((live..=live + live / 10).contains(&received), "{received} slots for {live} live");
    let replayed = b.counter("commits_applied");
    assert!(replayed * 10 < signed, "{replayed} of {signed} commits came as history");
}

#[test]
fn overwrites_of_ten_keys_cost_ten_slots() {
    let a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    equal(&[&a, &b]);
    b.kill();
    for n in 0..300 {
        a.put(&format!("hot/{}", n % 10), &n.to_string());
    }
    b.up();
    equal(&[&a, &b]);
    let received = b.counter("slots_received");
    assert!((10..=12).contains(&received), "{received} slots for 10 keys");
    for n in 0..10 {
        assert_eq!(b.get(&format!("hot/{n}")), Some((290 + n).to_string()));
    }
}

#[test]
fn a_peer_whose_founder_is_killed_serves_and_takes_writes() {
    let mut a = Device::new("a").founded();
    let mut b = Device::at_a_fixed_port("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    let before = a.put("before", "from a");
    assert_eq!(b.get_at_least("before", &before), "from a");

    a.kill();
    until("b has noticed", || b.linked().is_empty());
    assert_eq!(b.get("before").as_deref(), Some("from a"));
    let alone = b.put("alone", "from b");
    b.put("before", "changed by b");
    b.del(&["before"]);

    a.up();
    assert_eq!(a.get_at_least("alone", &alone), "from b");
    equal(&[&a, &b]);
    assert_eq!(a.get("before"), None);
}

/// Keys that a newcomer takes here; `SWARMKV_E2E_KEYS=1000000` for the real size (in release).
fn many() -> usize {
    std::env::var("SWARMKV_E2E_KEYS").ok().and_then(|n| n.parse().ok()).unwrap_or(9_000)
}

#[test]
fn a_newcomer_killed_again_and_again_goes_on_where_it_stood_while_the_source_writes_on() {
    let keys = many();
    let a = Device::new("a").founded();
    // Large enough that what waits for the disk at any moment is a small part of it.
    let value = "v".repeat(6_000);
    for part in 0..keys / 1_000 {
        let lines = (part * 1_000..(part + 1) * 1_000)
            .map(|n| line(&format!("many/{n:07}"), Some(&value)))
            .collect::<String>();
        a.import(&lines);
    }
    let mut b = Device::new("b").admitted_by(&a, &[]);
    let received = |b: &Device| usize::try_from(b.counter("slots_received")).expect("a count");
    for round in 0..3 {
        b.up();
        until("a third has arrived", || received(&b) >= keys / 3 || is_whole(&b));
        let told = b.status();
        let progress = &told["progress"];
        assert!(progress.is_null() || progress["planned"].as_u64() > Some(0), "{told}");
        b.kill();
        a.put(&format!("meanwhile/{round}"), "written");
    }
    b.up();
    a.put("meanwhile/last", "written");
    until_within(PATIENCE * 3, "it is whole", || is_whole(&b));
    equal(&[&a, &b]);
    let last = received(&b);
    assert!(last <= keys * 3 / 4, "{last} slots in its last life: it started over");
    for key in ["meanwhile/0", "meanwhile/2", "meanwhile/last"] {
        assert_eq!(b.get(key).as_deref(), Some("written"));
    }
    assert_eq!(a.export(), b.export());
}

fn is_whole(device: &Device) -> bool {
    device.status()["caught_up"] == true
}
