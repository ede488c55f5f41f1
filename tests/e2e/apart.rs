//! Writes to one key on both sides of a cut: nothing is lost, and both replicas show the same.

use swarmkv_tests::{Device, Sibling, connected, equal};

fn texts(siblings: &[Sibling]) -> Vec<&str> {
    let mut texts: Vec<&str> = siblings.iter().filter_map(|s| s.value.as_deref()).collect();
    texts.sort_unstable();
    texts
}

#[test]
fn values_written_apart_are_both_kept_until_a_later_put_merges_them() {
    let mut a = Device::at_a_fixed_port("a").founded();
    let mut b = Device::at_a_fixed_port("b").admitted_by(&a, &[]);
    b.up();
    let common = a.put("colour", "grey");
    assert_eq!(b.get_at_least("colour", &common), "grey");

    b.kill();
    a.put("colour", "red");
    a.kill();
    b.up();
    b.put("colour", "blue");
    b.put("only b", "here");
    a.up();
    equal(&[&a, &b]);

    let (here, there) = (a.siblings("colour"), b.siblings("colour"));
    assert_eq!(here, there, "the same siblings in the same order");
    assert_eq!(texts(&here), ["blue", "red"]);
    assert_eq!(a.get("colour"), b.get("colour"));
    assert_eq!(a.get("colour"), here[0].value);
    assert_eq!(a.get("only b").as_deref(), Some("here"));

    let merged = b.put("colour", "purple");
    assert_eq!(a.get_at_least("colour", &merged), "purple");
    for device in [&a, &b] {
        assert_eq!(texts(&device.siblings("colour")), ["purple"]);
    }
}

#[test]
fn a_delete_apart_from_a_write_does_not_delete_what_it_had_not_seen() {
    let mut a = Device::at_a_fixed_port("a").founded();
    let mut b = Device::at_a_fixed_port("b").admitted_by(&a, &[]);
    b.up();
    let common = a.put("note", "draft");
    assert_eq!(b.get_at_least("note", &common), "draft");

    b.kill();
    a.del(&["note"]);
    a.kill();
    b.up();
    b.put("note", "second draft");
    a.up();
    equal(&[&a, &b]);
    assert_eq!(a.siblings("note"), b.siblings("note"));
    assert_eq!(texts(&a.siblings("note")), ["second draft"]);
    for device in [&a, &b] {
        assert_eq!(device.get("note").as_deref(), Some("second draft"), "values win over deletes");
    }
}

#[test]
fn three_that_write_apart_end_with_the_same_three_values() {
    let a = Device::at_a_fixed_port("a").founded();
    let b = Device::at_a_fixed_port("b").admitted_by(&a, &[]);
    let c = Device::at_a_fixed_port("c").admitted_by(&a, &[]);
    let mut all = [a, b, c];
    all[1].up();
    all[2].up();
    connected(&[&all[0], &all[1], &all[2]]);
    equal(&[&all[0], &all[1], &all[2]]);
    for device in &mut all {
        device.kill();
    }
    for (device, value) in all.iter_mut().zip(["one", "two", "three"]) {
        device.up();
        device.put("contended", value);
        device.kill();
    }
    for device in &mut all {
        device.up();
    }
    equal(&[&all[0], &all[1], &all[2]]);
    let seen = all.each_ref().map(|device| device.siblings("contended"));
    assert_eq!(texts(&seen[0]), ["one", "three", "two"]);
    assert!(seen[0] == seen[1] && seen[1] == seen[2], "{seen:?}");
}
