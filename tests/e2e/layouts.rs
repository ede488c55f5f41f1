//! Stores that earlier builds wrote are opened, brought up to date and gone on with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarmkv_tests::Device;

/// A data directory that a build of this layout has left: forty keys `fruit/N`, one overwritten, one deleted, one
/// with two concurrent values, and a value of 100,000 bytes. The peer of layout 3 was killed.
fn unpacked(layout: u32) -> Device {
    let device = Device::new("old");
    let packed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("e2e/stores/layout-{layout}.tar.gz"));
    fs::create_dir_all(device.dir()).expect("made");
    let tar = Command::new("tar").arg("xzf").arg(packed).arg("-C").arg(device.dir()).status();
    assert!(tar.expect("tar runs").success());
    device
}

fn holds_what_it_held(device: &Device) {
    for n in 4..=40 {
        assert_eq!(device.get(&format!("fruit/{n}")), Some(format!("value {n}")));
    }
    assert_eq!(device.get("fruit/1").as_deref(), Some("overwritten"));
    assert_eq!(device.get("fruit/2"), None);
    assert_eq!(device.get("big").map(|value| value.len()), Some(100_000));
    let mut both: Vec<_> = device.siblings("fruit/3").into_iter().filter_map(|s| s.value).collect();
    both.sort();
    assert_eq!(both, ["first's", "second's"]);
    let scrubbed = device.run(["scrub", "--timeout", "60s"]).well().text().to_owned();
    assert!(scrubbed.contains("all is as it was signed"), "{scrubbed}");
}

fn segments(device: &Device) -> Vec<PathBuf> {
    let entries = fs::read_dir(device.dir().join("store")).expect("a store");
    entries.map(|entry| entry.expect("an entry").path()).collect()
}

#[test]
fn a_store_of_each_layout_is_opened_and_gone_on_with() {
    for layout in [2, 3] {
        let mut device = unpacked(layout);
        device.up();
        holds_what_it_held(&device);
        device.put("new", "since then");
        assert_eq!(device.stop(), Some(0));
        device.up();
        holds_what_it_held(&device);
        assert_eq!(device.get("new").as_deref(), Some("since then"));
        let old = segments(&device).into_iter().any(|path| path.ends_with("swarmkv.redb"));
        assert!(!old, "nothing is kept twice");
    }
}

#[test]
fn an_interrupted_migration_begins_again() {
    let mut device = unpacked(2);
    let store = device.dir().join("store");
    // As it is left when the power goes after some of the new store was moved into place.
    fs::create_dir(store.join("migrating")).expect("made");
    fs::write(store.join("migrating/index.redb"), b"half of it").expect("written");
    fs::write(store.join("00000000.log"), b"swarmkv seg3 and then nothing").expect("written");
    device.up();
    holds_what_it_held(&device);
    assert!(!store.join("migrating").exists());
}
