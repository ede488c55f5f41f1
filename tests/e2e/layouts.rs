//! Stores that earlier builds wrote are opened, brought up to date and gone on with.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use swarmkv_tests::{Device, equal, until};

fn packed(layout: u32) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("e2e/stores/layout-{layout}.tar.gz"))
}

/// A data directory that a build of this layout has left: forty keys `fruit/N`, one overwritten, one deleted, one
/// with two concurrent values, and a value of 100,000 bytes. Another member has written the lesser one of the
/// concurrent values and nothing else. The peer of layout 3 was killed.
fn unpacked(layout: u32) -> Device {
    let device = Device::new("old");
    fs::create_dir_all(device.dir()).expect("made");
    let tar =
        Command::new("tar").arg("xzf").arg(packed(layout)).arg("-C").arg(device.dir()).status();
    assert!(tar.expect("tar runs").success());
    device
}

/// Everything that the packed device has written itself.
fn holds_its_own(device: &Device) {
    for n in 4..=40 {
        assert_eq!(device.get(&format!("fruit/{n}")), Some(format!("value {n}")));
    }
    assert_eq!(device.get("fruit/1").as_deref(), Some("overwritten"));
    assert_eq!(device.get("fruit/3").as_deref(), Some("first's"));
    assert_eq!(device.get("big").map(|value| value.len()), Some(100_000));
    assert_eq!(device.get("fruit/2"), None);
    let scrubbed = device.run(["scrub", "--timeout", "60s"]).well().text().to_owned();
    assert!(scrubbed.contains("all is as it was signed"), "{scrubbed}");
}

fn values(device: &Device, key: &str) -> Vec<String> {
    device.siblings(key).into_iter().filter_map(|sibling| sibling.value).collect()
}

/// The files below a directory, and what is in them.
fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            all.extend(files(&path));
        } else {
            let bytes = fs::read(&path).expect("read");
            all.insert(path, bytes);
        }
    }
    all
}

fn contents(dir: &Path) -> Vec<Vec<u8>> {
    files(dir).into_values().collect()
}

#[test]
fn of_a_store_of_an_earlier_layout_own_values_and_members_are_kept_and_it_is_kept_itself() {
    for layout in [2, 3] {
        let mut device = unpacked(layout);
        let store = device.dir().join("store");
        let kept = store.join(format!("layout-{layout}-kept"));
        let mut before = files(&store);
        before.retain(|path, _| !path.ends_with("identity"));
        device.up();
        holds_its_own(&device);
        // The other member's device brings its own.
        assert_eq!(values(&device, "fruit/3"), ["first's"]);
        let peers = device.peers();
        assert_eq!((peers.len(), &peers[0]["device"]), (1, &"second".into()), "{peers:?}");
        let status = device.status();
        assert_eq!(status["caught_up"], true, "the swarm's owner is asked, not asking: {status}");
        device.put("new", "since then");
        assert_eq!(device.stop(), Some(0));
        let before: Vec<Vec<u8>> = before.into_values().collect();
        assert_eq!(contents(&kept), before, "the old store is untouched");
        let note = fs::read_to_string(store.join("README")).expect("a note");
        assert!(note.contains(&format!("layout-{layout}-kept")), "{note}");
        device.up();
        holds_its_own(&device);
        assert_eq!(device.get("new").as_deref(), Some("since then"));
        assert_eq!(contents(&kept), before, "a second start does nothing");
        let made = ["migrating".to_owned(), format!("migrated-from-{layout}")];
        assert!(!made.iter().any(|name| store.join(name).exists()), "nothing half made is left");
    }
}

#[test]
fn a_migrated_device_takes_in_a_new_member_and_both_become_the_same() {
    let mut device = unpacked(3);
    device.up();
    let mut fresh = Device::new("fresh").admitted_by(&device, &[]);
    fresh.up();
    equal(&[&device, &fresh]);
    holds_its_own(&fresh);
    fresh.put("fruit/4", "changed");
    until("the change arrives", || device.get("fruit/4").as_deref() == Some("changed"));
}

#[test]
fn a_store_of_the_present_layout_is_opened_as_it_is() {
    let mut device = unpacked(4);
    device.up();
    holds_its_own(&device);
    assert_eq!(values(&device, "fruit/3"), ["first's", "second's"]);
    device.put("new", "since then");
    device.kill();
    device.up();
    assert_eq!(device.get("new").as_deref(), Some("since then"));
    let kept = fs::read_dir(device.dir().join("store")).expect("a store");
    assert!(kept.flatten().all(|entry| !entry.path().is_dir()), "nothing was migrated");
}

/// Makes the packed store of the present layout. Done once, before the layout changes again:
/// `cargo test -p swarmkv-tests --test e2e -- --ignored packs_a_store`.
#[test]
#[ignore = "writes a file of the repository"]
fn packs_a_store() {
    let mut golden = Device::at_a_fixed_port("golden").founded();
    let mut cold = Device::at_a_fixed_port("cold").admitted_by(&golden, &[]);
    for n in 1..=40 {
        golden.put(&format!("fruit/{n}"), &format!("value {n}"));
    }
    golden.put("fruit/1", "overwritten");
    golden.del(&["fruit/2"]);
    golden.put("big", &"x".repeat(100_000));
    cold.up();
    equal(&[&golden, &cold]);
    golden.kill();
    cold.put("fruit/3", "second's");
    cold.kill();
    golden.up();
    golden.put("fruit/3", "first's");
    cold.up();
    equal(&[&golden, &cold]);
    assert_eq!(values(&golden, "fruit/3"), ["first's", "second's"]);
    assert_eq!(golden.stop(), Some(0));
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-czf"]).arg(packed(4)).arg("-C").arg(golden.dir());
    assert!(tar.args(["device.key", "swarm", "store"]).status().expect("tar runs").success());
}
