//! A disk that is full: reads go on, writes are refused with a word, and all goes on when there is room.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use swarmkv_tests::{Device, SmallDisk, connected, equal, until};

/// Writes at this pace reach another device by gossip: faster ones are left to repair, which waits.
const PACE: Duration = Duration::from_millis(40);

/// Writes a file as long as there is room for.
fn fill_up(ballast: &Path) {
    let mut file = fs::File::create(ballast).expect("made");
    let mut block = vec![7; 1 << 20];
    while !block.is_empty() {
        if file.write_all(&block).is_err() {
            block.truncate(block.len() / 2);
        }
    }
}

#[test]
fn a_full_disk_makes_a_peer_read_only_until_there_is_room() {
    let mut a = Device::new("a");
    let Some(_disk) = SmallDisk::under(a.dir(), "64m") else {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    };
    a = a.founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    a.put("before", "it was full");
    let ballast = a.dir().join("ballast");
    fill_up(&ballast);
    let value = "x".repeat(60_000);
    let mut acknowledged = Vec::new();
    let refused = (0..).find_map(|n| {
        let key = format!("fill/{n:04}");
        let ran = a.run(["put", &key, &value]);
        if ran.code == 0 {
            acknowledged.push(key);
            None
        } else {
            Some(ran)
        }
    });
    let refused = refused.expect("it is full at some time");
    let said = refused.err.clone();
    assert!(said.contains("disk is full") && said.contains("Make room"), "{said}");
    // The next one is told at once; reads and status go on.
    assert!(a.run(["put", "one", "more"]).err.contains("disk is full"));
    assert_eq!(a.get("before").as_deref(), Some("it was full"));
    let status = a.run(["status"]).well().text().to_owned();
    assert!(status.contains("the disk is full"), "{status}");
    for key in &acknowledged {
        assert_eq!(a.get(key).as_deref(), Some(&value[..]));
    }
    // The other one writes meanwhile; nobody is blamed.
    b.put("meanwhile", "at b");
    for n in 0..30 {
        b.put(&format!("much/{n}"), &value);
        thread::sleep(PACE);
    }
    assert!(a.run(["put", "one", "more"]).err.contains("disk is full"));
    let status = a.run(["status"]).well().text().to_owned();
    assert!(status.contains("the disk is full"), "{status}");

    fs::remove_file(&ballast).expect("removed");
    until("there is room again", || a.run(["put", "after", "it was full"]).code == 0);
    equal(&[&a, &b]);
    assert_eq!(a.get("meanwhile").as_deref(), Some("at b"));
    for key in &acknowledged {
        assert_eq!(b.get(key).as_deref(), Some(&value[..]));
    }

    // Full again, and stopped: it ends, and nothing acknowledged is gone.
    fill_up(&ballast);
    while a.run(["put", "last", &value]).code == 0 {}
    let _ = a.stop();
    fs::remove_file(&ballast).expect("removed");
    a.up();
    for key in &acknowledged {
        assert_eq!(a.get(key).as_deref(), Some(&value[..]));
    }
    equal(&[&a, &b]);
}
