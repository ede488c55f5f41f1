//! Old copies of a data directory put back: no write is lost or silently replaced, whether the program
//! can notice it or not.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::PathBuf;

use swarmkv_tests::{Device, connected, equal};

use crate::damage::store;

fn values(device: &Device, key: &str) -> BTreeSet<String> {
    device.siblings(key).into_iter().filter_map(|sibling| sibling.value).collect()
}

fn troubles(device: &Device) -> String {
    device.run(["status"]).well().text().to_owned()
}

/// A store's files.
type Backup = BTreeMap<PathBuf, Vec<u8>>;

/// Writes an old state over the files in place: same directory, same inodes. Only a peer can tell.
fn put_back(device: &Device, old: &Backup) {
    for path in store(device.dir()) {
        if !old.contains_key(&path) {
            fs::remove_file(path).expect("a newer file can be removed");
        }
    }
    for (path, bytes) in old {
        fs::write(path, bytes).expect("the store can be written");
    }
}

fn backup(device: &mut Device) -> Backup {
    assert_eq!(device.stop(), Some(0));
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).expect("the store can be read");
        (path, bytes)
    };
    let old = store(device.dir()).into_iter().map(read).collect();
    device.up();
    old
}

#[test]
fn a_store_put_back_in_place_and_written_to_alone_loses_neither_history() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    a.put("before", "1");
    equal(&[&a, &b]);
    let old = backup(&mut a);
    connected(&[&a, &b]);
    a.put("x", "1");
    a.put("both", "from x");
    equal(&[&a, &b]);

    assert_eq!(b.stop(), Some(0));
    assert_eq!(a.stop(), Some(0));
    put_back(&a, &old);
    a.up();
    assert_eq!(a.get("x"), None, "the old state");
    a.put("y", "1");
    a.put("both", "from y");
    b.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    for device in [&a, &b] {
        assert_eq!(device.get("before").as_deref(), Some("1"));
        assert_eq!(device.get("x").as_deref(), Some("1"));
        assert_eq!(device.get("y").as_deref(), Some("1"));
        assert_eq!(device.get("both").as_deref(), Some("from y"));
        let both = values(device, "both");
        assert_eq!(both, BTreeSet::from(["from x".to_owned(), "from y".to_owned()]));
        assert!(troubles(device).contains("two histories"), "{}", troubles(device));
        assert_eq!(device.counter("rejected"), 0, "nobody is blamed");
    }
    // The author goes on in a new epoch; its next write has seen both.
    let version = a.put("both", "settled");
    assert_eq!(b.get_at_least("both", &version), "settled");
    assert_eq!(values(&b, "both").len(), 1);
    equal(&[&a, &b]);
}

#[test]
fn a_store_put_back_in_place_before_any_write_is_caught_up_and_left_alone() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    b.up();
    a.put("before", "1");
    equal(&[&a, &b]);
    let old = backup(&mut a);
    a.put("x", "1");
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    assert_eq!(a.stop(), Some(0));
    put_back(&a, &old);
    a.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    assert_eq!(a.get("x").as_deref(), Some("1"));
    let version = a.put("y", "1");
    assert_eq!(b.get_at_least("y", &version), "1");
    assert_eq!(a.status()["logs"].as_array().map(Vec::len), Some(2), "goes on in a new epoch");
    assert!(!troubles(&b).contains("histories"));
}

#[test]
fn a_peer_that_lags_and_confirms_an_old_head_proves_nothing() {
    let mut a = Device::new("a").founded();
    let mut b = Device::new("b").admitted_by(&a, &[]);
    let mut c = Device::new("c").admitted_by(&a, &[]);
    b.up();
    c.up();
    a.put("before", "1");
    equal(&[&a, &b, &c]);
    assert_eq!(b.stop(), Some(0));
    let old = backup(&mut a);
    connected(&[&a, &c]);
    let version = a.put("x", "1");
    assert_eq!(c.get_at_least("x", &version), "1");
    assert_eq!(c.stop(), Some(0));
    assert_eq!(a.stop(), Some(0));
    put_back(&a, &old);

    // Only the one that lags is there: it has exactly what the old copy has.
    a.up();
    b.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    let version = a.put("y", "1");
    assert_eq!(b.get_at_least("y", &version), "1");
    c.up();
    connected(&[&a, &b, &c]);
    equal(&[&a, &b, &c]);
    for device in [&a, &b, &c] {
        assert_eq!(device.get("x").as_deref(), Some("1"));
        assert_eq!(device.get("y").as_deref(), Some("1"));
        assert!(troubles(device).contains("two histories"));
    }
}
