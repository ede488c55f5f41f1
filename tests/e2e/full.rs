//! A disk that is full: reads go on, writes are refused with a word, and all goes on when there is room.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarmkv_tests::{Device, connected, equal, until};

/// A small disk of its own; gone when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn under(dir: &Path, size: &str) -> Option<Self> {
        fs::create_dir_all(dir).ok()?;
        let size = format!("size={size},mode=700");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir).status();
        mounted.ok()?.success().then(|| Self(dir.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_full_disk_makes_a_peer_read_only_until_there_is_room() {
    let mut a = Device::new("a");
    let Some(_disk) = SmallDisk::under(a.dir(), "24m") else {
        eprintln!("SKIPPED: nothing can be mounted here");
        return;
    };
    a = a.founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    a.put("before", "it was full");
    let ballast = a.dir().join("ballast");
    let room = |keep: usize| {
        let mut bytes = 24 << 20;
        // As much as fits, less what is to stay free.
        while fs::write(&ballast, vec![7; bytes]).is_err() {
            bytes -= 64 << 10;
        }
        fs::write(&ballast, vec![7; bytes.saturating_sub(keep)]).expect("fits");
    };
    room(0);
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

    fs::remove_file(&ballast).expect("removed");
    until("there is room again", || a.run(["put", "after", "it was full"]).code == 0);
    equal(&[&a, &b]);
    assert_eq!(a.get("meanwhile").as_deref(), Some("at b"));
    for key in &acknowledged {
        assert_eq!(b.get(key).as_deref(), Some(&value[..]));
    }

    // Full again, and stopped: it ends, and nothing acknowledged is gone.
    room(0);
    while a.run(["put", "last", &value]).code == 0 {}
    let _ = a.stop();
    fs::remove_file(&ballast).expect("removed");
    a.up();
    for key in &acknowledged {
        assert_eq!(a.get(key).as_deref(), Some(&value[..]));
    }
    equal(&[&a, &b]);
}
