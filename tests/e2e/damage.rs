//! Bytes that change on the disk are never shown, are found, and are fetched afresh.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use swarmkv_tests::{Device, connected, equal, until};

const KEYS: usize = 400;

fn value(n: usize) -> String {
    format!("the value {n:04} of no other key {}", "x".repeat(200))
}

fn lines(keys: impl Iterator<Item = usize>) -> String {
    keys.map(|n| {
        let line = serde_json::json!({ "key": format!("key/{n:04}"), "value": value(n) });
        format!("{line}\n")
    })
    .collect()
}

/// The files of the store below a data directory, but for the one that tells a copy.
pub fn store(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory").map(|e| e.expect("an entry").path()) {
            if entry.is_dir() {
                open.push(entry);
            } else if entry
                .extension()
                .is_some_and(|ext| ext == "redb" || ext == "log" || ext == "slots")
            {
                found.push(entry);
            }
        }
    }
    assert!(!found.is_empty(), "there is a store");
    found
}

/// Changes one letter of each of these values wherever it lies in a stopped peer's store.
fn change(dir: &Path, values: &[usize]) {
    let mut changed: BTreeMap<usize, usize> = values.iter().map(|n| (*n, 0)).collect();
    for path in store(dir) {
        let mut bytes = fs::read(&path).expect("the store can be read");
        for (n, changed) in &mut changed {
            let wanted = format!("the value {n:04} of");
            let mut at = 0;
            while let Some(found) =
                bytes[at..].windows(wanted.len()).position(|w| w == wanted.as_bytes())
            {
                bytes[at + found] = b'T';
                at += found + 1;
                *changed += 1;
            }
        }
        fs::write(&path, bytes).expect("the store can be written");
    }
    for (n, changed) in changed {
        assert!(changed > 0, "value {n} lies in the store");
    }
}

/// Every key shows its value, or nothing yet; never another.
fn nothing_false(device: &Device, keys: &[usize]) {
    for n in keys {
        let ran = device.run(["get", &format!("key/{n:04}"), "--timeout", "0s"]);
        if ran.code == 0 {
            assert_eq!(String::from_utf8_lossy(&ran.out).trim_end(), value(*n));
        } else {
            assert_eq!(ran.code, 7, "key {n} is being mended");
        }
    }
}

/// Histories that an author has at a device.
fn epochs(device: &Device, author: &str) -> usize {
    let status = device.status();
    let logs = status["logs"].as_array().into_iter().flatten();
    let epochs = logs.filter(|log| log["author"] == author).map(|log| log["epoch"].to_string());
    epochs.collect::<BTreeSet<_>>().len()
}

fn scrubbed(device: &Device) -> Value {
    device.run(["scrub", "--json", "--timeout", "60s"]).well().json()
}

/// A scrub that finds what nobody has any more says so.
fn lost(device: &Device) {
    let ran = device.run(["scrub", "--json", "--timeout", "60s"]);
    assert_eq!((ran.code, &ran.json()["mended"]), (1, &Value::Bool(false)));
}

/// What cannot be read is not said to be absent.
fn unreadable(device: &Device, key: &str) {
    let ran = device.run(["get", "--quiet", key]);
    assert_eq!((ran.code, ran.text()), (7, ""), "{}", ran.err);
    assert!(ran.err.contains("cannot be read"), "{}", ran.err);
}

#[test]
fn changed_bytes_are_never_shown_and_are_fetched_afresh_by_reader_or_scrub() {
    for by_reader in [true, false] {
        let mut a = Device::new("a").founded();
        let mut b = Device::new("b").admitted_by(&a, &[]);
        b.up();
        a.import(&lines(0..KEYS));
        equal(&[&a, &b]);
        let damaged = [7, 123, 399];
        assert_eq!(b.stop(), Some(0));
        change(b.dir(), &damaged);
        if by_reader {
            // Alone, it says that it cannot answer, and nothing false.
            assert_eq!(a.stop(), Some(0));
            b.up();
            nothing_false(&b, &damaged);
            until("the damage is noticed", || b.counter("set_aside") == 1);
            nothing_false(&b, &[0, 7]);
            let told = b.status()["logs"].to_string();
            assert!(told.contains("damaged"), "{told}");
            a.up();
        } else {
            b.up();
            assert_eq!(scrubbed(&b)["mended"], true);
            assert_eq!(b.counter("set_aside"), 1);
        }
        connected(&[&a, &b]);
        equal(&[&a, &b]);
        assert_eq!(a.export(), b.export());
        assert_eq!(b.get("key/0123").as_deref(), Some(&*value(123)));
        for device in [&a, &b] {
            assert_eq!(device.counter("rejected"), 0, "nobody is blamed");
        }
        let report = scrubbed(&b);
        assert_eq!(report["damaged"], 0);
        assert!(report["checked"].as_u64().is_some_and(|checked| checked >= KEYS as u64));
    }
}

#[test]
fn own_writes_that_nobody_else_has_outlive_damage_to_others_of_the_same_log() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    a.import(&lines(0..100));
    equal(&[&a, &b]);
    assert_eq!(b.stop(), Some(0));
    a.import(&lines(100..140));
    assert_eq!(a.stop(), Some(0));
    // One that b has, and one that nobody has.
    change(a.dir(), &[50, 120]);
    a.up();
    b.up();
    connected(&[&a, &b]);
    // The background may have been there first.
    lost(&a);
    assert_eq!(a.counter("set_aside"), 1);
    until("the rest is written again", || b.get("key/0139").is_some());
    equal(&[&a, &b]);
    for n in (0..140).filter(|n| *n != 120) {
        assert_eq!(b.get(&format!("key/{n:04}")).as_deref(), Some(&*value(n)));
    }
    unreadable(&a, "key/0120");
    assert_eq!(a.export(), b.export());
}

#[test]
fn a_lone_device_keeps_what_can_still_be_read() {
    let mut a = Device::new("a").founded();
    a.import(&lines(0..KEYS));
    assert_eq!(a.stop(), Some(0));
    change(a.dir(), &[5]);
    a.up();
    // The background may have been there first.
    lost(&a);
    assert_eq!(a.counter("set_aside"), 1);
    until("the rest is written again", || {
        (0..KEYS).filter(|n| *n != 5).all(|n| a.get(&format!("key/{n:04}")).is_some())
    });
    unreadable(&a, "key/0005");
    a.put("key/0005", "again");
    assert_eq!(a.get("key/0005").as_deref(), Some("again"));
}

#[test]
fn a_write_lost_from_the_journal_comes_back_and_is_not_written_over() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    a.put("before", "all that");
    a.import(&lines(0..3));
    equal(&[&a, &b]);
    // Frames after the one that is lost, so that it is not taken for what a power cut has torn off.
    b.put("later", "than that");
    equal(&[&a, &b]);
    a.kill();
    assert_eq!(b.stop(), Some(0));
    change(a.dir(), &[1]);
    a.up();
    // All of its frame is gone; alone, the device knows nothing of it and writes on.
    assert_eq!(a.get("key/0002"), None);
    a.put("key/0001", "written since");
    a.put("after", "the damage");
    assert_eq!(epochs(&a, "a"), 2, "what is forgotten is not numbered anew");
    b.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    assert_eq!(a.export(), b.export());
    assert_eq!(a.get("key/0000").as_deref(), Some(&*value(0)));
    assert_eq!(a.get("key/0002").as_deref(), Some(&*value(2)));
    let mut both: Vec<_> = a.siblings("key/0001").into_iter().filter_map(|s| s.value).collect();
    both.sort();
    assert_eq!(both, [value(1), "written since".to_owned()], "neither knew of the other");
    for device in [&a, &b] {
        assert_eq!(device.counter("rejected"), 0, "nobody is blamed");
    }
}
