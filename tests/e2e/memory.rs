//! Peers that keep data in memory only.

use swarmkv_tests::{Device, connected, equal};

#[test]
fn a_peer_in_memory_replicates_and_forgets_and_stays_a_member() {
    let mut a = Device::new("a").options(&["--memory"]).founded();
    let mut b = Device::new("b").options(&["--memory"]).admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    a.put("x", "from a");
    let version = b.put("y", "from b");
    assert_eq!(a.get_at_least("y", &version), "from b");
    equal(&[&a, &b]);
    let status = a.run(["status"]).well().text().to_owned();
    assert!(status.contains("in memory only"), "{status}");
    // Killed, it comes back as a member, empty, and gets everything from the other one: its own as well.
    b.kill();
    a.put("z", "meanwhile");
    b.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    assert_eq!(b.get("y").as_deref(), Some("from b"));
    assert_eq!(b.get("z").as_deref(), Some("meanwhile"));
    b.put("y", "again");
    equal(&[&a, &b]);
    assert_eq!(a.get("y").as_deref(), Some("again"));
    let forked =
        a.status()["logs"].as_array().into_iter().flatten().any(|l| !l["trouble"].is_null());
    assert!(!forked, "{}", a.status()["logs"]);
    // When nobody is left, so is nothing.
    a.kill();
    b.kill();
    a.up();
    assert_eq!(a.get("x"), None);
}

/// Logs of a device's at another.
fn logs(device: &Device, author: &str) -> usize {
    let status = device.status();
    let logs = status["logs"].as_array().into_iter().flatten();
    logs.filter(|log| log["author"] == author).count()
}

#[test]
fn a_peer_in_memory_goes_on_in_its_log_after_an_orderly_stop_only() {
    let a = Device::new("a").options(&["--memory"]).founded();
    let mut b = Device::new("b").options(&["--memory"]).admitted_by(&a, &[]);
    b.up();
    connected(&[&a, &b]);
    b.put("x", "first");
    equal(&[&a, &b]);
    assert_eq!(b.stop(), Some(0));
    b.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    b.put("x", "second");
    equal(&[&a, &b]);
    assert_eq!((a.get("x").as_deref(), logs(&a, "b")), (Some("second"), 1));
    // What it kept is used once: after a kill nobody knows what it wrote last.
    b.kill();
    b.up();
    connected(&[&a, &b]);
    equal(&[&a, &b]);
    b.put("x", "third");
    equal(&[&a, &b]);
    assert_eq!((a.get("x").as_deref(), logs(&a, "b")), (Some("third"), 2));
}

#[test]
fn a_peer_with_data_on_disk_is_not_started_in_memory() {
    let mut a = Device::new("a").founded();
    a.put("x", "on disk");
    assert_eq!(a.stop(), Some(0));
    a.run(["up", "--memory", "--no-mdns"]).fails(1, "has data on disk");
    a.up();
    assert_eq!(a.get("x").as_deref(), Some("on disk"));
}
